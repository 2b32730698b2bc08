"""The command line: what it prints, and one line instead of a traceback."""

import io
import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from PIL import Image

import litevit
from litevit import cli, zoo
from litevit.cli import options
from litevit.cli.models import FACTS, PREFACE, count


def run(capsys, *arguments) -> tuple[int, str, str]:
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stop:  # tyro's own: help, and arguments it cannot read
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def fails(capsys, *arguments) -> str:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("litevit: ")
    assert err.count("\n") == 1
    return err


def test_help_and_version(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name in cli.VERBS:
        assert f"\n  {name} " in out
    assert run(capsys)[0] == 2
    assert run(capsys, "--version")[1].strip() == litevit.__version__


def test_as_a_module():
    said = subprocess.run([sys.executable, "-m", "litevit", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == litevit.__version__


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_table_of_verbs_says_what_their_docstrings_say(verb):
    row = cli.VERBS[verb]
    assert (row.load().__doc__ or "").splitlines()[0] == row.what


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_documents_itself(capsys, verb):
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert f"usage: litevit {verb}" in out


def test_unknown_verb_and_model(capsys):
    assert "Unknown command 'predicr'. Did you mean 'predict'?" in fails(capsys, "predicr")
    assert "Unknown model 'litv2_m1'. Did you mean 'litv2_m'" in fails(capsys, "info", "litv2_m1")
    assert "No model matches 'resnet*'" in fails(capsys, "list", "resnet*")
    assert "Unknown task" in fails(capsys, "list", "--task", "classify")
    assert "Unknown recipe 'quikstart'. Did you mean 'quickstart'" in fails(capsys, "train", "quikstart")


def test_unknown_option_is_answered_with_a_near_one(capsys):
    code, _, err = run(capsys, "predict", "a.png", "--modle", "litv2_s")
    assert code == 2
    assert "--model" in err
    assert "Traceback" not in err


def test_list_and_info(capsys):
    assert run(capsys, "list", "litv2_s_alpha_0[24]", "--names")[1].split() == ["litv2_s_alpha_02", "litv2_s_alpha_04"]
    rows = json.loads(run(capsys, "list", "litv2_s_alpha_0[24]", "--json")[1])
    assert rows == [json.loads(run(capsys, "info", row["name"], "--json")[1]) for row in rows]
    assert len(rows) == 2
    out = run(capsys, "list", "litv2_s")[1]
    for text in ("27.84 M", "3.72 G", "224x224", "top-1 82.0", "github.com/ziplab/LITv2, Apache-2.0"):
        assert text in out
    assert "3.72 G" not in run(capsys, "list", "litv2_s", "--size", "128", "192")[1]
    out = run(capsys, "info", "lit_ti")[1]
    for text in ("19,886,272", "3,613,743,104 at 224 x 224", "lit_ti.pth", "Apache-2.0", "without the classifier head"):
        assert text in out
    facts = json.loads(run(capsys, "info", "lit_ti", "--size", "64", "--json")[1])
    assert (facts["params"], facts["image_size"]) == (19886272, [64, 64])
    assert "--size takes one side or H W" in fails(capsys, "info", "lit_ti", "--size", "8")
    out = run(capsys, "info", "mask_rcnn_litv2_s")[1]
    assert "264,495,600,640 at 800 x 1280, with 1000 boxes and 100 masks" in out


CHEAP = ["lit_ti", "litv2_s", "lvt_plain", "swin_ti_dtm", "mask_rcnn_lit_s", "panoptic_fpn_lvt", "segformer_lvt"]


def committed() -> dict[str, dict]:
    return json.loads(FACTS.read_text())


def test_the_committed_facts_are_those_of_the_models(capsys):
    assert list(committed()) == litevit.list_models(), "run: python -m litevit.cli.models"
    for name in CHEAP:
        assert json.loads(json.dumps(count(name))) == committed()[name], "run: python -m litevit.cli.models"
    for task in ("classification", "detection"):
        assert run(capsys, "list", "lit*", "--task", task, "--names")[1].split() == litevit.list_models(
            "lit*", task=task
        )
    assert json.loads(run(capsys, "info", "lit_ti", "--json")[1]) == json.loads(
        json.dumps(asdict(litevit.info("lit_ti")))
    )


def test_the_committed_options_are_those_of_the_models():
    assert options.TABLE.read_text() == options.table(), "run: python -m litevit.cli.models"
    pairs = [(name, None) for name in zoo.MODELS]
    pairs += [(name, backbone) for name in zoo.GENERIC for backbone in (*zoo.BACKBONES, "resnet50")]
    for name, backbone in pairs:
        ours, theirs = options.known_options(name, backbone), zoo.model_options(name, backbone)
        assert list(ours) == list(theirs)
        assert all(ours[key] == theirs[key] or (key, ours[key]) == ("test", object) for key in ours)
    assert options.known_options("litv2_z") is options.known_options("mask_rcnn") is None


@pytest.mark.slow
@pytest.mark.parametrize("name", litevit.list_models())
def test_every_committed_fact(name):
    assert json.loads(json.dumps(count(name))) == committed()[name], "run: python -m litevit.cli.models"


def test_compare_writes_a_table(capsys, tmp_path):
    out = run(capsys, "list", "litv2_s", "--compare")[1]
    assert "| litv2_s | 224x224 | 27.84 | 28 | 3.724 | 3.734 | 3.7 |  |" in out
    run(capsys, "list", "litv2_s", "--compare", "--out", tmp_path / "figures.md")
    assert (tmp_path / "figures.md").read_text() == PREFACE + out


@pytest.fixture
def checkpoint(tmp_path):
    model = litevit.create_model("lvt", num_classes=3)
    path = tmp_path / "lvt.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


def test_predict(capsys, tmp_path, checkpoint, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # folders of tests have long names
    for name in ("a.png", "b.png"):
        Image.new("RGB", (50, 40), "red").save(tmp_path / name)
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\nbird\n")
    common = ("--model", "lvt", "--weights", checkpoint, "--names", names, "--size", 32)
    code, out, _ = run(capsys, "predict", tmp_path / "a.png", *common, "--device", "cpu")
    assert code == 0
    assert all(word in out for word in ("a.png", "cat", "dog", "bird", "%"))
    both = (tmp_path / "a.png", tmp_path / "b.png")
    code, out, _ = run(capsys, "predict", *both, *common, "--json", "--out", tmp_path / "out", "--top", "2")
    rows = json.loads(out)
    assert [len(row["guesses"]) for row in rows] == [2, 2]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_predict_names_the_broken_file_and_shows_the_rest(capsys, tmp_path, checkpoint):
    Image.new("RGB", (50, 40), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    code, out, err = run(
        capsys, "predict", tmp_path / "a.png", tmp_path / "b.png", "--model", "lvt", "--weights", checkpoint,
        "--num-classes", 3, "--size", 32,
    )  # fmt: skip
    assert code == 2
    assert "class 1" in out
    assert "b.png is not an image that can be read (8 bytes); what can: JPEG" in err
    assert "(1 of 2 files failed)" in err


def test_wrong_input_is_one_line(capsys, tmp_path, checkpoint, monkeypatch):
    image = tmp_path / "a.png"
    Image.new("RGB", (50, 40), "red").save(image)
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))
    assert "gone.png does not exist" in fails(capsys, "predict", tmp_path / "gone.png")
    assert "share page" in fails(capsys, "predict", image, "--model", "lvt")
    assert "another number of classes" in fails(capsys, "predict", image, "--model", "lvt", "--weights", checkpoint)
    assert "Checkpoint gone.pth does not exist" in fails(
        capsys, "predict", image, "--model", "lvt", "--weights", "gone.pth"
    )
    assert "share page" in fails(capsys, "predict", image, "--model", "segformer_lvt")
    assert "2 names, the model 3 classes" in fails(
        capsys,
        "predict",
        image,
        "--model",
        "lvt",
        "--weights",
        checkpoint,
        "--num-classes",
        3,
        "--names",
        _names(tmp_path),
    )
    assert "does not exist" in fails(capsys, "convert", "gone.pth", tmp_path / "x.safetensors")
    (tmp_path / "bad.pth").write_bytes(b"junk")
    assert "bad.pth (4 bytes) cannot be read" in fails(
        capsys, "convert", tmp_path / "bad.pth", tmp_path / "x.safetensors"
    )
    assert "the folder" in fails(capsys, "convert", checkpoint, tmp_path / "no" / "x.pth")


def _names(tmp_path):
    (tmp_path / "two.txt").write_text("a\nb\n")
    return tmp_path / "two.txt"


def test_convert_there_and_back(capsys, tmp_path):
    model = litevit.create_model("lvt", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    code, out, err = run(capsys, "convert", tmp_path / "ours.pth", tmp_path / "official.pth")
    assert code == 0
    assert "(litevit) -> " in out
    assert "non-commercial" in err
    code, out, _ = run(capsys, "convert", tmp_path / "official.pth", tmp_path / "again.safetensors")
    assert "(official LVT)" in out
    report = litevit.load_weights(litevit.create_model("lvt", num_classes=3), tmp_path / "again.safetensors")
    assert not report.missing


@pytest.mark.slow
def test_train_then_evaluate_then_predict(capsys, tmp_path):
    pytest.importorskip("accelerate", reason="training needs accelerate")
    small = ("--model.overrides.embed-dim", 16, "--model.overrides.num-heads", 1, 1, 2, 4)
    code, out, _ = run(capsys, "train", "quickstart", *small, "--run.max-steps", 2, "--run.root", tmp_path)
    assert code == 0
    (folder,) = tmp_path.iterdir()
    code, out, _ = run(capsys, "eval", "--run", folder, "--device", "cpu", "--workers", 0)
    assert code == 0
    assert "360" in out
    assert "the data's own" in out
    code, out, _ = run(capsys, "eval", "--run", folder, "--device", "cpu", "--workers", 0, "--per-class")
    assert code == 0
    table = [line.split() for line in out.splitlines() if line.startswith("│")]
    assert [row[1] for row in table] == [str(i) for i in range(10)]
    code, out, _ = run(capsys, "eval", "--run", folder, "--device", "cpu", "--workers", 0, "--json")
    found = json.loads(out)
    assert (found["labels"], found["images"], len(found["per_class"])) == ("own", 360, 10)
    assert "1,000 classes, the model has 10" in fails(capsys, "eval", "--run", folder, "--labels", "imagenet")
    code, out, _ = run(capsys, "predict", folder / "curves.png", "--weights", folder, "--device", "cpu", "--json")
    assert code == 0
    assert len(json.loads(out)[0]["guesses"]) == 5


def test_train_names_data_and_recipes_that_are_not_there(capsys, tmp_path):
    pytest.importorskip("accelerate", reason="training needs accelerate")
    for path in ("--data", "--data.path"):
        words = ("train", "finetune", path, tmp_path / "gone", "--run.grad_checkpointing", "False")
        assert "No data at" in fails(capsys, *words)
    assert "No recipe at" in fails(capsys, "train", tmp_path / "recipe.json")


def test_a_recipe_field_that_does_not_exist(capsys, tmp_path):
    pytest.importorskip("accelerate", reason="training needs accelerate")
    assert "Did you mean --optim.lr?" in fails(capsys, "train", "quickstart", "--optim.lrr", 1)
    (tmp_path / "recipe.json").write_text('{"name": "x", "task": "classification", "optim": {"lrr": 1}}')
    assert "Did you mean 'lr'" in fails(capsys, "train", tmp_path / "recipe.json")


@pytest.mark.parametrize("model", ["litv2_s", "semantic_fpn_litv2_s"])
def test_predict_says_that_it_optimises(capsys, tmp_path, monkeypatch, model):
    from litevit.jobs import inference

    made = []
    monkeypatch.setattr(inference, "optimize_for_inference", lambda given: made.append(given) or given)
    Image.new("RGB", (50, 40), "red").save(tmp_path / "a.png")
    code, _, err = run(
        capsys, "predict", tmp_path / "a.png", "--model", model, "--weights", "none", "--size", 64, "--device", "cpu"
    )
    assert code == 0
    assert len(made) == 1
    assert err.count("Optimised for this processor") == 1


def test_a_recipe_where_a_verb_is_meant_and_options_before_the_recipe(capsys):
    assert "'finetune' is a recipe: litevit train finetune --data" in fails(capsys, "finetune", "--data", "photos")
    assert "The recipe comes first: litevit train RECIPE --data ..." in fails(
        capsys, "train", "--data", "x", "finetune"
    )


def test_an_address_is_no_picture(capsys):
    said = fails(capsys, "predict", "https://example.com/cat.jpg", "--model", "lvt", "--weights", "none")
    assert "example.com/cat.jpg does not exist. Pictures are not fetched from the network: save it as a file" in said


def test_an_encoding_that_lacks_letters_gets_json_all_the_same(monkeypatch):
    for encoding, errors in (
        ("ascii", "surrogateescape"),
        ("ascii", "strict"),
        ("cp1252", "strict"),
        ("utf-8", "strict"),
    ):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, errors=errors))
        assert cli.main(["--version"]) == 0
        name = "Köter 猫 🐱 \udcff"
        print(json.dumps(name, ensure_ascii=False), flush=True)
        assert json.loads(written.getvalue().decode(encoding).splitlines()[-1]) == name
