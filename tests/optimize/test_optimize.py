"""optimize_for_inference and optimize_for_training: the same function, whatever is done to the copy."""

import copy
import pickle
import threading

import families
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

import litevit
from litevit.layers.attention import RelativeAttention
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.optimize import attention, inference, linear
from litevit.optimize.attention import KeptRelativeAttention
from litevit.optimize.feed_forward import BlockedMLP
from litevit.optimize.linear import OneDNNLinear, TrainedLinear
from litevit.optimize.processor import multiplies_bfloat16, prefers_onednn
from optimize.models import MODELS, close, stirred

FOLDED = {DeformableTokenMerging: inference.TWINS[DeformableTokenMerging]}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(size: tuple[int, int] = (96, 64), batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, *size)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(224, 224), (75, 101)])
def test_same_function(name, size):
    model = stirred(name, drop_path_rate=0.1).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = litevit.optimize_for_inference(model)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    assert any(type(m) in {twin.kind for twin in inference.TWINS.values()} for m in fast.modules())
    x = images(size)
    with torch.no_grad():
        close(fast(x), model.eval()(x))


@pytest.mark.parametrize("family", families.SMALL)
def test_every_variant_keeps_its_function(family):
    """What is added to `tests/backbones/families.py` is a plain layer or has a twin of its own function."""
    model = families.classifier(family).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
        x = images((75, 101))
        close(litevit.optimize_for_inference(model)(x), model(x))


@pytest.mark.skipif(not multiplies_bfloat16(), reason="no bfloat16 units: the twins leave it to the plain layers")
@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_is_as_near_to_float64_as_the_plain_model(name):
    model = stirred(name).eval()
    x = images().bfloat16()
    exact = copy.deepcopy(model.bfloat16()).double()(x.double())
    with torch.no_grad():
        plain, fast = model(x).double(), litevit.optimize_for_inference(model)(x).double()
    assert (fast - exact).abs().max() <= 2 * (plain - exact).abs().max()


@pytest.mark.parametrize("name", MODELS)
def test_every_way_of_writing_to_a_weight_reaches_the_output(name):
    plain = stirred(name).eval()
    fast = litevit.optimize_for_inference(plain)
    reference = litevit.optimize_for_inference(plain, twins=FOLDED)  # nothing else replaced
    x = images()
    with torch.no_grad():
        close(fast(x), reference(x))
        for parameters in (fast.named_parameters(), reference.named_parameters()):
            for _, p in parameters:
                p.data.mul_(1.1)
        close(fast(x), reference(x))
        for model in (fast, reference):
            for p in model.parameters():
                p.add_(0.01)
        close(fast(x), reference(x))
        for model in (fast, reference):
            model.load_state_dict({key: value * 0.9 for key, value in model.state_dict().items()})
        close(fast(x), reference(x))
        close(copy.deepcopy(fast)(x), reference(x))
        close(pickle.loads(pickle.dumps(fast))(x), reference(x))
        close(fast.double()(x.double()), reference.double()(x.double()), 1e-12)


def test_parametrisations_and_replaced_children_reach_the_output():
    model = stirred("lit_s").eval()
    fast = litevit.optimize_for_inference(model)

    class Twice(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    x = images()
    for kind in (BlockedMLP, KeptRelativeAttention):
        layers = [m for m in fast.modules() if isinstance(m, kind)]
        target, name = (layers[0].fc1, "weight") if kind is BlockedMLP else (layers[0], "relative_position_bias_table")
        before = fast(x)
        parametrize.register_parametrization(target, name, Twice())
        assert not torch.allclose(fast(x), before)
        parametrize.remove_parametrizations(target, name, leave_parametrized=False)
        close(fast(x), before)
    mlp = next(m for m in fast.modules() if isinstance(m, BlockedMLP))
    before = fast(x)
    mlp.fc2 = nn.Sequential(mlp.fc2, nn.ReLU())
    assert not torch.allclose(fast(x), before)


def test_hooks_fire_on_twins_and_on_what_they_call():
    fast = litevit.optimize_for_inference(stirred("litv2_s").eval())
    fired, expected = set(), set()
    for name, module in fast.named_modules():
        if any(True for _ in module.parameters()) and not isinstance(module, nn.ModuleList):
            module.register_forward_hook(lambda *args, name=name: fired.add(name))
            expected.add(name)
    with torch.no_grad():
        fast(images())
    assert fired == expected


@pytest.mark.parametrize("name", ["litv2_s", "lit_s"])
def test_weights_that_hooks_make_reach_the_output(name):
    """Pruning and old weight norms, after optimising: `weight` is new at every call."""
    for change, key in (
        (lambda m: prune.l1_unstructured(m, "weight", amount=0.5), "weight_orig"),
        (nn.utils.weight_norm, "weight_v"),
    ):
        fast = litevit.optimize_for_inference(stirred(name).eval())
        reference = litevit.optimize_for_inference(stirred(name).eval(), twins=FOLDED)
        for model in (fast, reference):
            layers = [m for m in model.modules() if type(m) in (nn.Linear, OneDNNLinear, nn.Conv2d)]
            for layer in layers:
                change(layer)
            with torch.no_grad():
                for layer in layers:
                    getattr(layer, key).add_(0.05)
        with torch.no_grad():
            close(fast(images()), reference(images()))


@pytest.mark.parametrize("name", ["lvt", "pvt_s"])  # the embedding bag of token merging has no forward derivative
def test_forward_mode_derivatives(name):
    """Of the output, along a direction of the input; kernels have none."""
    plain = stirred(name).eval()
    fast = litevit.optimize_for_inference(plain)
    x, direction = images(), torch.randn(images().shape, generator=torch.Generator().manual_seed(5))
    with sdpa_kernel(SDPBackend.MATH):  # PyTorch's flash attention has no forward derivative
        expected = torch.func.jvp(plain, (x,), (direction,))
        found = torch.func.jvp(fast, (x,), (direction,))
    for ours, theirs in zip(found, expected):
        close(ours, theirs, 1e-4)


def test_a_module_that_is_watched_is_left_as_it_is():
    model = stirred("lit_s").eval()
    mlp = model.backbone.stages[0].blocks[0].mlp
    seen = []
    mlp.fc1.register_forward_hook(lambda *args: seen.append(1))
    fast = litevit.optimize_for_inference(model)
    assert type(fast.backbone.stages[0].blocks[0].mlp) is type(mlp)
    fast(images())
    assert len(seen) == 1


def test_other_dtypes_autocast_gradients_and_threads():
    model = stirred("litv2_s").eval()
    fast = litevit.optimize_for_inference(model)
    x = images()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        close(fast(x), model(x), 0.03)
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    fast(leaf).square().sum().backward()
    model(other).square().sum().backward()
    close(leaf.grad, other.grad, 1e-4)
    lit = stirred("lit_s").eval()
    fast_lit = litevit.optimize_for_inference(lit)
    sizes = [(96, 64), (64, 96), (128, 64), (96, 96)] * 3
    results: dict[int, torch.Tensor] = {}

    def work(i: int, x: torch.Tensor) -> None:
        with torch.no_grad():
            results[i] = fast_lit(x)

    inputs = [images(size) for size in sizes]
    threads = [threading.Thread(target=work, args=(i, x)) for i, x in enumerate(inputs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        for i, x in enumerate(inputs):
            close(results[i], lit(x))


def test_relative_biases_are_kept_and_never_stale(monkeypatch):
    model = stirred("lit_s").eval()
    fast = litevit.optimize_for_inference(model)
    looked_up = []
    look_up = attention.relative_position_bias

    def counted(*args, **kwargs):
        looked_up.append(1)
        return look_up(*args, **kwargs)

    monkeypatch.setattr("litevit.optimize.attention.relative_position_bias", counted)
    with torch.no_grad():
        for size, times in ((96, 2), (96, 0), (128, 2), (96, 0), (160, 2), (128, 0), (96, 2)):
            looked_up.clear()
            x = images((size, size), 1)
            out = fast(x)
            assert len(looked_up) == times, size
            close(out, model(x))
        for m in fast.modules():
            if isinstance(m, KeptRelativeAttention):
                m.relative_position_bias_table.data[0] += 100  # no version counter sees this
        looked_up.clear()
        fast(x)
        assert len(looked_up) == 2


@pytest.mark.skipif(not prefers_onednn(), reason="no AVX-512: weights are not packed")
@torch.no_grad()
def test_packed_weights_are_kept_and_never_stale(monkeypatch):
    plain = nn.Linear(48, 96)
    fast = OneDNNLinear(48, 96)
    fast.load_state_dict(plain.state_dict())
    x, made = torch.randn(linear.PACK_ROWS, 48), []
    reorder = torch.ops.mkldnn._reorder_linear_weight

    def counted(*args):
        made.append(1)
        return reorder(*args)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", counted)
    for _ in range(2):
        close(fast(x), plain(x))
    assert len(made) == 1
    for m in (plain, fast):
        m.weight.data[95, 47] += 1  # the last value, and no version counter sees it
    close(fast(x), plain(x))
    assert len(made) == 2
    twin = copy.deepcopy(fast)
    for m in (plain, twin):
        m.weight.mul_(2)
    close(twin(x), plain(x))
    size = len(linear._KEPT)
    del fast, twin, m
    assert len(linear._KEPT) == size - 2
    fast = OneDNNLinear(48, 96)
    fast.load_state_dict(plain.state_dict())
    for dtype in (torch.float64, torch.float32):
        close(fast.to(dtype)(x.to(dtype)), plain.to(dtype)(x.to(dtype)))


@pytest.mark.parametrize("native", [True, False])
@torch.no_grad()
def test_relative_biases_too_large_to_keep(monkeypatch, native):
    """A large map's queries attend row by row."""
    torch.manual_seed(0)
    plain = RelativeAttention(64, num_heads=2, grid_size=(7, 5)).eval()
    nn.init.normal_(plain.relative_position_bias_table)
    fast = litevit.optimize_for_inference(plain)
    monkeypatch.setattr(attention, "MAX_BIAS_BYTES", 0)
    monkeypatch.setattr(fast, "bias", None)  # not called
    if not native:
        monkeypatch.setattr(attention.kernels, "attends", lambda *args: False)
    for size in ((7, 5), (9, 13), (1, 6), (33, 35)):
        x = torch.randn(2, *size, 64)
        torch.testing.assert_close(fast(x), plain(x), atol=2e-6, rtol=1e-5)
        low = copy.deepcopy(plain).bfloat16()
        if multiplies_bfloat16():
            error = (fast.bfloat16()(x.bfloat16()) - plain(x)).abs().max()
            assert error <= 2 * (low(x.bfloat16()) - plain(x)).abs().max() + 1e-3
            fast.float().load_state_dict(plain.state_dict())


@pytest.mark.parametrize("name", ["litv2_s", "lvt", "lit_s"])
@torch.no_grad()
def test_transforms_counters_and_traces(name):
    model = stirred(name).eval()
    fast = litevit.optimize_for_inference(model)
    x = images()
    each = torch.func.vmap(lambda image: fast(image[None])[0])(x)
    close(each, model(x))
    with FlopCounterMode(display=False) as ours:
        fast(x)
    with FlopCounterMode(display=False) as theirs:
        litevit.optimize_for_inference(model, twins=FOLDED)(x)
    assert ours.get_total_flops() == pytest.approx(theirs.get_total_flops(), rel=0.02)
    traced = torch.jit.trace(fast, x, check_trace=False)
    close(traced(x), model(x))


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["litv2_s", "lvt", "lit_s"])
@torch.no_grad()
def test_compilers(name, dynamic):
    model = stirred(name).eval()
    fast = litevit.optimize_for_inference(model)
    x = images()
    compiled = torch.compile(fast, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    close(compiled(x), model(x))
    if not dynamic:
        program = torch.export.export(fast, (x,))
        close(program.module()(x), model(x))


def test_a_lone_layer_and_strangers():
    layer = litevit.HiLo(64, 2, alpha=0.5)
    x = torch.randn(1, 8, 8, 64)
    with torch.no_grad():
        close(litevit.optimize_for_inference(layer)(x), layer(x))
        other = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.LayerNorm((8, 128)))
        close(litevit.optimize_for_inference(other)(x), other(x))
    shared = nn.Linear(8, 8)
    twice = litevit.optimize_for_inference(nn.Sequential(shared, shared))
    assert twice[0] is twice[1]
    for make in (litevit.optimize_for_inference, litevit.optimize_for_training):
        with pytest.raises(TypeError, match=r"takes a model .*got 'lvt'"):
            make("lvt")


# ------------------------------------------------------------ training


@pytest.mark.parametrize("name", MODELS)
def test_training_has_the_same_gradients(name):
    plain = stirred(name).train()
    fast = litevit.optimize_for_training(plain)
    assert any(isinstance(m, TrainedLinear) for m in fast.modules()) == prefers_onednn()
    assert [n for n, _ in fast.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert fast.training
    fast.load_state_dict(plain.state_dict())
    x = images()
    for model in (plain, fast):
        model(x).square().mean().backward()
    exact = copy.deepcopy(plain).double()
    exact.zero_grad()
    exact(x.double()).square().mean().backward()
    for (key, p), q, e in zip(plain.named_parameters(), fast.parameters(), exact.parameters()):
        error, unit = (q.grad - e.grad).abs().max(), (p.grad - e.grad).abs().max()
        assert error <= 4 * unit + 1e-5 * e.grad.abs().max() + 1e-8, key


def test_hooks_fire_in_training():
    fast = litevit.optimize_for_training(stirred("lvt")).train()
    fired, all_names = set(), set()
    for name, module in fast.named_modules():
        if any(True for _ in module.parameters()) and not isinstance(module, nn.ModuleList):
            all_names.add(name)
            module.register_full_backward_hook(lambda *args, name=name: fired.add(name))
    fast(images().requires_grad_()).sum().backward()
    assert fired == all_names


@pytest.mark.skipif(not prefers_onednn(), reason="this processor's products stay with PyTorch")
def test_the_trained_product():
    layer = TrainedLinear(24, 40).double()  # float64 is left to PyTorch
    assert torch.autograd.gradcheck(layer, torch.randn(64, 24, dtype=torch.float64, requires_grad=True))
    x, layer = torch.randn(64, 24, requires_grad=True), TrainedLinear(24, 40)
    (first,) = torch.autograd.grad(layer(x).pow(2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), layer.weight)
    w = layer.weight
    y = x @ w.t() + layer.bias
    (expected,) = torch.autograd.grad((2 * y @ w).pow(2).sum(), w)
    torch.testing.assert_close(second, expected, rtol=1e-4, atol=1e-2)

    def loss(weight, x):
        return torch.func.functional_call(layer, {"weight": weight, "bias": layer.bias.detach()}, x).sum()

    xs = torch.randn(4, 64, 24)
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(layer.weight.detach(), xs)
    torch.testing.assert_close(each, xs.sum(1, keepdim=True).expand(4, 40, 24), rtol=1e-4, atol=1e-4)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 64 * 24 * 40


def test_linear_refuses_what_linear_refuses():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        OneDNNLinear(8, 16).requires_grad_(False)(torch.randn(64, 9))
