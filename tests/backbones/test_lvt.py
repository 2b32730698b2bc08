"""LVT: shapes at any size, initialisation, training modes, MixToken, and what current PyTorch does with it."""

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import litevit
import litevit.layers.csa
import litevit.layers.rasa
from litevit.backbones.lvt import LVT, LVTConfig
from litevit.ops.mix_token import box_area, draw_mix_box, swap_box
from litevit.tasks.lvt_classifier import LVTClassifier, LVTClassifierConfig

SMALL = LVTConfig(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(2, 2, 3, 4), mlp_ratios=(2, 2, 2, 2))


def small_classifier(**backbone: object) -> LVTClassifier:
    torch.manual_seed(0)
    config = LVTClassifierConfig(num_classes=5, num_class_heads=4, num_class_blocks=1)
    return LVTClassifier(LVT(replace(SMALL, **backbone)), config)


@pytest.mark.parametrize(("name", "params"), [("lvt", 5_521_844), ("lvt_plain", 3_429_092 + 2 * 256 + 256_000 + 1000)])
def test_parameters(name: str, params: int) -> None:
    """3.4 M is the backbone alone; class-attention layers and two heads make 5.5 M."""
    with torch.device("meta"):
        model = litevit.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == params


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (97, 64)])
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_maps_of_any_size(size: tuple[int, int], batch: int) -> None:
    model = LVT(SMALL).eval()
    grid = size
    for i, x in enumerate(model(torch.randn(batch, 3, *size))):
        grid = tuple(math.ceil(side / (4 if i == 0 else 2)) for side in grid)
        assert x.shape == (batch, model.features[i].channels, *grid)
        assert model.features[i].stride == 4 * 2**i
        assert x.isfinite().all()


@torch.no_grad()
def test_batch_and_memory_format_do_not_matter() -> None:
    model = small_classifier().eval()
    images = torch.randn(3, 3, 40, 56)
    together = model(images)
    torch.testing.assert_close(model(images[1:2]), together[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), together, rtol=1e-4, atol=1e-5)


def test_smaller_patches() -> None:
    model = LVT(LVTConfig(patch_size=1)).eval()
    with torch.no_grad():
        assert [tuple(x.shape[2:]) for x in model(torch.randn(1, 3, 32, 32))] == [(32, 32), (16, 16), (8, 8), (4, 4)]


def test_initialisation() -> None:
    """The final state of the official code after all its re-initialisations."""
    torch.manual_seed(0)
    model = LVT(LVTConfig())
    stage1, stage2 = model.stages[0], model.stages[1]
    rasa, mlp = stage2.blocks[0].attn, stage2.blocks[0].mlp
    expected = {
        "7 x 7 embedding": (model.embeds[0].proj.weight, math.sqrt(2 / (49 * 64))),
        "reduction": (rasa.sr.weight, math.sqrt(2 / (16 * 64))),
        "CSA values": (stage1.blocks[0].attn.value_weight, math.sqrt(2 / (9 * 64))),
        "CSA attention": (stage1.blocks[0].attn.attn.weight, 0.02),
        "plain MLP": (stage1.blocks[0].mlp.fc1.weight, 0.02),
        "q": (rasa.q.weight, 0.02),
        "atrous": (rasa.atrous_weight, math.sqrt(2 / 9)),  # uniform in +-sqrt(6 / 9)
        "convolutional MLP": (mlp.fc1.weight, 1 / math.sqrt(3 * 64)),  # PyTorch's default: uniform in +-1/sqrt(fan in)
        "depthwise": (mlp.dwconv.weight, 1 / math.sqrt(3 * 9)),
    }
    for name, (weight, std) in expected.items():
        assert weight.std().item() == pytest.approx(std, rel=0.1), name
    assert rasa.atrous_weight.abs().max() <= math.sqrt(6 / 9)
    assert not model.embeds[0].proj.bias.any()
    assert not stage1.blocks[0].mlp.fc1.bias.any()
    assert mlp.fc1.bias.any()
    assert mlp.dwconv.bias.any()


@pytest.mark.parametrize("tokens", [False, True])
def test_gradient_reaches_every_parameter(tokens: bool) -> None:
    model = small_classifier(drop_path_rate=0.0).train()
    out = model(torch.randn(2, 3, 40, 33), return_tokens=tokens)
    sum(o.float().pow(2).mean() for o in (out if tokens else [out])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_checkpointing_changes_no_gradient() -> None:
    model = small_classifier().double().train()
    images = torch.randn(2, 3, 40, 33, dtype=torch.float64)
    grads = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        assert all(stage.grad_checkpointing is enable for stage in model.backbone.stages)
        grads.append(torch.autograd.grad(model(images).pow(2).sum(), list(model.parameters())))
    for plain, again in zip(*grads):
        torch.testing.assert_close(plain, again, rtol=0, atol=0)


def test_drop_path_rises_over_the_blocks() -> None:
    model = LVT(LVTConfig(drop_path_rate=0.7))
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.1 * i for i in range(8)])


def test_class_and_token_logits() -> None:
    model = small_classifier().eval()
    images = torch.randn(2, 3, 64, 96)
    cls, tokens = model(images, return_tokens=True)
    assert tokens.shape == (2, 2 * 3, 5)
    torch.testing.assert_close(model(images), cls + 0.5 * tokens.amax(1))
    assert model.forward_features(images).shape == (2, 32, 2, 3)


def test_replaced_heads() -> None:
    model = small_classifier().eval()
    model.reset_classifier(7)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 7)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(images), model.forward_pooled(images))


def test_swap_box_exchanges_a_box() -> None:
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 6, 4, 2)
    out = swap_box(x, (1, 0, 3, 1), cell=2)
    assert (out[:, 2:6, :2].flatten(1) == torch.tensor([3.0, 2, 1, 0])[:, None]).all()
    untouched = torch.ones(6, 4, dtype=torch.bool)
    untouched[2:6, :2] = False
    assert (out[:, untouched] == x[:, untouched]).all()
    torch.testing.assert_close(swap_box(out, (1, 0, 3, 1), cell=2), x)
    torch.testing.assert_close(swap_box(x, torch.tensor((1, 0, 3, 1)), cell=2), out)


def test_drawn_boxes_lie_in_the_grid() -> None:
    rng = np.random.RandomState(0)
    areas = []
    for _ in range(200):
        top, left, bottom, right = box = draw_mix_box(5, 9, rng)
        assert 0 <= top <= bottom <= 5
        assert 0 <= left <= right <= 9
        areas.append(float(box_area(box)))
    assert min(areas) == 0
    assert max(areas) > 20


@pytest.mark.parametrize("size", [(64, 64), (70, 101)])
@torch.no_grad()
def test_mixing_whole_images_exchanges_them(size: tuple[int, int]) -> None:
    """A box over everything: class logits come from the other image, token logits are put back."""
    model = small_classifier().train()
    images = torch.randn(3, 3, *size)
    cls, tokens = model(images, return_tokens=True)
    grid = model.forward_features(images).shape[2:]
    mixed_cls, mixed_tokens = model(images, mix_box=(0, 0, *grid))
    torch.testing.assert_close(mixed_cls, cls.flip(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed_tokens, tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(images, mix_box=(1, 1, 1, 1))[0], cls, rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast() -> None:
    model = small_classifier().eval()
    images = torch.randn(2, 3, 33, 47)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(images)
    torch.testing.assert_close(out.float(), model(images), rtol=0.1, atol=0.05)


@torch.no_grad()
def test_bfloat16_weights() -> None:
    """Whether or not the processor has units for it: near float32, and in bfloat16 throughout."""
    model = small_classifier().eval()
    images = torch.randn(2, 3, 33, 47)
    want = model(images)
    out = model.bfloat16()(images.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), want, rtol=0.1, atol=0.05)


@pytest.mark.slow
@torch.no_grad()
def test_export_with_dynamic_sizes() -> None:
    """One graph for any batch and any image of 64 pixels and more."""
    from torch.export import Dim, export

    model = small_classifier().eval()
    sizes = {0: Dim("batch", min=1, max=16), 2: Dim("height", min=64, max=1024), 3: Dim("width", min=64, max=1024)}
    program = export(model, (torch.randn(2, 3, 96, 128),), dynamic_shapes={"images": sizes}).module()
    for shape in ((1, 64, 64), (3, 97, 133)):
        images = torch.randn(shape[0], 3, *shape[1:])
        torch.testing.assert_close(program(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@torch.no_grad()
def test_compile_with_dynamic_sizes(backend: str) -> None:
    model = small_classifier().eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for shape in ((2, 96, 128), (3, 97, 133)):
        images = torch.randn(shape[0], 3, *shape[1:])
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)
    images, box = torch.randn(2, 3, 96, 96), torch.tensor((0, 1, 2, 3))
    for got, want in zip(compiled(images, mix_box=box), model(images, mix_box=box)):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module", [litevit.layers.csa, litevit.layers.rasa])
def test_documented_examples_run(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted >= 4
    assert result.failed == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"depths": (1, 1, 1)}, "depths needs 4 entries"),
        ({"mixers": ("csa", "mlp", "rasa", "rasa")}, "mixers"),
        ({"out_norms": "batch"}, "out_norms"),
    ],
)
def test_wrong_config(overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LVT(replace(SMALL, **overrides))
