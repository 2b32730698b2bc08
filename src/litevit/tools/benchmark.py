"""Measures speed beside today's models: `litevit bench models | attention | ops | scaling`.

Everything compared runs in one process, in turns (`bench_timing.interleave`). A case that cannot run (an unknown peer,
no compiler, no memory) is noted and left out; the others go on.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from litevit.tools import bench_timing as timing
from litevit.tools.bench_timing import Clock, Timing
from litevit.zoo import count_macs, create_model, list_models

Dtype = Literal["fp32", "bf16", "fp16"]
Mode = Literal["eager", "compiled"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Sets for --peers. Published: the comparison of the papers, where timm has the model.
PEERS: dict[str, tuple[str, ...]] = {
    "core": ("convnext_tiny", "swin_tiny_patch4_window7_224", "deit3_small_patch16_224", "pvt_v2_b0"),
    "published": (
        "resnet50",
        "twins_svt_small",
        "swin_tiny_patch4_window7_224",
        "tnt_s_patch16_224",
        "coatnet_0_rw_224",
        "cait_xxs24_224",
        "pvt_v2_b2",
        "xcit_small_12_p16_224",
        "convnext_tiny",
        "focalnet_tiny_srf",
    ),
    "today": (
        "deit3_small_patch16_224",
        "efficientvit_b2",
        "hiera_tiny_224",
        "fastvit_sa24",
        "repvit_m2_3",
        "mobilenetv4_conv_large",
        "convnext_tiny",
    ),
    "none": (),
}


@dataclass
class Report:
    """What a benchmark returns: rows for a table, and what could not be measured."""

    title: str
    rows: list[dict[str, Any]]
    environment: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def save(self, folder: Path, *, plot: Callable[["Report", Path], None] | None = None) -> list[Path]:
        """Writes JSON, CSV and, where matplotlib is installed, a plot."""
        files = timing.write_results(self.rows, self.environment, folder, self.title, self.notes)
        if plot is not None and self.rows:
            try:
                import matplotlib  # noqa: F401
            except ImportError:
                self.notes.append("No plot: matplotlib is not installed (pip install 'litevit[train]').")
            else:
                path = folder / f"{self.title}.png"
                plot(self, path)
                files.append(path)
        return files

    def render(self, columns: Sequence[str]) -> str:
        """The rows as a text table, then the notes."""
        shown = [[_cell(column, row.get(column)) for column in columns] for row in self.rows]
        widths = [max(len(c), *(len(line[i]) for line in shown), 1) if shown else len(c) for i, c in enumerate(columns)]
        lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(columns, widths)))]
        for line in shown:
            lines.append("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))))
        if warning := self.environment.get("warning"):
            lines.append(f"Note: {warning}.")
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if column == "spread" or column.endswith("share"):
        return f"{100 * value:.0f} %"
    if column.startswith("x "):
        return f"{value:.2f}x"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


@dataclass
class Case:
    """One thing to be timed, at its own batch."""

    name: str
    run: Callable[[], object]
    batch: int
    facts: dict[str, Any] = field(default_factory=dict)


def prepare(make: Callable[[int], Callable[[], object]], batch: int, name: str, notes: list[str]) -> Case | None:
    """Builds a case and warms it up. Memory that runs out halves the batch; a missing compiler leaves the case out.

    Args:
        make: batch -> function to time.
        batch: first batch to try.
        name: of the case, for the notes.
        notes: what happened is added here.
    """
    while True:
        try:
            run = make(batch)
            run()
            run()
            return Case(name, run, batch)
        except Exception as error:
            if timing.is_out_of_memory(error):
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                if batch == 1:
                    notes.append(f"{name}: out of memory at batch 1, left out.")
                    return None
                notes.append(f"{name}: out of memory at batch {batch}, halved to {batch // 2}.")
                batch //= 2
                continue
            if timing.no_compiler(error):
                notes.append(f"{name}: torch.compile found no compiler (set CXX or install g++), left out.")
                return None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            notes.append(f"{name}: left out, {type(error).__name__}: {reason}")
            return None


def resolve_peers(peers: str | Sequence[str], notes: list[str]) -> list[str]:
    """Names of timm models. Args: peers: a set of `PEERS`, or names, also joined by commas. Unknown ones are noted."""
    words = peers.split(",") if isinstance(peers, str) else list(peers)
    names: list[str] = []
    for word in (w.strip() for w in words if w.strip()):
        for name in PEERS.get(word, (word,)):
            if timm.is_model(name):
                if name not in names:
                    names.append(name)
                continue
            near = difflib.get_close_matches(name, [*PEERS, *timm.list_models()], n=2)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else f" Sets: {', '.join(PEERS)}."
            notes.append(f"Unknown peer {name!r}: neither a set nor a model of timm.{hint}")
    return names


def _build(name: str, size: tuple[int, int], features: bool) -> nn.Module:
    from litevit.zoo import create_backbone

    if name in list_models():
        return create_backbone(name) if features else create_model(name)
    options: dict[str, Any] = {"features_only": True} if features else {}
    if size != (224, 224):
        try:  # position tables and windows are made for one size
            return timm.create_model(name, img_size=size, **options)
        except TypeError:  # a convolutional network has no such option
            pass
    return timm.create_model(name, **options)


def _check(models: Sequence[str]) -> None:
    known = list_models()
    for name in models:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2)
            raise ValueError(
                f"Unknown model {name!r}." + (f" Did you mean {' or '.join(map(repr, near))}?" if near else "")
            )


def _inference(model: Callable, images: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def _training(model: Callable, images: Tensor) -> Callable[[], object]:
    def run() -> None:
        model.zero_grad(set_to_none=True)  # type: ignore[attr-defined]
        out = model(images)
        maps = out if isinstance(out, tuple | list) else [out]
        sum(m.float().square().mean() for m in maps).backward()  # type: ignore[union-attr]

    return run


def measure_models(
    models: Sequence[str],
    peers: str | Sequence[str] = "core",
    *,
    size: tuple[int, int] = (224, 224),
    batch: int = 8,
    dtypes: Sequence[Dtype] = ("fp32",),
    modes: Sequence[Mode] = ("eager", "compiled"),
    training: bool = False,
    features: bool = False,
    fuse: bool = True,
    latency: bool = False,
    memory: bool = True,
    device: str = "auto",
    num_threads: int | None = None,
    rounds: int = 7,
    min_seconds: float = 0.2,
    clock: Clock = "wall",
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Throughput of models beside timm's. One row per model, dtype and mode.

    Args:
        models: ours, names of `litevit.list_models()`.
        peers: see `resolve_peers`.
        size: (H, W) of the images.
        batch: images at a time.
        dtypes: each a pass of its own; weights and images in that dtype.
        modes: eager, compiled.
        training: forward and backward in training mode, no optimizer step; otherwise inference.
        features: the four maps of the backbones instead of logits.
        fuse: our models through `litevit.optimize_for_inference` first (inference only). Peers run as timm makes them.
        latency: also one image at a time.
        memory: also the peak memory of one call, run eagerly (CPU), or as it is (CUDA).
        device: auto, cpu, cuda, mps.
        num_threads: CPU threads.
        rounds, min_seconds: see `bench_timing.interleave`.
        clock: wall, or cpu for processor time (one thread on a busy machine).
        progress: told what is being done.
    """
    _check(models)
    where = timing.find_device(device)
    say = progress or (lambda text: None)
    notes: list[str] = []
    names = [*models, *resolve_peers(peers, notes)]
    rows: list[dict[str, Any]] = []
    with timing.threads(num_threads):
        facts = timing.environment(where)
        for dtype in dtypes:
            rate = timing.product_rate(where, DTYPES[dtype], clock)
            facts[f"product_gflops_{dtype}"] = rate / 1e9
            cases: dict[str, Case] = {}
            for name in names:
                cases |= _model_cases(
                    name, dtype, modes, size, batch, where, training, features, fuse, latency, memory, notes, say
                )
            timed = timing.interleave(
                {key: case.run for key, case in cases.items()},
                rounds=rounds,
                min_seconds=min_seconds,
                device=where,
                progress=say,
            )
            rows += _model_rows(cases, timed, rate, clock, training)
    return Report("models", rows, facts, notes)


def _model_cases(
    name: str,
    dtype: Dtype,
    modes: Sequence[Mode],
    size: tuple[int, int],
    batch: int,
    where: torch.device,
    training: bool,
    features: bool,
    fuse: bool,
    latency: bool,
    memory: bool,
    notes: list[str],
    say: Callable[[str], None],
) -> dict[str, Case]:
    from litevit.tools.optimize import optimize_for_inference

    say(f"{name} {dtype}: build")
    torch.manual_seed(0)
    try:
        model = _build(name, size, features).train(training)
    except Exception as error:
        notes.append(f"{name}: timm cannot build it here, {type(error).__name__}: {str(error).splitlines()[0]}")
        return {}
    about: dict[str, Any] = {"model": name, "dtype": dtype, "params": sum(p.numel() for p in model.parameters())}
    about["macs"] = count_macs(model, size)
    if fuse and not training and name in list_models():
        model = optimize_for_inference(model)
    model = model.to(where, DTYPES[dtype])
    if where.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    step = _training if training else _inference
    cases: dict[str, Case] = {}
    for mode in modes:
        say(f"{name} {dtype}: {mode}")
        network: Any = model
        if mode == "compiled":
            network = torch.compile(model, dynamic=False)

        def make(n: int, network: Any = network) -> Callable[[], object]:
            images = torch.randn(n, 3, *size, device=where).to(DTYPES[dtype])
            if where.type == "cuda":
                images = images.to(memory_format=torch.channels_last)
            return step(network, images)

        case = prepare(make, batch, f"{name} {dtype} {mode}", notes)
        if case is None:
            continue
        case.facts = {**about, "mode": mode, "batch": case.batch}
        if memory:
            run = case.run if where.type == "cuda" else make(case.batch, model)
            case.facts["peak_mb"] = timing.peak_bytes(run, where) / 2**20
        cases[f"{name}/{mode}"] = case
        if latency and not training:
            single = prepare(make, 1, f"{name} {dtype} {mode} batch 1", notes)
            if single is not None:
                single.facts = {"latency_of": f"{name}/{mode}"}
                cases[f"{name}/{mode}/1"] = single
    return cases


def _model_rows(
    cases: dict[str, Case], timed: dict[str, Timing], rate: float, clock: Clock, training: bool
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for key, case in cases.items():
        if "latency_of" in case.facts:
            next(r for r in rows if r["key"] == case.facts["latency_of"])["latency_ms"] = timed[key].median(clock) * 1e3
            continue
        t = timed[key]
        per_second = case.batch / t.median(clock)
        rows.append(
            {
                "key": key,
                **case.facts,
                "images_per_s": per_second,
                "spread": t.spread(clock),
                "clock": clock,
                "flops_share": 2 * case.facts["macs"] * (3 if training else 1) * per_second / rate,
                "wall": t.wall,
                "cpu": t.cpu,
            }
        )
    best: dict[str, str] = {}  # a model counts with its better mode
    for row in rows:
        name = row["model"]
        if name not in best or timed[row["key"]].median(clock) < timed[best[name]].median(clock):
            best[name] = row["key"]
    for row in rows:
        row["best"] = best[row["model"]] == row["key"]
        for other, key in best.items():
            if other == row["model"]:
                continue
            # Batches differ after running out of memory: compare images, not calls.
            scale = cases[row["key"]].batch / cases[key].batch
            row[f"x {other}"] = scale * timing.speedup(timed[row["key"]], timed[key], clock)
    return rows


MODEL_COLUMNS = ("model", "dtype", "mode", "images_per_s", "spread", "flops_share", "latency_ms", "peak_mb", "batch")


def target_ratios(report: Report, dtype: Dtype = "fp32") -> dict[str, float]:
    """Best against best: our models over each peer, `"litv2_s / convnext_tiny"` -> ratio; `"... flops"` -> FLOP/s."""
    rows = {row["model"]: row for row in report.rows if row["best"] and row["dtype"] == dtype}
    ours = set(list_models())
    out: dict[str, float] = {}
    for name in (n for n in rows if n in ours):
        for peer in (n for n in rows if n not in ours):
            ratio = rows[name][f"x {peer}"]
            out[f"{name} / {peer}"] = ratio
            out[f"{name} / {peer} flops"] = ratio * rows[name]["macs"] / rows[peer]["macs"]
    return out


# -------------------------------------------------------------- attention


def attention_layers(dim: int, num_heads: int, side: int) -> dict[str, Callable[[], nn.Module]]:
    """The attention layers that are compared, each taking and returning (B, side, side, dim)."""
    from timm.models.swin_transformer import SwinTransformerBlock

    from litevit.layers.attention import Attention
    from litevit.layers.csa import ConvolutionalSelfAttention
    from litevit.layers.hilo import HiLo
    from litevit.layers.rasa import RecursiveAtrousSelfAttention

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
    """One attention layer of every kind over the side of the map. Arguments as `measure_models`."""
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
                        x = torch.randn(n, side, side, dim, device=where).to(DTYPES[dtype])
                        network = torch.compile(layer, dynamic=False) if mode == "compiled" else layer
                        return (_training if training else _inference)(network, x)

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


# -------------------------------------------------------------------- ops


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
                for backend, function, inputs in build():
                    backward = direction != "forward"

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


def _op_cases(batch: int, dtype: torch.dtype, where: torch.device) -> list[tuple[str, str, Callable]]:
    from torchvision.ops import deform_conv2d

    from litevit.layers.conv_ffn import ConvFFN
    from litevit.ops import blocked_ffn
    from litevit.ops.deformable_merging import deformable_merging
    from litevit.ops.window_attention import window_attention

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=where).to(dtype)

    def merging(side: int, C: int) -> list[tuple[str, Callable, list[Tensor]]]:
        x, offset = random(batch, side, side, C), random(batch, side // 2, side // 2, 8)
        weight, bias = random(2 * C, C, 2, 2) / (4 * C) ** 0.5, random(2 * C)
        planar = [x.permute(0, 3, 1, 2).contiguous(), offset.permute(0, 3, 1, 2).contiguous(), weight, bias]
        own = [x, offset, weight, bias]
        backends = ["gather", "taps"]
        cases: list[tuple[str, Callable, list[Tensor]]] = [
            (b, lambda *a, b=b: deformable_merging(*a, backend=b), own) for b in backends
        ]
        if dtype != torch.bfloat16:  # torchvision's operator has no bfloat16
            cases.append(("torchvision", lambda *a: deform_conv2d(*a, stride=2), planar))
        kernel = weight.permute(0, 2, 3, 1).flatten(1)
        sampled = random(batch, side // 2, side // 2, 4 * C)
        cases.append(("floor: the matrix product", torch.nn.functional.linear, [sampled, kernel, bias]))
        return cases

    def windows(side: int, N: int, s: int) -> list[tuple[str, Callable, list[Tensor]]]:
        qkv = [random(batch, side, side, 3 * N * 32)]

        def attend(x: Tensor, b: Any) -> Tensor:
            return window_attention(x, num_heads=N, window_size=s, scale=32**-0.5, backend=b)

        cases: list[tuple[str, Callable, list[Tensor]]] = [
            (b, lambda x, b=b: attend(x, b), qkv) for b in ("sdpa", "bmm", *(["broadcast"] if s == 2 else []))
        ]
        if s == 2:
            compiled = torch.compile(lambda x: attend(x, "broadcast"), dynamic=False)
            cases.append(("broadcast, compiled", compiled, qkv))
        return cases

    def ffn(side: int, C: int) -> list[tuple[str, Callable, list[Tensor]]]:
        layer = ConvFFN(C, 4 * C).to(where, dtype)
        x = [random(batch, side, side, C)]

        def whole(x: Tensor) -> Tensor:
            hidden = layer.act(layer.dwconv(layer.fc1(x).permute(0, 3, 1, 2)))
            return layer.fc2(hidden.permute(0, 2, 3, 1))

        cases: list[tuple[str, Callable, list[Tensor]]] = [("whole", whole, x)]
        if where.type == "cpu":
            blocked = lambda x: blocked_ffn.conv_ffn(x, layer.fc1, layer.dwconv, layer.fc2)  # noqa: E731
            cases.append(("blocked (inference)", blocked, x))
        return cases

    out: list[tuple[str, str, Callable]] = []
    for side, C in ((56, 96), (28, 192), (14, 384)):
        out.append((f"deformable merging {side}x{side}x{C}", "torchvision", lambda side=side, C=C: merging(side, C)))
    out.append(("window attention s=2, 12 heads, 14x14", "sdpa", lambda: windows(14, 12, 2)))
    out.append(("window attention s=2, 2 heads, 14x14", "sdpa", lambda: windows(14, 2, 2)))
    out.append(("window attention s=4, 2 heads, 28x28", "sdpa", lambda: windows(28, 2, 4)))
    for side, C in ((56, 96), (28, 192)):
        out.append((f"Conv-FFN {side}x{side}x{C}", "whole", lambda side=side, C=C: ffn(side, C)))
    return out


# ---------------------------------------------------------------- scaling


def measure_scaling(
    models: Sequence[str],
    peers: str | Sequence[str] = ("convnext_tiny",),
    *,
    over: Literal["size", "batch", "threads"] = "size",
    sizes: Sequence[int] = (224, 384, 512, 768, 1024, 1536),
    batches: Sequence[int] = (1, 2, 4, 8, 16),
    thread_counts: Sequence[int] = (1, 2),
    dtype: Dtype = "fp32",
    device: str = "auto",
    rounds: int = 3,
    clock: Clock = "wall",
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Cost of the backbones' four maps against image size (batch 1), batch or threads (224 x 224). Eager."""
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    facts: dict[str, Any] = {}
    steps = {"size": sizes, "batch": batches, "threads": thread_counts}[over]
    for value in steps:
        report = measure_models(
            models,
            peers,
            size=(value, value) if over == "size" else (224, 224),
            batch={"size": 1, "batch": value, "threads": 8}[over],
            num_threads=value if over == "threads" else None,
            dtypes=(dtype,),
            modes=("eager",),
            features=True,
            device=device,
            rounds=rounds,
            min_seconds=0.05,
            clock=clock,
            progress=progress,
        )
        facts = facts or report.environment
        notes += [note for note in report.notes if note not in notes]
        for row in report.rows:
            kept = {k: row[k] for k in ("model", "dtype", "images_per_s", "spread", "peak_mb", "macs", "batch")}
            rows.append({**kept, over: value, "ms_per_image": 1e3 / row["images_per_s"]})
    return Report(f"scaling_{over}", rows, facts, notes)


# ------------------------------------------------------------ entry points


def _print_progress(text: str) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        console.print(f"[dim]{text}[/dim]", end="\r", soft_wrap=True)


def _finish(report: Report, columns: Sequence[str], out: Path | None, plot: Callable | None) -> Report:
    files = report.save(out, plot=plot) if out is not None else []
    print(report.render(columns))
    for file in files:
        print(f"Wrote {file}")
    return report


def main_models(
    models: tuple[str, ...] = ("litv2_s", "lit_s", "lvt"),
    *,
    peers: str = "core",
    size: tuple[int, ...] = (224,),
    batch: int | None = None,
    dtype: tuple[Dtype, ...] = ("fp32",),
    compile: bool = True,
    eager: bool = True,
    train: bool = False,
    features: bool = False,
    fuse: bool = True,
    latency: bool = False,
    memory: bool = True,
    device: str = "auto",
    threads: int | None = None,
    rounds: int = 7,
    clock: Clock = "wall",
    out: Path | None = None,
) -> Report:
    """Measures models beside timm's, in turns, in one process.

    Args:
        models: ours; see `litevit list`.
        peers: sets (core, published, today, none) or names of timm models, joined by commas.
        size: side, or H W, of the images.
        batch: images at a time; default: 8 on the CPU, 256 on a GPU.
        dtype: one or several of fp32, bf16, fp16.
        compile: also with torch.compile.
        eager: also without.
        train: a training step (forward and backward) instead of inference.
        features: the backbones' four maps instead of logits.
        fuse: ours through optimize_for_inference.
        latency: also one image at a time.
        memory: also peak memory.
        device: auto, cpu, cuda, mps.
        threads: CPU threads.
        rounds: turns.
        clock: wall, or cpu: processor time, steadier with one thread on a busy machine.
        out: folder for JSON, CSV and a plot.
    """
    modes: list[Mode] = [*(["eager"] if eager else []), *(["compiled"] if compile else [])]  # type: ignore[list-item]
    if not modes:
        raise ValueError("bench models: --no-eager and --no-compile leave nothing to measure")
    report = measure_models(
        models,
        peers,
        size=_side(size),
        batch=_batch(batch, device),
        dtypes=dtype,
        modes=modes,
        training=train,
        features=features,
        fuse=fuse,
        latency=latency,
        memory=memory,
        device=device,
        num_threads=threads,
        rounds=rounds,
        clock=clock,
        progress=_print_progress,
    )
    ratios = [c for c in dict.fromkeys(k for row in report.rows for k in row) if c.startswith("x ")]
    peers_only = [c for c in ratios if c.removeprefix("x ") not in list_models()]
    from litevit.tools.bench_plots import plot_models

    return _finish(report, [*MODEL_COLUMNS, *peers_only], out, plot_models)


def main_attention(
    *,
    dim: int = 384,
    heads: int = 12,
    sides: tuple[int, ...] = (14, 28, 56),
    batch: int = 1,
    dtype: Dtype = "fp32",
    compile: bool = False,
    train: bool = False,
    device: str = "auto",
    threads: int | None = None,
    rounds: int = 7,
    clock: Clock = "wall",
    out: Path | None = None,
) -> Report:
    """Measures one attention layer of every kind (full, windows, spatial reduction, HiLo, CSA, RASA) over resolution.

    Args:
        dim: channels.
        heads: attention heads.
        sides: sides of the square map, in tokens.
        batch: maps at a time.
        dtype: fp32, bf16 or fp16.
        compile: also with torch.compile.
        train: forward and backward.
        device: auto, cpu, cuda, mps.
        threads: CPU threads.
        rounds: turns.
        clock: wall or cpu.
        out: folder for JSON, CSV and a plot.
    """
    report = measure_attention(
        dim=dim,
        num_heads=heads,
        sides=sides,
        batch=batch,
        dtype=dtype,
        modes=("eager", "compiled") if compile else ("eager",),
        training=train,
        device=device,
        num_threads=threads,
        rounds=rounds,
        clock=clock,
        progress=_print_progress,
    )
    from litevit.tools.bench_plots import plot_attention

    return _finish(report, ("layer", "side", "mode", "ms", "spread", "x full", "batch"), out, plot_attention)


def main_ops(
    *,
    batch: int = 8,
    dtype: Dtype = "fp32",
    device: str = "auto",
    threads: int | None = None,
    rounds: int = 7,
    clock: Clock = "wall",
    out: Path | None = None,
) -> Report:
    """Measures our operators, every back end, forward and backward, against their references.

    Args:
        batch: images at a time.
        dtype: fp32, bf16 or fp16.
        device: auto, cpu, cuda, mps.
        threads: CPU threads.
        rounds: turns.
        clock: wall or cpu.
        out: folder for JSON and CSV.
    """
    report = measure_ops(
        batch=batch,
        dtype=dtype,
        device=device,
        num_threads=threads,
        rounds=rounds,
        clock=clock,
        progress=_print_progress,
    )
    return _finish(report, ("op", "backend", "direction", "ms", "spread", "x reference"), out, None)


def main_scaling(
    models: tuple[str, ...] = ("litv2_s",),
    *,
    peers: str = "convnext_tiny",
    over: Literal["size", "batch", "threads"] = "size",
    sizes: tuple[int, ...] = (224, 384, 512, 768, 1024, 1536),
    batches: tuple[int, ...] = (1, 2, 4, 8, 16),
    thread_counts: tuple[int, ...] = (1, 2),
    dtype: Dtype = "fp32",
    device: str = "auto",
    rounds: int = 3,
    clock: Clock = "wall",
    out: Path | None = None,
) -> Report:
    """Measures backbones over image size, batch or threads.

    Args:
        models: ours; see `litevit list`.
        peers: as `bench models`.
        over: what is varied.
        sizes: sides of the images, with --over size (batch 1).
        batches: with --over batch (224 x 224).
        thread_counts: with --over threads (224 x 224, batch 8).
        dtype: fp32, bf16 or fp16.
        device: auto, cpu, cuda, mps.
        rounds: turns.
        clock: wall or cpu.
        out: folder for JSON, CSV and a plot.
    """
    report = measure_scaling(
        models,
        peers,
        over=over,
        sizes=sizes,
        batches=batches,
        thread_counts=thread_counts,
        dtype=dtype,
        device=device,
        rounds=rounds,
        clock=clock,
        progress=_print_progress,
    )
    from litevit.tools.bench_plots import plot_scaling

    return _finish(
        report, ("model", over, "ms_per_image", "images_per_s", "spread", "peak_mb", "batch"), out, plot_scaling
    )


COMMANDS: dict[str, Callable[..., Report]] = {
    "models": main_models,
    "attention": main_attention,
    "ops": main_ops,
    "scaling": main_scaling,
}


def _side(size: Sequence[int]) -> tuple[int, int]:
    if not 1 <= len(size) <= 2 or min(size) < 32:
        raise ValueError(f"size takes one side or H W, each at least 32, got {tuple(size)}")
    return size[0], size[-1]


def _batch(batch: int | None, device: str) -> int:
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    return batch or (256 if timing.find_device(device).type == "cuda" else 8)
