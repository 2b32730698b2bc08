"""The device a command runs on."""

import functools
import os
import platform
import time
from pathlib import Path

import torch


def find_device(name: str = "auto") -> torch.device:
    """The device, checked to be there. "auto": CUDA, MPS or CPU, the first there is.

    Raises:
        ValueError: this machine, or this build of PyTorch, has no such device.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in here.items() if there))
    kind, _, index = name.partition(":")
    known = here.get(kind, False) and (not index or (index.isdigit() and int(index) < _count(kind)))
    if not known:
        raise ValueError(
            f"Device {name!r} is not available here: there is {', '.join(k for k, there in here.items() if there)}. "
            "Use one of them, or auto."
        )
    return torch.device(name)


NO_MEMORY = (  # the last is oneDNN's
    "out of memory", "not enough memory", "bad_alloc", "allocate memory", "unable to mmap",
    "could not create a primitive",
)  # fmt: skip


def out_of_memory(error: BaseException) -> bool:
    """Whether this is the system's or a device's refusal of memory; PyTorch mostly has no kind of its own for it."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in NO_MEMORY)


def hardware(device: torch.device | str) -> str:
    """What a figure was measured on: the GPU's name, or the processor's and its threads."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {torch.get_num_threads()} of {os.cpu_count()} threads" + (", MPS" * (kind == "mps"))


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def multiplies_bfloat16(device: torch.device | str) -> bool:
    """Whether a device has units for products in bfloat16: CUDA from Ampere on; AVX512-BF16, AMX or ARM's on a CPU.

    Where it has none PyTorch converts every operand back and forth, at a tenth of float32's speed and less.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in every PyTorch; before, oneDNN's answer has to do
    return ask is None or any(ask().get(unit, False) for unit in ("avx512_bf16", "amx_bf16", "bf16"))


@functools.cache
def gains_from_bfloat16(device: torch.device | str) -> bool:
    """Whether products in bfloat16 are faster than in float32.

    On a CPU one product is timed in both (20 ms, once): the units alone do not tell. With AVX512-BF16, AMD's Zen 4
    and 5 gain; a Xeon (Emerald Rapids) whose AMX tiles a virtual machine hides has 0.55 of float32's speed.
    """
    if not multiplies_bfloat16(device):
        return False
    if torch.device(device).type != "cpu":
        return True
    pairs = [
        (torch.ones(512, 384, dtype=dtype), torch.ones(768, 384, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    ]
    best = [float("inf")] * 2
    for _ in range(8):
        for i, (x, weight) in enumerate(pairs):
            start = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            best[i] = min(best[i], time.perf_counter() - start)
    return best[1] < best[0]


def has_float64(device: torch.device | str) -> bool:
    """Whether a device computes in float64; Apple's MPS does not."""
    return torch.device(device).type != "mps"


def _count(kind: str) -> int:
    return torch.cuda.device_count() if kind == "cuda" else 1
