"""ADE20K's layout and index masks of any folder: label conventions and clear words about wrong masks."""

import numpy as np
import pytest
import torch
from PIL import Image

from litevit.data.ade20k import SegmentationFolder, ade20k, read_classes


def test_zero_is_ignored_and_the_rest_moves_down(ade_root) -> None:
    dataset = ade20k(ade_root, "training")
    assert dataset.classes == ("wall", "floor", "tree")
    assert len(dataset) == 2
    image, target = dataset[0]
    assert image.shape == (3, 24, 40)
    assert target["image_id"] == "x"
    assert target["semantic"].dtype == torch.int64
    assert target["semantic"][:, 0].unique_consecutive().tolist() == [255, 0, 1, 2]


def test_any_folder_starts_at_zero_and_ignores_255(ade_root) -> None:
    mask = ade_root / "annotations" / "validation" / "z.png"
    values = np.array(Image.open(mask))
    values[0, 0] = 255
    Image.fromarray(values).save(mask)
    folders = ade_root / "images" / "validation", ade_root / "annotations" / "validation"
    _, target = SegmentationFolder(*folders, ("void", "wall", "floor", "tree"))[0]
    assert target["semantic"][0, 0] == 255
    assert target["semantic"][0, 1] == 0


def test_palette_masks_give_their_indices(ade_root) -> None:
    mask = ade_root / "annotations" / "validation" / "z.png"
    before = ade20k(ade_root, "validation")[0][1]["semantic"]
    palette = Image.fromarray(np.array(Image.open(mask)), mode="P")
    palette.putpalette([200, 10, 10, 7, 7, 7, 0, 255, 0, 9, 9, 250])
    palette.save(mask)
    assert Image.open(mask).mode == "P"
    assert torch.equal(ade20k(ade_root, "validation")[0][1]["semantic"], before)


def test_colour_masks_are_named(ade_root) -> None:
    mask = ade_root / "annotations" / "validation" / "z.png"
    grey = Image.open(mask).copy()
    before = ade20k(ade_root, "validation")[0][1]["semantic"]
    grey.convert("RGB").save(mask)
    assert torch.equal(ade20k(ade_root, "validation")[0][1]["semantic"], before), "grey saved as RGB is no loss"
    Image.merge("RGB", (grey, grey, Image.new("L", grey.size))).save(mask)
    with pytest.raises(ValueError, match=r"z\.png is a colour picture \(mode RGB\); a PNG of class indices"):
        ade20k(ade_root, "validation")[0]


def test_values_outside_the_classes_are_named(ade_root) -> None:
    mask = ade_root / "annotations" / "validation" / "z.png"
    values = np.array(Image.open(mask))
    values[0, 0] = 4
    Image.fromarray(values).save(mask)
    with pytest.raises(ValueError, match=r"z\.png has the value 4; 3 classes allow 1..3 and 0, 255 \(ignored\)"):
        ade20k(ade_root, "validation")[0]
    folders = ade_root / "images" / "validation", ade_root / "annotations" / "validation"
    with pytest.raises(ValueError, match=r"has the value 4; 4 classes allow 0..3 and 255 \(ignored\)"):
        SegmentationFolder(*folders, ("a", "b", "c", "d"))[0]


def test_mask_and_image_of_different_size(ade_root) -> None:
    mask = ade_root / "annotations" / "validation" / "z.png"
    Image.open(mask).crop((0, 0, 39, 24)).save(mask)
    with pytest.raises(ValueError, match=r"z\.jpg is 40 x 24 .* its mask .*z\.png is 39 x 24"):
        ade20k(ade_root, "validation")[0]


def test_missing_things(ade_root) -> None:
    with pytest.raises(ValueError, match="'training' or 'validation'"):
        ade20k(ade_root, "val")
    (ade_root / "annotations" / "validation" / "z.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"z\.jpg has no mask"):
        ade20k(ade_root, "validation")
    (ade_root / "classes.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no class list .* classes\.json or objectInfo150\.txt"):
        ade20k(ade_root, "training")
    assert len(ade20k(ade_root, "training", classes=("a", "b", "c"))) == 2
    for file in (ade_root / "images" / "training").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="no images"):
        ade20k(ade_root, "training", classes=("a",))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        SegmentationFolder(ade_root / "nowhere", ade_root, ("a",))


def test_class_lists(tmp_path) -> None:
    (tmp_path / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t9\t1\t1\twall\n2\t0.1\t8\t1\t1\tsky, air\n"
    )
    assert read_classes(tmp_path / "objectInfo150.txt") == ("wall", "sky, air")
    (tmp_path / "list.json").write_text('["a", "b"]')
    assert read_classes(tmp_path / "list.json") == ("a", "b")
    (tmp_path / "gap.json").write_text('{"1": "a", "3": "b"}')
    assert read_classes(tmp_path / "gap.json") == ("a", "b")  # values that somebody has chosen
    (tmp_path / "words.json").write_text('{"a": 1, "b": 2}')
    with pytest.raises(ValueError, match="an object with the masks' values for keys"):
        read_classes(tmp_path / "words.json")
    (tmp_path / "bad.json").write_text("nonsense")
    with pytest.raises(ValueError, match="is not JSON"):
        read_classes(tmp_path / "bad.json")


def test_more_than_nine_classes_keep_their_order(tmp_path) -> None:
    (tmp_path / "c.json").write_text("{" + ", ".join(f'"{i}": "class {i}"' for i in range(1, 13)) + "}")
    assert read_classes(tmp_path / "c.json")[8:] == ("class 9", "class 10", "class 11", "class 12")
