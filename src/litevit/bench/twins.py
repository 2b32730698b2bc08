"""What each twin of `optimize_for_inference` wins, beside eager, the compiler and an engine: `litevit bench twins`.

A kernel of our own stays only while this shows that it pays (docs/performance.md).
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from litevit.bench import timing as timing
from litevit.bench.cases import DTYPES, Case, inference, prepare
from litevit.bench.models import build_model
from litevit.bench.report import Report
from litevit.bench.words import WAYS, Clock, Dtype, Way
from litevit.layers.attention import Attention, RelativeAttention
from litevit.layers.block import AttentionBlock, FeedForwardBlock
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.hilo import HiLo
from litevit.layers.mlp import MLP
from litevit.layers.patch_embed import OverlapPatchEmbed, PatchEmbed
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.optimize.inference import TWINS, optimize_for_inference

# What is left out together: a twin alone would leave its partner without what it is made for.
GROUPS: dict[str, tuple[type[nn.Module], ...]] = {
    "products": (nn.Linear,),
    "feed-forward in pieces": (MLP, ConvFFN),
    "LayerNorm and additions": (nn.LayerNorm, FeedForwardBlock, AttentionBlock),
    "attention": (Attention, HiLo),
    "relative bias": (RelativeAttention,),
    "RASA": (RecursiveAtrousSelfAttention,),
    "CSA": (ConvolutionalSelfAttention,),
    "merging": (DeformableTokenMerging,),
    "pixels together": (PatchEmbed, OverlapPatchEmbed),
}
TWIN_COLUMNS = ("model", "dtype", "way", "ms", "spread", "x eager", "won", "batch")


def measure_twins(
    models: Sequence[str],
    *,
    ways: Sequence[Way] = WAYS,
    size: tuple[int, int] = (224, 224),
    batch: int = 8,
    dtypes: Sequence[Dtype] = ("fp32",),
    features: bool = False,
    layers: bool = False,
    num_threads: int | None = None,
    rounds: int = 7,
    clock: Clock = "wall",
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Milliseconds of one call on a CPU. One row per model (or layer), dtype and way; all ways of one in turns.

    Ways: eager; compiled and frozen (`torch.compile`, weights prepacked by Inductor's freezing); optimized; without
    (all twins but one group, for each group that the model has: `won` is what the group wins of the whole model);
    openvino (the same model converted, computing in that dtype).

    Args:
        models: names of `litevit.list_models(task="classification")`, LITv2 also with "_ws4".
        features: the four maps of the backbones instead of logits.
        layers: instead of whole models, every kind of layer that has a twin, alone, on the largest map that the
            backbone gives it; `won` is then what the twin wins over the fastest of the other ways.
        size, batch, dtypes, num_threads, rounds, clock, progress: as of `measure_models`.
    """
    say = progress or (lambda text: None)
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    with timing.threads(num_threads):
        facts = timing.environment(torch.device("cpu"))
        for dtype in dtypes:
            for name in models:
                torch.manual_seed(0)
                model = build_model(name, size, features or layers).eval().requires_grad_(False)
                measured = _layers(model, name, batch, size) if layers else {name: (model, (3, *size))}
                for label, (module, shape) in measured.items():
                    runners = _runners(module.to(DTYPES[dtype]), ways, shape, dtype, layers)
                    cases: dict[str, Case] = {}
                    for way, make in runners.items():
                        say(f"{label} {dtype}: {way}")
                        case = prepare(make, batch, f"{label} {dtype} {way}", notes)
                        if case is not None:
                            cases[way] = case
                    timed = timing.interleave(
                        {way: case.run for way, case in cases.items()}, rounds=rounds, min_seconds=0, progress=say
                    )
                    rows += _rows(label, dtype, cases, timed, clock)
    return Report("twins", rows, facts, notes)


def _rows(label: str, dtype: Dtype, cases: dict[str, Case], timed: dict[str, Any], clock: Clock) -> list[dict]:
    rows = []
    without = any(way.startswith("without") for way in cases)
    for way, case in cases.items():
        row: dict[str, Any] = {"model": label, "dtype": dtype, "way": way, "batch": case.batch}
        row |= {"ms": timed[way].median(clock) * 1e3, "spread": timed[way].spread(clock)}
        if "eager" in timed:
            row["x eager"] = timing.speedup(timed[way], timed["eager"], clock)
        if way.startswith("without") and "optimized" in timed:
            row["won"] = 1 - 1 / timing.speedup(timed["optimized"], timed[way], clock)
        if way == "optimized" and len(timed) > 1 and not without:
            best = min((w for w in timed if w != way), key=lambda w: timed[w].median(clock))
            row["won"] = 1 - 1 / timing.speedup(timed[way], timed[best], clock)
        rows.append(row)
    return rows


def _layers(
    model: nn.Module, name: str, batch: int, size: tuple[int, int]
) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """The first layer of each kind that has a twin, with the shape of one sample of its input; no whole blocks."""
    found: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}
    kinds = [kind for kind in TWINS if kind not in (FeedForwardBlock, AttentionBlock)]

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        C = given[0].shape[-1] if not isinstance(module, PatchEmbed | OverlapPatchEmbed) else given[0].shape[1]
        found.setdefault(f"{name}: {type(module).__name__} {C}", (module, tuple(given[0].shape[1:])))

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if type(m) in kinds]
    with torch.inference_mode():
        model(torch.zeros(batch, 3, *size))
    for hook in hooks:
        hook.remove()
    first: dict[type[nn.Module], str] = {}
    for label, (module, _) in found.items():
        first.setdefault(type(module), label)
    return {label: found[label] for label in first.values()}


def _runners(
    model: nn.Module, ways: Sequence[Way], shape: tuple[int, ...], dtype: Dtype, layers: bool
) -> dict[str, Callable[[int], Callable[[], object]]]:
    def on(network: Any) -> Callable[[int], Callable[[], object]]:
        return lambda n: inference(network, torch.randn(n, *shape).to(DTYPES[dtype]))

    made: dict[str, Callable[[int], Callable[[], object]]] = {}
    for way in ways:
        if way == "eager":
            made[way] = on(model)
        elif way == "compiled":
            made[way] = on(torch.compile(model, dynamic=False))
        elif way == "frozen":
            made[way] = on(torch.compile(model, dynamic=False, options={"freezing": True}))
        elif way == "optimized":
            made[way] = on(optimize_for_inference(model))
        elif way == "without":
            if layers:
                continue
            kinds = {type(module) for module in model.modules()}
            for group, left_out in GROUPS.items():
                if kinds & set(left_out):
                    table = {kind: twin for kind, twin in TWINS.items() if kind not in left_out}
                    made[f"without {group}"] = on(optimize_for_inference(model, twins=table))
        else:
            made[way] = lambda n: _openvino(model, n, shape, dtype)
    return made


def _openvino(model: nn.Module, batch: int, shape: tuple[int, ...], dtype: Dtype) -> Callable[[], object]:
    from litevit.deploy.openvino import core, runtime

    openvino = runtime()
    images = torch.randn(batch, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing names every branch on a size
        converted = openvino.convert_model(model.float(), example_input=images, input=[batch, *shape])
    model.to(DTYPES[dtype])
    hints = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    compiled = core().compile_model(converted, "CPU", hints)
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if taken != hints["INFERENCE_PRECISION_HINT"]:  # it takes another without a word
        raise ValueError(f"OpenVINO computes {dtype} with {taken} on this processor")
    request = compiled.create_infer_request()
    arrays = [images.numpy()]
    return lambda: request.infer(arrays)
