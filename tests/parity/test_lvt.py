"""LVT and token labelling against stored outputs of the published code: tests/data/lvt/README.md."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import golden
import litevit
import litevit.checkpoints.load
from litevit.checkpoints import lvt as convert
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.ops.mix_token import draw_mix_box
from litevit.tasks.token_labeling import hard_labels, token_label_losses, token_labels, unpack_label_maps

CASES = golden.cases("lvt")
TOKEN_LABELS = "token_label_target_and_loss"


def of_kind(kind: str) -> list[str]:
    return [name for name, case in CASES.items() if case["kind"] == kind]


@cache
def _arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(golden.DATA / "lvt" / file) as stored:
        return dict(stored)


def stored(name: str, array: str) -> np.ndarray:
    return _arrays(CASES[name]["file"])[f"{name}/{array}"]


def check(name: str, array: str, got: Tensor) -> None:
    deviation = golden.worst_deviation(got, stored(name, array), CASES[name]["arrays"][array])
    golden.note("LVT", f"{name} {array}", deviation)
    assert deviation <= 1


def images_of(case: dict) -> Tensor:
    return golden.golden_input(case["n"], case["h"], case["w"], case["seed"])


@cache
def model_of(official: str) -> nn.Module:
    model = {
        "lvt_cls": lambda: litevit.create_model("lvt"),
        "lvt_plain_cls": lambda: litevit.create_model("lvt_plain"),
        "lvt_backbone": lambda: litevit.create_backbone("lvt"),
        "lvt_backbone_cls_ln": lambda: litevit.create_backbone("lvt", stage_norms=True),
    }[official]()
    litevit.checkpoints.load.load_weights(model, golden.official_state(f"lvt/{official}"))
    return model.eval()


@pytest.mark.parametrize("name", of_kind("csa") + of_kind("rasa"))
@torch.no_grad()
def test_module(name: str) -> None:
    case = CASES[name]
    prefix = case["weight_key_prefix"]
    shapes = {prefix + key: shape for key, shape in golden.manifests()[f"lvt/{case['model']}"].items()}
    state = convert.to_ours(golden.state_from(shapes)).state
    layer = {
        "csa": lambda: ConvolutionalSelfAttention(64, num_heads=2),
        "rasa_s2": lambda: RecursiveAtrousSelfAttention(64, 2, sr_ratio=4),
        "rasa_s3": lambda: RecursiveAtrousSelfAttention(160, 5, sr_ratio=2),
        "rasa_s4": lambda: RecursiveAtrousSelfAttention(256, 8),
    }[case["model"]]()
    layer.load_state_dict({key.partition(".attn.")[2]: value for key, value in state.items()})
    tokens = golden.golden_tokens(case["n"], case["h"] * case["w"], case["c"], case["seed"])
    x = tokens.view(case["n"], case["h"], case["w"], case["c"])
    check(name, "out", layer(x))
    if "inner_once" in case["arrays"]:
        check(name, "inner_once", layer.one_pass(x))


@pytest.mark.parametrize("name", of_kind("backbone"))
@torch.no_grad()
def test_backbone(name: str) -> None:
    for i, x in enumerate(model_of(CASES[name]["model"])(images_of(CASES[name]))):
        check(name, f"stage{i + 1}", x)


@pytest.mark.parametrize("name", [n for n in of_kind("classifier") if CASES[n]["mode"] == "eval"])
@torch.no_grad()
def test_classifier(name: str) -> None:
    model, images = model_of(CASES[name]["model"]), images_of(CASES[name])
    check(name, "logits", model(images))
    if "aux_logits" in CASES[name]["arrays"]:
        cls_logits, aux_logits = model(images, return_tokens=True)
        check(name, "cls_logits", cls_logits)
        check(name, "aux_logits", aux_logits)


@cache
def mixed_logits(name: str) -> tuple[Tensor, Tensor]:
    case = CASES[name]
    with torch.no_grad():
        return model_of(case["model"])(images_of(case), mix_box=case["mix_box"])


@pytest.mark.parametrize("name", [n for n in of_kind("classifier") if "mix_box" in CASES[n]])
def test_mix_token(name: str) -> None:
    case = CASES[name]
    assert draw_mix_box(7, 7, np.random.RandomState(case["numpy_seed"])) == tuple(case["mix_box"])
    cls_logits, aux_logits = mixed_logits(name)
    check(name, "cls_logits", cls_logits)
    check(name, "aux_logits", aux_logits)


def labels(**options: bool):
    packed = torch.from_numpy(stored(TOKEN_LABELS, "label_maps"))
    return token_labels(unpack_label_maps(packed), num_classes=1000, grid=(7, 7), **options)


def test_token_labels_of_the_published_package() -> None:
    got = labels(transposed_crop=True)
    check(TOKEN_LABELS, "target_gt", got.truth)
    check(TOKEN_LABELS, "target_cls", got.cls)
    check(TOKEN_LABELS, "target_aux", got.tokens.transpose(1, 2))
    spec = CASES[TOKEN_LABELS]["arrays"]["target_aux_sum"]
    total = got.tokens.double().sum().item()
    golden.note("LVT", "sum of token labels", golden.share_of(total, spec["value"], abs_=spec["atol"]))
    assert total == pytest.approx(spec["value"], abs=spec["atol"])


def test_correct_crop_is_the_transposed_crop_of_transposed_maps() -> None:
    maps = unpack_label_maps(torch.from_numpy(stored(TOKEN_LABELS, "label_maps")))
    turned = maps._replace(scores=maps.scores.transpose(2, 3), classes=maps.classes.transpose(2, 3))
    published = token_labels(turned, num_classes=1000, grid=(7, 7), transposed_crop=True)
    right = labels()
    tokens = published.tokens.unflatten(1, (7, 7)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(right.tokens, tokens)
    assert not torch.allclose(right.tokens, labels(transposed_crop=True).tokens)


def test_crop_follows_the_image() -> None:
    """A label map with one class per quadrant, cropped to its lower left quarter."""
    classes = torch.zeros(1, 1, 18, 18, dtype=torch.int64)
    classes[..., :9, 9:], classes[..., 9:, :9], classes[..., 9:, 9:] = 1, 2, 3
    packed = torch.zeros(1, 3, 1, 18, 18)
    packed[:, 0], packed[:, 1] = 20.0, classes.float()
    packed[0, 2, 0, 0, :6] = torch.tensor([0.5, 0.0, 0.5, 0.5, 0.0, 3.0])
    maps = unpack_label_maps(packed)
    right = token_labels(maps, num_classes=4, grid=(3, 3), smoothing=0.1)
    assert (right.tokens.argmax(-1) == 2).all()
    assert right.cls.argmax(-1).item() == 2
    assert right.truth.argmax(-1).item() == 3
    transposed = token_labels(maps, num_classes=4, grid=(3, 3), smoothing=0.1, transposed_crop=True)
    assert (transposed.tokens.argmax(-1) == 1).all()


@pytest.mark.parametrize("loss", ["loss_token_label", "loss_token_label_gt", "loss_hard_label"])
def test_losses(loss: str) -> None:
    train = "lvt_cls_train_2x224x224_np0"
    cls_logits, aux_logits = mixed_logits(train)
    if loss == "loss_hard_label":
        truth = unpack_label_maps(torch.from_numpy(stored(TOKEN_LABELS, "label_maps"))).truth
        targets = hard_labels(truth, num_classes=1000, num_tokens=49)
    else:
        targets = labels(transposed_crop=True)
    losses = token_label_losses(
        cls_logits, aux_logits, targets, mix_box=CASES[train]["mix_box"], ground_truth=loss.endswith("_gt")
    )
    spec = CASES[TOKEN_LABELS]["arrays"][loss]
    total = sum(losses.values()).item()
    golden.note("LVT", "token label loss", golden.share_of(total, spec["value"], abs_=spec["atol"]))
    assert total == pytest.approx(spec["value"], abs=spec["atol"])


def test_ground_truth_share_depends_on_agreement() -> None:
    """Class targets: half where map and truth agree, nine tenths of the map's where not."""
    truth = torch.tensor([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1]])
    cls = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.7, 0.2]])
    targets = hard_labels(torch.tensor([0, 0]), num_classes=3, num_tokens=2)._replace(truth=truth, cls=cls)
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    want = torch.stack([0.5 * cls[0] + 0.5 * truth[0], 0.9 * cls[1] + 0.1 * truth[1]])
    got = token_label_losses(logits, logits[:, None].expand(-1, 2, -1), targets, ground_truth=True)["loss_cls"]
    torch.testing.assert_close(got, nn.functional.cross_entropy(logits, want))


@pytest.mark.parametrize("official", ["lvt_cls", "lvt_plain_cls", "lvt_backbone", "lvt_backbone_cls_ln"])
def test_conversion_is_lossless(official: str) -> None:
    state = golden.official_state(f"lvt/{official}")
    result = convert.to_ours(state)
    assert not result.unexpected
    assert not result.dropped
    assert set(result.used) == set(state)
    back = convert.to_official(result.state)
    assert not back.unexpected
    assert set(back.state) == set(state)
    for key, value in state.items():
        assert back.state[key].shape == value.shape, key
        assert torch.equal(back.state[key], value), key
