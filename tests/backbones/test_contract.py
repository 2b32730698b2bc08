"""What every backbone and classifier promises, whatever its family."""

import math

import pytest
import torch
from families import CLASSIFIERS, GRIDS, SMALL, backbone, classifier
from timm.layers import DropPath
from torch import nn

import litevit

families = pytest.mark.parametrize("family", SMALL)
classifiers = pytest.mark.parametrize("family", CLASSIFIERS)


@pytest.mark.parametrize(("n", "H", "W"), [(2, 32, 32), (3, 45, 77), (1, 33, 130)])
@families
@torch.no_grad()
def test_any_size_and_batch(family: str, n: int, H: int, W: int) -> None:
    model = backbone(family).eval()
    images = torch.randn(n, 3, H, W)
    maps = model(images)
    assert isinstance(maps, tuple)
    assert [f.stride for f in model.features] == [4, 8, 16, 32]
    up, later = (getattr(math, rounding) for rounding in GRIDS.get(family, ("ceil", "floor")))
    h, w = up(H / 4), up(W / 4)
    for i, (x, feature) in enumerate(zip(maps, model.features)):
        if i:
            h, w = later(h / 2), later(w / 2)
        assert x.shape == (n, feature.channels, h, w)
        assert x.isfinite().all()
    # Images do not influence each other.
    for x, alone in zip(maps, model(images[-1:])):
        torch.testing.assert_close(x[-1:], alone, atol=1e-5, rtol=1e-4)


@classifiers
@torch.no_grad()
def test_classifier_at_any_size(family: str) -> None:
    model = classifier(family).eval()
    for n, H, W in [(1, 64, 64), (3, 45, 77), (2, 32, 96)]:
        images = torch.randn(n, 3, H, W)
        logits = model(images)
        assert logits.shape == (n, 5)
        assert logits.isfinite().all()
        assert model.forward_features(images).shape[:2] == (n, model.num_features)
    with pytest.raises(ValueError, match="num_classes must be 0 or more"):
        model.reset_classifier(-1)
    model.reset_classifier(0)
    assert model(images).shape == (2, model.num_features)


@pytest.mark.parametrize("flavour", ["none", "detection", "segmentation"])
@families
@torch.no_grad()
def test_out_norms_do_not_flow_on(family: str, flavour: str) -> None:
    """Changing an output norm changes its map and no other."""
    model = backbone(family, flavour).eval()
    first = {"none": 4, "detection": 1, "segmentation": 0}[flavour]
    if family == "lvt" or family.startswith(("lit_ti", "pvt")):
        first = 4  # their maps are handed out as they are
    norms = [m for m in getattr(model, "out_norms", []) if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 4 - first
    images = torch.randn(1, 3, 64, 64)
    before = model(images)
    if norms:
        norms[0].bias += 1
        for i, (a, b) in enumerate(zip(before, model(images))):
            torch.testing.assert_close(b, a + 1 if i == first else a)


@families
def test_unknown_flavour_and_override(family: str) -> None:
    with pytest.raises(ValueError, match="out_norms must be one of"):
        backbone(family, "panoptic")
    with pytest.raises(ValueError, match=r"Unknown option of .*'num_headz'"):
        backbone(family, num_headz=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="needs 4 entries, one per stage, got 3"):
        backbone(family, depths=(1, 1, 1))
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"drop_path_rate must be in \[0, 1\), got {rate}"):
            backbone(family, drop_path_rate=rate)


@families
def test_what_is_no_batch_of_images_is_refused(family: str) -> None:
    model = backbone(family)
    for shape in [(1, 3, 64, 24), (1, 3, 4, 64), (3, 64, 64), (1, 1, 64, 64)]:
        with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\) with H and W at least \d+, got"):
            model(torch.zeros(shape))


@pytest.mark.parametrize("checkpointing", [False, True])
@classifiers
def test_gradient_reaches_every_parameter(family: str, checkpointing: bool) -> None:
    torch.manual_seed(0)
    model = classifier(family).train()
    model.set_grad_checkpointing(checkpointing)
    images = torch.randn(2, 3, 64, 96, requires_grad=True)
    (model(images) * torch.randn(2, 5)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # BatchNorm cancels the bias before it, softmax the bias of the keys; rounding may leave exactly 0.
        if not name.endswith(("embed.proj.bias", "downsample.proj.bias")):
            assert parameter.grad.any(), name
    assert images.grad.any()


@classifiers
def test_checkpointing_changes_no_gradient(family: str) -> None:
    torch.manual_seed(0)
    model = classifier(family, drop_path_rate=0.3).train()
    images = torch.randn(2, 3, 64, 64)
    grads = []
    for enable in (False, True):
        state = {k: v.clone() for k, v in model.state_dict().items()}
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(7)
        model(images).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
        model.load_state_dict(state)  # running statistics
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


@classifiers
@torch.no_grad()
def test_state_dict_round_trip(family: str) -> None:
    model, other = classifier(family).eval(), classifier(family).eval()
    images = torch.randn(1, 3, 64, 64)
    assert not torch.equal(model(images), other(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(images), other(images))
    third = classifier(family).eval()
    report = litevit.load_weights(third, model.state_dict())
    assert not report.missing
    assert torch.equal(model(images), third(images))


@classifiers
@torch.no_grad()
def test_channels_last_input(family: str) -> None:
    model = classifier(family).eval()
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), model(images), atol=1e-5, rtol=1e-5)


@classifiers
@torch.no_grad()
def test_autocast_bfloat16(family: str) -> None:
    torch.manual_seed(0)
    model = classifier(family).eval()
    images = torch.randn(2, 3, 64, 96)
    expected = model.forward_pooled(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model.forward_pooled(images)
        assert model(images).isfinite().all()
    similarity = nn.functional.cosine_similarity(got.float(), expected).min()
    assert similarity > 0.99


@classifiers
def test_autocast_bfloat16_trains(family: str) -> None:
    model = classifier(family).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(2, 3, 64, 64)).float().square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@families
def test_drop_path_rises_linearly_over_all_blocks(family: str) -> None:
    model = backbone(family, drop_path_rate=0.3)
    found = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    if family == "swin_dtm":  # timm's blocks hold one per residual
        found = found[::2]
    depth = sum(model.config.depths)
    expected = [0.3 * i / (depth - 1) for i in range(1, depth)]  # the first block has none
    assert found == pytest.approx(expected)


@classifiers
def test_three_steps_lower_the_loss(family: str) -> None:
    torch.manual_seed(0)
    model = classifier(family).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    images, targets = torch.randn(8, 3, 32, 32), torch.arange(8) % 5
    losses = []
    for _ in range(4):
        loss = nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@classifiers
@torch.no_grad()
def test_other_input_channels(family: str) -> None:
    assert classifier(family, in_chans=4).eval()(torch.randn(1, 4, 64, 64)).shape == (1, 5)
