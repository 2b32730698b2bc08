"""`litevit.export` and `load_exported`: files that are the same function, and what is said where they cannot be."""

import json
import os
from pathlib import Path

import pytest
import torch
from families import CLASSIFIERS, backbone, classifier
from PIL import Image
from small import FREE, SUFFIX, everywhere, fixed, needs, slow
from torch import Tensor

import litevit
from litevit.cli import main
from litevit.deploy import litert
from litevit.deploy.exporter import _environment
from litevit.deploy.formats import formats
from litevit.deploy.openvino import core
from litevit.deploy.report import ExportError
from litevit.deploy.verify import KINDS


@everywhere
def test_a_file_is_the_function_of_its_model(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = classifier("litv2").train()
    path = tmp_path / f"small{SUFFIX[format]}"
    report = fixed(path, format, model)
    assert model.training, "the model was changed"
    assert report.verified
    assert report.path == path
    assert all(check.ok and check.worst >= 0 for check in report.checks)
    assert {check.kind for check in report.checks} == {*KINDS, "other images"}
    assert {check.batch for check in report.checks} == ({1, 2, 3} if format in FREE else {1})
    beside = json.loads((tmp_path / f"{path.name}.report.json").read_text())
    assert beside["verified"] is True
    assert {"batch", "size", "worst", "tolerance", "ok"} <= set(beside["checks"][0])

    run = litevit.load_exported(path, threads=1)
    assert (run.task, run.classes) == ("classification", tuple(f"class {i}" for i in range(5)))
    assert run.preprocessing.size == 224
    images = torch.randn(4 if format in FREE else 1, 3, 64, 75)
    with torch.no_grad():
        torch.testing.assert_close(run(images), model.eval()(images), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"takes normalised float32 .* 64 x 75 pixels, got float32 .1, 3, 64, 64"):
        run(torch.randn(1, 3, 64, 64))
    assert sorted(f.name for f in tmp_path.iterdir() if f.suffix != ".bin") == [path.name, f"{path.name}.report.json"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("format", [pytest.param(name, marks=needs(name)) for name in FREE])
@pytest.mark.parametrize(
    "model",
    [f"classifier {name}" for name in CLASSIFIERS] + [f"backbone {name}" for name in ("lit", "lit_ti", "litv2", "lvt")],
)
def test_any_batch_and_size(model: str, format: str, tmp_path: Path) -> None:
    kind, name = model.split()
    torch.manual_seed(0)
    network = (classifier(name) if kind == "classifier" else backbone(name, "segmentation")).eval()
    path = tmp_path / f"any{SUFFIX[format]}"
    report = litevit.export(network, path, format=format)
    sizes = {check.size for check in report.checks}
    assert len(sizes) >= 3
    assert any(h % 2 and w % 2 for h, w in sizes)
    assert (107, 133) not in sizes, "the traced size proves nothing"
    run = litevit.load_exported(path)
    with torch.no_grad():
        for shape in [(1, 3, 97, 224), (5, 3, 112, 81)]:
            images = torch.randn(shape)
            for a, b in zip(_tuple(run(images)), _tuple(network(images)), strict=True):
                torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def _tuple(x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (x,) if isinstance(x, Tensor) else x


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from litevit.deploy import pt2

    model = classifier("litv2").eval()

    class Wrong(pt2.PT2Engine):
        def run(self, images: Tensor) -> list[Tensor]:
            return [x + 1e-3 * (images.shape[0] == 2) for x in super().run(images)]

    monkeypatch.setattr(pt2, "PT2Engine", Wrong)
    said = rf"'logits' differs by 0.001 .* batch 2, 64 x 75; {len(KINDS)} of {3 * (len(KINDS) + 1)} checks"
    with pytest.raises(ExportError, match=said) as caught:
        fixed(tmp_path / "wrong.pt2", "pt2", model)
    assert not caught.value.report.verified
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("litevit.deploy.source.load_classifier", lambda *_, **__: (model, litevit_preprocessing()))
    arguments = ["litv2_s", "--weights", "none", "--num-classes", "5", "--format", "pt2", "--image-size", "64", "75"]
    assert main(["export", *arguments, "--out", str(tmp_path / "wrong.pt2")]) == 1
    assert not list(tmp_path.iterdir())


def litevit_preprocessing() -> object:
    from litevit.checkpoints.published import preprocessing

    return preprocessing("litv2_s")


def test_an_answer_that_ignores_its_input_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from litevit.deploy import pt2

    kept: dict[int, list[Tensor]] = {}

    class Deaf(pt2.PT2Engine):
        def run(self, images: Tensor) -> list[Tensor]:
            return kept.setdefault(images.shape[0], super().run(images))

    monkeypatch.setattr(pt2, "PT2Engine", Deaf)
    with pytest.raises(ExportError, match="No file was kept") as caught:
        fixed(tmp_path / "deaf.pt2", "pt2")
    assert [c.batch for c in caught.value.report.checks if c.kind == "other images" and not c.ok] == [1, 2, 3]


@slow
@pytest.mark.parametrize("name", ["litv2", "lvt", "lit"])
def test_a_package_of_core_ml(name: str, tmp_path: Path) -> None:
    """Written here, and its parts looked at; it runs on Apple's systems alone."""
    coremltools = pytest.importorskip("coremltools", reason="Core ML's files are written by coremltools")
    path = tmp_path / "x.mlpackage"
    for _ in range(2):  # the second takes the place of the first
        report = fixed(path, "coreml", classifier(name).eval())
        assert not report.verified
        assert "not run here" in report.notes[0]
    model = coremltools.models.MLModel(str(path), skip_model_load=True)
    assert json.loads(model.user_defined_metadata["litevit.verified"]) is False
    assert model.user_defined_metadata["litevit.task"] == "classification"
    described = model.get_spec().description
    assert [x.name for x in described.input] == ["images"]
    assert list(described.input[0].type.multiArrayType.shape) == [1, 3, 64, 75]
    assert [x.name for x in described.output] == ["logits"]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["x.mlpackage", "x.mlpackage.report.json"]


def test_no_verify_marks_the_file(tmp_path: Path) -> None:
    report = fixed(tmp_path / "x.pt2", "pt2", verify=False)
    assert not report.verified
    assert not report.checks
    assert "NOT verified" in str(report)
    assert not litevit.load_exported(tmp_path / "x.pt2").metadata.verified
    assert json.loads((tmp_path / "x.pt2.report.json").read_text())["verified"] is False


def test_metadata_of_a_file(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\nfish\nbird\nhorse\n")
    fixed(tmp_path / "x.onnx", "onnx", names=names, verify=False)
    import onnx

    told = {p.key: p.value for p in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert json.loads(told["classes"]) == ["cat", "dog", "fish", "bird", "horse"]
    assert json.loads(told["preprocessing"])["mean"] == [0.485, 0.456, 0.406]
    assert litevit.load_exported(tmp_path / "x.onnx").classes[1] == "dog"
    with pytest.raises(ValueError, match=r"names.txt has 5 class names, the model 4 classes"):
        fixed(tmp_path / "y.onnx", "onnx", classifier("litv2", num_classes=4), names=names)
    names.write_text("\n")
    with pytest.raises(ValueError, match=r"names.txt has no class names: it wants one per line"):
        fixed(tmp_path / "y.onnx", "onnx", names=names)


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        pytest.param(
            "coreml",
            {"int8": "photos"},
            r"coreml files are not written in int8; onnx, openvino, executorch are",
            marks=needs("coreml"),
        ),
        pytest.param(
            "litert",
            {},
            r"litert cannot hold .*: its converter, litert-torch, is not here. .* LITEVIT_LITERT_PY",
            marks=needs("litert"),
        ),
    ],
)
def test_what_a_format_cannot(
    format: str, options: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LITEVIT_LITERT_PYTHON", raising=False)
    with pytest.raises(ValueError, match=message):
        litevit.export(classifier("litv2"), tmp_path / f"x{SUFFIX[format]}", format=format, **options)
    assert not list(tmp_path.iterdir())


def test_options_that_cannot_be(tmp_path: Path) -> None:
    model = classifier("litv2")
    for options, message in [
        ({"format": "tflite"}, r"Unknown format 'tflite'. Known: pt2, onnx, openvino"),
        ({"format": "tensorrt"}, r"tensorrt files are not written: .* Export onnx .* trtexec --onnx=FILE.onnx"),
        ({"format": "onnx", "path": "x.pt2"}, r"A file of ONNX Runtime ends in .onnx, got x.pt2"),
        ({"format": "onnx", "opset": 13}, r"onnx cannot hold .*: opset must be 18 to 24, got 13"),
        ({"format": "onnx", "image_size": 16}, r"image_size must be at least 32 on both sides for .*, got 16 x 16"),
        ({"format": "onnx", "batch_size": 0}, r"batch_size must be at least 1, got 0"),
        ({"format": "onnx", "images": tmp_path}, r"No images in the folder"),
    ]:
        path = tmp_path / options.pop("path", f"x{SUFFIX.get(options['format'], '.onnx')}")
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            litevit.export(model, path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="a script that stands for a Python")
def test_a_converter_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("""#!/bin/sh\necho a greeting\necho '{"litert_torch": "0.1"}'\n""")
    python.chmod(0o755)
    monkeypatch.setenv(litert.VARIABLE, str(python))
    assert _environment(formats()["litert"])["litert_torch"] == "0.1"
    assert "litert_torch" not in _environment(formats()["onnx"])
    python.write_text("#!/bin/sh\nexit 1\n")  # without packages' metadata
    assert "litert_torch" not in _environment(formats()["litert"])
    monkeypatch.setenv(litert.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"LITEVIT_LITERT_PYTHON names no Python that runs: .*none \(No such file"):
        fixed(tmp_path / "x.tflite", "litert")
    assert [f.name for f in tmp_path.iterdir()] == ["python"]


def test_a_missing_runtime_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "openvino" else there(name, *a))
    with pytest.raises(ImportError, match=r"OpenVINO needs openvino: pip install 'litevit\[openvino\]'"):
        fixed(tmp_path / "x.xml", "openvino")


def test_openvino_left_alone_is_told_apart(tmp_path: Path) -> None:
    """It takes bfloat16 where the processor has units for it: judged in float32, and said."""
    pytest.importorskip("openvino", reason="opens OpenVINO's files")
    report = fixed(tmp_path / "x.xml", "openvino", batch_size=1)
    compiled = core().compile_model(str(tmp_path / "x.xml"), "CPU")
    alone = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    assert litevit.load_exported(tmp_path / "x.xml").engine.precision == "f32"
    if alone == "f32":
        assert report.default_mode == {}
        assert not report.notes
    else:
        assert 0 < report.default_mode["error"] < 0.1
        assert report.default_mode["speed"] > 0
        assert "left alone, OpenVINO computes what is float32 in the file in bfloat16" in report.notes[-1]
    assert json.loads((tmp_path / "x.xml.report.json").read_text())["default_mode"] == report.default_mode


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.effect_noise((90, 70), 60).convert("RGB").save(photos / "a.png")
    out = tmp_path / "model.pt2"
    small = ["--image-size", "64"]
    code = main(["export", "lvt", "--weights", "none", "--format", "pt2", *small, "--out", str(out),
                 "--images", str(photos), "--json"])  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert json.loads(printed.out)["verified"] is True
    assert json.loads(printed.out)["agreement"] == {"images": 1, "top1": 1.0}
    assert main(["export", "lvt", "--weights", "none", "--format", "onnx", "--opset", "11"]) == 2
    assert "opset must be 18 to 24" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--format", "onnx", "--num-classes", "0"]) == 2
    assert "--num-classes must be at least 1, got 0" in capsys.readouterr().err
    assert main(["export", "lvtt", "--weights", "none", "--format", "onnx"]) == 2
    assert "Did you mean 'lvt'" in capsys.readouterr().err
    assert main(["export", "lvt", "--weights", str(tmp_path / "no.pth"), "--format", "onnx"]) == 2
    assert "does not exist" in capsys.readouterr().err
