"""A device that is not there: a tensor that says "meta", holds numbers, and refuses what a device refuses.

Refused: float64 (MPS has none), an operation on tensors of two devices (numbers without dimensions and indices may
lie on the CPU, as CUDA allows), and numpy. `to("cpu")`, `cpu()`, `item()` and `tolist()` leave the device.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
MOVES = {aten._to_copy.default, aten.copy_.default}


class OnDevice(Tensor):
    """PyTorch asks of "meta", alone among devices, neither a driver nor threads for the backward pass."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        if held.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device="meta", requires_grad=False
        )
        made.held = held
        return made

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None) -> Tensor:  # type: ignore[override]
        return OnDevice(torch.tensor(data, dtype=dtype or self.dtype))

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert the device's tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.held})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    there = [x for x in leaves if isinstance(x, OnDevice)]
    checked = tree_leaves((args[0], args[2:])) if function in INDEXING else leaves
    strangers = [x for x in checked if isinstance(x, Tensor) and not isinstance(x, OnDevice) and x.dim() > 0]
    if there and strangers and function not in MOVES:
        raise RuntimeError(f"{function}: expected all tensors to be on the same device, found the device and cpu")
    target = kwargs.get("device")
    stays = bool(there)
    if target is not None:
        stays = torch.device(target).type == "meta"
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if function is aten.copy_.default:
        stays = isinstance(args[0], OnDevice)
    bare = tree_map(lambda x: x.held if isinstance(x, OnDevice) else x, (args, kwargs))
    out = function(*bare[0], **bare[1])
    if function is aten.copy_.default or function._schema.is_mutable:
        first = next((x for x in leaves if isinstance(x, Tensor)), None)
        if first is not None and isinstance(out, Tensor):
            return first if function._schema.name.endswith("_") else wrap(out, stays)
    return tree_map(lambda x: wrap(x, stays), out)


def wrap(x: Any, stays: bool) -> Any:
    return OnDevice(x) if stays and isinstance(x, Tensor) and not isinstance(x, OnDevice) else x


class Machine(TorchDispatchMode):
    """Where tensors are made: `torch.zeros(3, device=x.device)`."""

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


class Autocast(torch.autocast):
    """Knows the device as it knows the CPU."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any):
        super().__init__("cpu" if device_type == "meta" else device_type, *args, **kwargs)


_as_tensor = torch.as_tensor


def as_tensor(data: Any, *, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    """On "meta" PyTorch's makes a tensor without asking the mode."""
    made = _as_tensor(data, dtype=dtype)
    return put(made) if device is not None and torch.device(device).type == "meta" else made


def put(x: Any) -> Any:
    """Tensors in lists and dictionaries, on the device."""
    return tree_map(lambda t: OnDevice(t.detach()) if isinstance(t, Tensor) else t, x)


def put_model(model: nn.Module) -> nn.Module:
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[key] = nn.Parameter(OnDevice(parameter.detach()))
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = OnDevice(buffer)
    return model
