"""Weights of a model for grey, RGB or RGBA images in a model for another number of channels: adapted, and said."""

import warnings
from pathlib import Path

import pytest
import timm.models
import torch
from torch import Tensor, nn

from litevit import create_model, load_weights
from litevit.checkpoints import layouts
from litevit.checkpoints.files import read_state_dict
from optimize.models import MODELS, stirred

TINY = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
STEM = "backbone.embeds.0.proj.weight"
SAID = "first layer adapted from 1 to 3 input channels: repeated, times 1/3"


def tiny(in_chans: int, num_classes: int = 3) -> nn.Module:
    torch.manual_seed(in_chans)
    return create_model("litv2_s", in_chans=in_chans, num_classes=num_classes, **TINY).eval()


@pytest.fixture(scope="module")
def grey(tmp_path_factory) -> Path:
    """A classifier of grey images, and of three classes."""
    file = tmp_path_factory.mktemp("weights") / "grey.pth"
    torch.save(tiny(1).state_dict(), file)
    return file


def images(*channels: int) -> Tensor:
    """Noise in the channels that are named, the same noise for the same number."""
    noise = torch.randn(max(channels) + 1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    return torch.stack([noise[channel] for channel in channels], 1)


@pytest.mark.parametrize("name", MODELS)
def test_grey_weights_see_three_equal_channels_as_their_grey_image(name: str, tmp_path: Path) -> None:
    of_grey = stirred(name, in_chans=1).eval()
    torch.save(of_grey.state_dict(), tmp_path / "grey.pth")
    with pytest.warns(UserWarning, match=SAID) as told:
        model = create_model(name, weights=tmp_path / "grey.pth", **MODELS[name]).eval()
    assert len(told) == 1
    with torch.no_grad():
        torch.testing.assert_close(model(images(0, 0, 0)), of_grey(images(0)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_rgb_weights_see_a_grey_image_as_three_equal_channels(name: str, tmp_path: Path) -> None:
    rgb = stirred(name).eval()
    torch.save(rgb.state_dict(), tmp_path / "rgb.pth")
    with pytest.warns(UserWarning, match="from 3 to 1 input channel: their sum"):
        model = create_model(name, weights=tmp_path / "rgb.pth", in_chans=1, **MODELS[name]).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images(0)), rgb(images(0, 0, 0)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "wanted", "how"),
    [
        (3, 4, "repeated, times 3/4"),
        (4, 3, "the first 3, times 4/3"),
        (4, 1, "their sum"),
        (1, 4, "repeated, times 1/4"),
        (2, 3, "repeated, times 2/3"),
    ],
)
def test_as_timm_does(given: int, wanted: int, how: str) -> None:
    source, model = tiny(given).state_dict(), tiny(wanted)
    report = load_weights(model, source)
    expected = timm.models.adapt_input_conv(wanted, source[STEM].clone(), base_chans=given)
    torch.testing.assert_close(model.get_parameter(STEM), expected)
    assert report.adapted is not None
    assert report.adapted.endswith(f"from {given} to {wanted} input channel{'s' * (wanted > 1)}: {how}")
    assert report.adapted in report.line
    assert "resized backbone.embeds.0.proj.weight" in str(report)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in source.items() if key != STEM)


def test_nothing_is_said_of_the_same_channels(grey: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_model("litv2_s", weights=grey, in_chans=1, num_classes=3, **TINY)
    report = load_weights(tiny(1), grey)
    assert report.adapted is None
    assert "adapted" not in report.line


def test_half_precision_stays_half() -> None:
    model = tiny(1).half()
    load_weights(model, {key: value.half() for key, value in tiny(3).state_dict().items()})
    assert model.get_parameter(STEM).dtype == torch.float16


@pytest.mark.parametrize("shape", [(8, 0, 4, 4), (8, 1, 7, 7), (9, 1, 4, 4), (8, 1, 4)])
def test_what_is_no_first_layer_of_the_model_is_refused(shape: tuple[int, ...]) -> None:
    model = tiny(3)
    before = model.get_parameter(STEM).clone()
    with pytest.raises(ValueError, match="is not a checkpoint of this model: 1 tensors of another shape"):
        load_weights(model, tiny(3).state_dict() | {STEM: torch.ones(shape)})
    assert torch.equal(model.get_parameter(STEM), before)


def test_a_detector_takes_the_backbone_of_a_grey_classifier(grey: Path) -> None:
    with pytest.warns(UserWarning, match=SAID):
        model = create_model("retinanet_litv2_s", weights=grey, num_classes=2, channels=16, **TINY)
    torch.testing.assert_close(model.get_parameter(STEM)[:, 2:], tiny(1).get_parameter(STEM) / 3)


@pytest.mark.parametrize("name", ["retinanet", "mask_rcnn", "panoptic_fpn"])
def test_detectors_take_rgb(name: str) -> None:
    """They normalise the images themselves."""
    with pytest.raises(ValueError, match="takes RGB images: the backbone's in_chans must be 3, got 4"):
        create_model(name, backbone="litv2_s", in_chans=4)


def test_the_name_of_the_backbone_is_found_whatever_its_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Its backbone fits litv2_s"):
        load_weights(create_model("lit_s"), create_model("litv2_s", in_chans=1).state_dict())


# ------------------------------------------------------------------------------ commands


def options() -> list[str]:
    return [
        word
        for key, value in TINY.items()
        for word in (f"--model.overrides.{key}", *map(str, value if isinstance(value, tuple) else [value]))
    ]


def test_finetune(grey: Path, photos: Path, litevit, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["train", "finetune", "--data", photos, "--model.name", "litv2_s", *options(), "--model.weights", grey]
    command += ["--data.image_size", 32, "--run.batch_size", 4, "--run.max_steps", 2, "--run.workers", 0]
    code, shown, error = litevit(*command, "--run.device", "cpu", "--run.dir", run)
    assert code == 0, error
    assert (shown + error).count("adapted from 1 to 3 input channels") == 1
    assert read_state_dict(run / "best.safetensors").tensors[STEM].shape[1] == 3
    code, _, error = litevit("eval", "--run", run, "--device", "cpu")
    assert (code, "adapted" in error) == (0, False)


@pytest.mark.parametrize("recipe", ["finetune", "finetune-detection"])
def test_pictures_have_three_channels(recipe: str, photos: Path, litevit, tmp_path: Path) -> None:
    from annotated_sets import official

    data = photos if recipe == "finetune" else official(tmp_path / "data")
    name = "litv2_s" if recipe == "finetune" else "retinanet_litv2_s"
    command = ["train", recipe, "--data", data, "--model.name", name, *options(), "--model.overrides.in_chans", 1]
    command += ["--model.weights", "none", "--run.workers", 0, "--run.device", "cpu", "--run.dir", tmp_path / "run"]
    code, _, error = litevit(*command)
    assert code == 2
    assert error.splitlines()[-1].endswith("Leave it out: weights of other channels are adapted")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def lvt(tmp_path_factory) -> Path:
    """A classifier of grey images by name alone."""
    file = tmp_path_factory.mktemp("weights") / "lvt.pth"
    torch.save(create_model("lvt", in_chans=1, num_classes=3).state_dict(), file)
    return file


def test_eval_and_predict(lvt: Path, photos: Path, litevit) -> None:
    classes = ("--num-classes", 3, "--weights", lvt, "--device", "cpu")
    for command in (
        ("eval", "lvt", "--data", photos, "--size", 32, *classes),
        ("predict", photos / "val/bee/val0.png", "--model", "lvt", *classes),
    ):
        code, _, error = litevit(*command)
        assert code == 0, error
        assert [line for line in error.splitlines() if "adapted" in line] == [f"litevit: warning: {lvt}: {SAID}"]


def test_convert_keeps_the_channels(tmp_path: Path, litevit) -> None:
    state = create_model("litv2_s", in_chans=1).state_dict()
    torch.save({"model": layouts.to_official(state)}, tmp_path / "official.pth")
    assert litevit("convert", tmp_path / "official.pth", tmp_path / "ours.safetensors")[0] == 0
    assert litevit("convert", tmp_path / "ours.safetensors", tmp_path / "back.pth")[0] == 0
    ours, back, official = (
        read_state_dict(tmp_path / name).tensors for name in ("ours.safetensors", "back.pth", "official.pth")
    )
    assert all(torch.equal(ours[key], value) for key, value in state.items())
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], value) for key, value in official.items())
