"""Feed-forward networks in blocks that stay in cache: inference on the CPU.

At 224 x 224 and batch 8 the hidden map of LITv2-S's first stage is 38.5 MB. Written and read back whole, every pass
over it goes to memory, and the allocator asks the system for fresh, zeroed pages each time: the block took 1.8 times
as long as it takes in pieces of one image (docs/performance.md). Pieces are images, or rows of a large image.

Shapes: B batch, H x W grid, C channels, K hidden channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.ops.linear import is_emulated, widened

BLOCK_BYTES = 5 << 20  # hidden bytes of one piece; measured, see docs/performance.md
MIN_BYTES = {"mlp": 24 << 20, "conv_ffn": 12 << 20}  # smaller hidden maps run whole; measured likewise


def pays(x: Tensor, hidden_dim: int, *modules: nn.Module) -> bool:
    """Whether `mlp` or `conv_ffn` below should run: inference on the CPU, a large map, modules nobody has replaced."""
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return False
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return False
    if any(type(m) not in (nn.Linear, nn.Conv2d) or m._forward_hooks or m._forward_pre_hooks for m in modules):
        return False
    if any(p.dtype != x.dtype or p.device != x.device for m in modules for p in m.parameters()):
        return False  # autocast, or a mixture that the modules themselves should judge
    emulated = is_emulated(x)
    return (
        emulated
        or x.numel() // x.shape[-1] * hidden_dim * x.element_size()
        > MIN_BYTES["conv_ffn" if len(modules) == 3 else "mlp"]
    )


def _block_bytes() -> int:
    return BLOCK_BYTES * max(1, torch.get_num_threads() // 2)


def _mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    out = torch.empty_like(x)
    tokens, out_tokens = x.reshape(-1, x.shape[-1]), out.view(-1, x.shape[-1])
    _, w1, b1, w2, b2 = widened(x[:0], w1, b1, w2, b2)  # type: ignore[assignment]
    L, K = tokens.shape[0], w1.shape[0]
    step = min(L, max(64, _block_bytes() // (4 * K)))
    buffer = tokens.new_empty(step, K, dtype=w1.dtype)
    for start in range(0, L, step):
        piece = tokens[start : start + step].to(w1.dtype)
        hidden = buffer[: piece.shape[0]]
        torch.addmm(b1, piece, w1.t(), out=hidden)
        torch.ops.aten.gelu_(hidden)
        _into(out_tokens[start : start + step], b2, hidden, w2)
    return out


def _into(out: Tensor, bias: Tensor, x: Tensor, weight: Tensor) -> None:
    """out <- x @ weight.T + bias, rounded to out's dtype."""
    if out.dtype == x.dtype:
        torch.addmm(bias, x, weight.t(), out=out)
    else:
        out.copy_(torch.addmm(bias, x, weight.t()))


def _conv_ffn(x: Tensor, w1: Tensor, b1: Tensor, kernel: Tensor, shift: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    _, H, W, _ = x.shape
    K = w1.shape[0]
    _, w1, b1, kernel, shift, w2, b2 = widened(x[:0], w1, b1, kernel, shift, w2, b2)  # type: ignore[assignment]
    image_bytes = 4 * H * W * K
    if image_bytes <= 2 * _block_bytes():
        _by_images(x, out, max(1, _block_bytes() // image_bytes), w1, b1, kernel, shift, w2, b2)
    else:
        rows = max(2, _block_bytes() // (4 * W * K))
        for image, out_image in zip(x, out):
            _by_rows(image, out_image, rows, w1, b1, kernel, shift, w2, b2)
    return out


def _by_images(
    x: Tensor,
    out: Tensor,
    group: int,
    w1: Tensor,
    b1: Tensor,
    kernel: Tensor,
    shift: Tensor,
    w2: Tensor,
    b2: Tensor,
) -> None:
    _, H, W, C = x.shape
    K = w1.shape[0]
    buffer = w1.new_empty(min(group, x.shape[0]), H, W, K)
    for piece, out_piece in zip(x.split(group), out.split(group)):
        hidden = buffer[: piece.shape[0]]
        torch.addmm(b1, piece.reshape(-1, C).to(w1.dtype), w1.t(), out=hidden.view(-1, K))
        mixed = F.conv2d(hidden.permute(0, 3, 1, 2), kernel, shift, padding=1, groups=K)
        torch.ops.aten.gelu_(mixed)
        _into(out_piece.view(-1, C), b2, mixed.permute(0, 2, 3, 1).reshape(-1, K), w2)


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
            piece = image[done_in : done_in + n].reshape(n * W, C).to(w1.dtype)
            torch.addmm(b1, piece, w1.t(), out=buffer[filled : filled + n].view(n * W, K))
            done_in, filled = done_in + n, filled + n
        if done_in == H and filled < rows + 2:
            buffer[filled].zero_()  # the row below the image
            filled += 1
        ready = filled - 2
        mixed = F.conv2d(buffer[:filled].permute(2, 0, 1)[None], kernel, shift, padding=(0, 1), groups=K)
        torch.ops.aten.gelu_(mixed)
        hidden = mixed[0].permute(1, 2, 0).reshape(ready * W, K)
        _into(out[done_out : done_out + ready].view(ready * W, C), b2, hidden, w2)
        done_out += ready
        if done_out < H:
            buffer[:2] = buffer[ready:filled].clone()
            filled = 2


# As custom operators a compiler takes them whole: their loops are neither unrolled nor broken up.
@torch.library.custom_op("litevit::mlp", mutates_args=(), device_types="cpu")
def _mlp_op(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return _mlp(x, w1, b1, w2, b2)


@torch.library.custom_op("litevit::conv_ffn", mutates_args=(), device_types="cpu")
def _conv_ffn_op(x: Tensor, w1: Tensor, b1: Tensor, kernel: Tensor, shift: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return _conv_ffn(x, w1, b1, kernel, shift, w2, b2)


@_mlp_op.register_fake
def _(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return torch.empty_like(x)


@_conv_ffn_op.register_fake
def _(x: Tensor, w1: Tensor, b1: Tensor, kernel: Tensor, shift: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def mlp(x: Tensor, fc1: nn.Linear, fc2: nn.Linear) -> Tensor:
    """fc2(GELU(fc1(x))). Args: x: (..., C). Returns: (..., C)."""
    run = _mlp_op if torch.compiler.is_compiling() else _mlp
    return run(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias)


def conv_ffn(x: Tensor, fc1: nn.Linear, dwconv: nn.Conv2d, fc2: nn.Linear) -> Tensor:
    """fc2(GELU(dwconv(fc1(x)))), dwconv depthwise 3 x 3 with one zero around. Args: x: (B, H, W, C). Returns: as x."""
    run = _conv_ffn_op if torch.compiler.is_compiling() else _conv_ffn
    return run(x, fc1.weight, fc1.bias, dwconv.weight, dwconv.bias, fc2.weight, fc2.bias)  # type: ignore[arg-type]
