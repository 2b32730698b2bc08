"""How many modules with parameters hooks reach, per family: full backward, global and forward hooks.

    python benchmarks/hook_table.py                       # this checkout
    PYTHONPATH=OTHER/src python benchmarks/hook_table.py  # another one

Prints fired / all for one training step at 224 x 224, each kind of hook alone. Containers are not counted.
"""

import warnings

import torch
from torch import nn
from torch.nn.modules import module as nn_module

import litevit

NAMES = ("litv2_s", "lit_s", "lit_ti", "lvt", "pvt_s", "swin_ti_dtm")
CONTAINERS = (nn.ModuleList, nn.Sequential)
KINDS = ("backward", "global", "forward")


def reached(name: str, kind: str) -> tuple[int, int]:
    """Modules on which hooks of a kind fire, and all."""
    model = litevit.create_model(name).train()
    modules = {
        module: key
        for key, module in model.named_modules()
        if any(True for _ in module.parameters()) and not isinstance(module, CONTAINERS)
    }
    fired = set()

    def note(module: nn.Module, *args: object) -> None:
        fired.add(module)

    handles = []
    if kind == "global":
        handles.append(nn_module.register_module_forward_hook(note))
    for module in modules if kind != "global" else ():
        register = module.register_full_backward_hook if kind == "backward" else module.register_forward_hook
        handles.append(register(note))
    model(torch.randn(1, 3, 224, 224)).sum().backward()
    for handle in handles:
        handle.remove()
    return len(fired & modules.keys()), len(modules)


def main() -> None:
    warnings.simplefilter("ignore")  # PyTorch warns of every first layer
    print(f"{'model':14}" + "".join(f"{kind:>12}" for kind in KINDS) + f"   ({litevit.__file__})")
    for name in NAMES:
        counts = [reached(name, kind) for kind in KINDS]
        print(f"{name:14}" + "".join(f"{f'{fired}/{count}':>12}" for fired, count in counts))


if __name__ == "__main__":
    main()
