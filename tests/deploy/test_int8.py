"""int8 files: what they lose, and what is said about them."""

import json
from pathlib import Path

import pytest
import torch
from families import classifier
from small import needs
from torch import Tensor, nn

import litevit
from litevit.cli import main
from litevit.data.embedded import Digits
from litevit.deploy.executorch import in_8_bits
from litevit.deploy.exporter import _judge_int8
from litevit.deploy.quantize import _found_by_both, calibration_images
from litevit.deploy.report import ExportError, ExportReport
from litevit.deploy.shapes import InputShape
from litevit.deploy.source import open_source
from litevit.jobs.evaluate_dense import data_of_run

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "executorch": ".pte"}


def digits_folder(folder: Path, count: int) -> Path:
    folder.mkdir()
    data = Digits("train", size=32)
    for i in range(count):
        data.images[i].save(folder / f"{i:04}.png")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_trained_detector_loses_at_most_two_points(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Box AP50 of the quickstart's Mask R-CNN after half of its epochs, on held-out scenes."""
    pytest.importorskip("faster_coco_eval", reason="COCO evaluation needs faster-coco-eval (the extra 'coco')")
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))
    short = ["--schedule.epochs", "2", "--run.eval_every", "2", "--run.device", "cpu"]
    assert main(["train", "quickstart-detection", "--run.root", str(tmp_path), *short]) == 0
    run = tmp_path / "quickstart-detection"
    data = Path(data_of_run(run, "instance segmentation"))
    calibration = tmp_path / "calibration"
    calibration.mkdir()
    for image in sorted((data / "train2017").iterdir())[:48]:
        (calibration / image.name).write_bytes(image.read_bytes())
    ap50 = {}
    for name in ("onnx", "openvino"):
        for int8 in ([], ["--int8", str(calibration)]):
            out = tmp_path / f"{name}{len(int8)}{FORMATS[name]}"
            fixed = ["--image-size", "128", "--batch-size", "1", "--out", str(out)]
            assert main(["export", str(run), "--format", name, *fixed, *int8]) == 0
            capsys.readouterr()
            assert main(["eval", "--weights", str(out), "--data", str(data), "--json"]) == 0
            ap50[name, bool(int8)] = json.loads(capsys.readouterr().out)["metrics"]["bbox/AP50"]
        told = json.loads((tmp_path / f"{name}2{FORMATS[name]}.report.json").read_text())
        assert "sure detections in both" in told["notes"][0]
        assert "error" not in told["notes"][0]
        assert told["int8"]["detections"] > 100
    print({key: round(value, 4) for key, value in ap50.items()})
    assert ap50["onnx", False] == pytest.approx(ap50["openvino", False], abs=0.002)
    assert ap50["onnx", False] > 0.3
    assert all(value >= ap50["onnx", False] - 0.02 for value in ap50.values()), ap50


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_trained_classifier_loses_at_most_one_point(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "quickstart", "--run.root", str(tmp_path)]) == 0
    calibration = digits_folder(tmp_path / "calibration", 100)
    top1 = {}
    for name, suffix in FORMATS.items():
        for int8 in ([], ["--int8", str(calibration)]):
            out = tmp_path / f"{name}{len(int8)}{suffix}"
            assert main(["export", str(tmp_path / "quickstart"), "--format", name, "--out", str(out), *int8]) == 0
            capsys.readouterr()
            assert main(["eval", "--weights", str(out), "--data", "embedded:digits", "--json"]) == 0
            result = json.loads(capsys.readouterr().out)
            assert result["images"] == 360
            top1[name, bool(int8)] = result["top1"]
        told = json.loads((tmp_path / f"{name}2{suffix}.report.json").read_text())
        assert told["notes"][0].startswith("int8 is ")
        assert told["int8"]["bytes_int8"] < 0.5 * told["int8"]["bytes_float32"]
        assert litevit.load_exported(tmp_path / f"{name}2{suffix}").metadata.int8
    assert top1["onnx", False] == top1["openvino", False] == top1["executorch", False] > 95
    assert all(value >= top1["onnx", False] - 1 for value in top1.values()), top1


def test_what_int8_cannot_be_made_of(tmp_path: Path) -> None:
    model = classifier("litv2").eval()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="No images in the folder"):
        litevit.export(model, tmp_path / "x.onnx", format="onnx", int8=empty, image_size=64, verify=False)
    with pytest.raises(ValueError, match="pt2 files are not written in int8; onnx, openvino, executorch are"):
        litevit.export(model, tmp_path / "x.pt2", format="pt2", int8=empty)
    with pytest.raises(ValueError, match="int8 files take normalised images"):
        litevit.export(model, tmp_path / "x.onnx", format="onnx", int8=empty, preprocessing=True)
    assert [f.name for f in tmp_path.iterdir()] == ["empty"]


def test_int8_that_loses_too_much_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("litevit.deploy.exporter.compare", lambda *_: {
        "images": 4, "error": 0.9, "agreement": 0.25, "speed": 0.5
    })  # fmt: skip
    folder = digits_folder(tmp_path / "images", 4)
    with pytest.raises(ExportError, match=r"int8 loses too much: int8 is slower .*: 0.50 times") as caught:
        litevit.export(
            classifier("litv2").eval(), tmp_path / "x.onnx", format="onnx", int8=folder, image_size=64, verify=False
        )
    assert "the same answer on 25.0 % of 4 images" in caught.value.report.notes[0]
    assert [f.name for f in tmp_path.iterdir()] == ["images"]


def test_the_note_on_detections_names_no_error() -> None:
    def report(task: str, found: dict) -> str:
        made = ExportReport(path=Path("x.onnx"), format="onnx", model="m", task=task, int8=found)
        _judge_int8(made)
        return made.notes[0]

    found = {"bytes_float32": 4, "bytes_int8": 1, "speed": 2.0, "agreement": 0.95, "images": 8}
    start = "int8 is faster on this processor: 2.00 times the speed of float32, 0.25 of its size, "
    told = start + "95.0 % of 40 sure detections in both, on 8 images"
    assert report("detection", found | {"detections": 40}) == told
    none = {key: value for key, value in found.items() if key != "agreement"} | {"detections": 0}
    assert report("detection", none) == start + "no sure detection to compare, on 8 images"
    found["error"] = 0.02
    told = start + "the same answer on 95.0 % of 8 images; error 2.0 % of the output's spread"
    assert report("classification", found) == told
    told = told.replace("; error", ", 87.5 % of them right (float32: 100.0 %); error")
    assert report("classification", found | {"top1": 87.5, "top1_float32": 100.0}) == told
    start = "int8 is as fast as float32 on this processor: 1.00 times the speed of float32, "
    assert report("classification", found | {"speed": 1.004}).startswith(start)


@needs("executorch")
def test_a_convolution_that_is_called_again_is_in_8_bits_each_time() -> None:
    """Its weights are one tensor; the file would hold them in float too."""

    class Recursive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(8, 8, 2, stride=2), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.linear(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return self.linear(self.conv(x).permute(0, 2, 3, 1))

    torch.manual_seed(0)
    module, images = Recursive().eval(), [torch.randn(1, 8, 16, 16) for _ in range(3)]
    with torch.no_grad():
        program = in_8_bits(torch.export.export(module, (images[0],)), images[0], images)
        ours, theirs = module(images[0]), program.module()(images[0])
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    products = [node for node in calls if "conv2d" in str(node.target) or "linear" in str(node.target)]
    assert len(products) == 4
    for node in products:
        assert "dequantize_per_tensor" in str(node.args[0].target)
        assert "dequantize_per_channel" in str(node.args[1].target)
    assert float((ours - theirs).std() / ours.std()) < 0.05


def test_labels_of_calibration_images(tmp_path: Path) -> None:
    source = open_source(classifier("litv2").eval())
    shape = InputShape(batch=1, size=(64, 64))
    digits_folder(tmp_path / "class 3", 2)
    digits_folder(tmp_path / "class 1", 1)
    images, labels = calibration_images(source, tmp_path, shape)
    assert (len(images), labels) == (3, [1, 3, 3])
    digits_folder(tmp_path / "others", 1)
    assert calibration_images(source, tmp_path, shape)[1] == []


def test_detections_are_compared_whatever_their_rank() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 80, 80], [20, 0, 30, 9]]])
    ours = {"boxes": boxes, "scores": torch.tensor([[0.9, 0.8, 0.1]]), "labels": torch.tensor([[0, 1, 0]]),
            "count": torch.tensor([3])}  # fmt: skip
    order = [1, 0, 2]
    swapped = {key: value if key == "count" else value[:, order] for key, value in ours.items()}
    assert _found_by_both(ours, swapped) == (4, 4)
    assert _found_by_both(ours, ours | {"count": torch.tensor([1])}) == (2, 3)
    assert _found_by_both(ours, ours | {"labels": torch.tensor([[0, 0, 0]])}) == (2, 4)
    assert _found_by_both(ours, ours | {"scores": torch.zeros(1, 3)}) == (2, 2)
