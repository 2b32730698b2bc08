"""Detection, panoptic and segmentation through the training loop, on a few small scenes."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from litevit.data.ade20k import read_index_mask
from litevit.data.dense import DetectionSets, ScenesData, SegmentationSets
from litevit.data.scenes import ScenesConfig
from litevit.engine.config import Recipe, override
from litevit.jobs.train import create_task, train
from litevit.metrics.panoptic import panoptic_quality
from litevit.recipes import get_recipe

pytest.importorskip("faster_coco_eval", reason="COCO evaluation needs faster-coco-eval (the extra 'coco')")
pytest.importorskip("accelerate", reason="training needs accelerate (the extra 'train')")

QUICK = {"quickstart-detection": "segm/AP", "quickstart-panoptic": "pq", "quickstart-segmentation": "miou"}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Scenes are drawn into a cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITEVIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def tiny(name: str, root: Path, **fields: object) -> Recipe:
    """A quickstart on 8 + 3 scenes of 64 x 64, two steps of four images."""
    recipe = get_recipe(name)
    small = {"run.batch_size": 4, "run.max_steps": 2, "run.log_every": 1, "run.device": "cpu", "run.root": str(root)}
    for path, value in (small | fields).items():
        recipe = override(recipe, path, value)
    scenes = ScenesData(train=8, val=3, look=ScenesConfig(height=64, width=64, radius=(0.15, 0.3), empty_rate=0.0))
    return replace(recipe, data=replace(recipe.data, scenes=scenes))


@pytest.mark.parametrize("name", QUICK)
def test_two_steps_evaluation_and_report(name: str, tmp_path) -> None:
    result = train(tiny(name, tmp_path), console=Console(quiet=True))
    assert result.step == 2
    assert QUICK[name] in result.best
    assert {"best.safetensors", "per_class.json", "predictions.png", "result.json"} <= {
        p.name for p in result.folder.iterdir()
    }
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss"] > 0 for row in rows if row["kind"] == "train")
    classes = json.loads((result.folder / "per_class.json").read_text())
    assert list(classes)[:3] == ["disc", "square", "triangle"]
    if name == "quickstart-detection":
        assert isinstance(json.loads((result.folder / "results.json").read_text()), list)


@pytest.mark.slow
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path) -> None:
    whole = tiny("quickstart-detection", tmp_path, **{"run.max_steps": 3, "run.dir": str(tmp_path / "whole")})
    train(whole, console=Console(quiet=True))
    first = override(override(whole, "run.dir", str(tmp_path / "parts")), "run.max_steps", 1)
    train(first, console=Console(quiet=True))
    train(override(first, "run.max_steps", 3), console=Console(quiet=True))

    def last(folder: str) -> dict[str, torch.Tensor]:
        (newest,) = sorted((tmp_path / folder / "checkpoints").glob("step-*3-*"))
        return torch.load(newest, weights_only=False)["model"] if newest.is_file() else {}

    one, two = last("whole"), last("parts")
    assert one.keys() == two.keys()
    assert one
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_quickstarts_build_models_of_their_data() -> None:
    model = create_task(tiny("quickstart-panoptic", Path("unused"))).build_model()
    assert (model.config.num_things, model.config.num_stuff) == (3, 4)
    model = create_task(tiny("quickstart-segmentation", Path("unused"))).build_model()
    assert model.config.num_classes == 7
    model = create_task(tiny("quickstart-detection", Path("unused"))).build_model()
    assert model.config.num_classes == 3
    assert 1.3e6 < sum(p.numel() for p in model.backbone.parameters()) < 1.5e6


def test_how_images_are_looked_at_is_part_of_a_recipe() -> None:
    recipe = tiny("quickstart-segmentation", Path("unused"))
    test = create_task(recipe).build_model().config.test
    assert (test.scale, test.multiple) == (None, 32)
    recipe = override(recipe, "model.overrides.test", {"scale": [96, 64], "window": [32, 32]})
    test = create_task(recipe).build_model().config.test
    assert (test.scale, test.window, test.multiple) == ((96, 64), (32, 32), 1)
    with pytest.raises(ValueError, match=r"test has the fields scale, .*, got size"):
        create_task(override(recipe, "model.overrides.test", {"size": 64})).build_model()


class _Oracle:
    """A model that answers with the truth, image after image."""

    def __init__(self, name: str, targets: list[dict]):
        self.name, self.targets = name, iter(targets)

    def segment(self, image: torch.Tensor) -> torch.Tensor:
        labels = torch.as_tensor(next(self.targets)["semantic"])
        return labels.where(labels != 255, 0)

    def __call__(self, images: list[torch.Tensor]) -> list[dict]:
        return [self.answer(next(self.targets)) for _ in images]

    def answer(self, target: dict) -> dict:
        if self.name == "quickstart-panoptic":
            return {"panoptic": target["panoptic"], "segments_info": target["segments_info"]}
        found = {key: torch.as_tensor(target[key])[~target["iscrowd"]] for key in ("boxes", "labels", "masks")}
        return {**found, "scores": torch.ones(len(found["labels"]))}


@pytest.mark.parametrize(("name", "metric"), QUICK.items())
def test_truth_as_prediction_is_perfect(name: str, metric: str, tmp_path) -> None:
    task = create_task(tiny(name, tmp_path))
    task.eval_dataset = task.sets.eval()
    oracle = _Oracle(name, [task.eval_dataset[i][1] for i in range(3)])
    alone = SimpleNamespace(device=torch.device("cpu"), process_index=0, num_processes=1)
    assert task.evaluate(oracle, alone, save=tmp_path / "out")[metric] == pytest.approx(1.0)
    saved = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    names = [f"{number:012d}.png" for number in (9, 10, 11)]
    if name == "quickstart-detection":
        assert saved == ["results.json"]
    elif name == "quickstart-segmentation":
        assert saved == [f"index/{file}" for file in names]
        truth = read_index_mask(task.sets.root / "annotations" / "validation" / names[0])
        assert ((read_index_mask(tmp_path / "out" / "index" / names[0]) == truth) | (truth == 0)).all()
    else:
        assert saved == ["panoptic.json", *(f"panoptic/{file}" for file in names)]
        annotations = task.sets.root / "annotations"
        quality = panoptic_quality(
            json.loads((annotations / "panoptic_val2017.json").read_text()),
            annotations / "panoptic_val2017",
            json.loads((tmp_path / "out" / "panoptic.json").read_text()),
            tmp_path / "out" / "panoptic",
        )
        assert quality["All"]["pq"] == pytest.approx(1.0)


def test_limits_repeats_and_evaluation_on_the_training_images(tmp_path) -> None:
    recipe = tiny("quickstart-detection", tmp_path, **{"data.limit": 3, "data.repeat": 2, "data.eval_split": "train"})
    sets = DetectionSets(recipe.data, cache=tmp_path)
    assert len(sets.train) == len(sets.train.aspect_ratios) == 6
    trained = [sets.train[i][1]["image_id"] for i in range(6)]
    assert trained[:3] == trained[3:]
    assert [sets.eval()[i][1]["image_id"] for i in range(len(sets.eval()))] == trained[:3]
    recipe = tiny("quickstart-segmentation", tmp_path, **{"data.eval_limit": 2})
    assert len(SegmentationSets(recipe.data, cache=tmp_path).eval()) == 2


def test_scenes_are_drawn_once_and_named_after_what_decides_them(tmp_path) -> None:
    data = tiny("quickstart-detection", tmp_path).data
    first = DetectionSets(data, cache=tmp_path).root
    stamp = first.stat().st_mtime_ns
    assert DetectionSets(data, cache=tmp_path).root == first
    assert first.stat().st_mtime_ns == stamp
    other = replace(data, scenes=replace(data.scenes, seed=1))
    assert DetectionSets(other, cache=tmp_path).root != first


def test_splits_with_other_categories_are_named(tmp_path) -> None:
    data = tiny("quickstart-detection", tmp_path).data
    sets = DetectionSets(data, cache=tmp_path)
    file = sets.root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "ball"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has other categories than"):
        sets.eval()


def test_missing_data_names_what_was_looked_for(tmp_path) -> None:
    recipe = override(get_recipe("mask_rcnn_litv2_s"), "data.path", str(tmp_path))
    with pytest.raises(ValueError, match=r"no annotated objects\. Looked for: COCO 2017"):
        create_task(recipe)
    recipe = override(get_recipe("segformer_lvt"), "data.path", str(tmp_path))
    with pytest.raises(ValueError, match=r"no masks of classes\. Looked for: ADE20K"):
        create_task(recipe)
