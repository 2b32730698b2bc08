"""The device a command runs on."""

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


def _count(kind: str) -> int:
    return torch.cuda.device_count() if kind == "cuda" else 1
