"""Single layers and operators: every kind of attention over resolution, every back end of our operators."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from litevit.bench import timing as timing
from litevit.bench.report import DTYPES, Case, Dtype, Mode, Report, inference, prepare, training_step
from litevit.bench.timing import Clock
from litevit.layers.attention import Attention
from litevit.layers.compiled_norm import CompiledLayerNorm
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.hilo import HiLo
from litevit.layers.mlp import MLP
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.ops import blocked_ffn, csa_native, csa_strips
from litevit.ops.attention import attention
from litevit.ops.csa import mix_windows
from litevit.ops.deformable_merging import deformable_merging
from litevit.ops.dilated import dilated_silu_sum
from litevit.ops.kernels import HAS_TRITON
from litevit.ops.linear import linear, product
from litevit.ops.resized_cross_entropy import resized_cross_entropy
from litevit.ops.window_attention import window_attention
from litevit.optimize.inference import optimize_for_inference
from litevit.optimize.native import kernels as native


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
    where = timing.find_device(device)
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
    """Each of our operators, every back end, forward and forward + backward, against its reference.

    Deformable merging at LITv2-S's three sizes; torchvision's operator is given contiguous BCHW tensors, so that no
    conversion of layout counts against it. Window attention at stage 3, references cut the windows.
    """
    where = timing.find_device(device)
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
    out.append(("window attention s=2, 12 heads, 14x14", "sdpa", partial(_windows, batch, 14, 12, 2)))
    out.append(("window attention s=2, 2 heads, 14x14", "sdpa", partial(_windows, batch, 14, 2, 2)))
    out.append(("window attention s=4, 2 heads, 28x28", "sdpa", partial(_windows, batch, 28, 2, 4)))
    for L, M, N, name in (
        (196, 196, 12, "LIT, stage 3"),
        (196, 49, 10, "Lo-Fi, stage 3"),
        (784, 49, 2, "RASA, stage 2"),
    ):
        out.append((f"attention {L} x {M}, {N} heads ({name})", "sdpa", partial(_attention, batch, L, M, N)))
    for side, C in ((56, 96), (28, 192)):
        out.append((f"Conv-FFN {side}x{side}x{C}", "whole", partial(_feed_forward, batch, side, C, True)))
    out.append(("MLP 56x56x96", "whole", partial(_feed_forward, batch, 56, 96, False)))
    out.append(("CSA 56x56x64", "whole", partial(_csa, batch, 56, 64)))
    out.append(("CSA mix 56x56x64", "torch", partial(_csa_mix, batch, 56, 64)))
    out.append(("dilated sum 28x28x64", "PyTorch's padding", partial(_dilated, batch, 28, 64)))
    out.append(("addition and LayerNorm 56x56x64", "torch", partial(_add_and_norm, batch, 56, 64)))
    out.append(("segmentation loss, 2 images, 150x128x128 to 512x512", "whole", _segmentation_loss))
    return [(name, reference, partial(make, dtype, where)) for name, reference, make in out]


def _random(dtype: torch.dtype, where: torch.device, *shape: int) -> Tensor:
    return torch.randn(*shape, device=where).to(dtype)


def _merging(batch: int, side: int, C: int, dtype: torch.dtype, where: torch.device) -> Cases:
    random = partial(_random, dtype, where)
    x, offset = random(batch, side, side, C), random(batch, side // 2, side // 2, 8)
    weight, bias = random(2 * C, C, 2, 2) / (4 * C) ** 0.5, random(2 * C)
    planar = [x.permute(0, 3, 1, 2).contiguous(), offset.permute(0, 3, 1, 2).contiguous(), weight, bias]
    # Each in the memory format it likes best: ours as `litevit.optimize_for_inference` leaves the kernel.
    own = [x, offset, weight.contiguous(memory_format=torch.channels_last), bias]
    backends: list[Any] = ["gather", "taps", *(["triton"] if where.type == "cuda" and HAS_TRITON else [])]
    cases: Cases = [(b, partial(deformable_merging, backend=b), own) for b in backends]
    if dtype != torch.bfloat16:  # torchvision's operator has no bfloat16
        cases.append(("torchvision", partial(deform_conv2d, stride=2), planar))
    kernel = weight.permute(0, 2, 3, 1).flatten(1)
    cases.append(("floor: the product", product, [random(batch, side // 2, side // 2, 4 * C), kernel, bias]))
    return cases


def _native(tensors: Sequence[Tensor]) -> bool:
    with torch.no_grad():
        return native.takes(*tensors)


def _attention(batch: int, L: int, M: int, N: int, dtype: torch.dtype, where: torch.device) -> Cases:
    q = _random(dtype, where, batch, L, N, 32).transpose(1, 2)
    k, v = _random(dtype, where, batch, M, 2, N, 32).permute(2, 0, 3, 1, 4)
    cases: Cases = [("sdpa", attention, [q, k, v])]
    if _native([q, k, v]):
        cases.append(("C++ (inference)", partial(attention, native=True), [q, k, v]))
    return cases


def _add_and_norm(batch: int, side: int, C: int, dtype: torch.dtype, where: torch.device) -> Cases:
    inputs = [_random(dtype, where, batch, side, side, C), _random(dtype, where, batch, side, side, C)]
    norm = CompiledLayerNorm(C).to(where, dtype)
    cases: Cases = [("torch", lambda x, added: F.layer_norm(x + added, (C,), norm.weight, norm.bias, norm.eps), inputs)]
    if _native(inputs):
        cases.append(("C++ (inference)", lambda x, added: norm.of_sum(x, added)[1], inputs))
    return cases


def _windows(batch: int, side: int, N: int, s: int, dtype: torch.dtype, where: torch.device) -> Cases:
    qkv = [_random(dtype, where, batch, side, side, 3 * N * 32)]
    attend = partial(window_attention, num_heads=N, window_size=s, scale=32**-0.5)
    backends: list[Any] = ["sdpa", "bmm", *(["broadcast"] if s == 2 else [])]
    backends += ["triton"] if where.type == "cuda" and HAS_TRITON else []
    cases: Cases = [(b, partial(attend, backend=b), qkv) for b in backends]
    if _native(qkv):
        cases.append(("C++ (inference)", partial(attend, backend="native"), qkv))
    if s == 2:
        compiled = torch.compile(lambda x: attend(x, backend="broadcast"), dynamic=False)
        cases.append(("broadcast, compiled", compiled, qkv))
    return cases


def _feed_forward(batch: int, side: int, C: int, conv: bool, dtype: torch.dtype, where: torch.device) -> Cases:
    layer: Any = (ConvFFN(C, 4 * C) if conv else MLP(C, 4 * C)).to(where, dtype)
    x = [_random(dtype, where, batch, side, side, C)]

    def whole(x: Tensor) -> Tensor:
        hidden = layer.fc1(x)
        if conv:
            hidden = layer.dwconv(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return layer.fc2(F.gelu(hidden))

    def blocked(x: Tensor, native: bool = False) -> Tensor:
        if conv:
            return blocked_ffn.conv_ffn(x, layer.fc1, layer.dwconv, layer.fc2, native=native)
        return blocked_ffn.mlp(x, layer.fc1, layer.fc2)

    cases: Cases = [("whole", whole, x)]
    if where.type == "cpu":
        cases.append(("blocked (inference)", blocked, x))
    if conv and dtype == torch.bfloat16 and _native(x):
        cases.append(("blocked, convolution in C++ (inference)", partial(blocked, native=True), x))
    return cases


def _csa(batch: int, side: int, C: int, dtype: torch.dtype, where: torch.device) -> Cases:
    layer = ConvolutionalSelfAttention(C, 2).to(where, dtype)
    x = [_random(dtype, where, batch, side, side, C)]

    def strips(x: Tensor) -> Tensor:
        return csa_strips.attend(x, layer.attn, layer.value_weight, layer.proj, 2, layer.scale)

    def cpp(x: Tensor) -> Tensor:
        return linear(layer.proj, csa_native.attend(x, layer._logits_TN(x), layer.value_weight))

    cases: Cases = [("whole", layer.forward_whole, x)]
    if where.type == "cpu":
        cases.append(("strips (inference)", strips, x))
    if _native(x):
        cases.append(("C++ (inference)", cpp, x))
    return cases


def _csa_mix(batch: int, side: int, C: int, dtype: torch.dtype, where: torch.device) -> Cases:
    windows = (batch, (side + 1) // 2, (side + 1) // 2, 2)
    inputs = [_random(dtype, where, *windows, 9, 9), _random(dtype, where, *windows, 9, C // 2)]
    backends: list[Any] = ["torch", *(["triton"] if where.type == "cuda" and HAS_TRITON else [])]
    return [(b, partial(mix_windows, height=side, width=side, backend=b), inputs) for b in backends]


def _dilated(batch: int, side: int, C: int, dtype: torch.dtype, where: torch.device) -> Cases:
    inputs = [_random(dtype, where, batch, side, side, C), _random(dtype, where, C, 1, 3, 3)]

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        maps = [F.silu(F.conv2d(x, weight, padding=r, dilation=r, groups=C)) for r in (1, 3, 5)]
        return (maps[0] + maps[1] + maps[2]).permute(0, 2, 3, 1)

    backends: list[Any] = ["torch", *(["triton"] if where.type == "cuda" and HAS_TRITON else [])]
    cases: Cases = [(b, partial(dilated_silu_sum, rates=(1, 3, 5), backend=b), inputs) for b in backends]
    if dtype == torch.bfloat16 and _native(inputs):
        cases.append(("C++ (inference)", partial(dilated_silu_sum, rates=(1, 3, 5), backend="native"), inputs))
    return [("PyTorch's padding", plain, inputs), *cases]


def _segmentation_loss(dtype: torch.dtype, where: torch.device) -> Cases:
    logits = _random(dtype, where, 2, 150, 128, 128).contiguous(memory_format=torch.channels_last)
    masks = torch.randint(150, (2, 512, 512), device=where)

    def whole(logits: Tensor) -> Tensor:
        resized = F.interpolate(logits.float(), size=(512, 512), mode="bilinear", align_corners=False)
        return F.cross_entropy(resized, masks, ignore_index=255, reduction="sum")

    strips = partial(resized_cross_entropy, masks=masks, ignore_index=255)
    return [("whole", whole, [logits]), ("strips", strips, [logits])]
