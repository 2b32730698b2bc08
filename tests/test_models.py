"""`create_model` by names and by words for weights."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import litevit
from litevit.checkpoints import published
from litevit.checkpoints.published import is_file, weights_word
from litevit.engine.config import ModelConfig
from litevit.jobs.classification import build_classifier
from litevit.jobs.dense_models import load_dense
from litevit.jobs.dense_tasks import build_dense_model
from litevit.jobs.predict import load_classifier
from litevit.jobs.runs import find_run
from litevit.jobs.token_labels import make_token_labels

SMALL = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}


@pytest.mark.parametrize(
    ("name", "near"), [("LITv2_S", "litv2_s"), ("Mask_RCNN_LITv2_S", "mask_rcnn_litv2_s"), ("LVT", "lvt")]
)
def test_names_are_compared_without_case(name: str, near: str) -> None:
    for look_up in (litevit.info, litevit.create_model, published.find):
        with pytest.raises(ValueError, match=near):
            look_up(name)
    with pytest.raises(ValueError, match="Did you mean 'num_heads'"):
        litevit.create_model("litv2_s", Num_Heads=3)


def test_words_for_weights() -> None:
    for word, meant in (
        ("none", None),
        ("None", None),
        (None, None),
        ("Official", "official"),
        ("IMAGENET", "imagenet"),
    ):
        assert weights_word(word) == meant
        assert not is_file(word)
        assert find_run(word) is None
    for path in ("nonesuch.pth", Path("none.safetensors"), "Official.pth"):
        assert weights_word(path) == path
        assert is_file(path)


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of published files that were asked for; a file of a small model stands in for each."""
    torch.save(litevit.create_model("litv2_s", **SMALL).state_dict(), tmp_path / "litv2_s.pth")
    names: list[str] = []
    monkeypatch.setattr(published, "fetch", lambda name: (names.append(name), tmp_path / "litv2_s.pth")[1])
    return names


def test_none_is_random_everywhere(fetched: list[str], tmp_path: Path) -> None:
    for word in (None, "none", "None"):
        litevit.create_model("litv2_s", weights=word, **SMALL)
        build_classifier(ModelConfig(name="litv2_s", weights=word, overrides=SMALL), 3)
        build_dense_model(ModelConfig(name="retinanet_litv2_s", weights=word, overrides=SMALL), num_classes=3)
        assert load_classifier("lvt", word, num_classes=3)[0].num_classes == 3
        assert load_dense("semantic_fpn_lit_ti", word).classes.names[0] == "wall"
    (tmp_path / "images" / "cat").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "images" / "cat" / "a.png")
    for model in ("litv2_s", "timm/resnet18"):
        with pytest.raises(ValueError, match="without weights would label at random"):
            make_token_labels(model, str(tmp_path / "images"), tmp_path / "labels", weights="None")
    assert fetched == []


def test_imagenet_is_the_backbones_published_weights(fetched: list[str], tmp_path: Path) -> None:
    source = torch.load(tmp_path / "litv2_s.pth")
    key = "backbone.stages.2.blocks.0.mlp.fc1.weight"
    for word in ("imagenet", "ImageNet"):
        for name, options in (
            ("litv2_s", {}),
            ("mask_rcnn_litv2_s", {}),
            ("semantic_fpn_litv2_s", {"num_classes": 7}),
            ("retinanet", {"backbone": "litv2_s"}),
        ):
            model = litevit.create_model(name, weights=word, **SMALL, **options)
            assert torch.equal(model.get_parameter(key), source[key]), name
    assert fetched == ["litv2_s"] * 8
    with pytest.raises(ValueError, match="needs a backbone of ours by its name"):
        litevit.create_model("retinanet", weights="imagenet", backbone="resnet18")
    with pytest.raises(ValueError, match=r"Unknown model 'litv2_x'"):
        litevit.create_model("litv2_x", weights="imagenet")
    with pytest.raises(ValueError, match="its backbone alone, under a random head"):
        load_dense("retinanet_litv2_s", "imagenet")
    made = build_classifier(ModelConfig(name="litv2_s", weights="imagenet", overrides=SMALL), 3)
    assert torch.equal(made.get_parameter(key), source[key])


def test_words_of_other_libraries_have_an_answer() -> None:
    with pytest.raises(ValueError, match="Unknown option of litv2_s: 'pretrained': weights=\"official\" gives"):
        litevit.create_model("litv2_s", pretrained=True)
    with pytest.raises(ValueError, match="images of any size"):
        litevit.create_backbone("litv2_s", img_size=224)
    for weights in (True, 1, {}):  # the second argument of timm's and torchvision's functions
        with pytest.raises(ValueError, match=r'weights must be "official", .*, got'):
            litevit.create_model("litv2_s", weights)
    for name in ("resnet50", "timm/resnet50"):
        with pytest.raises(ValueError, match=r"is timm's: timm.create_model\('resnet50'\) makes it"):
            litevit.create_model(name)


def test_a_text_for_a_number_is_named() -> None:
    with pytest.raises(ValueError, match="litv2_s: num_classes must be like 1000, got the text '10'"):
        litevit.create_model("litv2_s", num_classes="10")
    with pytest.raises(ValueError, match="retinanet: min_size must be like"):
        litevit.create_model("retinanet", backbone="lvt", min_size="800")
