"""Nothing half-written: two exports into one path, disks that are full, converters that fail."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from families import classifier
from PIL import Image
from small import fixed, needs
from torch import nn

import litevit
from litevit.deploy.formats import Job


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
