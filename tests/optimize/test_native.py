"""The C++ kernels' build: once a machine, whole or not at all, and a word where it cannot be."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles C++, and there is no g++")
def test_every_builder_takes_a_command(tmp_path):
    """The kernels', and PyTorch's for `run.compile`."""
    code = (
        "import torch\nfrom litevit.engine.parallel import _try_to_compile\nfrom litevit.optimize.native import build\n"
        "_try_to_compile(torch.device('cpu'))\nassert build.make() == build.runs_here()"
    )
    environment = os.environ | {
        "CXX": "env LANG=C g++",
        "LITEVIT_CACHE": str(tmp_path / "kernels"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cannot be had" not in done.stderr


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


def openmp_of(library: ctypes.CDLL) -> int:
    """Where the OpenMP runtime lies that a library calls."""
    return ctypes.cast(library.omp_get_max_threads, ctypes.c_void_p).value


@pytest.mark.skipif(not build.runs_here() or shutil.which("g++") is None, reason="no AVX-512, or no C++ compiler")
def test_the_kernels_share_pytorchs_openmp():
    """Two in a process are two teams of threads, one of which spins while the other works."""
    assert build.make()
    runtime = build.openmp_runtime()
    assert runtime is not None
    assert "omp" in runtime.name
    pytorchs = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    assert openmp_of(build.library()) == openmp_of(pytorchs)


@pytest.mark.skipif(not build.runs_here() or shutil.which("g++") is None, reason="no AVX-512, or no C++ compiler")
def test_a_runtime_under_a_name_of_its_own_is_linked(tmp_path, monkeypatch):
    """As wheels of PyTorch up to 2.13 carry it: no linker that is told `-lgomp` finds this one."""
    source = "int omp_get_max_threads() { return 1; } int omp_get_num_threads() { return 1; }"
    runtime = tmp_path / "libgomp-a34b3233.so.1"
    made = ["g++", "-shared", "-fPIC", "-x", "c", "-", "-o", str(runtime), f"-Wl,-soname,{runtime.name}"]
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    subprocess.run(made, input=source, text=True, check=True)
    (tmp_path / "kernel.cpp").write_text('#include <omp.h>\nextern "C" int f() { return omp_get_max_threads(); }')
    monkeypatch.setattr(build, "openmp_runtime", lambda: runtime)
    library = build.build(tmp_path / "out", ["g++"])
    monkeypatch.setattr(build, "openmp_runtime", lambda: None)
    other = build.build(tmp_path / "out", ["g++"])
    assert library != other
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    needed = [
        subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True, env=environment).stdout
        for path in (library, other)
    ]
    assert str(runtime) in needed[0]
    assert "libgomp.so" not in needed[0]
    assert "libgomp.so" in needed[1]
