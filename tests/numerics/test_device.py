"""Losses, gradients and predictions of every task on a device without float64 that shares no memory with the CPU."""

import pytest
import torch

import litevit
from interop.dense import DETECTORS, MODELS, create, inputs
from numerics.device import Autocast, Machine, OnDevice, put, put_model


@pytest.fixture(autouse=True)
def autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", Autocast)


def test_the_stand_in_refuses_what_a_device_refuses() -> None:
    with Machine():
        x = put(torch.ones(3))
        assert isinstance(x + 1, OnDevice)
        assert isinstance(torch.zeros(3, device=x.device) + x, OnDevice)
        assert x.sum().item() == 3
        assert type(x.cpu().double()) is torch.Tensor
        assert (x[torch.tensor([0, 2])] == 1).all()
        with pytest.raises(TypeError, match="float64"):
            x.double()
        with pytest.raises(TypeError, match="float64"):
            torch.zeros(1, dtype=torch.float64, device=x.device)
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(3)
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()


@pytest.mark.parametrize(("name", "backbone"), MODELS)
def test_dense_models(name: str, backbone: str) -> None:
    model = put_model(create(name, backbone))
    given = put(inputs(name))
    with Machine():
        losses = model.train()(*given)
        assert all(isinstance(loss, OnDevice) for loss in losses.values())
        sum(losses.values()).backward()
        missing = [key for key, p in model.named_parameters() if p.grad is None]
        assert not missing
        with torch.no_grad():
            found = model.eval()(given[0])
    if name in DETECTORS:
        assert all(isinstance(one["boxes"], OnDevice) for one in found)
    else:
        assert isinstance(found, OnDevice)


@pytest.mark.parametrize("name", ["lit_ti", "litv2_s", "lvt", "swin_ti_dtm"])
def test_classifiers(name: str) -> None:
    model = put_model(litevit.create_model(name, depths=(1, 1, 1, 1), num_classes=5))
    with Machine():
        logits = model.train()(put(torch.randn(2, 3, 64, 64)))
        loss = torch.nn.functional.cross_entropy(logits, put(torch.tensor([0, 1])))
        loss.backward()
        assert isinstance(loss, OnDevice)
        assert all(p.grad is not None for p in model.parameters())
