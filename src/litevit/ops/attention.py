"""softmax(scale q k^T + bias) v by PyTorch's kernel, or by litevit's where that was compiled (docs/performance.md).

Shapes: B batch, N heads, L queries, M keys, D head channels.
"""

import torch.nn.functional as F
from torch import Tensor

from litevit.optimize.native import kernels


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, scale: float | None = None, native: bool = False
) -> Tensor:
    """Scaled dot-product attention.

    Args:
        q: (B, N, L, D).
        k, v: (B, N, M, D).
        bias: added to the logits, None or what broadcasts to (B, N, L, M); rounded to q's dtype.
        scale: factor on the logits; None takes D ** -0.5.
        native: take the C++ kernel where it serves: inference on a CPU with AVX-512, D = 32 or 64.

    Returns:
        (B, N, L, D).
    """
    if bias is not None:
        bias = bias.to(q.dtype)
    if native and kernels.attends(q, k, v, bias):
        return kernels.attention(q, k, v, bias, q.shape[-1] ** -0.5 if scale is None else scale)
    # The CPU kernel takes masks of two or four axes, dense ones; with three it falls back, 4 times slower.
    mask = None if bias is None else bias.contiguous()
    if mask is not None and mask.ndim == 3:
        mask = mask[None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
