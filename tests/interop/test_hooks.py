"""PyTorch's tools reach every module with parameters: hooks, adapters, parametrisations, pruning, transforms."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from optimize.models import MODELS, close, stirred

CONTAINERS = (nn.ModuleList, nn.Sequential)


def called_modules(model: nn.Module) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if any(True for _ in module.parameters()) and not isinstance(module, CONTAINERS)
    }


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", MODELS)
def test_hooks_fire_on_every_module_with_parameters(name, training):
    model = stirred(name).train(training)
    modules = called_modules(model)
    fired: dict[str, set[str]] = {kind: set() for kind in ("forward", "before", "backward")}
    for key, module in modules.items():
        module.register_forward_hook(lambda *args, key=key: fired["forward"].add(key))
        module.register_forward_pre_hook(lambda *args, key=key: fired["before"].add(key))
        module.register_full_backward_hook(lambda *args, key=key: fired["backward"].add(key))
    model(torch.randn(2, 3, 64, 64, requires_grad=True)).square().sum().backward()
    for kind, names in fired.items():
        assert names == set(modules), (kind, set(modules) - names)


@pytest.mark.parametrize("name", MODELS)
def test_every_linear_layer_can_be_replaced_and_learns(name):
    """What an adapter does: another module in the place of a linear layer, with parameters that start at zero."""

    class Adapter(nn.Module):
        def __init__(self, base: nn.Linear):
            super().__init__()
            self.base = base.requires_grad_(False)
            self.down = nn.Parameter(torch.randn(2, base.in_features) * 0.1)
            self.up = nn.Parameter(torch.zeros(base.out_features, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + x @ self.down.T @ self.up.T

    model = stirred(name)
    images = torch.randn(2, 3, 64, 64)
    expected = model.eval()(images)
    for module in list(model.modules()):
        for key, child in list(module.named_children()):
            if type(child) is nn.Linear and not isinstance(module, Adapter):
                setattr(module, key, Adapter(child))
    adapters = {key: m for key, m in model.named_modules() if isinstance(m, Adapter)}
    torch.testing.assert_close(model(images), expected)
    model.train()(images).square().sum().backward()
    still = [key for key, m in adapters.items() if m.up.grad is None or not m.up.grad.any()]
    assert not still
    with torch.no_grad():
        for adapter in adapters.values():
            adapter.up.normal_(std=0.1)
    moved = model.eval()(images)
    for module in list(model.modules()):
        for key, child in list(module.named_children()):
            if isinstance(child, Adapter):
                child.base.weight.data += child.up.data @ child.down.data
                setattr(module, key, child.base)
    close(model(images), moved, 1e-4)


@pytest.mark.parametrize("name", ["litv2_s", "lit_s", "lvt"])
def test_norms_and_pruning_of_weights_learn(name):
    for change in (
        lambda m: parametrizations.spectral_norm(m),
        lambda m: parametrizations.weight_norm(m),
        lambda m: prune.l1_unstructured(m, "weight", amount=0.3),
    ):
        model = stirred(name).train()
        layers = [m for m in model.modules() if type(m) in (nn.Linear, nn.Conv2d)]
        for layer in layers:
            change(layer)
        for _ in range(2):
            model.zero_grad()
            model(torch.randn(2, 3, 64, 64)).square().sum().backward()
        assert all(p.grad is not None for layer in layers for p in layer.parameters())


@pytest.mark.parametrize("size", [64, 80])
@pytest.mark.parametrize("name", MODELS)
def test_vmap_and_per_sample_gradients(name, size):
    model = stirred(name).eval()
    images = torch.randn(3, 3, size, size)
    parameters = {k: p.detach() for k, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def predict(parameters, image):
        return torch.func.functional_call(model, (parameters, buffers), image[None])[0]

    with torch.no_grad():
        close(torch.func.vmap(predict, in_dims=(None, 0))(parameters, images), model(images))
    each = torch.func.vmap(torch.func.grad(lambda p, x: predict(p, x).square().sum()), in_dims=(None, 0))
    gradients = each(parameters, images)
    model(images).square().sum().backward()
    for key, p in model.named_parameters():
        close(gradients[key].sum(0), p.grad, 1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_copies(name):
    model = stirred(name).eval()
    images = torch.randn(1, 3, 64, 64)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(images), model(images))
