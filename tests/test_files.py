"""Files that appear whole or not at all, and the cache folder."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from litevit import devices, files
from litevit.files import cache_dir, put_in_place, whole_file, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "one"
    with whole_file(path, sync=True, named=lambda written: path.with_name(written.read_text())) as temporary:
        temporary.write_text("two")
    assert (path.parent / "two").read_text() == "two"
    assert names(path.parent) == ["a.txt", "two"]


class Stopped(BaseException):
    """As KeyboardInterrupt."""


@pytest.mark.parametrize(
    ("failure", "raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OSError, r"Cannot write .*a\.txt: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), OSError, r"Cannot write .*a\.txt: Permission denied"),
        (LookupError("unexpected pos 64 vs 0"), OSError, r"No space left on device.* \(0 MB are free in .*untouched"),
        (ValueError("a mistake of the caller's"), ValueError, "^a mistake of the caller's$"),
        (Stopped(), Stopped, None),
    ],
)
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failure, raised, said):
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=11))

    def write() -> None:
        with whole_file(path, fails_with=(LookupError,)) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(raised, match=said):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full to stand for a full disk")
def test_a_full_disk(tmp_path, monkeypatch):
    """Every byte of the temporary file goes to /dev/full, which refuses it as a full disk does."""

    def on_full_disk(path: Path) -> Path:
        temporary = path.with_name(".full.tmp")
        temporary.symlink_to("/dev/full")
        return temporary

    monkeypatch.setattr(files, "temporary_name", on_full_disk)
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(OSError, match=r"Cannot write .*a\.json: No space left on device.*untouched"):
        write_json(tmp_path / "a.json", list(range(9999)))
    assert (tmp_path / "a.json").read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_folder_that_may_not_be_written_to(tmp_path):
    if os.name != "posix":
        pytest.skip("permissions of POSIX")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    code = (
        "import os, sys; from litevit.files import write_text\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: write_text(sys.argv[1], 'x')\nexcept OSError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(closed / "a.txt")], capture_output=True, text=True)
    if "Cannot write" not in done.stdout:
        pytest.skip(f"no user without permissions to be had here: {done.stderr[-200:]}")
    assert "Permission denied" in done.stdout
    assert "untouched" in done.stdout
    assert names(closed) == []


def test_folders_and_devices_are_not_written_over(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="it is a folder"):
        write_text(tmp_path / "folder", "x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"Cannot write .*a\.txt: (Not a directory|File exists)"):
        write_text(tmp_path / "file" / "a.txt", "x")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="it is no ordinary file"):
            write_text(tmp_path / "pipe", "x")
        assert (tmp_path / "pipe").is_fifo()


def test_a_symbolic_link_keeps_pointing_at_the_file(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "a.txt")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "a.txt").read_text() == "x"
    assert names(tmp_path / "disk") == ["a.txt"]


def test_a_name_as_long_as_names_may_be(tmp_path):
    write_text(tmp_path / ("x" * 255), "y")
    assert names(tmp_path) == ["x" * 255]


def test_windows_is_given_time_to_let_go(tmp_path, monkeypatch):
    """There a rename over a file that something else reads is refused, mostly for a moment."""
    really, refused = os.replace, []

    def replace(one, other):
        if len(refused) < 2:
            refused.append(other)
            raise PermissionError(errno.EACCES, "Access is denied")
        really(one, other)

    monkeypatch.setattr(files.os, "replace", replace)
    monkeypatch.setattr(files, "PATIENCE", 5.0)
    write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").read_text() == "x"
    assert len(refused) == 2
    refused.clear()
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    with pytest.raises(PermissionError):
        put_in_place(tmp_path / "a.txt", tmp_path / "b.txt")


def test_json_is_utf8_whatever_the_system_takes_for_text(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"Katze": "kätzchen 猫"}, indent=1)
    assert json.loads((tmp_path / "a.json").read_bytes().decode("utf-8")) == {"Katze": "kätzchen 猫"}
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")
    write_text(tmp_path / "b.txt", "a\nb\n")
    assert (tmp_path / "b.txt").read_bytes() == b"a\nb\n"


def test_the_cache_is_where_version_0_1_had_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LITEVIT_CACHE", "~/somewhere")
    assert cache_dir() == Path.home() / "somewhere"
    monkeypatch.delenv("LITEVIT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    import platformdirs.windows
    from platformdirs.macos import MacOS
    from platformdirs.windows import Windows

    monkeypatch.setattr(platformdirs.windows, "get_win_folder", lambda _: str(tmp_path))
    for system, expected in [(MacOS, Path.home() / "Library" / "Caches" / "litevit"), (Windows, tmp_path / "litevit")]:
        assert Path(system("litevit", appauthor=False, opinion=False).user_cache_dir) == expected
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_dir() == tmp_path / "litevit"
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        assert cache_dir() == Path.home() / ".cache" / "litevit"


def test_no_home_folder(monkeypatch):
    import platformdirs

    monkeypatch.delenv("LITEVIT_CACHE", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/litevit"))
    with pytest.raises(OSError, match=r"no home folder.*LITEVIT_CACHE"):
        cache_dir()


def test_a_device_that_is_not_here(monkeypatch):
    assert devices.find_device("cpu").type == "cpu"
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices.torch.backends.mps, "is_available", lambda: False)
    assert devices.find_device().type == "cuda"
    assert devices.find_device("cuda:1").index == 1
    for name in ("cuda:2", "mps", "tpu", "cuda:x"):
        with pytest.raises(ValueError, match=f"'{name}' is not available here: there is cuda, cpu"):
            devices.find_device(name)
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices.torch.backends.mps, "is_available", lambda: True)
    assert devices.find_device("auto").type == "mps"
