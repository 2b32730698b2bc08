"""The commands `litevit bench models | attention | ops | scaling`: options in, table, files and plot out.

Everything compared runs in one process, in turns (`timing.interleave`). A case that cannot run (an unknown peer,
no compiler, no memory) is noted and left out; the others go on. Libraries are imported when a command runs.
"""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from litevit.bench.report import Report
from litevit.bench.words import WAYS, Clock, Dtype, Engine, Mode, ModelDtype, Way


def _print_progress(text: str) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        console.print(f"[dim]{text}[/dim]", end="\r", soft_wrap=True)


def _finish(
    report: Report, columns: Sequence[str], out: Path | None, plot: Callable | None, pareto: Callable | None = None
) -> Report:
    files = report.save(out, plot=plot, pareto=pareto) if out is not None else []
    print(report.render(columns))
    for file in files:
        print(f"Wrote {file}")
    return report


def main_models(
    models: tuple[str, ...] = ("litv2_s", "lit_s", "lvt"),
    *,
    peers: tuple[str, ...] = ("core",),
    size: tuple[int, ...] = (224,),
    batch: int | None = None,
    dtype: tuple[ModelDtype, ...] = ("fp32",),
    engines: tuple[Engine, ...] = (),
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
        models: ours, with spaces or commas between; see `litevit list`. LITv2 also with _ws4: the detectors' windows.
        peers: the same way: sets (core, published, today, light, none) or names of timm models.
        size: side, or H W, of the images.
        batch: images at a time; default: 8 on the CPU, 256 on a GPU.
        dtype: one or several of fp32, bf16, fp16, int8 (engines alone), int8-bf16 (OpenVINO alone).
        engines: instead of --compile and --eager: several of torch, compiled, onnxruntime, openvino.
        compile: measure with torch.compile; --no-compile leaves that out.
        eager: measure without; --no-eager leaves that out.
        train: a training step (forward and backward) instead of inference.
        features: the backbones' four maps instead of logits.
        fuse: ours through optimize_for_inference; --no-fuse measures them as they are trained.
        latency: also one image at a time.
        memory: peak memory as well; --no-memory leaves that out.
        device: auto, cpu, cuda, mps.
        threads: CPU threads; default: as many as PyTorch takes.
        rounds: turns.
        clock: wall, or cpu: processor time, steadier with one thread on a busy machine.
        out: folder for JSON, CSV and plots: the speeds, and accuracy beside speed (PNG, SVG, PDF).
    """
    from litevit.bench.engines import check_engines
    from litevit.bench.models import MODEL_COLUMNS, is_ours, measure_models
    from litevit.bench.plots import plot_models, plot_pareto

    models = tuple(name for part in models for name in part.split(",") if name)
    _check(rounds=rounds, models=models, dtype=dtype, out=out)
    modes: list[Mode] = [*(["eager"] if eager else []), *(["compiled"] if compile else [])]  # type: ignore[list-item]
    if engines:
        if other := [option for option, on in (("--no-eager", eager), ("--no-compile", compile)) if not on]:
            raise ValueError(f"bench models: --engines lists what is measured: leave out {' and '.join(other)}")
        modes = ["eager" if engine == "torch" else engine for engine in dict.fromkeys(engines)]
        if (train or device not in ("auto", "cpu")) and {"onnxruntime", "openvino"} & set(engines):
            raise ValueError("bench models: onnxruntime and openvino are measured in inference on the CPU")
        device = "cpu" if {"onnxruntime", "openvino"} & set(engines) else device
        check_engines(engines, dtype)
    if set(dtype) <= {"int8", "int8-bf16"} and not {"onnxruntime", "openvino"} & set(engines):
        raise ValueError("bench models: int8 is measured in engines: --engines onnxruntime openvino")
    if not modes:
        raise ValueError("bench models: --no-eager and --no-compile leave nothing to measure")
    report = measure_models(
        models,
        peers,
        size=_side(size),
        batch=_batch(batch, device),
        dtypes=tuple(dict.fromkeys(dtype)),
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
    peers_only = [c for c in ratios if not is_ours(c.removeprefix("x "))]
    return _finish(report, [*MODEL_COLUMNS, *peers_only], out, plot_models, pareto=plot_pareto)


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
        threads: CPU threads; default: as many as PyTorch takes.
        rounds: turns.
        clock: wall or cpu.
        out: folder for JSON, CSV and a plot.
    """
    from litevit.bench.layers import measure_attention
    from litevit.bench.plots import plot_attention

    _check(rounds=rounds, sides=sides, batch=batch, dim=dim, heads=heads, out=out)
    if dim % heads:
        raise ValueError(f"dim must be a multiple of heads, got dim={dim}, heads={heads}")
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
        threads: CPU threads; default: as many as PyTorch takes.
        rounds: turns.
        clock: wall or cpu.
        out: folder for JSON, CSV and a plot.
    """
    from litevit.bench.layers import measure_ops
    from litevit.bench.plots import plot_ops

    _check(rounds=rounds, batch=batch, out=out)
    report = measure_ops(
        batch=batch,
        dtype=dtype,
        device=device,
        num_threads=threads,
        rounds=rounds,
        clock=clock,
        progress=_print_progress,
    )
    return _finish(report, ("op", "backend", "direction", "ms", "spread", "x reference"), out, plot_ops)


def main_twins(
    models: tuple[str, ...] = ("litv2_s", "lit_s", "lvt"),
    *,
    ways: tuple[Way, ...] = WAYS,
    size: tuple[int, ...] = (224,),
    batch: int = 8,
    dtype: tuple[Dtype, ...] = ("fp32",),
    features: bool = False,
    layers: bool = False,
    threads: int | None = None,
    rounds: int = 7,
    clock: Clock = "wall",
    out: Path | None = None,
) -> Report:
    """Measures what each twin of optimize_for_inference wins, beside eager, torch.compile and OpenVINO, on the CPU.

    Args:
        models: ours, with spaces between; see `litevit list`. LITv2 also with _ws4: the 4 x 4 windows of the detectors.
        ways: what to compare; "without" leaves out each group of twins in turn, "openvino" needs that package.
        size: side, or height and width.
        batch: images at a time.
        dtype: passes: fp32, bf16, fp16.
        features: backbones alone, as detectors use them.
        layers: instead of whole models every kind of layer that has a twin, alone, on the largest map it is given.
        threads: CPU threads; default: as many as PyTorch takes.
        rounds: turns.
        clock: wall or cpu.
        out: folder for JSON and CSV.
    """
    from litevit.bench.twins import TWIN_COLUMNS, measure_twins

    _check(rounds=rounds, batch=batch, out=out)
    report = measure_twins(
        models,
        ways=ways,
        size=_side(size),
        batch=batch,
        dtypes=dtype,
        features=features,
        layers=layers,
        num_threads=threads,
        rounds=rounds,
        clock=clock,
        progress=_print_progress,
    )
    return _finish(report, TWIN_COLUMNS, out, None)


def main_scaling(
    models: tuple[str, ...] = ("litv2_s",),
    *,
    peers: tuple[str, ...] = ("convnext_tiny",),
    over: Literal["size", "batch", "threads"] = "size",
    sizes: tuple[int, ...] = (),
    batches: tuple[int, ...] = (),
    thread_counts: tuple[int, ...] = (),
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
        sizes: sides of the images, with --over size (batch 1); default: 224 384 512 768 1024 1536.
        batches: with --over batch (224 x 224); default: 1 2 4 8 16.
        thread_counts: with --over threads (224 x 224, batch 8); default: 1 2.
        dtype: fp32, bf16 or fp16.
        device: auto, cpu, cuda, mps.
        rounds: turns.
        clock: wall or cpu.
        out: folder for JSON, CSV and a plot.
    """
    from litevit.bench.models import measure_scaling
    from litevit.bench.plots import plot_scaling

    given = {"sizes": sizes, "batches": batches, "thread_counts": thread_counts}
    varied = {"size": "sizes", "batch": "batches", "threads": "thread_counts"}[over]
    if other := [f"--{name.replace('_', '-')}" for name, values in given.items() if values and name != varied]:
        raise ValueError(f"--over {over} takes --{varied.replace('_', '-')}, not {' and '.join(other)}")
    sizes = sizes or (224, 384, 512, 768, 1024, 1536)
    batches = batches or (1, 2, 4, 8, 16)
    thread_counts = thread_counts or (1, 2)
    _check(rounds=rounds, models=models, batches=batches, thread_counts=thread_counts, out=out)
    _check(32, sizes=sizes)
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
    return _finish(
        report, ("model", over, "ms_per_image", "images_per_s", "spread", "peak_mb", "batch"), out, plot_scaling
    )


COMMANDS: dict[str, Callable[..., Report]] = {
    "models": main_models,
    "attention": main_attention,
    "ops": main_ops,
    "twins": main_twins,
    "scaling": main_scaling,
}


def _check(least: int = 1, *, out: Path | None = None, **values: Any) -> None:
    """Raises ValueError, before anything is measured, for numbers below `least`, empty lists, an unusable folder."""
    for name, value in values.items():
        several = value if isinstance(value, tuple) else (value,)
        if not several:
            raise ValueError(f"{name} needs at least one value, got none")
        low = [v for v in several if isinstance(v, int) and v < least]
        if low:
            raise ValueError(f"{name} must be at least {least}, got {low[0]}")
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            if not os.access(out, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise ValueError(f"--out must be a folder that can be written to, got {out} ({error.strerror})") from None


def _side(size: Sequence[int]) -> tuple[int, int]:
    if not 1 <= len(size) <= 2 or min(size) < 32:
        raise ValueError(f"size takes one side or H W, each at least 32, got {tuple(size)}")
    return size[0], size[-1]


def _batch(batch: int | None, device: str) -> int:
    from litevit.devices import find_device

    _check(batch=batch)
    return batch or (256 if find_device(device).type == "cuda" else 8)
