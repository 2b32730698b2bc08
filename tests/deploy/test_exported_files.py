"""Files that are damaged, cut short, renamed or another program's: one line, and no file is taken for another."""

import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from small import MARKS, RUNNING, SUFFIX, everywhere, fixed, needs
from torch import nn

import litevit
from litevit.deploy import litert
from litevit.deploy.executorch import without_cpuinfo
from litevit.deploy.formats import formats
from litevit.deploy.metadata import Metadata
from litevit.deploy.openvino import open_file
from litevit.deploy.seal import MARK


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
        with pytest.raises(
            ValueError, match=r"damaged\S+ (.* cannot be opened by|.*is truncated or damaged|is not a file of)"
        ):
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


@everywhere
def test_a_file_runs_where_its_runtime_alone_is(
    format: str, whole: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, (runtime, *writers) = whole(format), formats()[format].needs
    for name in writers:
        monkeypatch.setitem(sys.modules, name, None)
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in writers else there(name, *a))
    assert litevit.load_exported(path).classes
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == runtime else there(name, *a))
    with pytest.raises(ImportError, match=rf"needs {runtime}: pip install 'litevit\[{format}\]'"):
        litevit.load_exported(path)


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


SEALED = [name for name in RUNNING if formats()[name].sealed]


@pytest.mark.parametrize("format", [pytest.param(name, marks=[*MARKS.get(name, []), needs(name)]) for name in SEALED])
def test_one_changed_bit_is_seen(format: str, whole: Callable[[str], Path], tmp_path: Path) -> None:
    """In the graph, in a weight, in what the file says of itself: a runtime would answer, or end the process."""
    names = [whole(format).with_suffix(suffix) for suffix in formats()[format].sealed]
    copies = [Path(shutil.copy(name, tmp_path)) for name in names]
    litevit.load_exported(copies[0])
    for copy in copies:
        content = copy.read_bytes()
        for place in (len(content) // 20, len(content) // 2, len(content) * 19 // 20):
            copy.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(ValueError, match=r"is truncated or damaged: .* checksum"):
                litevit.load_exported(copies[0])
        copy.write_bytes(content)


@needs("onnx")
def test_what_other_programs_make_of_a_file_opens(whole: Callable[[str], Path], tmp_path: Path) -> None:
    """Simplifiers, quantisers and converters keep the metadata, the seal too: their files were called damaged."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    model = onnx.load(whole("onnx"))
    images = torch.randn(2, 3, 64, 75)
    exact = litevit.load_exported(whole("onnx"))
    onnx.save(model, tmp_path / "same.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        litevit.load_exported(tmp_path / "same.onnx")
    model.doc_string = "simplified"
    onnx.save(model, tmp_path / "simplified.onnx")
    quantize_dynamic(whole("onnx"), tmp_path / "quantised.onnx", extra_options={"MatMulConstBOnly": True})
    for name in ("simplified", "quantised"):
        with pytest.warns(UserWarning, match=rf"{name}.onnx has been written anew by another program"):
            file = litevit.load_exported(tmp_path / f"{name}.onnx")
        assert not file.metadata.verified
        assert file.classes == exact.classes
        assert file(images).shape == exact(images).shape


@needs("openvino")
def test_what_openvino_saves_again_opens(whole: Callable[[str], Path], tmp_path: Path) -> None:
    import openvino

    openvino.save_model(openvino.Core().read_model(whole("openvino")), tmp_path / "half.xml", compress_to_fp16=True)
    assert (tmp_path / "half.bin").stat().st_size < 0.6 * whole("openvino").with_suffix(".bin").stat().st_size
    with pytest.warns(UserWarning, match=r"half.xml or half.bin has been written anew by another program"):
        assert litevit.load_exported(tmp_path / "half.xml")(torch.randn(1, 3, 64, 75)).shape[0] == 1


@needs("onnx")
def test_a_file_without_a_seal_opens(whole: Callable[[str], Path], tmp_path: Path) -> None:
    """One of an earlier version; where another program has changed a byte of a sealed file, it is told what to do."""
    content = whole("onnx").read_bytes()
    assert content.count(MARK) == 1
    (tmp_path / "x.onnx").write_bytes(content.replace(MARK, b"nothing-of-that"))
    assert litevit.load_exported(tmp_path / "x.onnx").classes
    (tmp_path / "x.onnx").write_bytes(content.replace(b"logits", b"digits"))
    with pytest.raises(ValueError, match=r"x.onnx is truncated or damaged: .* checksum .* take `seal` out"):
        litevit.load_exported(tmp_path / "x.onnx")


@needs("litert")
def test_the_seal_of_a_file_with_metadata_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    litert.add_metadata(path, Metadata(model="m", task="module", outputs=("y",)))
    with pytest.raises(ValueError, match="cannot be opened by LiteRT"):  # the seal fits; this is no model
        litevit.load_exported(path)
    content = path.read_bytes()
    path.write_bytes(content[:50] + b"\1" + content[51:])
    with pytest.raises(ValueError, match=r"x.tflite is truncated or damaged: .* checksum"):
        litevit.load_exported(path)


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


def test_what_executorch_says_of_the_processor_is_left_out(capfd: pytest.CaptureFixture) -> None:
    """Five lines on every machine that is no Arm; whatever else is said is passed on."""
    with without_cpuinfo():
        os.write(2, b"[cpuinfo_utils.cpp:71] Reading file /sys/devices/soc0/image_version\nkept\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "kept\nafter\n"
