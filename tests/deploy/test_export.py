"""`litevit.export` and `load_exported`: files that are the same function, and what is said where they cannot be."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from families import CLASSIFIERS, backbone, classifier
from PIL import Image
from small import needs
from torch import Tensor, nn

import litevit
from litevit.cli import main
from litevit.deploy import litert
from litevit.deploy.exporter import _environment
from litevit.deploy.formats import formats
from litevit.deploy.graph import build_graph
from litevit.deploy.openvino import core, open_file
from litevit.deploy.program import trace, with_constants_folded, with_plain_attention
from litevit.deploy.report import ExportError, ExportReport
from litevit.deploy.shapes import InputShape
from litevit.deploy.twins import ChannelsFirstConvFFN, FlatCSA, with_channels_kept_first, with_few_axes
from litevit.deploy.verify import KINDS

SUFFIX = {name: kind.suffix for name, kind in formats().items()}
slow = pytest.mark.slow
converter = pytest.mark.skipif(litert._converter() is None, reason=f"litert-torch is not here (see {litert.VARIABLE})")
RUNNING = [name for name, kind in formats().items() if kind.load]
FREE = [name for name in RUNNING if formats()[name].free]
MARKS = {"executorch": [slow], "litert": [slow, converter]}
everywhere = pytest.mark.parametrize(
    "format", [pytest.param(name, marks=[*MARKS.get(name, []), needs(name)]) for name in RUNNING]
)


def fixed(path: Path, format: str, model: nn.Module | None = None, **options) -> ExportReport:
    """A small export: one size, which the exporter is quick with."""
    model = classifier("litv2").eval() if model is None else model
    return litevit.export(model, path, format=format, image_size=(64, 75), **options)


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


@torch.no_grad()
def test_layers_of_few_axes_are_the_same() -> None:
    torch.manual_seed(0)
    graph = build_graph(classifier("lvt").eval())
    flat = with_few_axes(graph)
    assert any(isinstance(m, FlatCSA) for m in flat.modules())
    assert not any(isinstance(m, FlatCSA) for m in graph.modules())
    images = torch.randn(2, 3, 65, 78)
    torch.testing.assert_close(flat(images)[0], graph(images)[0], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_feed_forward_networks_in_channels_first_are_the_same() -> None:
    torch.manual_seed(0)
    graph = build_graph(classifier("litv2").eval())
    first = with_channels_kept_first(graph)
    assert sum(isinstance(m, ChannelsFirstConvFFN) for m in first.modules()) == 5
    images = torch.randn(2, 3, 65, 78)
    torch.testing.assert_close(first(images)[0], graph(images)[0], atol=1e-6, rtol=1e-5)


@needs("openvino")
@pytest.mark.parametrize("batch", [1, None])
def test_openvino_knows_the_shape_that_is_fixed(batch: int | None, tmp_path: Path) -> None:
    """It copies no maps where all is fixed, and has products in the convolutions' layout where it is not."""
    import openvino

    fixed(tmp_path / "x.xml", "openvino", batch_size=batch, verify=False)
    model = openvino.Core().read_model(tmp_path / "x.xml")
    assert [x.is_static for x in model.inputs[0].partial_shape] == [batch is not None, True, True, True]
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    assert (kinds["MatMul"], kinds["Convolution"]) == ((25, 4) if batch else (15, 14))


@torch.no_grad()
def test_constants_are_folded_and_attention_is_plain() -> None:
    torch.manual_seed(0)
    graph, shape = build_graph(classifier("lit").eval()), InputShape(batch=1, size=(96, 128))
    images = torch.randn(1, 3, 96, 128)
    program = trace(graph, shape)
    changed = with_plain_attention(with_constants_folded(program, shape.example()))
    before, after = ([str(node.target) for node in p.graph.nodes] for p in (program, changed))
    assert "aten.upsample_bicubic2d.vec" in before
    assert "aten.upsample_bicubic2d.vec" not in after
    assert "aten.scaled_dot_product_attention.default" not in after
    torch.testing.assert_close(changed.module()(images)[0], graph(images)[0], atol=1e-6, rtol=1e-5)


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One file of a format that runs here."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def make(format: str) -> Path:
        path = folder / f"whole{SUFFIX[format]}"
        fixed(path, format, verify=False)
        return path

    return make


@everywhere
def test_files_that_are_damaged_or_of_another_kind(
    format: str, whole: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    suffix = SUFFIX[format]
    content = whole(format).read_bytes()
    if format == "openvino":
        (tmp_path / "damaged.bin").write_bytes(whole(format).with_suffix(".bin").read_bytes())
    for share in (0.0, 0.3, 0.95):
        damaged = tmp_path / f"damaged{suffix}"
        damaged.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"damaged\S+ (.* cannot be opened by|is not a file of)"):
            litevit.load_exported(damaged)
    # One line, and no log of traces before it.
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    for other, ending in SUFFIX.items():
        if other != format:
            renamed = tmp_path / f"renamed{ending}"
            renamed.write_bytes(content)
            with pytest.raises(ValueError, match=rf"renamed{ending} is not a file of .* call it renamed{suffix}"):
                litevit.load_exported(renamed)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        litevit.load_exported(tmp_path / f"gone{suffix}")
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"does not end like an exported file: .pt2"):
        litevit.load_exported(tmp_path / "x.bin")


def test_the_first_bytes_of_a_file_say_what_it_is(tmp_path: Path) -> None:
    for start, suffix, holds in [
        (b"<\0\0\0ET12", ".pt2", "ExecuTorch"),  # of a length that is also the sign of XML
        (b"\x1c\0\0\0TFL3", ".pte", "LiteRT"),
        (b"PK\x03\x04....", ".onnx", "PyTorch"),
        (b"<?xml version", ".tflite", "OpenVINO"),
        (b"<html>", ".xml", "a web page"),
    ]:
        (tmp_path / f"x{suffix}").write_bytes(start + 100 * b"\0")
        with pytest.raises(ValueError, match=f"is not a file of .*: it (is|holds) {holds}"):
            litevit.load_exported(tmp_path / f"x{suffix}")
    package = tmp_path / "x.mlpackage"
    package.mkdir()
    with pytest.raises(ValueError, match="files of Core ML are written here and run elsewhere"):
        litevit.load_exported(package)


@needs("openvino")
def test_openvino_weights_that_are_cut_short(whole: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_bytes(whole("openvino").read_bytes())
    (tmp_path / "x.bin").write_bytes(whole("openvino").with_suffix(".bin").read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated or damaged"):
        litevit.load_exported(tmp_path / "x.xml")


def test_openvino_without_weights_or_xml(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="opens OpenVINO's files")
    (tmp_path / "x.xml").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match=r"x.xml has its weights in x.bin, which is not beside it"):
        open_file(tmp_path / "x.xml", 1, precision="f32")
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x.xml is not a file of OpenVINO"):
        open_file(tmp_path / "x.xml", 1, precision="f32")


def test_files_of_others(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.randn(1, 2),))
    torch.export.save(program, tmp_path / "other.pt2")
    with pytest.raises(ValueError, match="was not written by litevit export"):
        litevit.load_exported(tmp_path / "other.pt2")


@needs("openvino")
def test_two_exports_to_one_path(tmp_path: Path) -> None:
    """The later one stands, whole: graph, weights and report belong together."""
    models = [classifier("litv2", num_classes=k).eval() for k in (3, 4)]
    path = tmp_path / "x.xml"
    errors: list[BaseException] = []

    def run(model: nn.Module) -> None:
        try:
            fixed(path, "openvino", model)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    file = litevit.load_exported(path)
    model = models[len(file.classes) - 3]
    images = torch.randn(1, 3, 64, 75)
    with torch.no_grad():
        torch.testing.assert_close(file(images), model(images), atol=1e-5, rtol=1e-4)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["x.bin", "x.xml", "x.xml.report.json"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from litevit.deploy import pt2, staging

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(pt2.torch.export, "save", fails)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: os.statvfs_result and type("U", (), {"free": 10**6})())
    with pytest.raises(OSError, match=r"Cannot write .*x.pt2: no space left for .* MB in .*Nothing was kept"):
        fixed(tmp_path / "x.pt2", "pt2")
    assert not list(tmp_path.iterdir())


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


@pytest.mark.skipif(
    sys.platform != "linux", reason="fills a file system of its own, which Linux alone lets anyone make"
)
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """In a process of its own: PyTorch's writer used to end it with `terminate called`."""
    script = "mount -t tmpfs -o size=256k tmpfs $0 || exit 77; $1 -m litevit.cli export lvt_plain --weights none "
    script += "--format pt2 --image-size 64 --batch-size 1 --no-verify --out $0/x.pt2; echo exit $?; ls -A $0"
    command = ["unshare", "-rm", "sh", "-c", script, str(tmp_path), sys.executable]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system may be mounted here")
    assert "x.pt2: no space left" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == ["exit", "2"]


def test_what_a_converter_raises_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from litevit.deploy import pt2

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("pages of advice\nand more") from AssertionError("only 4D query\nsecond line")

    monkeypatch.setattr(pt2.torch.export, "save", fails)
    with pytest.raises(ValueError, match=r"^The converter to PyTorch could not write .*: only 4D query. Try fixed .*$"):
        fixed(tmp_path / "x.pt2", "pt2")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "x.pt2").mkdir()
    with pytest.raises(OSError, match=r"Cannot write .*x.pt2: it is a folder"):
        fixed(tmp_path / "x.pt2", "pt2")


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
