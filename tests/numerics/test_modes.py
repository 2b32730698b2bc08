"""Every model, in every precision, within the tolerance of its dtype; `modes.py` says how that is derived."""

import pytest
import torch

from interop.dense import MODELS as TASKS
from interop.dense import create as create_task
from interop.dense import inputs
from numerics import modes
from numerics.modes import DTYPES, judge, passes

# A model of every family and task, and fewer for the default run; `python -m tests.numerics` takes all.
FEW = ["lit_ti", "litv2_s", "lvt", "pvt_s", "swin_ti_dtm", "semantic_fpn_lit_ti", "panoptic_fpn_lvt"]
FEWER = ["lit_ti", "litv2_s", "lvt"]


def check(name: str, mode: str, **options: bool) -> None:
    rows = judge(name, mode, **options)
    assert set(rows) == set(DTYPES)
    for dtype, row in rows.items():
        assert passes(row), (name, mode, dtype, row)


@pytest.mark.parametrize("mode", ["eager", "optimised"])
@pytest.mark.parametrize("name", FEWER)
def test_a_model_of_every_paper(name: str, mode: str) -> None:
    check(name, mode, shallow=True)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eager", "optimised"])
@pytest.mark.parametrize("name", modes.names())
def test_every_model(name: str, mode: str) -> None:
    check(name, mode)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_compiled(name: str) -> None:
    check(name, "compiled", shallow=True)


def test_an_error_of_one_part_in_a_thousand_is_too_much_for_float32() -> None:
    model = modes.create("litv2_s", shallow=True)
    x = modes.images(1)
    truth = modes.exact(model, x)
    with torch.no_grad():
        found = {key: y.clone() for key, y in modes.maps(model, x).items()}
    bound = modes.tolerance(model, "fp32")
    assert modes.error(found, truth) <= bound
    found["logits"][0, 0] += 1e-3 * truth["logits"].abs().max()
    assert modes.error(found, truth) > bound
    found["logits"][0, 0] = torch.nan
    assert modes.error(found, truth) == float("inf")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", modes.names())
def test_gradients_reach_every_parameter(name: str, dtype: str) -> None:
    found = modes.gradients(name, dtype)
    assert found["parameters"] > 0
    assert found == {**found, "missing": [], "zero": [], "repeats": True}


@pytest.mark.parametrize("name", ["retinanet", "mask_rcnn", "panoptic_fpn"])
@torch.no_grad()
def test_detections_do_not_depend_on_the_other_images(name: str) -> None:
    """In float64, where no rounding moves a detection over a threshold."""
    model = create_task(name, dict(TASKS)[name]).double().eval()
    rng = torch.Generator().manual_seed(3)
    pictures = [torch.rand(3, 64, 96, generator=rng, dtype=torch.float64) for _ in range(7)]
    among, (alone,) = model(pictures)[3], model([pictures[3]])
    assert len(alone["boxes"]) > 0
    for key in ("boxes", "scores"):
        torch.testing.assert_close(among[key], alone[key], atol=1e-9, rtol=1e-9)
    assert torch.equal(among["labels"], alone["labels"])
    for key in {"masks", "panoptic"} & set(alone):
        assert torch.equal(among[key], alone[key])


@pytest.mark.parametrize(("name", "backbone"), TASKS)
@torch.no_grad()
def test_predictions_of_extreme_images_are_finite(name: str, backbone: str) -> None:
    model = create_task(name, backbone).eval()
    batch, _ = inputs(name)
    for extreme in modes.EXTREMES.values():
        given = [extreme(image) for image in batch] if isinstance(batch, list) else extreme(batch)
        found = model(given)
        values = [v for one in found for v in one.values()] if isinstance(found, list) else [found]
        assert all(v.isfinite().all() for v in values if isinstance(v, torch.Tensor))
