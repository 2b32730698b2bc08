"""Class names with umlauts or Chinese characters were drawn as boxes, with warnings that showed lines of source."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from litevit.jobs import draw, fonts
from litevit.jobs.pictures import draw_confusion
from litevit.jobs.train import train

matplotlib = pytest.importorskip("matplotlib", reason="DejaVu comes with matplotlib")


EVERY = "LastResortHE-Regular.ttf"  # a sign for every character


@pytest.fixture
def no_fonts(monkeypatch):
    """A machine without any of them."""

    def use(*files: str):
        monkeypatch.setattr(fonts, "FILES", files)
        for cached in (fonts.font_files, fonts.has, fonts.font_for):
            cached.cache_clear()
        if EVERY in files and not any(Path(file).name == EVERY for file in fonts.font_files()):
            pytest.skip("this matplotlib comes without LastResort; 3.11 has it")

    yield use
    monkeypatch.undo()
    use(*fonts.FILES)


@pytest.mark.parametrize("name", ["Käfer", "Straße", "ação", "Łódź", "Ελλάδα", "Жук", "Biệt thự"])
def test_alphabets_are_drawn_with_their_letters(name):
    file = fonts.font_for(name)
    assert Path(file).name == "DejaVuSans.ttf"
    assert fonts.drawable(name) == name
    missing = fonts.load_font(20, file).getmask(fonts.NOWHERE)
    assert all(bytes(fonts.load_font(20, file).getmask(c)) != bytes(missing) for c in name if c != " ")


def test_a_font_that_has_more_is_used(no_fonts):
    """matplotlib's LastResort has a sign for everything, as Noto CJK has for Chinese."""
    no_fonts("DejaVuSans.ttf", EVERY)
    assert Path(fonts.font_for("猫")).name == EVERY
    assert fonts.drawable("猫 and 犬") == "猫 and 犬"
    assert fonts.font_for("cat") is None  # Pillow's own


def test_what_no_font_has_is_a_number_that_can_be_told_apart(no_fonts):
    no_fonts("DejaVuSans.ttf")
    with pytest.warns(UserWarning, match="Unicode numbers. Install Noto Sans CJK"):
        assert fonts.drawable("猫 cat") == "U+732B cat"
    no_fonts()
    with pytest.warns(UserWarning, match="Unicode numbers"):
        assert fonts.drawable("Käfer") == "KU+00E4fer"


def test_pictures_with_such_names(tmp_path, no_fonts):
    """Without a warning of matplotlib's; a dollar sign is no formula."""
    no_fonts("DejaVuSans.ttf", EVERY)
    names = ["Käfer", "猫", "a$b$c_{d}", "plain"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(torch.ones(4, 4, dtype=torch.int64), names, tmp_path / "confusion.png")
        draw.draw_map(Image.new("RGB", (64, 64)), torch.arange(4).repeat_interleave(16)[:, None].expand(64, 64), names)
        boxes = torch.tensor([[4.0, 4, 30, 30]])
        draw.draw_detections(Image.new("RGB", (64, 64)), boxes, ["猫"])
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_a_run_with_such_classes(photos, recipe, tmp_path, litevit):
    for split in ("train", "val"):
        (photos / split / "bee").rename(photos / split / "Biene (Käfer?)")
        (photos / split / "dog").rename(photos / split / "犬")
    train(recipe(photos))
    picture = photos / "val" / "犬" / "val0.png"
    code, out, said = litevit("predict", picture, "--weights", tmp_path / "run", "--json", "--out", tmp_path / "out")
    assert code == 0
    assert {guess["name"] for guess in json.loads(out)[0]["guesses"]} == {"Biene (Käfer?)", "cow", "犬"}
    assert ".py:" not in said
    assert said.count("warning:") <= 1
