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
    digest = hashlib.sha256(version + " ".join([*compiler, *FLAGS]).encode())
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
        command = [*compiler, *FLAGS, *sources, "-o", str(made)]
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
