"""Every model in float32, bfloat16 and float16, eager, compiled and optimised, against itself in float64.

Tolerance. A sum, product or stored map in a dtype is off by at most its unit roundoff u = eps / 2 of its size. Errors
of N roundings one after the other add like a random walk, to u * sqrt(N); N is counted, as every module with
parameters that runs rounds its products, its sum and what is made of it (activation, residual): three. A factor of
`SAFETY` covers that a worst element is asked for, several standard deviations out, and that softmax, norms of small
maps and sampling positions enlarge errors. What is asked: max |y - exact| <= tolerance * max |exact|, for every map
that a model gives.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import litevit
from litevit.zoo import BACKBONES, MODELS

SIZE = (64, 96)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MODES = ("eager", "optimised", "compiled")
SAFETY = 4.0
EXTREMES: dict[str, Callable[[Tensor], Tensor]] = {
    "+1e4": lambda x: torch.full_like(x, 1e4),
    "-1e4": lambda x: torch.full_like(x, -1e4),
    "+-1e4": lambda x: 1e4 * x.sign(),
    "zeros": torch.zeros_like,
    "constant": lambda x: torch.full_like(x, 0.5),
    "denormal": lambda x: 1e-40 * x.sign(),
}


def create(name: str, *, shallow: bool = False) -> nn.Module:
    """A model with weights that are not at their start, in evaluation mode; `shallow` keeps one block per stage."""
    torch.manual_seed(0)
    options = {}
    if shallow:
        config = MODELS[name].backbone
        options = {"depths": (1,) * len(config.depths)}
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
    """Every map before post-processing, or a classifier's logits."""
    out = getattr(model, "forward_raw", model)(x)
    return out if isinstance(out, dict) else {"logits": out}


def prepared(model: nn.Module, mode: str) -> Callable[[Tensor], dict[str, Tensor]]:
    if mode == "optimised":
        fast = litevit.optimize_for_inference(model)
        return lambda x: maps(fast, x)
    if mode == "compiled":
        torch._dynamo.reset()
        compiled = torch.compile(getattr(model, "forward_raw", model), dynamic=False)

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
    return SAFETY * torch.finfo(DTYPES[dtype]).eps / 2 * math.sqrt(3 * ran)


def error(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    """The worst share of a map's largest value that an element is off by; infinite where one is not finite."""
    assert found.keys() == truth.keys()
    worst = 0.0
    for key, y in truth.items():
        assert found[key].shape == y.shape, key
        off = (found[key].double() - y.double()).abs().max() / y.double().abs().max().clamp(min=1e-30)
        worst = max(worst, float(off) if math.isfinite(float(off)) else math.inf)
    return worst


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def judge(name: str, mode: str, dtypes: tuple[str, ...] = tuple(DTYPES), *, shallow: bool = False) -> dict[str, dict]:
    """A row per dtype: worst share of the tolerance, alone among seven, repeats, extremes that break it."""
    model = create(name, shallow=shallow)
    x = images()
    truth = exact(model, x[:2]) if mode == "compiled" else exact(model, x)
    run = prepared(model, mode)
    rows = {}
    for dtype in dtypes:
        bound = tolerance(model, dtype)
        with precision(dtype):
            if mode == "compiled":  # one shape is compiled
                first, again = run(x[:2]), run(x[:2])
                alone, among, share = None, None, error(first, truth) / bound
            else:
                first, again, alone = run(x), run(x), run(x[3:4])
                among = {key: y[3:4] for key, y in first.items()}
                share = error(first, truth) / bound
            # Of a compiled model the shapes that it is compiled for.
            broken = [
                key
                for key, extreme in EXTREMES.items()
                if not all(y.isfinite().all() for y in run(extreme(x[: 2 if mode == "compiled" else 1])).values())
            ]
        rows[dtype] = {
            "share": share,
            "alone": None if alone is None or among is None else error(alone, among) / bound,
            "repeats": equal(first, again),
            "broken": broken,
            "tolerance": bound,
        }
    return rows


def passes(row: dict) -> bool:
    return row["share"] <= 1 and (row["alone"] or 0) <= 1 and row["repeats"] and not row["broken"]


def names() -> list[str]:
    """Every model; `BACKBONES` names its classifiers."""
    assert set(BACKBONES) <= set(litevit.list_models())
    return litevit.list_models()
