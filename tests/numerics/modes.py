"""Every model in float32, bfloat16 and float16, eager, optimised and compiled, against itself in float64.

Tolerance. A sum, product or stored map in a dtype is off by at most its unit roundoff u = eps / 2 of its size. Errors
of N roundings one after the other add like a random walk, to u * sqrt(N); N is counted, as every module with
parameters that runs rounds its products, its sum and what is made of it (activation, residual): three. A factor of
4 covers that a worst element is asked for, several standard deviations out, and that softmax, norms of small maps and
sampling positions enlarge errors; under autocast the residual stream and the sums stay in float32, and 1 is enough.
What is asked: max |y - exact| <= tolerance * max |exact|, for every map that a model gives.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import litevit
from interop.dense import DETECTORS, train_loss
from interop.dense import MODELS as TASKS
from litevit.tasks.two_stage import TwoStage
from litevit.zoo import BACKBONES, MODELS

SIZE = (64, 96)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MODES = ("eager", "optimised", "compiled")
SAFETY = {"fp32": 4.0, "bf16": 1.0, "fp16": 1.0}
EXTREMES: dict[str, Callable[[Tensor], Tensor]] = {
    "+1e4": lambda x: torch.full_like(x, 1e4),
    "-1e4": lambda x: torch.full_like(x, -1e4),
    "+-1e4": lambda x: 1e4 * x.sign(),
    "zeros": torch.zeros_like,
    "constant": lambda x: torch.full_like(x, 0.5),
    "denormal": lambda x: 1e-40 * x.sign(),
}


def create(name: str, *, shallow: bool = False, **options: Any) -> nn.Module:
    """A model with weights that are not at their start, in evaluation mode; `shallow` keeps one block per stage."""
    torch.manual_seed(0)
    if shallow:
        config = MODELS[name].backbone
        options["depths"] = (1,) * len(config.depths)
    model = litevit.create_model(name, **options).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.normal_(1, 0.2)
                module.bias.normal_(0, 0.1)
            if hasattr(module, "offset"):
                module.offset.weight.normal_(0, 0.01)
            if hasattr(module, "relative_position_bias_table"):
                module.relative_position_bias_table.normal_()
    return model


def images(count: int = 7) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Autocast, of which fp32 has none."""
    with torch.no_grad(), torch.autocast("cpu", DTYPES[dtype], enabled=dtype != "fp32"):
        yield


def maps(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Every map before post-processing, or a classifier's logits; of Mask R-CNN also a region's outputs."""
    out = getattr(model, "forward_raw", model)(x)
    out = out if isinstance(out, dict) else {"logits": out}
    return out | regions(model, out, len(x)) if isinstance(model, TwoStage) else out


def regions(model: TwoStage, out: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Classes, boxes and masks of one region per image, always the same: no rounding chooses another."""
    heads = model.roi_heads
    rois = torch.tensor([[float(i), 8.0, 4.0, 80.0, 60.0] for i in range(count)])
    pyramid = [out[f"F{i}"] for i in range(len(heads.strides))]
    logits, deltas = heads.box_head(heads.features(pyramid, rois, heads.box_size))
    masks = heads.mask_head(heads.features(pyramid, rois, heads.mask_size))
    return {"region_cls": logits, "region_box": deltas, "region_mask": masks}


def prepared(model: nn.Module, mode: str, backend: str = "inductor") -> Callable[[Tensor], dict[str, Tensor]]:
    if mode == "optimised":
        fast = litevit.optimize_for_inference(model)
        return lambda x: maps(fast, x)
    if mode == "compiled":  # the regions' heads take another number of regions each time, and are left out
        torch._dynamo.reset()
        compiled = torch.compile(getattr(model, "forward_raw", model), dynamic=False, backend=backend)

        def run(x: Tensor) -> dict[str, Tensor]:
            out = compiled(x)
            return out if isinstance(out, dict) else {"logits": out}

        return run
    return lambda x: maps(model, x)


def exact(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return maps(copy.deepcopy(model).double(), x.double())


def tolerance(model: nn.Module, dtype: str) -> float:
    """The share of a map's largest value that its elements may be off by; see the module's docstring."""
    ran = 0
    handles = []

    def count(*_: object) -> None:
        nonlocal ran
        ran += 1

    for module in model.modules():
        if next(module.parameters(recurse=False), None) is not None:
            handles.append(module.register_forward_hook(count))
    with torch.no_grad():
        maps(model, images(1))
    for handle in handles:
        handle.remove()
    return SAFETY[dtype] * torch.finfo(DTYPES[dtype]).eps / 2 * math.sqrt(3 * ran)


def error(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    """The worst share of a map's largest value that an element is off by; infinite where one is not finite."""
    assert found.keys() == truth.keys()
    worst = 0.0
    for key, y in found.items():
        assert truth[key].shape == y.shape, key
        off = (y.double() - truth[key].double()).abs().max() / truth[key].double().abs().max().clamp(min=1e-30)
        worst = max(worst, float(off) if math.isfinite(float(off)) else math.inf)
    return worst


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def judge(
    name: str, mode: str, dtypes: tuple[str, ...] = tuple(DTYPES), *, shallow: bool = False, backend: str = "inductor"
) -> dict[str, dict[str, Any]]:
    """A row per dtype: worst share of the tolerance, dependence on other images, repeats, extremes that break it.

    Eager and optimised models are asked for an image alone and among seven. A compiled one is made for pairs, and is
    asked for an image beside two others.
    """
    model = create(name, shallow=shallow)
    x = images()[:3] if mode == "compiled" else images()
    pair = [[0, 1], [0, 2]]
    truth = exact(model, x)
    run = prepared(model, mode, backend)
    rows = {}
    for dtype in dtypes:
        bound = tolerance(model, dtype)
        with precision(dtype):
            if mode == "compiled":
                first, again = run(x[pair[0]]), run(x[pair[0]])
                share = error(first, {key: truth[key][pair[0]] for key in first}) / bound
                other = error(pick(run(x[pair[1]]), 0), pick(first, 0)) / bound
            else:
                first, again = run(x), run(x)
                share = error(first, truth) / bound
                other = error(run(x[3:4]), pick(first, 3)) / bound
            count = 2 if mode == "compiled" else 1
            broken = [
                key
                for key, extreme in EXTREMES.items()
                if not all(y.isfinite().all() for y in run(extreme(x[:count])).values())
            ]
        rows[dtype] = {
            "share": share,
            "other": other,
            "repeats": equal(first, again),
            "broken": broken,
            "tolerance": bound,
        }
    return rows


def pick(out: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    """What belongs to one image of a batch."""
    return {key: y[i : i + 1] for key, y in out.items()}


def passes(row: dict[str, Any]) -> bool:
    return row["share"] <= 1 and row["other"] <= 1 and row["repeats"] and not row["broken"]


def gradients(name: str, dtype: str) -> dict[str, Any]:
    """Counts a model's parameters; names those that a loss does not reach, those of zeros, and repeats."""
    kind = next((task for task, _ in TASKS if name.startswith(task)), None)
    # At the published size a step takes 12 GiB, and 512 regions a minute in bfloat16 without units for it.
    options: dict[str, Any] = {"resize": False} if kind in DETECTORS else {}
    options |= {"roi_samples": 16, "max_proposals": 40} if kind in ("mask_rcnn", "panoptic_fpn") else {}

    def backward() -> nn.Module:
        model = create(name, **options).train()
        torch.manual_seed(3)
        with torch.autocast("cpu", DTYPES[dtype], enabled=dtype != "fp32"):
            loss = model(images(2)).float().square().sum() if kind is None else train_loss(model, kind)
        loss.backward()
        return model

    model, again = backward(), dict(backward().named_parameters())
    found = dict(model.named_parameters())
    missing = [key for key, p in found.items() if p.grad is None or not p.grad.isfinite().all()]
    # Normalisation and softmax cancel what is added to all alike; rounding may leave exactly 0.
    zero = [
        key
        for key, p in found.items()
        if key not in missing and not p.grad.any() and not key.endswith(("proj.bias", "deltas.bias", "deltas.weight"))
    ]
    repeats = all(torch.equal(p.grad, again[key].grad) for key, p in found.items() if key not in missing)
    return {"parameters": len(found), "missing": missing, "zero": zero, "repeats": repeats}


def names() -> list[str]:
    """Every model; `BACKBONES` names its classifiers."""
    assert set(BACKBONES) <= set(litevit.list_models())
    return litevit.list_models()
