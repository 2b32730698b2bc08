"""PyTorch's tools reach every module of the task models, in training and in evaluation."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.modules import module as nn_module
from torch.nn.utils import parametrizations, prune

from interop.dense import DETECTORS, MODELS, create, inputs, train_loss

CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


def called_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with parameters that have a forward of their own."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(True for _ in module.parameters()) and type(module) not in CONTAINERS
    }


@pytest.mark.parametrize(("name", "backbone"), MODELS)
def test_hooks_fire_on_every_module_in_training(name, backbone):
    model = create(name, backbone)
    modules = called_modules(model)
    kinds = ("forward", "before", "backward", "everywhere")
    fired: dict[str, set[str]] = {kind: set() for kind in kinds}
    for key, module in modules.items():
        module.register_forward_hook(lambda *args, key=key: fired["forward"].add(key))
        module.register_forward_pre_hook(lambda *args, key=key: fired["before"].add(key))
        module.register_full_backward_hook(lambda *args, key=key: fired["backward"].add(key))
    names = {module: key for key, module in modules.items()}
    handle = nn_module.register_module_forward_hook(lambda m, *args: fired["everywhere"].add(names.get(m)))
    try:
        train_loss(model, name).backward()
    finally:
        handle.remove()
    for kind in ("forward", "before", "everywhere"):
        assert set(modules) <= fired[kind], (kind, set(modules) - fired[kind])
    # PyTorch's backward hooks do not look into dictionaries and lists: the model's losses, torchvision's pyramid.
    assert set(modules) - fired["backward"] <= {"", "fpn.pyramid", "fpn.pyramid.extra_blocks"}
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("name", "backbone"), MODELS)
def test_hooks_fire_on_every_module_in_evaluation(name, backbone):
    model = create(name, backbone).eval()
    modules = called_modules(model)
    fired: list[str] = []
    for key, module in modules.items():
        module.register_forward_hook(lambda *args, key=key: fired.append(key))
    with torch.no_grad():
        model(inputs(name)[0])
    assert set(fired) == set(modules), set(modules) - set(fired)
    # Once per use: heads that levels share run once for each, everything else once.
    levels = {"retinanet": 5, "mask_rcnn": 5, "panoptic_fpn": 5}.get(name, 1)
    for key in modules:
        shared = key.startswith(("rpn", "head")) and name in DETECTORS
        assert fired.count(key) == (levels if shared else 1) or "attn" in key or "conv" in key, (key, fired.count(key))


@pytest.mark.parametrize("name", DETECTORS)
def test_nothing_found_still_runs_every_head(name):
    """Distributed training and hooks meet every module on images without objects, too."""
    backbone = dict(MODELS)[name]
    model = create(name, backbone, score_threshold=0.999).eval()
    modules, fired = called_modules(model), set()
    for key, module in modules.items():
        module.register_forward_hook(lambda *args, key=key: fired.add(key))
    with torch.no_grad():
        found = model(inputs(name)[0])
    assert all(len(one["boxes"]) == 0 for one in found)
    assert fired == set(modules)
    images, targets = inputs(name)
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "semantic": targets[0]["semantic"],
    }
    empty["masks"] = torch.zeros(0, 64, 96, dtype=torch.bool)
    sum(model.train()(images, [empty, empty]).values()).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("name", "backbone"), MODELS)
def test_patched_forwards_are_called(name, backbone):
    """What accelerate's hooks and many explainers do."""
    model = create(name, backbone).eval()
    seen = set()
    for key, module in called_modules(model).items():
        if key:

            def patched(*args, key=key, inner=module.forward, **kwargs):
                seen.add(key)
                return inner(*args, **kwargs)

            module.forward = patched
    with torch.no_grad():
        model(inputs(name)[0])
    assert seen == set(called_modules(model)) - {""}


@pytest.mark.parametrize(("name", "backbone"), MODELS)
def test_float64_all_the_way(name, backbone):
    model = create(name, backbone).double()
    given = inputs(name, torch.float64)
    torch.manual_seed(7)
    losses = model.train()(*given)
    assert {value.dtype for value in losses.values()} == {torch.float64}
    sum(losses.values()).backward()
    if name in DETECTORS:
        for one in model.eval()(given[0]):
            assert one["boxes"].dtype == one["scores"].dtype == torch.float64
    else:
        assert model.eval()(given[0]).dtype == torch.float64


@pytest.mark.parametrize(("name", "backbone"), MODELS)
def test_norms_and_pruning_learn(name, backbone):
    for change in (
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
        lambda m: prune.l1_unstructured(m, "weight", amount=0.3),
    ):
        model = create(name, backbone)
        layers = [m for m in model.modules() if type(m) in (nn.Linear, nn.Conv2d)]
        for layer in layers:
            change(layer)
        for _ in range(2):
            model.zero_grad()
            train_loss(model, name).backward()
        assert all(p.grad is not None for layer in layers for p in layer.parameters())


@pytest.mark.parametrize(("name", "backbone"), MODELS)
def test_copies(name, backbone):
    model = create(name, backbone).eval()
    raw = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model.forward_raw(raw)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert all(torch.equal(value, expected[key]) for key, value in other.forward_raw(raw).items())
