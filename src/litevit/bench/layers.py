"""Single layers and operators: every kind of attention over resolution, layers plain and optimised, our operators."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from litevit.bench import timing as timing
from litevit.bench.cases import DTYPES, Case, inference, prepare, training_step
from litevit.bench.report import Report
from litevit.bench.words import Clock, Dtype, Mode
from litevit.devices import find_device
from litevit.layers.attention import Attention, RelativeAttention
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.hilo import HiLo
from litevit.layers.mlp import MLP
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.ops.deformable_sampling import deformable_sample
from litevit.ops.dilated import dilated_silu_sum
from litevit.ops.resized_cross_entropy import resized_cross_entropy
from litevit.optimize.inference import optimize_for_inference

HAS_TRITON = importlib.util.find_spec("triton") is not None


def attention_layers(dim: int, num_heads: int, side: int) -> dict[str, Callable[[], nn.Module]]:
    """The attention layers that are compared, each taking and returning (B, side, side, dim)."""

    class Windows(nn.Module):
        """timm's window attention with its cutting, shifting and masks, without the rest of the block."""

        def __init__(self, shift: int):
            super().__init__()
            self.block = SwinTransformerBlock(dim, (side, side), num_heads=num_heads, window_size=7, shift_size=shift)

        def forward(self, x: Tensor) -> Tensor:
            return self.block._attn(x)

    layers: dict[str, Callable[[], nn.Module]] = {
        "full": lambda: Attention(dim, num_heads=num_heads),
        "windows 7": lambda: Windows(0),
        "shifted windows 7": lambda: Windows(3),
        "spatial reduction 2": lambda: Attention(dim, num_heads=num_heads, sr_ratio=2),
        "CSA": lambda: ConvolutionalSelfAttention(dim, num_heads),
        "RASA": lambda: RecursiveAtrousSelfAttention(dim, num_heads, sr_ratio=2),
    }
    for s in (2, 4):
        for alpha in (0.0, 0.5, 0.9, 1.0):
            layers[f"HiLo s={s} alpha={alpha}"] = partial(
                HiLo, dim, num_heads, window_size=s, alpha=alpha, qkv_bias=True
            )
    return layers


def measure_attention(
    *,
    dim: int = 384,
    num_heads: int = 12,
    sides: Sequence[int] = (14, 28, 56),
    batch: int = 1,
    dtype: Dtype = "fp32",
    modes: Sequence[Mode] = ("eager",),
    training: bool = False,
    device: str = "auto",
    num_threads: int | None = None,
    rounds: int = 7,
    min_seconds: float = 0.05,
    clock: Clock = "wall",
    progress: Callable[[str], None] | None = None,
) -> Report:
    """One attention layer of every kind over the side of the map, ours optimised. Arguments as `measure_models`."""
    where = find_device(device)
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    with timing.threads(num_threads):
        facts = timing.environment(where)
        for side in sides:
            cases: dict[str, Case] = {}
            for name, build in attention_layers(dim, num_heads, side).items():
                for mode in modes:

                    def make(n: int, build: Any = build, mode: str = mode, side: int = side) -> Callable[[], object]:
                        layer = build().train(training).to(where, DTYPES[dtype])
                        layer = layer if training else optimize_for_inference(layer)
                        x = torch.randn(n, side, side, dim, device=where).to(DTYPES[dtype])
                        network = torch.compile(layer, dynamic=False) if mode == "compiled" else layer
                        return (training_step if training else inference)(network, x)

                    case = prepare(make, batch, f"{name} {mode} at {side}", notes)
                    if case is not None:
                        case.facts = {"layer": name, "mode": mode, "side": side, "batch": case.batch, "dtype": dtype}
                        cases[f"{name}/{mode}"] = case
            timed = timing.interleave(
                {k: c.run for k, c in cases.items()},
                rounds=rounds,
                min_seconds=min_seconds,
                device=where,
                progress=progress,
            )
            full = timed.get(f"full/{modes[0]}")
            for key, case in cases.items():
                t = timed[key]
                row = {
                    **case.facts,
                    "ms": t.median(clock) * 1e3,
                    "spread": t.spread(clock),
                    "wall": t.wall,
                    "cpu": t.cpu,
                }
                if full is not None:
                    row["x full"] = timing.speedup(t, full, clock)
                rows.append(row)
    return Report("attention", rows, facts, notes)


def measure_ops(
    *,
    batch: int = 8,
    dtype: Dtype = "fp32",
    device: str = "auto",
    num_threads: int | None = None,
    rounds: int = 7,
    min_seconds: float = 0.05,
    clock: Clock = "wall",
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Deformable merging against torchvision's operator, layers plain and optimised, the segmentation loss.

    On a GPU also the Triton operators against what the layers call.

    Merging at LITv2-S's three sizes; torchvision's operator is given contiguous BCHW tensors, so that no conversion of
    layout counts against it. Layers at the sizes of the models and at those of detectors (one image).
    """
    where = find_device(device)
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    with timing.threads(num_threads):
        facts = timing.environment(where)
        for op, reference, build in _op_cases(batch, DTYPES[dtype], where):
            for direction in ("forward", "forward + backward"):
                cases: dict[str, Case] = {}
                backward = direction != "forward"
                for backend, function, inputs in build():
                    if backward and "inference" in backend:
                        continue

                    def make(n: int, f: Any = function, args: Any = inputs, back: bool = backward) -> Callable:
                        return _op_runner(f, args, back)

                    case = prepare(make, batch, f"{op} {backend} {direction}", notes)
                    if case is not None:
                        cases[backend] = case
                timed = timing.interleave(
                    {k: c.run for k, c in cases.items()},
                    rounds=rounds,
                    min_seconds=min_seconds,
                    device=where,
                    progress=progress,
                )
                for backend in cases:
                    t = timed[backend]
                    row: dict[str, Any] = {"op": op, "backend": backend, "direction": direction, "dtype": dtype}
                    row |= {"ms": t.median(clock) * 1e3, "spread": t.spread(clock), "wall": t.wall, "cpu": t.cpu}
                    if reference in timed:
                        row["x reference"] = timing.speedup(t, timed[reference], clock)
                    rows.append(row)
    return Report("ops", rows, facts, notes)


def _op_runner(function: Callable, inputs: Sequence[Tensor], backward: bool) -> Callable[[], object]:
    if not backward:

        def run() -> object:
            with torch.no_grad():
                return function(*inputs)

        return run
    leaves = [t.detach().clone().requires_grad_() for t in inputs]

    def run_both() -> None:
        out = function(*leaves)
        torch.autograd.grad(out, leaves, torch.ones_like(out))

    return run_both


Cases = list[tuple[str, Callable, list[Tensor]]]  # back end, function, inputs


def _op_cases(batch: int, dtype: torch.dtype, where: torch.device) -> list[tuple[str, str, Callable[[], Cases]]]:
    """(operator, name of the reference, function that makes its cases): memory is taken one operator at a time."""
    out: list[tuple[str, str, Callable[..., Cases]]] = []
    for side, C in ((56, 96), (28, 192), (14, 384)):
        out.append((f"deformable merging {side}x{side}x{C}", "torchvision", partial(_merging, batch, side, C)))
    for name, make, size in LAYERS:
        n = batch if max(size) <= 56 else 1
        out.append((f"{name} {size[0]}x{size[1]}", "plain", partial(_layer, n, make, size)))
    out.append(("segmentation loss, 2 images, 150x128x128 to 512x512", "whole", _segmentation_loss))
    if where.type == "cuda" and HAS_TRITON:
        out += [(name, "plain", partial(make, batch)) for name, make in TRITON]
    return [(name, reference, partial(make, dtype, where)) for name, reference, make in out]


# Name, layer, grid: as in LITv2-S, LIT-S and LVT at 224 x 224, and at 800 x 1344.
LAYERS: tuple[tuple[str, Callable[[], nn.Module], tuple[int, int]], ...] = (
    ("Conv-FFN C=96", lambda: ConvFFN(96, 384), (56, 56)),
    ("Conv-FFN C=96", lambda: ConvFFN(96, 384), (200, 336)),
    ("MLP C=96", lambda: MLP(96, 384), (56, 56)),
    ("HiLo C=384", lambda: HiLo(384, 12, alpha=0.9, qkv_bias=True), (14, 14)),
    ("HiLo C=384", lambda: HiLo(384, 12, alpha=0.9, qkv_bias=True), (50, 84)),
    ("Attention C=384", lambda: RelativeAttention(384, num_heads=12, grid_size=(14, 14)), (14, 14)),
    ("CSA C=64", lambda: ConvolutionalSelfAttention(64, 2), (56, 56)),
    ("CSA C=64", lambda: ConvolutionalSelfAttention(64, 2), (200, 336)),
    ("RASA C=64", lambda: RecursiveAtrousSelfAttention(64, 2, 4), (28, 28)),
    ("RASA C=64", lambda: RecursiveAtrousSelfAttention(64, 2, 4), (100, 168)),
    ("Merging C=96", lambda: DeformableTokenMerging(96, 192).eval(), (56, 56)),
    ("LayerNorm C=96", lambda: nn.LayerNorm(96), (56, 56)),
)


def _dilated(batch: int, dtype: torch.dtype, where: torch.device) -> Cases:
    from litevit.ops.triton.dilated import dilated_sum

    x, weight = _random(dtype, where, batch, 28, 28, 64), _random(dtype, where, 64, 1, 3, 3)
    plain, triton = partial(dilated_silu_sum, rates=(1, 3, 5)), partial(dilated_sum, rates=[1, 3, 5])
    return [("plain", plain, [x, weight]), ("triton", triton, [x, weight])]


# Operators of ops/triton at the sizes of LVT, against what its layers call. Merging's is in `_merging`.
TRITON: tuple[tuple[str, Callable[..., Cases]], ...] = (("dilated sum C=64 28x28", _dilated),)


def _random(dtype: torch.dtype, where: torch.device, *shape: int) -> Tensor:
    return torch.randn(*shape, device=where).to(dtype)


def _layer(
    batch: int, make: Callable[[], nn.Module], size: tuple[int, int], dtype: torch.dtype, where: torch.device
) -> Cases:
    layer = make().to(where, dtype)
    fast = optimize_for_inference(layer)
    C = layer.normalized_shape[0] if isinstance(layer, nn.LayerNorm) else _channels(layer)
    x = torch.randn(batch, *size, C, device=where).to(dtype)
    return [("plain", layer, [x]), ("optimized (inference)", fast, [x])]


def _channels(layer: nn.Module) -> int:
    first = next(m for m in layer.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    return first.in_features if isinstance(first, nn.Linear) else first.in_channels


def _merging(batch: int, side: int, C: int, dtype: torch.dtype, where: torch.device) -> Cases:
    random = partial(_random, dtype, where)
    x, offset = random(batch, side, side, C), random(batch, side // 2, side // 2, 8)
    weight, bias = random(2 * C, C, 2, 2) / (4 * C) ** 0.5, random(2 * C)
    matrix = weight.permute(0, 2, 3, 1).flatten(1)
    planar = [x.permute(0, 3, 1, 2).contiguous(), offset.permute(0, 3, 1, 2).contiguous(), weight, bias]

    def ours(x: Tensor, offset: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        return F.linear(deformable_sample(x, offset), matrix, bias)

    cases: Cases = [("ours", ours, [x, offset, matrix, bias])]
    if where.type == "cuda" and HAS_TRITON:
        from litevit.ops.triton.merging import deformable_sample as triton_sample

        cases.append(("triton", lambda x, o, w, b: F.linear(triton_sample(x, o), w, b), [x, offset, matrix, bias]))
    if dtype != torch.bfloat16:  # torchvision's operator has no bfloat16
        cases.append(("torchvision", partial(deform_conv2d, stride=2), planar))
    sampled = random(batch, side // 2, side // 2, 4 * C)
    cases.append(("floor: the product", F.linear, [sampled, matrix, bias]))
    return cases


def _segmentation_loss(dtype: torch.dtype, where: torch.device) -> Cases:
    logits = _random(dtype, where, 2, 150, 128, 128).contiguous(memory_format=torch.channels_last)
    masks = torch.randint(150, (2, 512, 512), device=where)

    def whole(logits: Tensor) -> Tensor:
        resized = F.interpolate(logits.float(), size=(512, 512), mode="bilinear", align_corners=False)
        return F.cross_entropy(resized, masks, ignore_index=255, reduction="sum")

    strips = partial(resized_cross_entropy, masks=masks, ignore_index=255)
    return [("whole", whole, [logits]), ("strips", strips, [logits])]
