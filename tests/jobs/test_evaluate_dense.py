"""`litevit eval` of dense models: figures on tiny scenes, result files, options and wrong input."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import litevit
from litevit.cli import main
from litevit.data.ade20k import ade20k
from litevit.data.class_names import ClassList
from litevit.data.coco import coco2017
from litevit.data.coco_panoptic import coco2017_panoptic
from litevit.data.scenes import ScenesConfig, write_ade, write_coco
from litevit.jobs.dense_models import DETECTION, INSTANCES, PANOPTIC, SEMANTIC, DenseModel
from litevit.jobs.evaluate_dense import Looks, Masks, evaluate
from litevit.metrics.panoptic import panoptic_quality
from litevit.tasks.segmentation import SegmentationTest

LOOK = ScenesConfig(height=64, width=80, empty_rate=0, crowd_rate=0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_coco(root / "coco", train=1, val=4, config=LOOK)
    write_ade(root / "ade", train=1, val=3, config=LOOK)
    return root


class Knows(nn.Module):
    """Recognises each image of a data set and answers from its truth."""

    class config:  # noqa: N801  what the protocol is read from
        resize, min_size, max_size = True, 800, 1333
        test = SegmentationTest()

    def __init__(self, dataset, reply):
        super().__init__()
        self.anchor, self.reply, self.tests = nn.Parameter(torch.zeros(1)), reply, []
        self.truth = {self.key(image / 255): target for image, target in dataset}

    def key(self, image):
        return int((image.double() * 255).round().sum())

    def forward(self, images):
        return [self.reply(self.truth[self.key(image)]) for image in images]

    def segment(self, image, *, test=None):
        self.tests.append(test)
        return self.reply(self.truth[self.key(image)])


def perfect(target):
    return {
        "boxes": target["boxes"].as_subclass(torch.Tensor),
        "scores": torch.full((len(target["labels"]),), 0.9),
        "labels": target["labels"],
        "masks": target["masks"].as_subclass(torch.Tensor),
    }


def test_detection(scenes, tmp_path):
    data = coco2017(scenes / "coco", "val", train=False)
    dense = DenseModel(Knows(data, perfect), "mask_rcnn", INSTANCES, ClassList(data.classes, data.category_ids))
    seen = []
    result = evaluate(dense, scenes / "coco", folder=tmp_path, on_progress=lambda *n: seen.append(n))
    assert len(result.metrics) == 24
    assert result.metrics["bbox/AP"] == result.metrics["segm/AP"] == 1.0
    assert (result.images, seen) == (4, [(1, 4), (2, 4), (3, 4), (4, 4)])
    assert sum(row["objects"] for row in result.per_class.values()) == sum(map(len, data.objects))
    entries = json.loads((tmp_path / "results.json").read_text())
    assert {entry["category_id"] for entry in entries} <= set(data.category_ids)
    assert json.loads(result.to_json())["metrics"]["segm/AP75"] == 1.0

    boxes = DenseModel(Knows(data, perfect), "retinanet", DETECTION, dense.classes)
    assert set(evaluate(boxes, scenes / "coco", limit=2).metrics) == {n for n in result.metrics if n[:4] == "bbox"}

    images, file = scenes / "coco" / "val2017", scenes / "coco" / "annotations" / "instances_val2017.json"
    assert evaluate(dense, images, annotations=file).metrics == result.metrics


def test_a_missed_class_shows_in_the_table(scenes):
    data = coco2017(scenes / "coco", "val", train=False)

    def reply(target):
        found = perfect(target)
        return {key: value[target["labels"] != 0] for key, value in found.items()}

    dense = DenseModel(Knows(data, reply), "mask_rcnn", INSTANCES, ClassList(data.classes, data.category_ids))
    result = evaluate(dense, scenes / "coco")
    present = [name for name, row in result.per_class.items() if row["objects"]]
    assert "disc" in present
    assert {name: result.per_class[name]["segm/AP"] for name in present} == {n: float(n != "disc") for n in present}
    assert result.metrics["bbox/AP50"] == pytest.approx((len(present) - 1) / len(present))


def test_panoptic(scenes, tmp_path):
    data = coco2017_panoptic(scenes / "coco", "val", train=False)

    def reply(target):  # the first segment of every image is missed
        ids = target["panoptic"].as_subclass(torch.Tensor).clone()
        first, *rest = target["segments_info"]
        ids[ids == first["id"]] = 0
        return {"panoptic": ids, "segments_info": [s | {"score": 1.0} for s in rest]}

    classes = ClassList(data.classes, data.category_ids, data.num_things)
    dense = DenseModel(Knows(data, reply), "panoptic_fpn", PANOPTIC, classes)
    result = evaluate(dense, scenes / "coco", folder=tmp_path)
    assert 0 < result.metrics["pq"] < 1
    assert result.metrics["sq"] == 1
    folder = scenes / "coco" / "annotations"
    truth = json.loads((folder / "panoptic_val2017.json").read_text())
    written = json.loads((tmp_path / "panoptic.json").read_text())
    again = panoptic_quality(truth, folder / "panoptic_val2017", written, tmp_path / "panoptic")
    for group, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for name in ("pq", "sq", "rq"):
            assert again[group][name] == pytest.approx(result.metrics[name + suffix], abs=1e-12)
    assert result.per_class["disc"]["pq"] == again["per_class"][1]["pq"]
    assert result.split == "val"


def test_absent_classes_are_not_zero_in_the_panoptic_table(scenes):
    data = coco2017_panoptic(scenes / "coco", "val", train=False)

    def nothing(target):
        return {"panoptic": torch.zeros_like(target["panoptic"].as_subclass(torch.Tensor)), "segments_info": []}

    dense = DenseModel(
        Knows(data, nothing), "panoptic_fpn", PANOPTIC, ClassList(data.classes, data.category_ids, data.num_things)
    )
    table = evaluate(dense, scenes / "coco", limit=1).per_class
    present = {segment["category_id"] for segment in data[0][1]["segments_info"]}
    assert 0 < len(present) < len(data.classes)
    for label, name in enumerate(data.classes):
        assert table[name]["pq"] == 0 if label in present else math.isnan(table[name]["pq"])


def test_semantic(scenes, tmp_path):
    data = ade20k(scenes / "ade", "validation")
    K = len(data.classes)

    def reply(target):  # everything of class 0 is called class 1; void gets any class
        labels = target["semantic"].as_subclass(torch.Tensor).clone()
        labels[labels == 255] = 2
        labels[labels == 0] = 1
        return labels

    dense = DenseModel(Knows(data, reply), "segformer", SEMANTIC, ClassList(data.classes, tuple(range(1, K + 1))))
    result = evaluate(dense, scenes / "ade", folder=tmp_path)
    masks = [np.array(Image.open(path)) for path in sorted((scenes / "ade/annotations/validation").glob("*.png"))]
    counted = [sum(int((m == k).sum()) for m in masks) for k in range(1, K + 1)]
    assert counted[0] > 0
    assert result.per_class["disc"] == {"iou": 0.0, "accuracy": 0.0}
    assert result.per_class["square"]["iou"] == pytest.approx(counted[1] / (counted[0] + counted[1]))
    assert result.metrics["pixel_accuracy"] == pytest.approx(1 - counted[0] / sum(counted))
    for mask, path in zip(masks, sorted((tmp_path / "index").glob("*.png"))):
        written = np.array(Image.open(path))
        assert (written[mask > 1] == mask[mask > 1]).all()
        assert (written[mask == 1] == 2).all()

    looks = Looks(window=(32, 32), ratios=(0.5, 1.0), flip=True)
    again = evaluate(dense, scenes / "ade", looks=looks, limit=1)
    assert dense.model.tests[-1] == SegmentationTest(window=(32, 32), ratios=(0.5, 1.0), flip=True)
    assert again.protocol == "windows of 32 x 32, resized to fit 2048 x 512, scales 0.5, 1.0, with mirror images"
    assert result.protocol == "whole images, resized to fit 2048 x 512"


def test_a_folder_of_masks_that_count_from_0(scenes, tmp_path):
    for path in (scenes / "ade/annotations/validation").glob("*.png"):
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 0, 255, mask - 1).astype(np.uint8)).save(tmp_path / path.name)
    data = ade20k(scenes / "ade", "validation")
    dense = DenseModel(
        Knows(data, lambda target: target["semantic"].as_subclass(torch.Tensor).clamp(max=6)),
        "segformer", SEMANTIC, ClassList(data.classes, tuple(range(7))),
    )  # fmt: skip
    images = scenes / "ade/images/validation"
    result = evaluate(dense, images, annotations=tmp_path)
    assert result.metrics["pixel_accuracy"] == 1.0
    with pytest.raises(ValueError, match=r"hold the values 7; .* Give --reduce-zero-label True"):  # ADE20K's own
        evaluate(dense, images, annotations=scenes / "ade/annotations/validation")
    own = dense._replace(classes=ClassList(data.classes, tuple(range(1, 8))))
    ade = evaluate(own, images, annotations=scenes / "ade/annotations/validation")
    assert ade.metrics == result.metrics
    with pytest.raises(ValueError, match=r"hold the values 0..6 for 7 names, .* give --reduce-zero-label False"):
        evaluate(own, images, annotations=tmp_path)
    told = evaluate(own, images, annotations=tmp_path, rule=Masks(reduce_zero_label=False))
    assert told.metrics == result.metrics


def test_absent_classes_are_null_in_json(scenes):
    data = ade20k(scenes / "ade", "validation")
    names = (*data.classes[:-1], "never")
    dense = DenseModel(
        Knows(data, lambda t: t["semantic"].as_subclass(torch.Tensor).clamp(max=5)),
        "segformer", SEMANTIC, ClassList(names, tuple(range(1, len(names) + 1))),
    )  # fmt: skip
    text = evaluate(dense, scenes / "ade").to_json()
    assert "NaN" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_wrong_input(scenes, tmp_path):
    data = coco2017(scenes / "coco", "val", train=False)
    classes = ClassList(data.classes, data.category_ids)
    dense = DenseModel(Knows(data, perfect), "mask_rcnn", INSTANCES, classes)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        evaluate(dense, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no annotated objects. Looked for: COCO 2017 .* It has nothing in it"):
        evaluate(dense, tmp_path)
    with pytest.raises(ValueError, match="split must be"):
        evaluate(dense, scenes / "coco", split="validation")
    with pytest.raises(ValueError, match="limit must be"):
        evaluate(dense, scenes / "coco", limit=-1)
    with pytest.raises(ValueError, match="are for semantic segmentation"):
        evaluate(dense, scenes / "coco", looks=Looks(flip=True))
    other = dense._replace(classes=ClassList(("a", "b"), (1, 2)))
    with pytest.raises(ValueError, match="the data has 3 classes, mask_rcnn 2"):
        evaluate(other, scenes / "coco")
    other = dense._replace(classes=ClassList(("disc", "triangle", "square"), (1, 3, 5)))
    with pytest.raises(ValueError, match="class 1 is 'triangle'"):
        evaluate(other, scenes / "coco")
    with pytest.raises(ValueError, match="stride must not be larger"):
        Looks(window=(32, 32), stride=(64, 64))
    with pytest.raises(ValueError, match="needs a window"):
        Looks(stride=(64, 64))
    with pytest.raises(ValueError, match="scales above 0"):
        Looks(ratios=(0.0,))


def test_the_model_is_left_as_it_was(scenes):
    data = coco2017(scenes / "coco", "val", train=False)
    dense = DenseModel(Knows(data, perfect).train(), "mask_rcnn", INSTANCES, ClassList(data.classes, data.category_ids))
    evaluate(dense, scenes / "coco", limit=1)
    assert dense.model.training


# ------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A semantic segmenter of seven classes on the smallest published backbone."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    from litevit.checkpoints.files import write_state_dict

    model = litevit.create_model("segformer_lvt", num_classes=7)
    write_state_dict(model.state_dict(), path)
    return path


def test_command_line(scenes, weights, tmp_path, capsys):
    common = ["--weights", str(weights), "--size", "64", "--device", "cpu"]
    data = ["--data", str(scenes / "ade"), "--workers", "0", "--names", str(scenes / "ade" / "classes.json")]
    assert main(["eval", "segformer_lvt", *data, *common, "--json", "--limit", "2", "--out", str(tmp_path / "e")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["task"], result["images"]) == ("semantic segmentation", 2)
    assert set(result["per_class"]) == set(json.loads((scenes / "ade" / "classes.json").read_text()).values())
    assert len(list((tmp_path / "e" / "index").glob("*.png"))) == 2

    images = str(scenes / "ade" / "images" / "validation")
    assert main(["predict", images, "--model", "segformer_lvt", *common, "--out", str(tmp_path / "p"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert len(list((tmp_path / "p").glob("*.png"))) == 3


def test_command_line_says_what_is_wrong(scenes, weights, tmp_path, capsys):
    def fails(*arguments):
        assert main(list(arguments)) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1
        return error[0]

    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    image = str(next((scenes / "ade" / "images" / "validation").glob("*.jpg")))
    model = ("--model", "segformer_lvt", "--weights", str(weights))
    assert "has 2 names, the model 7 classes" in fails("predict", image, *model, "--names", str(names))
    assert "no score threshold" in fails("predict", image, *model, "--score-threshold", "0.5")
    assert "does not exist" in fails("predict", str(tmp_path / "none"), *model)
    assert "is not an image" in fails("predict", str(names), *model)
    assert "for detectors" in fails("predict", image, "--model", "lvt", "--weights", "none", "--score-threshold", "0.5")
    assert "does not exist" in fails("eval", "segformer_lvt", "--weights", str(weights), "--data", str(tmp_path / "n"))
    assert "which data it was trained on" in fails("eval", "segformer_lvt", "--weights", str(weights))
    assert "nothing to measure" in fails("eval", "segformer_lvt", "--weights", "none", "--data", str(scenes / "ade"))
    assert "not the folder of a training run" in fails("eval", "--run", str(tmp_path / "run"))
