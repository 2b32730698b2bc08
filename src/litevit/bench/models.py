"""Whole models beside timm's, in one process and in turns: speed, latency, memory; over size, batch and threads."""

import copy
import difflib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import timm
import torch
from torch import nn

from litevit.bench import timing as timing
from litevit.bench.accuracy import published_top1
from litevit.bench.cases import DTYPES, Case, inference, prepare, training_step
from litevit.bench.engines import FORMAT, INT8, engine_runner
from litevit.bench.report import Report
from litevit.bench.timing import Timing
from litevit.bench.words import Clock, Dtype, Mode, ModelDtype
from litevit.checkpoints.files import is_exported_file
from litevit.devices import find_device
from litevit.models import count_macs, create_backbone, create_model, list_models
from litevit.optimize.inference import optimize_for_inference
from litevit.zoo import WINDOW_4

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
    "light": (
        "mobilenetv4_conv_medium",
        "repvit_m1_5",
        "fastvit_sa12",
        "efficientvit_b2",
        "hgnetv2_b3",
        "tiny_vit_11m_224",
        "efficientformerv2_s2",
    ),
    "none": (),
}


def resolve_peers(peers: str | Sequence[str], notes: list[str]) -> list[str]:
    """Names of timm models. Args: peers: a set of `PEERS`, or names, also joined by commas. Unknown ones are noted."""
    words = [word for part in ([peers] if isinstance(peers, str) else peers) for word in part.split(",")]
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


def is_ours(name: str) -> bool:
    """Whether a name is a model of litevit; LITv2 with "_ws4" has the 4 x 4 windows of the detectors' fast version."""
    return name in list_models() or (name.endswith("_ws4") and name.removesuffix("_ws4") in list_models("litv2_?"))


def build_model(name: str, size: tuple[int, int], features: bool) -> nn.Module:
    if is_ours(name):
        overrides: dict[str, Any] = {"window_sizes": WINDOW_4} if name.endswith("_ws4") else {}
        make = create_backbone if features else create_model
        return make(name.removesuffix("_ws4"), **overrides)
    options: dict[str, Any] = {"features_only": True} if features else {}
    if size == (224, 224):
        return timm.create_model(name, **options)
    try:  # position tables and windows are made for one size
        return timm.create_model(name, img_size=size, **options)
    except TypeError:  # a convolutional network has no such option
        return timm.create_model(name, **options)


def _check(models: Sequence[str]) -> None:
    for name in models:
        if not is_ours(name):
            if is_exported_file(name):
                raise ValueError(
                    f"{name} is an exported file, and models are measured by their names: --engines onnxruntime "
                    "openvino writes and measures such files itself."
                )
            near = difflib.get_close_matches(name, list_models(), n=2)
            raise ValueError(
                f"Unknown model {name!r}."
                + (f" Did you mean {' or '.join(map(repr, near))}?" if near else " `litevit list` names them.")
            )


def measure_models(
    models: Sequence[str],
    peers: str | Sequence[str] = "core",
    *,
    size: tuple[int, int] = (224, 224),
    batch: int = 8,
    dtypes: Sequence[ModelDtype] = ("fp32",),
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
        models: ours: names of `litevit.list_models()`, LITv2 also with "_ws4" (see `is_ours`).
        peers: see `resolve_peers`.
        size: (H, W) of the images.
        batch: images at a time.
        dtypes: each a pass of its own; weights and images in that dtype. int8: products of the engines' files alone;
            int8-bf16: the rest in bfloat16 (OpenVINO alone).
        modes: eager, compiled; onnxruntime, openvino: the plain model as a file of that engine, on the CPU.
        training: forward and backward in training mode, no optimizer step; otherwise inference.
        features: the four maps of the backbones instead of logits.
        fuse: our models through `litevit.optimize_for_inference` first (inference only). Peers run as timm makes them.
        latency: also one image at a time.
        memory: also the peak memory of one call, run eagerly (CPU), or as it is (CUDA).
        device: auto, cpu, cuda, mps.
        num_threads: CPU threads.
        rounds, min_seconds: see `timing.interleave`.
        clock: wall, or cpu for processor time (one thread on a busy machine).
        progress: told what is being done.
    """
    _check(models)
    where = find_device(device)
    say = progress or (lambda text: None)
    notes: list[str] = []
    names = [*models, *resolve_peers(peers, notes)]
    rows: list[dict[str, Any]] = []
    with timing.threads(num_threads):
        facts = timing.environment(where)
        for dtype in dtypes:
            able = [mode for mode in modes if dtype not in INT8 or mode in FORMAT]
            if len(able) < len(modes):
                notes.append(f"{dtype} is measured in engines alone.")
            rate = None if dtype in INT8 else timing.product_rate(where, DTYPES[dtype], clock)
            facts[f"product_gflops_{dtype}"] = rate and rate / 1e9
            cases: dict[str, Case] = {}
            for name in names:
                cases |= _model_cases(
                    name, dtype, able, size, batch, where, training, features, fuse, latency, memory, notes, say
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
    dtype: ModelDtype,
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
    say(f"{name} {dtype}: build")
    torch.manual_seed(0)
    try:
        model = build_model(name, size, features).train(training)
    except Exception as error:
        notes.append(f"{name}: timm cannot build it here, {type(error).__name__}: {str(error).splitlines()[0]}")
        return {}
    about: dict[str, Any] = {"model": name, "dtype": dtype, "params": sum(p.numel() for p in model.parameters())}
    about["macs"] = count_macs(model, size)
    top1 = None if features else published_top1(name, size)
    about |= {"top1": top1 and top1.percent, "top1_by": top1 and top1.by}
    if not training:
        _as_trained(model)
    plain = model
    if fuse and not training and is_ours(name):
        model = optimize_for_inference(model)
    elif any(mode in FORMAT for mode in modes):
        plain = copy.deepcopy(model)
    model = model.to(where, DTYPES.get(dtype, torch.float32))
    if where.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    step = training_step if training else inference
    cases: dict[str, Case] = {}
    for mode in modes:
        say(f"{name} {dtype}: {mode}")
        if mode in FORMAT:
            case = _engine_case(plain, mode, dtype, size, batch, f"{name} {dtype} {mode}", notes)
            if case is not None:
                case.facts = {**about, "mode": mode, "batch": case.batch, "peak_mb": None}
                cases[f"{name}/{mode}"] = case
            continue
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
            case.facts["peak_mb"] = _peak_mb(run, where, f"{name} {dtype} {mode}", notes)
        cases[f"{name}/{mode}"] = case
        if latency and not training:
            single = prepare(make, 1, f"{name} {dtype} {mode} batch 1", notes)
            if single is not None:
                single.facts = {"latency_of": f"{name}/{mode}"}
                cases[f"{name}/{mode}/1"] = single
    return cases


@torch.no_grad()
def _as_trained(model: nn.Module) -> None:
    """Norms and biases that are no longer zeros and ones, in place: an engine leaves out what multiplies by one."""
    vectors = [p for p in model.parameters() if p.dim() < 2] + [
        b for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var"))
    ]
    for vector in vectors:
        vector.add_(0.02 * torch.rand_like(vector))


def _engine_case(
    model: nn.Module, mode: str, dtype: ModelDtype, size: tuple[int, int], batch: int, name: str, notes: list[str]
) -> Case | None:
    try:
        return prepare(engine_runner(model.eval(), mode, dtype, size), batch, name, notes)
    except (ImportError, ValueError) as error:
        notes.append(f"{name}: {error}")
        return None


def _peak_mb(run: Callable[[], object], where: torch.device, name: str, notes: list[str]) -> float | None:
    try:
        return timing.peak_bytes(run, where) / 2**20
    except Exception as error:
        notes.append(f"{name}: peak memory was not measured, {type(error).__name__}")
        return None


def _model_rows(
    cases: dict[str, Case], timed: dict[str, Timing], rate: float | None, clock: Clock, training: bool
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
                "flops_share": rate and 2 * case.facts["macs"] * (3 if training else 1) * per_second / rate,
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


MODEL_COLUMNS = (
    "model",
    "dtype",
    "mode",
    "images_per_s",
    "spread",
    "top1",
    "top1_by",
    "flops_share",
    "latency_ms",
    "peak_mb",
    "batch",
)


def target_ratios(report: Report, dtype: ModelDtype = "fp32") -> dict[str, float]:
    """Best against best: our models over each peer, `"litv2_s / convnext_tiny"` -> ratio; `"... flops"` -> FLOP/s."""
    rows = {row["model"]: row for row in report.rows if row["best"] and row["dtype"] == dtype}
    out: dict[str, float] = {}
    for name in filter(is_ours, rows):
        for peer in (n for n in rows if not is_ours(n)):
            ratio = rows[name][f"x {peer}"]
            out[f"{name} / {peer}"] = ratio
            out[f"{name} / {peer} flops"] = ratio * rows[name]["macs"] / rows[peer]["macs"]
    return out


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
