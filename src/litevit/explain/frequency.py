"""Frequencies of what attention gives out (HiLo, arXiv:2205.13213, sec. 3.1; "How Do Vision Transformers Work?",
arXiv:2202.06709, sec. 3.2)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from litevit.backbones.swin import ShiftedWindowAttention
from litevit.explain.attention import attention_blocks
from litevit.explain.inside import as_batch, backbone_of, block_of, watch
from litevit.layers.hilo import HiLo
from litevit.ops.shifted_windows import join_windows


def log_magnitude(x: Tensor) -> Tensor:
    """Centred Fourier log-magnitude of a map, the mean over its channels. Args: x: (C, H, W). Returns: (H, W)."""
    spectrum = torch.fft.fft2(x.float(), norm="ortho").abs()
    return torch.fft.fftshift((spectrum + 1e-8).log().mean(0))


def frequency_magnitude(model: nn.Module, image: Tensor, *, stage: int, block: int) -> dict[str, Tensor]:
    """Which frequencies the attention of a block gives out.

    Args:
        model: a model or backbone of any family; it is left as it was.
        image: (3, H, W) or (1, 3, H, W), normalised.
        stage: 1-4.
        block: from 0.

    Returns:
        (H, W) natural logarithm of the magnitude, zero frequency at [H // 2, W // 2]: "full" the attention's output;
        for HiLo "hi" and "lo", its branches, where there are such heads.

    Raises:
        ValueError: no such stage or block, or one without attention.
    """
    module = block_of(model, stage, block)
    attn = getattr(module, "attn", None)
    if attn is None:
        have = sorted({s for s, _ in attention_blocks(model)})
        raise ValueError(f"Block {block} of stage {stage} has no attention; stages with attention: {have or 'none'}")
    grid: list[tuple[int, int]] = []
    found: dict[str, Tensor] = {}
    embed = backbone_of(model).embeds[stage - 1]  # type: ignore[index]

    def take(name: str, out: Tensor) -> None:
        H, W = grid[0]
        if out.dim() == 3:  # tokens, a class token first
            out = out[:, -H * W :].unflatten(1, (H, W))
        if isinstance(attn, ShiftedWindowAttention):  # windows, which the block puts together
            out = join_windows(out, module.window_size[0], module.shift, H, W)  # type: ignore[index, arg-type]
        found[name] = log_magnitude(out[0, :H, :W].permute(2, 0, 1)).cpu()

    after = {embed: lambda out: grid.append((out.shape[1], out.shape[2])), attn: lambda out: take("full", out)}
    if isinstance(attn, HiLo):
        if attn.hi_heads:
            after[attn.hi_proj] = lambda out: take("hi", out)
        if attn.lo_heads:
            after[attn.lo_proj] = lambda out: take("lo", out)
    watch(model, as_batch(image), after=after, until=attn)
    return {name: found[name] for name in ("hi", "lo", "full") if name in found}


def relative_log_amplitude(magnitude: Tensor, *, bins: int = 16) -> tuple[Tensor, Tensor]:
    """Log-amplitude over frequency, rings around zero, minus its value at zero.

    Args:
        magnitude: (H, W) of `log_magnitude`.
        bins: rings up to the frequency pi.

    Returns:
        Frequencies in units of pi, and the mean log-amplitude in each ring that holds any, minus that at zero.
    """
    H, W = magnitude.shape
    fy = (torch.arange(H) - H // 2).float() * 2 / H  # units of pi
    fx = (torch.arange(W) - W // 2).float() * 2 / W
    radius = (fy[:, None] ** 2 + fx**2).sqrt()
    ring = (radius * bins).ceil().long()
    ring[H // 2, W // 2] = 0
    frequencies, values = [], []
    for k in range(bins + 1):
        there = ring == k
        if there.any():
            frequencies.append(radius[there].mean())
            values.append(magnitude[there].mean() - magnitude[H // 2, W // 2])
    return torch.stack(frequencies), torch.stack(values)


def block_amplitudes(model: nn.Module, image: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """Name, frequencies and relative log-amplitude of every block's output, first to last."""
    backbone = backbone_of(model)
    grids: dict[int, tuple[int, int]] = {}
    found: list[tuple[str, Tensor, Tensor]] = []
    after: dict[nn.Module, Callable[..., None]] = {}

    def take(name: str, stage: int, out: Tensor) -> None:
        H, W = grids[stage]
        x = out[:, -H * W :].unflatten(1, (H, W)) if out.dim() == 3 else out
        found.append((name, *relative_log_amplitude(log_magnitude(x[0].permute(2, 0, 1)).cpu())))

    for i, (embed, stage) in enumerate(zip(backbone.embeds, backbone.stages)):  # type: ignore[arg-type]
        after[embed] = lambda out, i=i: grids.__setitem__(i, (out.shape[1], out.shape[2]))
        for j, block in enumerate(stage.blocks):
            after[block] = partial(take, f"{i + 1}.{j}", i)
    watch(model, as_batch(image), after=after)
    return found
