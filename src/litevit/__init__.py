"""litevit: LIT, LITv2 and LVT, efficient hierarchical vision Transformers, on today's PyTorch."""

from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.hilo import HiLo
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.loading import LoadReport, load_weights
from litevit.zoo import ModelInfo, create_backbone, create_model, info, list_models

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
    "info",
    "list_models",
    "load_weights",
]
