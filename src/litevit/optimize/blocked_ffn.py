"""Feed-forward networks in blocks that stay in cache: inference on the CPU.

At 224 x 224 and batch 8 the hidden map of LITv2-S's first stage is 38.5 MB. Written and read back whole, every pass
over it goes to memory, and the allocator asks the system for fresh, zeroed pages each time: the block took 1.8 times
as long as it takes in pieces of one image (docs/performance.md). Pieces are images, or rows of a large image.

Shapes: B batch, H x W grid, C channels, K hidden channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.ops.linear import is_emulated, prefers_onednn, product, widened
from litevit.optimize.native import kernels

BLOCK_BYTES = 5 << 20  # hidden bytes of one piece in float32 (bfloat16: half); measured, see docs/performance.md
MIN_BYTES = {"mlp": 8 << 20, "conv_ffn": 5 << 20}  # smaller hidden maps run whole; measured likewise


def pays(x: Tensor, hidden_dim: int, *modules: nn.Module) -> bool:
    """Whether `mlp` or `conv_ffn` below should run: inference on the CPU, a large map, modules nobody has replaced."""
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return False
    if torch.compiler.is_exporting() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if any(type(m) not in (nn.Linear, nn.Conv2d) or m._forward_hooks or m._forward_pre_hooks for m in modules):
        return False
    if any(p.dtype != x.dtype or p.device != x.device for m in modules for p in m.parameters()):
        return False  # a mixture that the modules themselves should judge
    emulated = is_emulated(x)
    return (
        emulated
        or x.numel() // x.shape[-1] * hidden_dim * x.element_size()
        > MIN_BYTES["conv_ffn" if len(modules) == 3 else "mlp"]
    )


def _block_bytes() -> int:
    return BLOCK_BYTES * max(1, torch.get_num_threads() // 2)


def _expand(x: Tensor, weight: Tensor, bias: Tensor, buffer: Tensor) -> Tensor:
    """x @ weight.T + bias in weight's dtype. Args: x: (L, C); buffer: (L, K), used where the library can fill it."""
    if prefers_onednn(x, weight):
        return product(x, weight, bias)
    return torch.addmm(bias, x.to(weight.dtype), weight.t(), out=buffer)


def _mix(hidden: Tensor, kernel: Tensor, shift: Tensor, padding: tuple[int, int], native: bool) -> Tensor:
    """GELU(DWConv3x3(hidden)). Args: hidden: (B, H, W, K). Returns: (B * h * W, K)."""
    image, groups = hidden.permute(0, 3, 1, 2), kernel.shape[0]
    if native and kernels.convolves_with(hidden, kernel, shift):
        return kernels.depthwise_gelu(hidden, kernel, shift, pad_rows=padding[0] == 1).view(-1, groups)
    if prefers_onednn(image, kernel):
        mixed = torch.ops.mkldnn._convolution_pointwise(
            image, kernel, shift, padding, (1, 1), (1, 1), groups, "gelu", [], "none"
        )
    else:
        mixed = F.conv2d(image, kernel, shift, padding=padding, groups=groups)
        torch.ops.aten.gelu_(mixed)
    return mixed.permute(0, 2, 3, 1).reshape(-1, groups)


def _reduce(out: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None) -> None:
    """out <- hidden @ weight.T + bias (+ residual), rounded to out's dtype."""
    if out.dtype == hidden.dtype and not prefers_onednn(hidden, weight):
        torch.addmm(bias, hidden, weight.t(), out=out)
        if residual is not None:
            out += residual
    elif residual is None:
        out.copy_(product(hidden, weight, bias))
    else:
        torch.add(product(hidden, weight, bias), residual, out=out)


def _mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, residual: Tensor | None) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    tokens, out_tokens = x.reshape(-1, x.shape[-1]), out.view(-1, x.shape[-1])
    _, w1, b1, w2, b2 = widened(x[:0], w1, b1, w2, b2)  # type: ignore[assignment]
    L, K = tokens.shape[0], w1.shape[0]
    step = min(L, max(64, _block_bytes() // (4 * K)))
    added = None if residual is None else residual.reshape(tokens.shape)
    fused = prefers_onednn(x, w1)
    buffer = tokens.new_empty(0 if fused else step, K, dtype=w1.dtype)
    for start in range(0, L, step):
        piece = tokens[start : start + step]
        if fused:
            hidden = product(piece, w1, b1, gelu=True)
        else:
            hidden = torch.ops.aten.gelu_(_expand(piece, w1, b1, buffer[: piece.shape[0]]))
        piece_added = None if added is None else added[start : start + step]
        _reduce(out_tokens[start : start + step], hidden, w2, b2, piece_added)
    return out


def _conv_ffn(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    kernel: Tensor,
    shift: Tensor,
    w2: Tensor,
    b2: Tensor,
    residual: Tensor | None,
    native: bool = False,
) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    _, H, W, _ = x.shape
    K = w1.shape[0]
    _, w1, b1, kernel, shift, w2, b2 = widened(x[:0], w1, b1, kernel, shift, w2, b2)  # type: ignore[assignment]
    image_bytes = 4 * H * W * K
    if image_bytes <= 2 * _block_bytes():
        group = max(1, _block_bytes() // image_bytes)
        buffer = w1.new_empty(min(group, x.shape[0]) * H * W, K)
        for i in range(0, x.shape[0], group):
            tokens = x[i : i + group].reshape(-1, x.shape[-1])
            hidden = _expand(tokens, w1, b1, buffer[: tokens.shape[0]])
            mixed = _mix(hidden.view(-1, H, W, K), kernel, shift, (1, 1), native)
            added = None if residual is None else residual[i : i + group].reshape(tokens.shape)
            _reduce(out[i : i + group].view(tokens.shape), mixed, w2, b2, added)
    else:
        rows = max(2, _block_bytes() // (4 * W * K))
        for i in range(x.shape[0]):
            _by_rows(
                x[i], out[i], rows, w1, b1, kernel, shift, w2, b2, None if residual is None else residual[i], native
            )
    return out


def _by_rows(
    image: Tensor,
    out: Tensor,
    rows: int,
    w1: Tensor,
    b1: Tensor,
    kernel: Tensor,
    shift: Tensor,
    w2: Tensor,
    b2: Tensor,
    residual: Tensor | None,
    native: bool,
) -> None:
    """One image (H, W, C). The buffer holds `rows` hidden rows and one more on either side, which the kernel reads."""
    H, W, C = image.shape
    K = w1.shape[0]
    buffer = w1.new_empty(rows + 2, W, K)
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
        mixed = _mix(buffer[None, :filled], kernel, shift, (0, 1), native)
        added = None if residual is None else residual[done_out : done_out + ready].reshape(ready * W, C)
        _reduce(out[done_out : done_out + ready].view(ready * W, C), mixed, w2, b2, added)
        done_out += ready
        if done_out < H:
            buffer[:2] = buffer[ready:filled].clone()
            filled = 2


# As custom operators a compiler takes them whole: their loops are neither unrolled nor broken up.
@torch.library.custom_op("litevit::mlp", mutates_args=(), device_types="cpu")
def _mlp_op(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, residual: Tensor | None) -> Tensor:
    return _mlp(x, w1, b1, w2, b2, residual)


@torch.library.custom_op("litevit::conv_ffn", mutates_args=(), device_types="cpu")
def _conv_ffn_op(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    kernel: Tensor,
    shift: Tensor,
    w2: Tensor,
    b2: Tensor,
    residual: Tensor | None,
    native: bool = False,
) -> Tensor:
    return _conv_ffn(x, w1, b1, kernel, shift, w2, b2, residual, native)


@_mlp_op.register_fake
def _(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, residual: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_conv_ffn_op.register_fake
def _(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    kernel: Tensor,
    shift: Tensor,
    w2: Tensor,
    b2: Tensor,
    residual: Tensor | None,
    native: bool = False,
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def mlp(x: Tensor, fc1: nn.Linear, fc2: nn.Linear, residual: Tensor | None = None) -> Tensor:
    """fc2(GELU(fc1(x))), + residual if there is one. Args: x: (..., C). Returns: (..., C)."""
    run = _mlp_op if torch.compiler.is_compiling() else _mlp
    return run(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias, residual)


def conv_ffn(
    x: Tensor,
    fc1: nn.Linear,
    dwconv: nn.Conv2d,
    fc2: nn.Linear,
    residual: Tensor | None = None,
    *,
    native: bool = False,
) -> Tensor:
    """fc2(GELU(dwconv(fc1(x)))), + residual if there is one; dwconv depthwise 3 x 3 with one zero around.

    Args: x: (B, H, W, C); native: take the C++ kernel for dwconv where it serves. Returns: as x.
    """
    run = _conv_ffn_op if torch.compiler.is_compiling() else _conv_ffn
    return run(x, fc1.weight, fc1.bias, dwconv.weight, dwconv.bias, fc2.weight, fc2.bias, residual, native)  # type: ignore[arg-type]
