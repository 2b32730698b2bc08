"""Feed-forward networks in pieces that stay in cache: inference on the CPU.

At 224 x 224 and batch 8 the hidden map of LITv2-S's first stage is 38.5 MB. Written and read back whole, every pass
over it goes to memory, and the allocator asks the system for fresh, zeroed pages each time. Pieces are images, or rows
of a large image. Shapes: B batch, H x W grid, C channels, K hidden channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.mlp import MLP
from litevit.optimize.linear import OneDNNLinear, add_product, packed, product
from litevit.optimize.native import kernels
from litevit.optimize.operators import is_watched, operator, sum_of_products, takes
from litevit.optimize.processor import prefers_onednn

BLOCK_BYTES = 5 << 20  # hidden bytes of one piece in float32 (bfloat16: half); measured, see docs/performance.md
WHOLE_BYTES = {"mlp": 8 << 20, "conv_ffn": 5 << 20}  # hidden maps up to this run in one piece; measured likewise


def _block_bytes() -> int:
    return BLOCK_BYTES * max(1, torch.get_num_threads() // 2)


def _expand(x: Tensor, weight: Tensor, bias: Tensor, buffer: Tensor | None, activation: str = "none") -> Tensor:
    """activation(x @ weight.T + bias). Args: x: (L, C); buffer: (L, K), used where the library can fill it."""
    if buffer is None or prefers_onednn():
        return product(x, weight, bias, activation)
    out = torch.addmm(bias, x, weight.t(), out=buffer)
    return torch.ops.aten.gelu_(out) if activation == "gelu" else out


def _reduce(out: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None) -> None:
    """out <- hidden @ weight.T + bias (+ added)."""
    if prefers_onednn():
        made = product(hidden, weight, bias)
        _ = out.copy_(made) if added is None else torch.add(made, added, out=out)
        return
    torch.addmm(bias, hidden, weight.t(), out=out)
    if added is not None:
        out += added


# ------------------------------------------------------------ MLP


def _mlp_reference(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, added: Tensor | None) -> Tensor:
    out = F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)
    return out if added is None else added + out


def _mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, added: Tensor | None) -> Tensor:
    tokens = x.reshape(-1, x.shape[-1])
    rows, K = tokens.shape[0], w1.shape[0]
    w1, w2 = packed(w1, rows), packed(w2, rows)
    residual = None if added is None else added.reshape(tokens.shape)
    if rows * K * x.element_size() <= WHOLE_BYTES["mlp"]:
        hidden = _expand(tokens, w1, b1, None, "gelu")
        out = product(hidden, w2, b2) if residual is None else add_product(hidden, w2, b2, residual)
        return out.view(x.shape)
    out = torch.empty(tokens.shape, dtype=x.dtype)
    step = min(rows, max(64, _block_bytes() // (4 * K)))
    buffer = None if prefers_onednn() else tokens.new_empty(step, K)
    for start in range(0, rows, step):
        piece = slice(start, start + step)
        part = tokens[piece]
        hidden = _expand(part, w1, b1, None if buffer is None else buffer[: part.shape[0]], "gelu")
        _reduce(out[piece], hidden, w2, b2, None if residual is None else residual[piece])
    return out.view(x.shape)


cpu_mlp = operator(
    "cpu_mlp(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor? added) -> Tensor",
    kernel=_mlp,
    reference=_mlp_reference,
    flops=lambda x, w1, b1, w2, b2, added: sum_of_products(x, w1, w2),
)


class BlockedMLP(MLP):
    """MLP in pieces, GELU inside the product; replaces MLP in inference. Absorbs `fc1` and `fc2`. Exact to rounding."""

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Args: x: (..., C); added: as x, added to the result. Returns: as x."""
        fc1, fc2 = self.fc1, self.fc2
        if _untouched(fc1, fc2):
            parts = (fc1.weight, fc1.bias, fc2.weight, fc2.bias)
            if takes(x, *parts, added):
                return cpu_mlp(x, *parts, added)
        out = super().forward(x)
        return out if added is None else added + out


# ------------------------------------------------------------ ConvFFN


def _conv_ffn_reference(
    x: Tensor, w1: Tensor, b1: Tensor, kernel: Tensor, shift: Tensor, w2: Tensor, b2: Tensor, added: Tensor | None
) -> Tensor:
    hidden = F.linear(x, w1, b1).permute(0, 3, 1, 2)
    hidden = F.conv2d(hidden, kernel, shift, padding=1, groups=kernel.shape[0]).permute(0, 2, 3, 1)
    out = F.linear(F.gelu(hidden), w2, b2)
    return out if added is None else added + out


def _mix(hidden: Tensor, kernel: Tensor, shift: Tensor, pad_rows: bool) -> Tensor:
    """GELU(DWConv3x3(hidden)). Args: hidden: (B, H, W, K). Returns: (B * h * W, K), h = H, or H - 2 without padding."""
    groups = kernel.shape[0]
    if kernels.convolves(hidden, kernel):
        return kernels.depthwise_gelu(hidden, kernel, shift, pad_rows=pad_rows).view(-1, groups)
    image, padding = hidden.permute(0, 3, 1, 2), (int(pad_rows), 1)
    if prefers_onednn():
        mixed = torch.ops.mkldnn._convolution_pointwise(
            image, kernel, shift, padding, (1, 1), (1, 1), groups, "gelu", [], "none"
        )
    else:
        mixed = torch.ops.aten.gelu_(F.conv2d(image, kernel, shift, padding=padding, groups=groups))
    return mixed.permute(0, 2, 3, 1).reshape(-1, groups)


def _conv_ffn(
    x: Tensor, w1: Tensor, b1: Tensor, kernel: Tensor, shift: Tensor, w2: Tensor, b2: Tensor, added: Tensor | None
) -> Tensor:
    x = x.contiguous()
    B, H, W, C = x.shape
    K = w1.shape[0]
    w1, w2 = packed(w1, B * H * W), packed(w2, B * H * W)
    image_bytes = 4 * H * W * K
    if B * H * W * K * x.element_size() <= WHOLE_BYTES["conv_ffn"]:
        mixed = _mix(product(x, w1, b1).view(B, H, W, K), kernel, shift, True)
        residual = None if added is None else added.reshape(-1, C)
        whole = product(mixed, w2, b2) if residual is None else add_product(mixed, w2, b2, residual)
        return whole.view(x.shape)
    group = max(1, _block_bytes() // image_bytes) if image_bytes <= 2 * _block_bytes() else 0
    out = torch.empty_like(x)
    if not group:
        for i in range(B):
            _by_rows(x[i], out[i], w1, b1, kernel, shift, w2, b2, None if added is None else added[i])
        return out
    buffer = None if prefers_onednn() else x.new_empty(min(group, B) * H * W, K)
    for i in range(0, B, group):
        tokens = x[i : i + group].reshape(-1, C)
        hidden = _expand(tokens, w1, b1, None if buffer is None else buffer[: tokens.shape[0]])
        mixed = _mix(hidden.view(-1, H, W, K), kernel, shift, True)
        residual = None if added is None else added[i : i + group].reshape(tokens.shape)
        _reduce(out[i : i + group].view(tokens.shape), mixed, w2, b2, residual)
    return out


def _by_rows(
    image: Tensor,
    out: Tensor,
    w1: Tensor,
    b1: Tensor,
    kernel: Tensor,
    shift: Tensor,
    w2: Tensor,
    b2: Tensor,
    added: Tensor | None,
) -> None:
    """One image (H, W, C). The buffer holds a few hidden rows and one more on either side, which the kernel reads."""
    H, W, C = image.shape
    K = kernel.shape[0]
    rows = max(2, _block_bytes() // (4 * W * K))
    buffer = image.new_empty(rows + 2, W, K)
    buffer[0].zero_()  # the row above the image
    filled, done_in, done_out = 1, 0, 0
    while done_out < H:
        n = min(rows + 2 - filled, H - done_in)
        if n:
            piece = image[done_in : done_in + n].reshape(n * W, C)
            target = buffer[filled : filled + n].view(n * W, K)
            hidden = _expand(piece, w1, b1, target)
            if hidden.data_ptr() != target.data_ptr():
                target.copy_(hidden)
            done_in, filled = done_in + n, filled + n
        if done_in == H and filled < rows + 2:
            buffer[filled].zero_()  # the row below the image
            filled += 1
        ready = filled - 2
        mixed = _mix(buffer[None, :filled], kernel, shift, False)
        residual = None if added is None else added[done_out : done_out + ready].reshape(ready * W, C)
        _reduce(out[done_out : done_out + ready].view(ready * W, C), mixed, w2, b2, residual)
        done_out += ready
        if done_out < H:
            buffer[:2] = buffer[ready:filled].clone()
            filled = 2


cpu_conv_ffn = operator(
    "cpu_conv_ffn(Tensor x, Tensor w1, Tensor b1, Tensor kernel, Tensor shift, Tensor w2, Tensor b2, Tensor? added)"
    " -> Tensor",
    kernel=_conv_ffn,
    reference=_conv_ffn_reference,
    flops=lambda x, w1, b1, kernel, shift, w2, b2, added: (
        sum_of_products(x, w1, w2) + sum_of_products(x, (kernel[0], 9))
    ),
)


class BlockedConvFFN(ConvFFN):
    """ConvFFN in pieces, GELU inside the depthwise convolution; replaces ConvFFN in inference.

    Absorbs `fc1`, `dwconv` and `fc2`. Exact to rounding.
    """

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Args: x: (B, H, W, C); added: as x, added to the result. Returns: as x."""
        fc1, dwconv, fc2 = self.fc1, self.dwconv, self.fc2
        if _untouched(fc1, dwconv, fc2):
            parts = (fc1.weight, fc1.bias, dwconv.weight, dwconv.bias, fc2.weight, fc2.bias)
            if takes(x, *parts, added):
                return cpu_conv_ffn(x, *parts, added)
        out = super().forward(x)
        return out if added is None else added + out


def _untouched(*absorbed: nn.Module) -> bool:
    """Whether nobody has put something else (an adapter, a parametrisation) in place of what a twin absorbs, or a hook
    (old weight norms and pruning make a weight in one)."""
    return all(type(m) in (nn.Linear, OneDNNLinear, nn.Conv2d) and not is_watched(m) for m in absorbed)
