"""Other people's tools on every family and system: adapters, quantisation, offloading, sharding, explainers, traces."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from interop import dense
from optimize.models import MODELS, close, stirred

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
CLASSIFIERS = list(MODELS)


def leaves(model: nn.Module, *kinds: type) -> list[str]:
    return [name for name, module in model.named_modules() if type(module) in kinds]


# ---------------------------------------------------------------- peft


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_lora_on_every_layer_learns_and_merges(name):
    peft = pytest.importorskip("peft", reason="LoRA is put on by peft (the extra 'dev')")
    model = stirred(name).eval()
    expected = model(IMAGES)
    grouped = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    targets = [n for n in leaves(model, nn.Linear, nn.Conv2d) if n not in grouped]  # a rank does not fit a channel
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets)
    adapted = peft.get_peft_model(copy.deepcopy(model), config).eval()
    torch.testing.assert_close(adapted(IMAGES), expected)
    adapted(IMAGES).square().sum().backward()
    ups = {n: p for n, p in adapted.named_parameters() if "lora_B" in n}
    assert len(ups) == len(targets)
    assert not [n for n, p in ups.items() if p.grad is None or not p.grad.any()]
    with torch.no_grad():
        for p in ups.values():
            p.normal_(std=0.02)
        moved = adapted(IMAGES)
        assert not torch.allclose(moved, expected)
        close(adapted.merge_and_unload()(IMAGES), moved, 1e-4)


@pytest.mark.parametrize(("name", "backbone"), dense.MODELS)
def test_lora_on_task_models(name, backbone):
    peft = pytest.importorskip("peft", reason="LoRA is put on by peft (the extra 'dev')")
    model = dense.create(name, backbone)
    grouped = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    targets = [n for n in leaves(model, nn.Linear, nn.Conv2d) if n not in grouped]
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets))
    dense.train_loss(adapted, name).backward()
    ups = {n: p for n, p in adapted.named_parameters() if "lora_B" in n}
    assert len(ups) == len(targets)
    assert not [n for n, p in ups.items() if p.grad is None]


# -------------------------------------------------------------- torchao


@pytest.mark.parametrize("kind", ["weight_only", "dynamic"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_int8_by_torchao(name, kind):
    quantization = pytest.importorskip("torchao.quantization", reason="torchao quantises")
    config = {
        "weight_only": quantization.Int8WeightOnlyConfig,
        "dynamic": quantization.Int8DynamicActivationInt8WeightConfig,
    }[kind]()
    model = stirred(name).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = copy.deepcopy(model)
        quantization.quantize_(quantized, config)
    with torch.no_grad():
        for count in (1, 4):
            x = torch.randn(count, 3, 64, 64)
            close(quantized(x), model(x), 0.2)


# ----------------------------------------------------------- accelerate


@pytest.mark.parametrize("name", [*CLASSIFIERS, *(name for name, _ in dense.MODELS)])
def test_offloading_and_dispatch(name, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="training needs accelerate (the extra 'train')")

    def make() -> nn.Module:
        return (stirred(name) if name in MODELS else dense.create(name, dict(dense.MODELS)[name])).eval()

    def run(model: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return model(IMAGES) if name in MODELS else model.forward_raw(IMAGES)["C5"]

    expected = run(make())
    assert torch.equal(run(accelerate.cpu_offload(make(), execution_device="cpu")), expected)
    on_disk = accelerate.disk_offload(make(), tmp_path / "all", execution_device="cpu")
    assert torch.equal(run(on_disk), expected)
    model = make()
    parts = [key for key, _ in model.named_children()] + [key for key, _ in model.named_parameters(recurse=False)]
    places = {key: "disk" if i % 2 else "cpu" for i, key in enumerate(parts)}
    dispatched = accelerate.dispatch_model(
        model, places, main_device="cpu", offload_dir=tmp_path / "part", force_hooks=True
    )
    assert torch.equal(run(dispatched), expected)


# ---------------------------------------------------------------- FSDP2


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path_factory.mktemp('store') / 'store'}", rank=0, world_size=1
    )
    yield torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_fully_shard(name, mesh):
    """Every block, and single linear layers."""
    from torch.distributed.fsdp import fully_shard

    model = stirred(name).train()
    torch.manual_seed(0)
    plain = copy.deepcopy(model)
    for module in list(model.modules()):
        if type(module) is nn.Linear:
            fully_shard(module, mesh=mesh)
    for stage in model.backbone.stages:
        for block in stage.blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    loss, expected = model(IMAGES).square().sum(), plain(IMAGES).square().sum()
    close(loss.detach(), expected.detach(), 1e-5)
    loss.backward()
    expected.backward()
    for (key, p), q in zip(model.named_parameters(), plain.parameters()):
        close(p.grad.full_tensor(), q.grad, 1e-3), key


# ----------------------------------------------------------- explainers


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_grad_cam_on_a_stage(name):
    cam = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is the reference here (the extra 'dev')")
    model = stirred(name).eval()
    stage = model.backbone.stages[2]

    def to_map(x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2)  # the stream is BHWC

    target = pytest.importorskip(
        "pytorch_grad_cam.utils.model_targets", reason="pytorch-grad-cam is the reference here (the extra 'dev')"
    ).ClassifierOutputTarget
    with cam.GradCAM(model=model, target_layers=[stage], reshape_transform=to_map) as explain:
        maps = [explain(input_tensor=IMAGES, targets=[target(k)] * 2) for k in range(10)]
    assert maps[0].shape == (2, 64, 64)
    assert max(m.max() for m in maps) > 0  # a random model's may lie below zero for one class


@pytest.mark.parametrize("name", ["litv2_s", "lit_s", "lvt"])
def test_captum_layer_attribution(name):
    attr = pytest.importorskip("captum.attr", reason="captum attributes (the extra 'dev')")
    model = stirred(name).eval()
    layer = next(m for m in model.backbone.stages[2].modules() if type(m) is nn.Linear)
    found = attr.LayerGradientXActivation(model, layer).attribute(IMAGES, target=1)
    assert found.abs().sum() > 0


# ----------------------------------------- traces, fake tensors, counters


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_fake_tensors_and_flops(name):
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = stirred(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(IMAGES)
    counted = {key for key in counter.get_flop_counts() if key != "Global"}
    products = {key for key in leaves(model, nn.Linear, nn.Conv2d) if "offset" not in key}
    assert not {key for key in products if not any(entry.endswith(key) for entry in counted)}
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        out = model(torch.empty(2, 3, 64, 96))
    assert out.shape == (2, 10)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_trace_at_another_size(name):
    check_trace(stirred(name).eval(), sizes=((96, 96), (64, 128), (224, 224), (81, 67), (96, 100)))


@pytest.mark.parametrize("name", ["lit_s", "lit_ti"])
def test_a_trace_at_the_size_of_the_position_tables(name):
    """Where they are not resized."""
    check_trace(stirred(name).eval(), traced_at=224, sizes=((64, 64), (100, 230)))


@pytest.mark.parametrize(("name", "backbone"), [m for m in dense.MODELS if m[0] not in dense.DETECTORS])
def test_a_trace_of_a_segmenter(name, backbone):
    check_trace(dense.create(name, backbone).eval(), sizes=((96, 128), (81, 67)))


def check_trace(model: nn.Module, *, sizes: tuple, traced_at: int = 64) -> None:
    """One trace is right at every size and batch."""
    x = torch.randn(2, 3, traced_at, traced_at)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, x)
    with torch.no_grad():
        close(traced(x), model(x), 1e-5)
        for count, size in enumerate(sizes, start=1):
            x = torch.randn(count, 3, *size)
            close(traced(x), model(x), 1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_empty_batch(name):
    with pytest.raises(ValueError, match="a batch needs at least one image"):
        stirred(name).eval()(torch.zeros(0, 3, 64, 64))


@pytest.mark.parametrize("kind", ["hilo", "mlp", "attention"])
def test_opacus_per_sample_gradients(kind):
    opacus = pytest.importorskip("opacus", reason="opacus trains with privacy")
    from litevit.layers.attention import Attention
    from litevit.layers.hilo import HiLo
    from litevit.layers.mlp import MLP

    torch.manual_seed(0)
    layer = {
        "hilo": lambda: HiLo(32, num_heads=4, window_size=2, alpha=0.5),
        "mlp": lambda: MLP(32, 64),
        "attention": lambda: Attention(32, num_heads=4),
    }[kind]()
    x = torch.randn(3, 6, 8, 32)
    each = []
    for one in x:
        layer.zero_grad()
        layer(one[None]).square().sum().backward()
        each.append([p.grad.clone() for p in layer.parameters()])
    watched = opacus.GradSampleModule(copy.deepcopy(layer), loss_reduction="sum")
    watched(x).square().sum().backward()
    for i, p in enumerate(watched.parameters()):
        close(p.grad_sample, torch.stack([grads[i] for grads in each]), 1e-4)
