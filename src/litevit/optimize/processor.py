"""What this processor is: the questions that speed depends on, each asked in one place."""

import functools

import torch

from litevit import devices


@functools.cache
def has_avx512() -> bool:
    """Whether PyTorch's kernels, and so ours, may use AVX-512. Set ATEN_CPU_CAPABILITY=avx2 to say no."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has units for products in bfloat16 (AVX512-BF16, AMX, or ARM's)."""
    return devices.multiplies_bfloat16("cpu")


@functools.cache
def has_tile_units() -> bool:
    """Whether there are Intel's AMX tiles, which PyTorch's bfloat16 attention uses; ours was not measured there."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in every PyTorch
    return ask is not None and bool(ask().get("amx_tile", False))


def prefers_onednn() -> bool:
    """Whether oneDNN's float32 products are faster than MKL's, which `F.linear` takes.

    Measured: by 8 to 30 % on AMD's Zen 4, twice on Zen 5, even on Zen 3 (AVX2); by 2 to 10 % on a Xeon (Emerald
    Rapids), with weights that are packed.
    """
    return has_avx512() and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
