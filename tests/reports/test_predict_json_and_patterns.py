"""`predict --json` of detectors had no path and no class name, and left out images without objects; a quoted pattern
was a file that does not exist; the share of pixels of a segmenter was called a score."""

import json

import pytest
from PIL import Image

from litevit.cli import main

SMALL = {"retinanet": "retinanet_lit_ti", "mask_rcnn": "mask_rcnn_lit_ti", "semantic": "semantic_fpn_lit_ti",
         "panoptic": "panoptic_fpn_lvt", "classes": "lvt"}  # fmt: skip
COLUMNS = {
    "retinanet": {"height", "width", "boxes", "scores", "labels", "names"},
    "mask_rcnn": {"height", "width", "boxes", "scores", "labels", "names", "masks"},
    "semantic": {"height", "width", "segments"},
    "panoptic": {"height", "width", "segments"},
    "classes": {"guesses"},
}


@pytest.fixture
def photos(tmp_path):
    for name, size in (("a.jpg", (70, 50)), ("b.jpg", (64, 64)), ("c.png", (64, 64))):
        Image.effect_noise(size, 80).convert("RGB").save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    return tmp_path


@pytest.mark.parametrize("kind", SMALL)
def test_one_schema(photos, capsys, kind):
    code = main(
        ["predict", str(photos / "*.jpg"), "--model", SMALL[kind], "--weights", "none", "--json", "--device", "cpu"]
        + (["--size", "64"] if kind != "classes" else [])
    )
    rows = json.loads(capsys.readouterr().out)
    assert code == 2  # one file is broken
    assert [row["path"] for row in rows] == [str(photos / name) for name in ("a.jpg", "b.jpg", "broken.jpg")]
    for row in rows[:2]:
        assert set(row) == {"path", "error"} | COLUMNS[kind]
        assert row["error"] is None
        if "boxes" in row:  # random weights find nothing: the image is there all the same
            assert len(row["boxes"]) == len(row["names"]) == len(row["scores"])
    assert "not a readable image" in rows[2]["error"] or "broken.jpg" in rows[2]["error"]
    if kind == "semantic":
        first = rows[0]
        assert (first["height"], first["width"]) == (50, 70)
        assert sum(segment["area"] for segment in first["segments"]) == 50 * 70
        assert all(segment["name"] for segment in first["segments"])
        assert "score" not in first["segments"][0]


@pytest.mark.parametrize("columns", [80, 300])
def test_a_share_is_called_a_share(photos, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))  # long paths leave the other columns their room
    main(
        ["predict", str(photos / "a.jpg"), "--model", SMALL["semantic"], "--weights", "none", "--size", "64",
         "--device", "cpu"]
    )  # fmt: skip
    assert "share of pixels" in " ".join(capsys.readouterr().out.split())


def test_a_pattern_that_matches_nothing(photos, capsys):
    assert main(["predict", str(photos / "*.gif"), "--model", "lvt", "--weights", "none"]) == 2
    said = capsys.readouterr().err
    assert "Nothing matches" in " ".join(said.split())
    assert "Traceback" not in said
