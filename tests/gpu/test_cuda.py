"""On CUDA: every family trains in every precision, and the optimised copies compute the same."""

import copy

import pytest
import torch

import litevit
from litevit.optimize.entries import SampledMerging
from litevit.optimize.operators import HAS_TRITON
from optimize.models import MODELS, close, stirred

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SHARE = {torch.float32: 2e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2}


@pytest.mark.parametrize("dtype", SHARE)
@pytest.mark.parametrize("name", MODELS)
def test_trains_under_autocast_and_in_the_dtype(name, dtype):
    model = stirred(name).cuda().train()
    images = torch.randn(4, 3, 96, 64, device="cuda")
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        loss = model(images).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if dtype != torch.float16:
        model.zero_grad(set_to_none=True)
        model.to(dtype)(images.to(dtype)).float().square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_optimised_for_inference(name, dtype):
    model = stirred(name).cuda().eval()
    images = torch.randn(4, 3, 96, 64, device="cuda")
    exact = copy.deepcopy(model).double()(images.double())
    fast = litevit.optimize_for_inference(model.to(dtype))
    close(fast(images.to(dtype)), exact, SHARE[dtype])
    moved = litevit.optimize_for_inference(copy.deepcopy(model).cpu()).cuda()  # optimised on a CPU, then moved
    close(moved(images.to(dtype)), exact, SHARE[dtype])


@pytest.mark.parametrize("name", MODELS)
def test_optimised_for_training(name):
    plain = stirred(name).cuda().train()
    fast = litevit.optimize_for_training(plain)
    merges = [m for m in fast.modules() if isinstance(m, SampledMerging)]
    assert bool(merges) == (HAS_TRITON and name in ("lit_s", "lit_ti", "litv2_s", "swin_ti_dtm"))
    images = torch.randn(4, 3, 96, 64, device="cuda")
    exact = copy.deepcopy(plain).double()
    for model, x in ((plain, images), (fast, images), (exact, images.double())):
        model(x).square().mean().backward()
    for (key, p), q, e in zip(plain.named_parameters(), fast.parameters(), exact.parameters()):
        error, unit = (q.grad - e.grad).abs().max(), (p.grad - e.grad).abs().max()
        assert error <= 8 * unit + 1e-4 * e.grad.abs().max() + 1e-8, key
