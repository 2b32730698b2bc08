"""Builds and loads the C++ kernels of this folder: for Linux on x86 with AVX-512, with whatever C++ compiler is there.

Compiling takes seconds, once: the library stays in the cache folder, under a name that says what it was made from.
Without a compiler, or on another processor, there is no library, and PyTorch's own operators run.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from litevit.files import cache_dir, put_in_place

SOURCES = Path(__file__).parent
FLAGS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp"),
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mfma"),
)
TIMEOUT = 300  # seconds


def runs_here() -> bool:
    """Whether the processor and the system are those the kernels are written for."""
    return (
        platform.system() == "Linux"
        and platform.machine() == "x86_64"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def openmp_runtime() -> Path | None:
    """The OpenMP library that PyTorch runs on, or None where it cannot be told.

    The kernels are linked to the same one. A second one in a process would have threads of its own, and those of the
    first, which wait for work by spinning, would take their processors. Some wheels of PyTorch carry theirs under a
    name that no linker asks for.
    """
    try:
        torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        address = ctypes.cast(torch_library.omp_get_max_threads, ctypes.c_void_p).value or 0
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                span, *_, path = line.rstrip("\n").split(maxsplit=5)
                first, _, last = span.partition("-")
                if int(first, 16) <= address < int(last, 16):
                    return Path(path)
    except (OSError, AttributeError):
        return None
    return None


def _is_whole(library: Path) -> bool:
    """A library that was cut short would end the process when it is loaded."""
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest() == library.with_suffix(".sha256").read_text(
            encoding="utf-8"
        )
    except OSError:
        return False


def build(folder: Path, compiler: Sequence[str]) -> Path:
    """Compiles the sources into a shared library, unless one made from the same sources is there.

    Args:
        folder: where it goes; made if missing.
        compiler: command of a C++ compiler with the options of GCC.

    Returns:
        The library's path.

    Raises:
        OSError: the folder cannot be written to, or the compiler not be started.
        subprocess.SubprocessError: the compiler failed or took too long; what it said is in `stderr`.
    """
    files = sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")])
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True, timeout=TIMEOUT).stdout
    runtime = openmp_runtime()
    # Named first: the compiler's own, which `-fopenmp` adds at the end, is then not needed.
    linked = ["-Wl,--as-needed", str(runtime)] if runtime else []
    digest = hashlib.sha256(version + " ".join([*compiler, *FLAGS, runtime.name if runtime else ""]).encode())
    for file in files:
        digest.update(file.read_bytes())
    library = folder / f"kernels_{digest.hexdigest()[:16]}.so"
    if _is_whole(library):
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch_folder = tempfile.TemporaryDirectory(dir=folder)  # beside it, so that the last step is a rename
    except OSError as error:
        raise OSError(
            f"the cache folder {folder} cannot be written to ({error.strerror}); set LITEVIT_CACHE to one that can"
        ) from None
    print("litevit: compiling C++ kernels for this processor, once (about 10 s)", file=sys.stderr)
    with scratch_folder as scratch:
        made, record = Path(scratch) / library.name, Path(scratch) / "sha256"
        sources = [str(file) for file in files if file.suffix == ".cpp"]
        command = [*compiler, *FLAGS, *sources, *linked, "-o", str(made)]
        subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT)
        record.write_text(hashlib.sha256(made.read_bytes()).hexdigest(), encoding="utf-8")
        put_in_place(made, library)
        put_in_place(record, library.with_suffix(".sha256"))
    return library


_loaded: ctypes.CDLL | None = None


def library() -> ctypes.CDLL | None:
    """The kernels, if `make` has made or found them in this process."""
    return _loaded


@functools.cache
def make() -> bool:
    """Loads the kernels, compiling them first where this machine has not yet; `optimize_for_inference` calls it.

    Returns:
        Whether they are there. Where they could be but cannot be had, a warning says why.
    """
    global _loaded
    if not runs_here():
        return False
    chosen = os.environ.get("CXX")
    try:
        compiler = shlex.split(chosen or "g++") or ["g++"]
        if not chosen and shutil.which(compiler[0]) is None:
            return False  # a machine without a compiler is nothing to warn of
        _loaded = ctypes.CDLL(str(build(cache_dir() / "kernels", compiler)))
        return True
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").splitlines()
        first = next((line for line in said if "error" in line), str(error))
        reason = f"the compiler {chosen or 'g++'} (CXX, else g++) failed: {first}"
    except FileNotFoundError:
        reason = f"the compiler {chosen or 'g++'} (CXX, else g++) was not found"
    except (OSError, RuntimeError, ValueError) as error:  # the folder, a library of another system, no home, quotes
        reason = str(error)
    message = f"litevit's C++ kernels cannot be had, PyTorch's run instead (slower): {reason}"
    warnings.warn(message, RuntimeWarning, stacklevel=3)  # whoever called optimize_for_inference
    return False
