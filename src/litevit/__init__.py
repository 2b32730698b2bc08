"""litevit: LIT, LITv2 and LVT, efficient hierarchical vision Transformers, on today's PyTorch."""

__version__ = "0.1.0"
