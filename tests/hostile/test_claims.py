"""Options, lists and tables that come with somebody else's files: refused before a model, a loop or a program is made of them."""

import dataclasses
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import litevit
from hostile.kinds import packed, parquet, runs
from litevit.app.choices import Choices
from litevit.app.runs import follow
from litevit.checkpoints.packed import open_packed
from litevit.cli import main
from litevit.engine.config import ModelConfig
from litevit.files import MOST_JSON, read_json
from litevit.jobs.classification import build_classifier
from litevit.jobs.dense_models import load_dense, task_of
from litevit.jobs.predict import load_classifier
from litevit.jobs.predict_parquet import predict_parquet
from litevit.jobs.train import resolve
from litevit.recipes import get_recipe

GREEDY = [
    ("depths", [10**6] * 4, "more layers than there are weights"),
    ("embed_dim", 10**6, "MiB, its weights"),
    ("num_classes", 10**9, "MiB, its weights"),
    ("embed_dim", 10**30, "embed_dim must be of numbers below"),
    ("embed_dim", -8, "can be made with"),
    ("depths", "many", "depths must be a valid tuple"),
    ("alpha", True, "alpha must be a valid number"),
    ("window_sizes", [0, 0, 10**400, 1], "window_sizes must"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    packed.prepare(folder)
    return folder


def spoilt(models, tmp_path, change):
    told = json.loads((models / "classifier" / "config.json").read_text())
    change(told)
    (tmp_path / "config.json").write_text(json.dumps(told))
    (tmp_path / "model.safetensors").symlink_to(models / "classifier" / "model.safetensors")
    return f"local-dir:{tmp_path}"


def test_untouched_models_are_opened(models):
    for name in ("classifier", "timm"):
        model, how = load_classifier(f"local-dir:{models / name}", "official")
        assert model.num_classes == 3
        assert how.size == 224
    assert load_dense(f"local-dir:{models / 'segmenter'}", "official").classes.names


@pytest.mark.parametrize(("key", "value", "words"), GREEDY)
def test_a_packed_model_that_asks_for_more_than_it_brings(models, tmp_path, key, value, words):
    source = spoilt(models, tmp_path, lambda told: told["litevit"]["options"].update({key: value}))
    for make in (litevit.create_model, lambda name: load_classifier(name, "official")):
        with pytest.raises(ValueError, match=words):
            make(source)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "detection"}, {"task": []}, {"options": []}, {"classes": 3}, {"classes": [1]}, {"class_ids": [1]}, {"class_ids": "abc"},
        {"num_things": "x"},
    ],
)  # fmt: skip
def test_a_packed_model_of_other_types(models, tmp_path, change):
    with pytest.raises(ValueError, match=r"config\.json"):
        open_packed(spoilt(models, tmp_path, lambda told: told["litevit"].update(change)))


@pytest.mark.parametrize("how", [None, [], {"size": 10**9}, {"size": 32, "mean": "x"}, {"run": "me"}])
def test_a_packed_model_with_other_preprocessing(models, tmp_path, how):
    source = spoilt(models, tmp_path, lambda told: told["litevit"].update({"preprocessing": how}))
    with pytest.raises(ValueError, match="preprocessing"):
        open_packed(source).preprocessing  # noqa: B018


@pytest.mark.parametrize("name", [[], 7, None, {}, "resnet50"])
def test_a_packed_model_of_no_name(models, tmp_path, name):
    with pytest.raises(ValueError, match=r"architecture|not litevit's"):
        open_packed(spoilt(models, tmp_path, lambda told: told.update({"architecture": name})))


def run_with(tmp_path, **overrides):
    recipe = runs.recipe_of()
    recipe["model"]["overrides"] |= overrides
    model = litevit.create_model("litv2_s", num_classes=recipe["data"]["num_classes"], **runs.SMALL)
    save_file(dict(model.state_dict()), tmp_path / "best.safetensors", {"recipe": json.dumps(recipe)})
    return tmp_path


@pytest.mark.parametrize(("key", "value", "words"), [row for row in GREEDY if row[0] != "num_classes"])
def test_a_run_that_asks_for_more_than_it_brings(tmp_path, key, value, words):
    folder = run_with(tmp_path, **{key: value})
    for make in (
        lambda: litevit.run(folder).model(),
        lambda: load_classifier(None, folder),
        lambda: litevit.create_model("litv2_s", folder),
    ):
        with pytest.raises(ValueError, match=words):
            make()


@pytest.mark.parametrize("name", ["hf-hub:a/b", "local-dir:/", "timm/hf-hub:a/b", "a" * 3000])
def test_a_run_whose_model_is_elsewhere(tmp_path, name):
    """Nobody's file makes litevit ask a hub, and no message quotes half of it."""
    folder = run_with(tmp_path)
    recipe = runs.recipe_of()
    recipe["model"]["name"] = name
    save_file(load_file(folder / "best.safetensors"), folder / "best.safetensors", {"recipe": json.dumps(recipe)})
    for ask in (
        lambda: litevit.run(folder).model(),
        lambda: task_of(None, folder),
        lambda: litevit.create_model("litv2_s", folder),
    ):
        with pytest.raises(ValueError, match="is no model's name") as caught:
            ask()
        assert len(str(caught.value)) < 1000
    assert Choices(runs=[folder]).runs() == []


def test_a_recipe_whose_model_is_elsewhere():
    for name in ("hf-hub:a/b", "local-dir:/"):
        for recipe in (get_recipe("quickstart"), get_recipe("quickstart-detection")):
            told = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=name))
            with pytest.raises(ValueError, match="must be a model of `litevit list`"):
                resolve(told)


def test_a_run_of_timms_that_cannot_be_made(tmp_path):
    weights = tmp_path / "best.safetensors"
    for change, words in (
        ({"overrides": {"img_size": 3}}, "timm/resnet18 cannot be made with .*img_size"),
        ({"overrides": {"layers": 7}}, "timm/resnet18 cannot be made with .*"),
        ({"name": "timm/resnet19"}, "Unknown model of timm 'resnet19'. Did you mean"),
    ):
        recipe = runs.recipe_of()
        recipe["model"] |= {"name": "timm/resnet18", "overrides": {}} | change
        save_file({"a": torch.zeros(100)}, weights, {"recipe": json.dumps(recipe)})
        with pytest.raises(ValueError, match=words):
            litevit.run(tmp_path).model()
    recipe["model"]["name"], recipe["data"]["num_classes"] = "timm/resnet18", 10**9
    save_file({"a": torch.zeros(100)}, weights, {"recipe": json.dumps(recipe)})
    with pytest.raises(ValueError, match="bytes of weights are not of 1,000,000,000 classes"):
        litevit.run(tmp_path).model()


class Runs:
    def __reduce__(self):
        import os

        return os.system, ("touch canary",)


@pytest.mark.parametrize(
    "key", ["checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"]
)
def test_a_recipe_cannot_make_timm_read_files(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Runs()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=f"{key} cannot be set"):
        build_classifier(ModelConfig(name="timm/resnet18", overrides={key: str(tmp_path / "evil.pth")}), 3)
    assert not (tmp_path / "canary").exists()


def test_weights_for_timms_models_are_read_as_all_others_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Runs()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="system"):
        build_classifier(ModelConfig(name="timm/resnet18", weights=str(tmp_path / "evil.pth")), 3)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("text", ["[1]", "{", '"a"', "7"])
def test_the_page_of_a_run_whose_recipe_is_none(tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match=r"recipe\.json"):
        follow(tmp_path)
    told = runs.recipe_of() | {"schedule": 1, "run": [], "optim": None, "name": "x" * 5000}
    (tmp_path / "recipe.json").write_text(json.dumps(told))
    assert len(dict(follow(tmp_path)["summary"])["recipe"]) == 300
    (tmp_path / "result.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"result\.json"):
        follow(tmp_path)


def test_json_that_would_fill_memory_is_not_read(tmp_path):
    file = tmp_path / "recipe.json"
    with file.open("wb") as content:
        content.truncate(MOST_JSON + 1)
    with pytest.raises(ValueError, match=r"recipe\.json has 67,108,865 bytes"):
        read_json(file)


# ------------------------------------------------------------------ Parquet


@pytest.fixture
def predicted(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra `parquet`")
    parquet.prepare(tmp_path)
    return tmp_path


def start(folder):
    return predict_parquet(parquet.Brightness(), [folder / "bytes.parquet"], folder / "out", workers=1)


@pytest.mark.parametrize(
    "row",
    [(-1, "a", 0, 2), (0, None, 0, 2), (0, "a", -1, 2), (0, "a", 0, -2), (0, "a", None, 5), (2**31 - 1, "a", 0, 2)],
)
def test_a_list_of_inputs_that_lies(predicted, row):
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert start(predicted).skipped == 3
    file = predicted / "out" / "_inputs-000.parquet"
    schema = pq.read_schema(file)
    columns = {name: pa.array([value], kind) for name, value, kind in zip(schema.names, row, schema.types)}
    pq.write_table(pa.table(columns), file)
    with pytest.raises(ValueError, match=r"_inputs-000\.parquet is not a readable Parquet file: it has the row"):
        start(predicted)
    pq.write_table(pa.table({"piece": ["a"]}), file)
    with pytest.raises(ValueError, match="its columns are not"):
        start(predicted)


@pytest.mark.parametrize("told", ["x", "-1", "²", "9" * 5000])
def test_results_that_count_their_errors_wrongly(predicted, told):
    import pyarrow.parquet as pq

    file = predicted / "out" / "part-000000.parquet"
    pq.write_table(pq.read_table(file).replace_schema_metadata({"litevit_errors": told}), file)
    with pytest.raises(ValueError, match=r"part-000000\.parquet is not a readable Parquet file: it says"):
        start(predicted)


@pytest.mark.parametrize(
    "command",
    [
        ["info", "litv2_s"],
        ["predict", "a.png", "--weights", "none"],
        ["explain", "features", "a.png", "--weights", "none"],
    ],
)
def test_a_size_that_no_memory_holds(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 33)).save("a.png")
    assert main([*command, "--size", str(2**31)]) == 2
    assert "--size can be at most 65536, got 2147483648" in capsys.readouterr().err
