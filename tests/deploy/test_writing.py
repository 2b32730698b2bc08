"""Nothing half-written: two exports into one path, disks that are full, converters that fail."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from families import classifier
from PIL import Image
from small import fixed, needs
from torch import nn

import litevit
from litevit.deploy import exporter
from litevit.deploy.formats import Job, formats
from litevit.deploy.staging import publish, staging


@needs("openvino")
def test_two_exports_to_one_path(tmp_path: Path) -> None:
    """The later one stands, whole: graph, weights and report belong together."""
    models = [classifier("litv2", num_classes=k).eval() for k in (3, 4)]
    path = tmp_path / "x.xml"
    errors: list[BaseException] = []

    def run(model: nn.Module) -> None:
        try:
            fixed(path, "openvino", model, verify=False)
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


def test_what_int8_raises_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a converter that fails, a package that is missing."""
    from litevit.deploy import openvino, staging

    photos, path = tmp_path / "photos", tmp_path / "out" / "x.xml"
    photos.mkdir()
    Image.new("RGB", (80, 70)).save(photos / "a.png")
    errors = iter([RuntimeError("basic_ios::clear"), RuntimeError("basic_ios::clear"), ImportError("pip install it")])

    def writes(job: Job, path: Path) -> None:
        path.write_text(str(job.metadata.seal))
        path.with_suffix(".bin").write_bytes(b"")

    def fails(*_: object) -> None:
        raise next(errors)

    changed = openvino.FORMAT._replace(write=writes, quantize=fails, needs=())
    monkeypatch.setattr(openvino, "FORMAT", changed)
    with pytest.raises(ValueError, match=r"^The converter to OpenVINO could not write .* in int8: basic_ios::clear. "):
        fixed(path, "openvino", int8=photos, verify=False)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: type("U", (), {"free": 10**6})())
    with pytest.raises(OSError, match=r"Cannot write .*x.xml: no space left .*Nothing was kept"):
        fixed(path, "openvino", int8=photos, verify=False)
    with pytest.raises(ImportError, match="pip install it"):
        fixed(path, "openvino", int8=photos, verify=False)
    assert not list(path.parent.iterdir())


def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converters work there; the folder of the file may have all the space of the world."""
    from litevit.deploy import pt2, staging

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("cannot write weights")

    space = 10**12

    def usage(folder: str | Path) -> object:
        return type("U", (), {"free": 10**4 if Path(folder).name == "temporary" else space})()

    monkeypatch.setattr(pt2.torch.export, "save", fails)
    monkeypatch.setattr(staging.shutil, "disk_usage", usage)
    with pytest.raises(ValueError, match=r"could not write .*: cannot write weights"):
        fixed(tmp_path / "x.pt2", "pt2")
    monkeypatch.setattr(staging.tempfile, "gettempdir", lambda: "/temporary")
    with pytest.raises(OSError, match=r"Cannot write .*x.pt2: no space left in /temporary, where its converter works"):
        fixed(tmp_path / "x.pt2", "pt2")
    space = 5 * 10**5
    with pytest.raises(OSError, match=r"Cannot write .*x.pt2: no space left for 1 MB in "):
        fixed(tmp_path / "x.pt2", "pt2")
    assert not list(tmp_path.iterdir())


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
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Cannot write .*x.pt2: .*file is not a folder"):
        fixed(tmp_path / "file" / "x.pt2", "pt2")


@needs("openvino")
def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    """As with any tool that opens a name and writes: what it points to is replaced, each file of an export through its
    own link."""
    store, out = tmp_path / "store", tmp_path / "out"
    store.mkdir()
    out.mkdir()
    for name in ("x.xml", "x.bin"):
        (out / name).symlink_to(store / f"blob-{name}")  # one that exists, and one that does not yet
    (store / "blob-x.xml").write_text("old")
    for classes in (3, 4):
        fixed(out / "x.xml", "openvino", classifier("litv2", num_classes=classes).eval(), verify=False)
        assert (out / "x.xml").is_symlink()
        assert (out / "x.bin").is_symlink()
        assert sorted(file.name for file in store.iterdir()) == ["blob-x.bin", "blob-x.xml"]
        assert sorted(file.name for file in out.iterdir()) == ["x.bin", "x.xml", "x.xml.report.json"]
        assert len(litevit.load_exported(out / "x.xml").classes) == classes


def test_links_to_another_disk_and_to_a_package(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk here")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        # The file itself is staged where it will lie; what belongs to it may lie elsewhere.
        (tmp_path / "x.onnx.report.json").symlink_to(Path(other) / "report")
        (tmp_path / "x.onnx").symlink_to(Path(other) / "graph")
        with staging(tmp_path / "x.onnx") as staged:
            assert staged.parent.stat().st_dev == memory.stat().st_dev
            staged.write_text("new")
            staged.with_name("x.onnx.report.json").write_text("{}")
            publish(staged, tmp_path / "x.onnx")
        assert [(Path(other) / name).read_text() for name in ("graph", "report")] == ["new", "{}"]
        assert sorted(file.name for file in Path(other).iterdir()) == ["graph", "report"]
        (tmp_path / "x.onnx").unlink()
        with staging(tmp_path / "x.onnx") as staged:
            staged.write_text("here")
            staged.with_name("x.onnx.report.json").write_text("[]")
            publish(staged, tmp_path / "x.onnx")
        assert (Path(other) / "report").read_text() == "[]"
        assert sorted(file.name for file in tmp_path.iterdir()) == ["x.onnx", "x.onnx.report.json"]
    (tmp_path / "real.mlpackage").mkdir()
    (tmp_path / "real.mlpackage" / "Manifest.json").write_text("old")
    (tmp_path / "x.mlpackage").symlink_to(tmp_path / "real.mlpackage")
    with staging(tmp_path / "x.mlpackage") as staged:
        staged.mkdir()
        (staged / "Manifest.json").write_text("new")
        publish(staged, tmp_path / "x.mlpackage")
    assert (tmp_path / "x.mlpackage").is_symlink()
    assert (tmp_path / "real.mlpackage" / "Manifest.json").read_text() == "new"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("format", [name for name, kind in formats().items() if kind.quantize])
def test_what_int8_needs_is_asked_for_before_anything_is_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    kind = formats()[format]
    Image.new("RGB", (80, 70)).save(tmp_path / "a.png")
    monkeypatch.setattr(exporter, "open_source", lambda *_, **__: pytest.fail("a model was opened"))
    needed, there = {*kind.needs, *kind.needs_int8}, importlib.util.find_spec
    for gone in needed:

        def find_spec(name: str, *rest: str, gone: str = gone) -> object:
            return there(name, *rest) if name not in needed else None if name == gone else object()

        extra = "int8" if gone in kind.needs_int8 else format
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", find_spec)
            with pytest.raises(ImportError, match=rf"needs? {gone}: .*\[{extra}\]'"):
                fixed(tmp_path / f"x{kind.suffix}", format, int8=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
