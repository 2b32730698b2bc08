"""Training and evaluation for every task."""

from litevit.engine.config import ModelConfig, OptimConfig, Recipe, RunConfig, ScheduleConfig
from litevit.engine.optim import param_groups
from litevit.engine.train import FitResult, Task, fit

__all__ = [
    "FitResult",
    "ModelConfig",
    "OptimConfig",
    "Recipe",
    "RunConfig",
    "ScheduleConfig",
    "Task",
    "fit",
    "param_groups",
]
