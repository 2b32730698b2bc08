"""Training and evaluation for every task. Public names are imported on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` imports
    from litevit.engine.config import ModelConfig as ModelConfig
    from litevit.engine.config import OptimConfig as OptimConfig
    from litevit.engine.config import Recipe as Recipe
    from litevit.engine.config import RunConfig as RunConfig
    from litevit.engine.config import ScheduleConfig as ScheduleConfig
    from litevit.engine.optim import param_groups as param_groups
    from litevit.engine.train import FitResult as FitResult
    from litevit.engine.train import Task as Task
    from litevit.engine.train import fit as fit

_PUBLIC = {
    "FitResult": "train",
    "ModelConfig": "config",
    "OptimConfig": "config",
    "Recipe": "config",
    "RunConfig": "config",
    "ScheduleConfig": "config",
    "Task": "train",
    "fit": "train",
    "param_groups": "optim",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'litevit.engine' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"litevit.engine.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
