"""Attention heads in forms that every exporter takes: `torch.onnx.export` and others replace what they trace."""

import torch
import torch.nn.functional as F
from torch import Tensor


def merge_heads(x: Tensor) -> Tensor:
    """Puts the heads side by side. Args: x: (B, ..., N, L, D). Returns: (B, ..., L, N * D)."""
    x = x.transpose(-3, -2)
    if torch.compiler.is_exporting():  # else the graph has a view that only PyTorch's own attention is laid out for
        x = x.clone(memory_format=torch.contiguous_format)
    return x.flatten(-2)


def attend_windows(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias) v. Args: q, k, v: (B, h*w, N, L, D); bias: (1 or h*w, N, L, L). Returns: as q."""
    if torch.compiler.is_exporting():  # exporters know PyTorch's operator with one axis before the heads
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
