"""Label maps follow their images through every augmentation; files, tool and task."""

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from timm.data.auto_augment import rand_augment_transform

import litevit
from litevit.data.classification import Augment, ClassificationData
from litevit.data.sampling import seed_everything
from litevit.data.token_labels import (
    TokenLabelImages,
    TokenLabelTransform,
    affine_of,
    apply_op,
    label_map_path,
    load_label_map,
    pack,
    warp_maps,
)
from litevit.engine.config import override
from litevit.jobs.token_labels import dense_logits, label_maps, make_token_labels
from litevit.jobs.train import train
from litevit.recipes import get_recipe
from litevit.tasks.token_labeling import token_labels, unpack_label_maps

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")


def picture_of(maps: torch.Tensor, cell: int) -> Image.Image:
    """The class ids of a label map as a grey picture with `cell` pixels per cell."""
    pixels = maps[1, 0].to(torch.uint8).repeat_interleave(cell, 0).repeat_interleave(cell, 1)
    return Image.fromarray(pixels.numpy()).convert("RGB")


def quadrants(Y: int = 18, X: int = 18) -> torch.Tensor:
    """A label map whose classes are large regions: 50, 100, 150, 200, with score 1."""
    classes = torch.tensor([[50.0, 100.0], [150.0, 200.0]]).repeat_interleave(Y // 2, 0).repeat_interleave(X // 2, 1)
    return torch.stack([torch.ones(Y, X), classes])[:, None]


def share_that_agrees(image: Image.Image, maps: torch.Tensor, cell: int) -> float:
    """Compares each cell's class with the pixel at its centre, where the score says that there is one."""
    pixels = torch.from_numpy(np.array(image))[cell // 2 :: cell, cell // 2 :: cell, 0]
    inside = (maps[0, 0] > 0) & (pixels > 0)
    return (pixels[inside] == maps[1, 0][inside]).float().mean().item()


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("shape", [(18, 18), (18, 12)])  # square cells on a square and on a wide image
def test_maps_move_as_their_image_moves(name, shape):
    maps = quadrants(*shape)
    image = picture_of(maps, 10)
    hparams = {"img_mean": (0, 0, 0), "interpolation": Image.Resampling.NEAREST}
    moved = 0
    for op in rand_augment_transform("rand-m9-n1-p1.0-inc1", hparams).ops:
        if op.name != name:
            continue
        for _ in range(6):  # both signs
            new_image, new_maps = apply_op(op, image, maps)
            assert share_that_agrees(new_image, new_maps, 10) > 0.97
            moved += not torch.equal(new_maps, maps)
    assert moved == 6


@pytest.mark.parametrize("name", GEOMETRIC)
def test_the_geometry_is_pillows(name):
    """The affine map is the one timm's function applies: a point lands where it says."""
    from timm.data.auto_augment import NAME_TO_OP

    W, H = 90, 60
    argument = {"Rotate": 25.0}.get(name, 0.2)
    a, b, c, d, e, f = affine_of(name, (argument,), (W, H))
    pixels = np.arange(W * H, dtype=np.int32).reshape(H, W)
    moved = np.array(
        NAME_TO_OP[name](Image.fromarray(pixels), argument, resample=Image.Resampling.NEAREST, fillcolor=-1)
    )
    for y, x in [(30, 45), (20, 30), (40, 60), (25, 50)]:
        u, v = a * (x + 0.5) + b * (y + 0.5) + c, d * (x + 0.5) + e * (y + 0.5) + f
        assert moved[y, x] == int(v) * W + int(u)


def test_outside_the_image_scores_are_zero_and_classes_those_of_the_edge():
    maps = quadrants()
    warped = warp_maps(maps, (1, 0, 45.0, 0, 1, 0), (180, 180))  # a quarter to the left
    assert warped[0, 0, :, -4:].sum() == 0
    assert warped[0, 0, :, :13].min() == 1
    assert set(warped[1, 0, :, -1].tolist()) == {100.0, 200.0}


def test_colour_operations_leave_the_map_alone():
    for name in ("AutoContrast", "PosterizeIncreasing", "SolarizeAdd", "ColorIncreasing", "Invert", "Equalize"):
        assert affine_of(name, (3,), (10, 10)) is None


def transform(**augment) -> TokenLabelTransform:
    settings = {"hflip": 0.0, "auto_augment": None, "erase_prob": 0.0, "mixup": 0, "cutmix": 0} | augment
    return TokenLabelTransform(ClassificationData(image_size=64, augment=Augment(**settings)))


def test_flip_moves_image_and_map():
    maps = quadrants()
    image, packed = transform(hflip=1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0))(picture_of(maps, 10), maps, 3)
    assert torch.equal(packed[:2], maps.flip(-1))
    assert packed[2, 0, 0, 5] == 3
    assert packed[2, 0, 0, :4].tolist() == [0, 0, 1, 1]
    assert image[0, 5, 5] > image[0, 5, -5]  # class 100 is brighter than 50, and is on the left now


def test_the_crop_appended_is_the_crop_made():
    maps = quadrants()
    picture = picture_of(maps, 10)
    for seed in range(20):
        seed_everything(seed)
        image, packed = transform(scale=(0.05, 0.2), interpolation="bilinear")(picture, maps, 0)
        labels = token_labels(unpack_label_maps(packed[None]), num_classes=256, grid=(1, 1))
        top, left, height, width = packed[2, 0, 0, :4].tolist()
        mean, std = 0.485, 0.229
        middle = (image[0, 32, 32] * std + mean) * 255
        y, x = int((top + height / 2) * 18), int((left + width / 2) * 18)
        near_border = min(abs(top + height / 2 - 0.5), abs(left + width / 2 - 0.5)) < 0.02
        if not near_border:
            assert abs(middle - maps[1, 0, y, x]) < 3
        if not (top < 0.5 < top + height) and not (left < 0.5 < left + width):
            assert labels.cls.argmax() == maps[1, 0, y, x]


def test_transposed_crop_reads_the_mirrored_place():
    maps = pack(quadrants(), (0.0, 0.6, 0.3, 0.3), 0)[None]  # a crop in the upper right: class 100
    right = token_labels(unpack_label_maps(maps), num_classes=256, grid=(7, 7))
    published = token_labels(unpack_label_maps(maps), num_classes=256, grid=(7, 7), transposed_crop=True)
    assert right.cls.argmax() == 100
    assert published.cls.argmax() == 150


def test_the_same_key_gives_the_same_sample_with_all_augmentations():
    maps, whole = quadrants(), transform(auto_augment="rand-m9-mstd0.5-inc1", hflip=0.5, erase_prob=0.5)
    results = []
    for _ in range(2):
        seed_everything(1, 2, 3)
        results.append(whole(picture_of(maps, 10), maps, 0))
        random.random()
    assert all(torch.equal(a, b) for a, b in zip(*results))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "val"):
        for label in ("n01", "n02", "n03", "n04", "n05"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(2):
                pixels = torch.randint(0, 256, (40, 56, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"x{i}.png")
    return root


@pytest.fixture(scope="module")
def labels(images, tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = litevit.create_model("litv2_s", embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), num_classes=5)
    out = tmp_path_factory.mktemp("labels")
    assert make_token_labels(model, str(images), out, image_size=64, workers=0, batch_size=4) == 10
    assert make_token_labels(model, str(images), out, image_size=64, workers=0) == 0  # all there
    (out / "n01" / "x1.pt").unlink()
    assert make_token_labels(model, str(images), out, image_size=64, workers=0) == 1
    return out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_and_started_again(images, labels, tmp_path, kills):
    luck, killed = random.Random(2), 0

    def make() -> int:
        torch.manual_seed(0)
        model = litevit.create_model("litv2_s", embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), num_classes=5)
        return make_token_labels(model, str(images), tmp_path, image_size=64, workers=0, batch_size=1)

    while killed < kills:
        if not (pid := os.fork()):
            torch.set_num_threads(1)  # the parent's threads are not there
            try:
                make()
            finally:
                os._exit(0)
        before = len(list(tmp_path.rglob("x*.pt")))
        until = time.monotonic() + 30
        while len(list(tmp_path.rglob("x*.pt"))) == before and time.monotonic() < until:  # it has begun to write
            time.sleep(0.001)
        time.sleep(luck.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
        if killed < kills and len(done := sorted(tmp_path.rglob("x*.pt"))) > 7:  # something has to be left to do
            for file in done[::2]:
                file.unlink()
    (tmp_path / "n01").mkdir(exist_ok=True)
    for file in sorted(tmp_path.rglob("x*.pt"))[:1]:
        file.unlink()
        (file.parent / f".{file.name}.123-0a1b2c3d.tmp").write_text("of a killed process")
    make()
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")) == sorted(
        path.relative_to(labels) for path in labels.rglob("*.*")
    )
    for path in labels.rglob("x*.pt"):
        made = load_label_map(tmp_path / path.relative_to(labels))
        torch.testing.assert_close(made, load_label_map(path), rtol=1e-2, atol=1e-3)


def test_files_have_the_published_layout(labels):
    files = sorted(str(path.relative_to(labels)) for path in labels.rglob("*.*"))
    assert files == [f"n0{label}/x{i}.pt" for label in range(1, 6) for i in range(2)]
    raw = torch.load(labels / "n01" / "x0.pt", weights_only=True)
    assert raw.shape == (2, 5, 18, 18)
    assert raw.dtype == torch.float16
    maps = load_label_map(labels / "n01" / "x0.pt")
    assert (maps[0].diff(dim=0) <= 0).all()
    assert maps[0].sum(0).max() <= 1.01
    assert torch.equal(maps[1], maps[1].round())
    assert maps[1].max() < 5


def test_maps_are_the_head_at_every_position():
    torch.manual_seed(0)
    model = litevit.create_model(
        "litv2_s", embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), num_classes=7
    ).eval()
    batch = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        logits = dense_logits(model, batch)
        assert logits.shape == (2, 7, 2, 3)
        torch.testing.assert_close(logits.mean((2, 3)), model(batch))  # a linear head on the mean over positions
        maps = label_maps(model, batch, grid=2, k=3)
    assert maps.shape == (2, 2, 3, 2, 2)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext2", "test_vit"])
def test_timm_models_make_maps(name):
    import timm

    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=9).eval()
    side = model.default_cfg["input_size"][-1]
    with torch.no_grad():
        logits = dense_logits(model, torch.randn(1, 3, side, side))
        assert logits.shape[:2] == (1, 9)
        assert logits.shape[2] == logits.shape[3] > 1
        assert logits.std() > 0


def test_lvt_makes_maps_with_its_own_token_head():
    torch.manual_seed(0)
    model = litevit.create_model("lvt", depths=(1, 1, 1, 1), num_classes=6).eval()
    batch = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        _, tokens = model(batch, return_tokens=True)
        assert torch.equal(dense_logits(model, batch), tokens.transpose(1, 2).unflatten(2, (2, 2)))


def test_a_model_with_a_class_token_is_refused():
    model = litevit.create_model("lit_ti", embed_dims=(8, 8, 8, 8), depths=(1,) * 4, num_heads=(1,) * 4)
    with pytest.raises(ValueError, match="class token"):
        dense_logits(model, torch.randn(1, 3, 64, 64))


def test_data_set_pairs_images_with_their_maps(images, labels):
    data = ClassificationData(path=str(images), num_classes=5, image_size=32, token_labels=str(labels))
    dataset = TokenLabelImages(data)
    image, packed = dataset[2]
    assert len(dataset) == 10
    assert image.shape == (3, 32, 32)
    assert packed.shape == (3, 5, 18, 18)
    assert packed[2, 0, 0, 5] == 1
    assert label_map_path(labels, "n02/x1.JPEG") == labels / "n02" / "x1.pt"
    assert label_map_path(labels, "n02/day/x.1.JPEG") == labels / "n02" / "day" / "x.1.pt"


def test_missing_and_damaged_maps_are_named(images, labels, tmp_path):
    data = ClassificationData(path=str(images), num_classes=5, image_size=32, token_labels=str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="none"):
        TokenLabelImages(data)
    (tmp_path / "n01").mkdir()
    with pytest.raises(FileNotFoundError, match=r"n01/x0.pt.*litevit token-labels"):
        load_label_map(tmp_path / "n01" / "x0.pt")
    (tmp_path / "n01" / "x0.pt").write_bytes(b"not a tensor")
    with pytest.raises(ValueError, match="damaged"):
        load_label_map(tmp_path / "n01" / "x0.pt")
    torch.save(torch.zeros(2, 3), tmp_path / "n01" / "x1.pt")
    with pytest.raises(ValueError, match=r"\(2, k, Y, X\)"):
        load_label_map(tmp_path / "n01" / "x1.pt")


@pytest.mark.parametrize("crop", ["aligned", pytest.param("transposed", marks=pytest.mark.slow)])
def test_lvt_trains_on_label_maps(images, labels, tmp_path, crop):
    recipe = get_recipe("lvt")
    for path, value in {
        "model.overrides.depths": (1, 1, 1, 1),
        "data.path": str(images),
        "data.num_classes": 5,
        "data.image_size": 64,
        "data.token_labels": str(labels),
        "data.token_label_crop": crop,
        "run.batch_size": 6,
        "run.max_steps": 2,
        "run.workers": 0,
        "run.log_every": 1,
        "run.precision": "fp32",
        "run.device": "cpu",
        "run.dir": str(tmp_path),
    }.items():
        recipe = override(recipe, path, value)
    train(recipe, console=Console(quiet=True))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row for row in rows if row["kind"] == "train"]
    assert len(losses) == 2
    for row in losses:
        assert row["loss"] == pytest.approx(row["loss_cls"] + row["loss_tokens"], rel=1e-5)
        assert 0.5 < row["loss_cls"] < 6


def test_wrong_settings_are_refused(images, tmp_path):
    base = override(get_recipe("lvt"), "data.path", str(images))
    with pytest.raises(ValueError, match="mixup"):
        train(override(base, "data.augment.mixup", 0.8), console=Console(quiet=True))
    base = override(override(base, "run.dir", str(tmp_path)), "run.device", "cpu")
    with pytest.raises(ValueError, match="head per token"):
        train(override(base, "model.name", "litv2_s"), console=Console(quiet=True))
    with pytest.raises(ValueError, match="without weights"):
        make_token_labels("litv2_s", str(images), tmp_path)
