"""10 of 16 files of a split were not read, without a word: timm's reader knows .jpg, .jpeg and .png."""

import pytest
from PIL import Image

from litevit.data.class_folders import survey, table
from litevit.data.classification import ClassificationData, create_dataset
from litevit.data.images import has_heic

NAMES = (
    "a.jpg", "b.JPG", "c.jpeg", "d.png", "e.PNG", "f.webp", "g.bmp", "h.tif", "i.tiff", "j.gif", "k.jfif", "l.avif",
    "m.ppm", "n.pgm", "o.WebP", "p.pnm",
)  # fmt: skip


def test_every_format_is_read(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for file in NAMES:
            mode = "L" if file.endswith("pgm") else "RGB"
            kind = {"jfif": "JPEG", "jpg": "JPEG", "pnm": "PPM", "pgm": "PPM"}.get(file.rpartition(".")[2].lower())
            Image.new(mode, (16, 16), 90 if mode == "L" else (90, 90, 90)).save(tmp_path / "val" / name / file, kind)
    dataset = create_dataset(ClassificationData(path=str(tmp_path), num_classes=2, image_size=16), "eval")
    assert len(dataset) == 32
    assert all(abs(float(dataset[i][0][0].mean()) - (90 / 255 - 0.485) / 0.229) < 0.1 for i in range(32))


def test_what_is_left_out_is_said(tmp_path, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "val" / name / "1.png")
    for file in ("notes.txt", "list.txt", "photo.heic"):
        (tmp_path / "val" / "cat" / file).write_bytes(b"x")
    (tmp_path / "val" / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    has_heic.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    try:
        (part,) = survey(tmp_path)
    finally:
        has_heic.cache_clear()
    assert part.classes == {"cat": 1, "dog": 1}
    said = table([part])
    assert f"left out of {tmp_path}/val: 2 x no image (.txt): such as cat/" in said
    assert "1 x HEIC is read with pillow-heif: pip install 'litevit[heic]'" in said
    assert "1 x a link to nothing: cat/gone.jpg" in said


def test_a_folder_of_other_files_says_what_is_there(tmp_path):
    (tmp_path / "val" / "cat").mkdir(parents=True)
    (tmp_path / "val" / "cat" / "1.svg").write_text("<svg/>")
    with pytest.raises(ValueError, match=r"No images under .*formats: JPEG.*1 of no image \(\.svg\), such as cat/1"):
        create_dataset(ClassificationData(path=str(tmp_path), num_classes=2), "eval")
