"""Image files of every kind through the classifier's preprocessing, and what comes back."""

import json

import pytest
import torch
from PIL import Image, ImageStat
from torch import nn

import litevit
from litevit.checkpoints.preprocessing import Preprocessing
from litevit.checkpoints.published import preprocessing
from litevit.jobs.predict import (
    Prediction,
    class_names,
    draw,
    draw_all,
    find_images,
    load_classifier,
    predict,
    to_json,
)
from litevit.jobs.preprocessing import of_classifier


class Brightness(nn.Module):
    """Ten classes: the mean of the image says which."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.linspace(0, 1, 10))

    def forward(self, images):
        return -100 * (images.mean((1, 2, 3))[:, None] - self.anchor) ** 2


PLAIN = Preprocessing(size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture
def picture(tmp_path):
    def save(name, image, **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def test_published_preprocessing():
    image = Image.effect_noise((500, 375), 60).convert("RGB")
    for name, resized in (("litv2_s", 256), ("lvt", 233)):
        from torchvision.transforms.v2 import functional as F

        how = preprocessing(name)
        wanted = F.resize(F.pil_to_tensor(F.resize(image, [resized], interpolation=3)), [resized])  # PIL's bicubic
        wanted = F.center_crop(wanted, [224, 224]) / 255
        wanted = (wanted - torch.tensor(how.mean)[:, None, None]) / torch.tensor(how.std)[:, None, None]
        torch.testing.assert_close(of_classifier(how)(image), wanted)
    squashed = of_classifier(preprocessing("litv2_b_384"))(image)
    assert squashed.shape == (3, 384, 384)
    whole = image.resize((384, 384), Image.Resampling.BICUBIC)
    pixels = squashed * torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    assert abs(float(pixels[0].mean()) + 0.485 - ImageStat.Stat(whole).mean[0] / 255) < 1e-4


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (33, 31)])
def test_odd_sizes(picture, size):
    path = picture("a.png", Image.new("RGB", size, "white"))
    (result,) = predict(Brightness(), [path], PLAIN, top=3)
    assert result.guesses[0].index == 9
    assert len(result.guesses) == 3


def test_damaged_files_are_named_and_stop_nothing(picture, tmp_path):
    good = picture("good.png", Image.new("RGB", (40, 40), "black"))
    noise = Image.effect_noise((200, 200), 90)
    cut = picture("cut.jpg", noise)
    cut.write_bytes(cut.read_bytes()[:3000])
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    results = list(predict(Brightness(), [cut, good, text, empty], PLAIN, batch_size=2))
    assert [bool(r.error) for r in results] == [True, False, True, True]
    assert "cut.jpg is damaged or truncated" in results[0].error
    assert results[1].guesses[0].index == 0


@pytest.mark.parametrize("wrong", [{"top": 0}, {"batch_size": 0}])
def test_nothing_at_a_time_is_refused(picture, wrong):
    path = picture("a.png", Image.new("L", (40, 40)))
    with pytest.raises(ValueError, match="top and batch_size must be at least 1"):
        list(predict(Brightness(), [path], PLAIN, **wrong))


def test_a_picture_that_cannot_be_written_is_named(picture, tmp_path, monkeypatch):
    path = picture("a.png", Image.new("RGB", (40, 40)))

    def full(self, file, **options):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match=r"Cannot write .*a\.png: No space left on device"):
        draw(Prediction(str(path)), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_find_images(picture, tmp_path):
    (tmp_path / "deep").mkdir()
    files = [picture(n, Image.new("L", (4, 4))) for n in ("b.png", "a.JPG", "deep/c.webp")]
    (tmp_path / "notes.txt").write_text("x")
    assert find_images([tmp_path]) == sorted(files)
    assert find_images([files[0]]) == [files[0]]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_images([tmp_path / "gone"])
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match="No images in the folder"):
        find_images([tmp_path / "bare"])
    with pytest.raises(ValueError, match="Nothing to predict"):
        find_images([])


def test_batches_give_the_same_as_single_images(picture):
    paths = [picture(f"{i}.png", Image.new("L", (40, 40), 25 * i)) for i in range(7)]
    single = [r.guesses[0].index for p in paths for r in predict(Brightness(), [p], PLAIN)]
    assert [r.guesses[0].index for r in predict(Brightness(), paths, PLAIN, batch_size=3)] == single


def test_class_names():
    names = class_names(1000)
    assert (names[0], names[207], len(names)) == ("tench, Tinca tinca", "golden retriever", 1000)
    assert class_names(10)[3] == "class 3"


def test_json_and_pictures(picture, tmp_path):
    (tmp_path / "other").mkdir()
    paths = [picture(n, Image.new("RGB", (64, 48), "gray")) for n in ("a.png", "other/a.png")]
    results = [
        *predict(Brightness(), paths, PLAIN, names=[f"n{i}" for i in range(10)]),
        Prediction("x.png", error="no"),
    ]
    rows = json.loads(to_json(results))
    assert rows[0]["guesses"][0]["name"] == "n5"
    assert set(rows[0]) == {"path", "error", "guesses"}
    assert rows[2] == {"path": "x.png", "error": "no", "guesses": []}
    written = draw_all(results, tmp_path / "out")
    assert [p.name for p in written] == ["a.png", "a-2.png"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png", "a-2.png"}
    with Image.open(written[0]) as page:
        assert page.size == (480, 360 + 5 * 26 + 8)


def test_a_training_run_says_how_it_is_used(tmp_path):
    from litevit.checkpoints.files import write_state_dict

    overrides = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
    recipe = {
        "model": {"name": "litv2_s", "weights": None, "overrides": overrides},
        "data": {
            "num_classes": 10,
            "image_size": 64,
            "crop_pct": 1.0,
            "eval_interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    }
    model = litevit.create_model("litv2_s", embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), num_classes=10)
    write_state_dict(model.state_dict(), tmp_path / "best.safetensors", metadata={"recipe": json.dumps(recipe)})
    for weights in (tmp_path, tmp_path / "best.safetensors"):
        loaded, how = load_classifier(None, weights)
        assert torch.equal(loaded.head.weight, model.head.weight)
        assert (how.size, how.crop_pct, how.interpolation, how.mean) == (64, 1.0, "bilinear", (0.5, 0.5, 0.5))


def test_other_tasks_and_unnamed_checkpoints_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does detection; predict takes a classification model"):
        load_classifier("retinanet_lit_s", None)
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="does not say which model it is of"):
        load_classifier(None, tmp_path / "a.pth")
