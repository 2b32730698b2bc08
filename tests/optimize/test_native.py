"""The C++ kernels' build: once a machine, whole or not at all, and a word where it cannot be."""

import subprocess

import pytest

from litevit.optimize.native import build


@pytest.fixture(autouse=True)
def what_was_loaded(monkeypatch):
    """A test that loads a library leaves the one that was there."""
    monkeypatch.setattr(build, "_loaded", build._loaded)


def compiler(folder, script: str) -> str:
    """A compiler that has a version and otherwise does what the script says; $last is the path after -o."""
    path = folder / "c++"
    path.write_text(f'#!/bin/sh\nfor last; do :; done\nif [ "$last" = --version ]; then echo 1.0; exit; fi\n{script}\n')
    path.chmod(0o755)
    return str(path)


def test_the_library_is_built_once(tmp_path):
    cxx = [compiler(tmp_path, 'echo run >> "$0.log"; echo made > "$last"')]
    folder = tmp_path / "cache" / "kernels"
    first = build.build(folder, cxx)
    assert first.read_text() == "made\n"
    assert build.build(folder, cxx) == first
    assert (tmp_path / "c++.log").read_text() == "run\n"
    assert {path.name for path in folder.iterdir()} == {first.name, first.stem + ".sha256"}  # nothing half-made
    first.write_text("ma")  # as after a full disk
    assert build.build(folder, cxx).read_text() == "made\n"
    assert build.build(folder, [*cxx, "-m64"]) != first


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'x.cpp:1: error: bad flag' >&2; exit 1", "bad flag"),
        ("exit 3", "exit status 3"),
        ('echo no library > "$last"', "invalid ELF|file too short"),
    ],
)
def test_a_compiler_that_fails(tmp_path, monkeypatch, script, said):
    monkeypatch.setenv("CXX", compiler(tmp_path, script) + " -O1")
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "runs_here", lambda: True)
    with pytest.warns(RuntimeWarning, match=f"cannot be had.*({said})"):
        assert not build.make.__wrapped__()


def test_a_compiler_behind_a_launcher(tmp_path, monkeypatch):
    """`CXX="ccache g++"` is a command with its arguments, as make and CMake take it."""
    monkeypatch.setenv("CXX", "env " + compiler(tmp_path, 'echo made > "$last"'))
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "runs_here", lambda: True)
    monkeypatch.setattr(build.ctypes, "CDLL", lambda path: path)
    assert build.make.__wrapped__()
    assert (tmp_path / "cache" / "kernels").is_dir()


def test_where_they_cannot_run(monkeypatch):
    monkeypatch.setattr(build, "runs_here", lambda: True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(RuntimeWarning, match="no-such-compiler .*was not found"):
        assert not build.make.__wrapped__()
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: pytest.fail("a compiler was started"))
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    assert not build.make.__wrapped__()
    monkeypatch.undo()
    monkeypatch.setattr(build, "runs_here", lambda: False)
    assert not build.make.__wrapped__()


def test_a_folder_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("CXX", compiler(tmp_path, "true"))
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "runs_here", lambda: True)
    with pytest.warns(RuntimeWarning, match="cache folder .*Not a directory.*set LITEVIT_CACHE"):
        assert not build.make.__wrapped__()
    monkeypatch.setenv("LITEVIT_CACHE", "~no-such-user/cache")
    with pytest.warns(RuntimeWarning, match="home directory"):
        assert not build.make.__wrapped__()
