"""litevit: LIT, LITv2 and LVT, efficient hierarchical vision Transformers, on today's PyTorch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` imports on first use
    from litevit.checkpoints.load import LoadReport as LoadReport
    from litevit.checkpoints.load import load_weights as load_weights
    from litevit.deploy import export as export
    from litevit.deploy import load_exported as load_exported
    from litevit.jobs.preprocessing import Preprocessing as Preprocessing
    from litevit.jobs.preprocessing import preprocessing as preprocessing
    from litevit.jobs.runs import Run as Run
    from litevit.layers.csa import ConvolutionalSelfAttention as ConvolutionalSelfAttention
    from litevit.layers.deformable_merging import DeformableTokenMerging as DeformableTokenMerging
    from litevit.layers.hilo import HiLo as HiLo
    from litevit.layers.rasa import RecursiveAtrousSelfAttention as RecursiveAtrousSelfAttention
    from litevit.models import ModelInfo as ModelInfo
    from litevit.models import create_backbone as create_backbone
    from litevit.models import create_model as create_model
    from litevit.models import info as info
    from litevit.models import list_models as list_models
    from litevit.optimize import optimize_for_inference as optimize_for_inference
    from litevit.optimize import optimize_for_training as optimize_for_training

    run = Run.open

__version__ = "0.2.0"

# Public name -> where it lives. Imported on first use, so that `import litevit` waits for nothing.
_PUBLIC = {
    "ConvolutionalSelfAttention": "litevit.layers.csa",
    "DeformableTokenMerging": "litevit.layers.deformable_merging",
    "HiLo": "litevit.layers.hilo",
    "LoadReport": "litevit.checkpoints.load",
    "ModelInfo": "litevit.models",
    "Preprocessing": "litevit.jobs.preprocessing",
    "RecursiveAtrousSelfAttention": "litevit.layers.rasa",
    "Run": "litevit.jobs.runs",
    "create_backbone": "litevit.models",
    "create_model": "litevit.models",
    "export": "litevit.deploy",
    "info": "litevit.models",
    "list_models": "litevit.models",
    "load_exported": "litevit.deploy",
    "load_weights": "litevit.checkpoints.load",
    "optimize_for_inference": "litevit.optimize",
    "optimize_for_training": "litevit.optimize",
    "preprocessing": "litevit.jobs.preprocessing",
}

__all__ = [*sorted([*_PUBLIC, "run"])]

_SUBMODULES = (
    "adapters",
    "app",
    "backbones",
    "bench",
    "checkpoints",
    "data",
    "deploy",
    "engine",
    "explain",
    "jobs",
    "layers",
    "metrics",
    "models",
    "ops",
    "optimize",
    "recipes",
    "tasks",
    "zoo",
)


def __getattr__(name: str) -> Any:
    """Public names and subpackages, on first use."""
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    elif name == "run":
        value = importlib.import_module("litevit.jobs.runs").Run.open
    elif name in _SUBMODULES:
        value = importlib.import_module(f"litevit.{name}")
    else:
        raise AttributeError(f"module 'litevit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
