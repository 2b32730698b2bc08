"""One room for speed: copies of a model in which modules are replaced by faster ones of the same function."""

from litevit.optimize.inference import optimize_for_inference
from litevit.optimize.training import optimize_for_training

__all__ = ["optimize_for_inference", "optimize_for_training"]
