"""litevit: LIT, LITv2 and LVT, efficient hierarchical vision Transformers, on today's PyTorch."""

import importlib
from typing import Any

from litevit.checkpoints.load import LoadReport, load_weights
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.hilo import HiLo
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.models import ModelInfo, create_backbone, create_model, info, list_models

__version__ = "0.1.0"

__all__ = [
    "ConvolutionalSelfAttention",
    "DeformableTokenMerging",
    "HiLo",
    "LoadReport",
    "ModelInfo",
    "RecursiveAtrousSelfAttention",
    "create_backbone",
    "create_model",
    "export",
    "info",
    "list_models",
    "load_exported",
    "load_weights",
    "optimize_for_inference",
    "optimize_for_training",
]

_SUBMODULES = (
    "adapters",
    "checkpoints",
    "data",
    "deploy",
    "engine",
    "explain",
    "jobs",
    "layers",
    "metrics",
    "ops",
    "optimize",
    "recipes",
    "tasks",
)


def __getattr__(name: str) -> Any:
    """Subpackages and tools are imported on first use, so that `import litevit` stays light."""
    if name in ("optimize_for_inference", "optimize_for_training"):
        return getattr(importlib.import_module("litevit.optimize"), name)
    if name in ("export", "load_exported"):
        return getattr(importlib.import_module("litevit.deploy"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"litevit.{name}")
    raise AttributeError(f"module 'litevit' has no attribute {name!r}")
