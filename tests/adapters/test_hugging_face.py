"""`litevit pack`: folders that litevit, timm and transformers open, from a disk and from a hub."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from PIL import Image

import litevit
import litevit.adapters.timm
from litevit.adapters.hugging_face import pack
from litevit.checkpoints import published
from litevit.checkpoints.files import write_state_dict
from litevit.checkpoints.packed import open_packed
from litevit.cli import main
from litevit.engine.config import to_dict
from litevit.jobs.dense_models import load_dense
from litevit.jobs.predict import load_classifier
from litevit.recipes import get_recipe

LITV2 = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
LVT = {"embed_dims": (16, 16, 32, 64), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 4)}


def run_folder(folder: Path, *, name="litv2_s", overrides=LITV2, start=None, classes=("cat", "dog", "fox")) -> Path:
    """What a training run of three classes leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = to_dict(get_recipe("quickstart")) | {"model": {"name": name, "weights": start, "overrides": overrides}}
    saved["data"] |= {"num_classes": 3, "image_size": 64, "crop_pct": 1.0, "path": "/home/somebody/pets"}
    torch.manual_seed(0)
    model = litevit.create_model(name, num_classes=3, **overrides)
    header = {"recipe": json.dumps(saved), "classes": json.dumps(classes), "step": "7", "metrics": '{"top1": 51.5}'}
    write_state_dict(model.state_dict(), folder / "best.safetensors", metadata=header)
    Image.new("RGB", (90, 60), "red").save(folder / "predictions.png")
    return folder


def dense_run(folder: Path, recipe: str, **overrides) -> Path:
    folder.mkdir()
    saved = to_dict(get_recipe(recipe))
    saved["model"]["overrides"] |= overrides
    from litevit.jobs.dense_models import look_of_scenes
    from litevit.tasks.segmentation import read_overrides

    look = look_of_scenes(saved["data"])
    things, stuff = len(look.things), len(look.stuff)
    sizes = {
        "quickstart-detection": {"num_classes": things},
        "quickstart-segmentation": {"num_classes": things + stuff},
    }
    sizes["quickstart-panoptic"] = {"num_things": things, "num_stuff": stuff}
    torch.manual_seed(0)
    model = litevit.create_model(saved["model"]["name"], **sizes[recipe], **read_overrides(saved["model"]["overrides"]))
    write_state_dict(model.state_dict(), folder / "best.safetensors", metadata={"recipe": json.dumps(saved)})
    return folder


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items()) and len(theirs) > 0


# ----------------------------------------------------------------- classifiers


@pytest.fixture
def packed(tmp_path):
    return pack(run_folder(tmp_path / "run"), tmp_path / "packed")


def test_the_folder(packed):
    assert sorted(file.name for file in packed.iterdir()) == [
        "README.md", "config.json", "example.jpg", "model.safetensors",
    ]  # fmt: skip
    text = (packed / "config.json").read_text()
    config = json.loads(text)
    assert config["architecture"] == "litv2_s"
    assert config["label_names"] == ["cat", "dog", "fox"]
    assert config["pretrained_cfg"]["pool_size"] == [2, 2]
    assert "somebody" not in text  # nor any other part of the machine it was trained on
    assert config["litevit"]["metrics"] == {"step": 7, "top1": 51.5}
    card = ModelCard.load(packed / "README.md")
    assert (card.data.pipeline_tag, card.data.library_name) == ("image-classification", "timm")
    for said in ("cat, dog, fox", "| top1 | 51.5 |", "`pets`", "64 x 64", "create_model", "example.jpg", "Not stated"):
        assert said in card.text, said


def test_litevit_timm_and_transformers_open_it(packed, tmp_path):
    run = litevit.run(tmp_path / "run")
    wanted = run.model()
    images = torch.randn(2, 3, 64, 64)
    name = f"local-dir:{packed}"
    ours = litevit.create_model(name).eval()
    assert torch.equal(ours(images), wanted(images))
    assert ours.config == wanted.config
    theirs = timm.create_model(name, pretrained=True).eval()
    assert same_weights(wanted, theirs)
    torch.testing.assert_close(theirs(images), wanted(images))
    how = timm.data.resolve_model_data_config(theirs)
    assert (tuple(how["input_size"]), how["crop_pct"], tuple(how["mean"])) == ((3, 64, 64), 1.0, run.preprocessing.mean)
    assert litevit.create_model(name, weights="none").num_classes == 3
    assert not same_weights(wanted, litevit.create_model(name, weights="none"))
    assert not same_weights(wanted, timm.create_model(name, pretrained=False))

    transformers = pytest.importorskip(
        "transformers", reason="packed classifiers open in transformers, which is not installed"
    )
    image = Image.effect_noise((90, 70), 90).convert("RGB")
    found = transformers.pipeline("image-classification", model=str(packed))(image)
    with torch.no_grad():
        probabilities = wanted(litevit.preprocessing(run)(image)[None]).softmax(1)[0]
    assert {one["label"]: one["score"] for one in found} == pytest.approx(
        dict(zip(("cat", "dog", "fox"), probabilities.tolist())), abs=0.02
    )


def test_a_folder_that_is_a_link_stays_one(tmp_path):
    run = run_folder(tmp_path / "run")
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "pets").symlink_to(tmp_path / "disk" / "real")
    for force in (False, True):
        assert pack(run, tmp_path / "pets", force=force) == tmp_path / "pets"
        assert (tmp_path / "pets").is_symlink()
        assert (tmp_path / "disk" / "real" / "config.json").is_file()
        assert [folder.name for folder in (tmp_path / "disk").iterdir()] == ["real"]
        assert sorted(file.name for file in tmp_path.iterdir()) == ["disk", "pets", "run"]


def test_predict_takes_it_by_its_name(packed, tmp_path, capsys):
    Image.effect_noise((90, 70), 90).convert("RGB").save(tmp_path / "a.png")
    command = ["predict", str(tmp_path / "a.png"), "--json", "--device", "cpu"]
    answers = []
    for option in (["--model", f"local-dir:{packed}"], ["--weights", str(tmp_path / "run")]):
        assert main([*command, *option]) == 0
        answers.append(json.loads(capsys.readouterr().out)[0]["guesses"])
    assert answers[0] == answers[1]
    assert {guess["name"] for guess in answers[0]} == {"cat", "dog", "fox"}


def test_a_head_of_ones_own_on_a_packed_model(packed):
    with pytest.raises(ValueError, match="head is for another number of classes"):
        litevit.create_model(f"local-dir:{packed}", num_classes=7)
    assert litevit.create_model(f"local-dir:{packed}", weights="none", num_classes=7).num_classes == 7


def test_what_timm_has_saved_opens_too(tmp_path):
    model = timm.create_model("litv2_s", num_classes=3, **LITV2)
    timm.models.save_for_hf(model, tmp_path / "saved", model_args=LITV2, safe_serialization=True)
    ours = litevit.create_model(f"local-dir:{tmp_path / 'saved'}")
    assert same_weights(ours, model)
    _, how = load_classifier(f"local-dir:{tmp_path / 'saved'}", "official")
    assert how == published.preprocessing("litv2_s")


# --------------------------------------------------------------- dense models


@pytest.mark.parametrize("recipe", ["quickstart-detection", "quickstart-segmentation", "quickstart-panoptic"])
def test_dense_models_come_back_whole(tmp_path, recipe):
    folder = dense_run(tmp_path / "run", recipe)
    packed = pack(folder, tmp_path / "packed")
    wanted = load_dense(None, folder)
    name = f"local-dir:{packed}"
    model = litevit.create_model(name)
    assert same_weights(wanted.model, model)
    assert model.config == wanted.model.config
    assert model.backbone.config == wanted.model.backbone.config
    found = load_dense(name, "official")
    assert (found.task, found.classes) == (wanted.task, wanted.classes)
    assert same_weights(found.model, wanted.model)
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model(name) if model.config else None
    card = ModelCard.load(packed / "README.md")
    assert card.data.library_name == "litevit"
    assert "timm.create_model" not in card.text
    with Image.open(packed / "example.jpg") as picture:
        assert min(picture.size) > 60


# ------------------------------------------------------------------- licences


def published_file(monkeypatch, tmp_path, name, **options):
    """Small weights in the place of the download."""
    file = tmp_path / "official.safetensors"
    write_state_dict(litevit.create_model(name, **options).state_dict(), file)
    monkeypatch.setattr(published, "fetch", lambda asked, **_: file)
    return file


def test_the_notice_of_lvt_goes_with_what_is_made_of_its_weights(monkeypatch, tmp_path):
    published_file(monkeypatch, tmp_path, "lvt")
    folder = pack("lvt", tmp_path / "official")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "other"
    assert "non-commercial research and evaluation only; do not redistribute" in card.text
    assert "74.8" in card.text  # the published figure
    assert "do not redistribute" in json.loads((folder / "config.json").read_text())["litevit"]["notice"]
    with pytest.raises(ValueError, match="licence cannot be chosen"):
        pack("lvt", tmp_path / "other", licence="mit")
    assert not (tmp_path / "other").exists()

    for start, noted in (("official", True), (str(tmp_path / "lvt.pth"), True), (None, False)):
        run = run_folder(tmp_path / f"run-{noted}-{start is None}", name="lvt", overrides=LVT, start=start)
        folder = pack(run, tmp_path / "tuned", force=True)
        assert ("do not redistribute" in (folder / "README.md").read_text()) == noted, start
    assert ModelCard.load(folder / "README.md").data.license is None
    run = run_folder(tmp_path / "litv2", start="official")
    assert "redistribute" not in (pack(run, tmp_path / "tuned", force=True) / "README.md").read_text()


def test_published_weights_keep_their_licence(monkeypatch, tmp_path):
    published_file(monkeypatch, tmp_path, "litv2_s")
    card = ModelCard.load(pack("litv2_s", tmp_path / "packed") / "README.md")
    assert card.data.license == "apache-2.0"
    assert "| top1 | 82.0 |" in card.text
    assert open_packed(f"local-dir:{tmp_path / 'packed'}").classes[0].startswith("tench")
    random = (pack("lvt", tmp_path / "random", weights="none", licence="mit") / "README.md").read_text()
    assert "weights are random" in random
    assert "license: mit" in random


# ---------------------------------------------------------------- wrong input


def test_wrong_input_is_one_line_and_writes_nothing(packed, tmp_path, capsys, monkeypatch):
    run, before = str(tmp_path / "run"), (packed / "README.md").read_bytes()
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.jpg").write_text("no picture")
    for arguments, said in (
        ([run, str(packed)], "is not empty: choose another folder, or --force"),
        ([run, str(packed / "README.md")], "is a file"),
        (["litv2_sx", str(tmp_path / "new")], "litv2_s"),
        ([str(tmp_path / "empty"), str(tmp_path / "new")], "no best.safetensors"),
        (["mask_rcnn", str(tmp_path / "new"), "--weights", "none"], "needs backbone="),
        (["litv2_s", str(tmp_path / "new"), "--weights", str(tmp_path / "gone.pth")], "does not exist"),
        ([run, str(tmp_path / "new"), "--image", str(tmp_path / "no.jpg")], "is not an image"),
    ):
        assert main(["pack", *arguments]) == 2
        error = capsys.readouterr().err.splitlines()
        assert said in error[-1], error
        assert len(error) <= 2
    assert not (tmp_path / "new").exists()
    assert (packed / "README.md").read_bytes() == before

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("litevit.adapters.hugging_face.write_json", full)
    assert main(["pack", run, str(packed), "--force"]) == 2
    assert "Cannot write" in (said := capsys.readouterr().err)
    assert "No space left" in said
    monkeypatch.undo()
    # whole_file's words name the hidden folder that the packed one is written in.
    real = os.replace

    def refused(old, new):
        if str(new).endswith(".json"):
            raise PermissionError(13, "Permission denied")
        return real(old, new)

    monkeypatch.setattr("litevit.files.os.replace", refused)
    with pytest.raises(OSError, match=rf"^Cannot write {tmp_path}/new: Permission denied. What was there before is"):
        pack(run, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    assert (packed / "README.md").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    assert main(["pack", run, str(packed), "--force"]) == 0
    assert (packed / "README.md").read_bytes() == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "is not a packed model: no config.json"),
        ("{", "describes no model"),
        ('{"model_type": "bert"}', "describes no model"),
        ('{"architecture": "resnet18", "pretrained_cfg": {}}', "is resnet18, which is not litevit's"),
        ('{"architecture": "litv2_s"}', "no model.safetensors"),
    ],
)
def test_folders_that_are_no_packed_models(tmp_path, config, message):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises((ValueError, OSError), match=message):
        litevit.create_model(f"local-dir:{tmp_path}")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        litevit.create_model(f"local-dir:{tmp_path / 'gone'}")


# --------------------------------------------------------------------- the hub


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as a download asks for: one repository, `me/pets`."""

    folder: Path

    def answer(self, *, body: bool) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        file = self.folder / parts[-1]
        repository, revision = "/".join(parts[:2]), parts[3] if len(parts) > 3 else ""
        problem = "RepoNotFound" if repository != "me/pets" else "RevisionNotFound" if revision != "main" else None
        problem = problem or (None if file.is_file() else "EntryNotFound")
        self.send_response(404 if problem else 200)
        self.send_header("X-Repo-Commit", "0" * 40)
        if problem:
            self.send_header("X-Error-Code", problem)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, *_) -> None:
        pass


FROM_THE_HUB = """
import sys, torch, litevit, timm
import litevit.adapters.timm
from litevit.checkpoints.files import read_file
wanted = read_file(sys.argv[1])
for model in (litevit.create_model("hf-hub:me/pets"), timm.create_model("hf-hub:me/pets", pretrained=True)):
    assert all(torch.equal(value, wanted[key]) for key, value in model.state_dict().items())
litevit.create_model("hf-hub:me/pets@main")
for name in ("me/cats", "me/pets@v9", "a/b/c", "me/"):
    try:
        litevit.create_model(f"hf-hub:{name}")
    except (ValueError, OSError) as error:
        print(name, type(error).__name__, str(error).splitlines()[0])
"""


def test_from_a_hub(packed, tmp_path):
    Hub.folder = packed
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", FROM_THE_HUB, str(packed / "model.safetensors")]
    environment = {**os.environ, **there, "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    server.shutdown()
    server.server_close()
    assert run.returncode == 0, run.stderr[-2000:]
    said = run.stdout.splitlines()
    assert said[0].startswith("me/cats FileNotFoundError hf-hub:me/cats: there is no such repository")
    assert said[1].startswith("me/pets@v9 FileNotFoundError hf-hub:me/pets@v9: the repository has no revision v9")
    assert said[2].startswith("a/b/c ValueError hf-hub:a/b/c is no name of a repository")
    assert len(said) == 4
