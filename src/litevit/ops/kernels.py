"""The switch for the Triton kernels: off, `backend="auto"` never takes them, until `use("triton")`.

They have never run on a GPU (they were checked with Triton's interpreter), so nothing chooses them by itself. The
switch is one value for the whole process; setting it costs a recompilation of compiled models.
"""

import importlib.util
from typing import Literal, Self

import torch
from torch import Tensor

Kernels = Literal["torch", "triton"]
KERNELS: tuple[Kernels, ...] = ("torch", "triton")

HAS_TRITON = importlib.util.find_spec("triton") is not None
_chosen: Kernels = "torch"


class use:  # noqa: N801 - called like a function, as torch.no_grad is
    """Chooses what `backend="auto"` may take, at once; as a context manager, until the end of the block.

    Where Triton cannot run (it is not installed, or the tensor is on a CPU) the choice changes nothing.

    Args:
        kernels: "torch" or "triton".

    Example:
        >>> from litevit.ops import kernels
        >>> with kernels.use("triton"):
        ...     kernels.chosen()
        'triton'
        >>> kernels.chosen()
        'torch'
    """

    def __init__(self, kernels: Kernels):
        if kernels not in KERNELS:
            raise ValueError(f"kernels.use: must be one of {KERNELS}, got {kernels!r}")
        global _chosen
        self._before = _chosen
        _chosen = kernels

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        global _chosen
        _chosen = self._before


def chosen() -> Kernels:
    """What `use` chose last."""
    return _chosen


@torch.compiler.assume_constant_result
def _is_interpreted() -> bool:
    """Whether this process runs Triton kernels in Python: they were imported under TRITON_INTERPRET=1."""
    import triton

    from litevit.ops.triton.merging import sample_forward

    return not isinstance(sample_forward, triton.runtime.JITFunction)


def takes_triton(x: Tensor, backend: str) -> bool:
    """Whether an operator runs its Triton kernel: it was asked for, by name or by `use`, and can run on x's device."""
    if backend != "triton" and not (backend == "auto" and _chosen == "triton" and not torch.compiler.is_exporting()):
        return False
    return HAS_TRITON and (x.is_cuda or (x.device.type == "cpu" and _is_interpreted()))


def autocasted(x: Tensor) -> Tensor:
    """x in the dtype of the autocast region around the call, if there is one: a custom operator is not cast by it."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x
    return x.to(torch.get_autocast_dtype(device))
