"""Masks as people have them: layouts, class lists, colours; values that cannot mean what the setting says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import annotated_sets as sets
from litevit.data.ade20k import SegmentationFolder
from litevit.data.dense import SegmentationData, SegmentationSets, mask_labels
from litevit.data.doctor import examine
from litevit.data.layouts import find_layout, layouts_of

NAMES = ("ground", "ant", "bee")


def opened(root, **options) -> SegmentationSets:
    return SegmentationSets(SegmentationData(path=str(root), **options), cache=root)


def labels(found: SegmentationSets, split: str = "train") -> list[np.ndarray]:
    source = found.train_source if split == "train" else found.eval().dataset
    return [source.read_mask(i).numpy() for i in range(len(source))]


def same(found: SegmentationSets, change=lambda values: values) -> bool:
    ours, theirs = labels(found), [change(sets.mask(n).astype(np.int64)) for n in sets.TRAIN]
    return len(ours) == len(theirs) and all((a == b).all() for a, b in zip(ours, theirs))


@pytest.mark.parametrize("write", [sets.masks, sets.masks_in_splits, sets.masks_beside, sets.cvat_masks])
def test_every_layout_gives_the_same_masks(write, tmp_path) -> None:
    found = opened(write(tmp_path))
    assert found.classes == NAMES
    assert same(found)
    assert len(found.eval()) == 2
    assert [part.images for part in found.parts] == [6, 2]


@pytest.mark.parametrize(("folder", "ending"), [("_masks", "_mask"), ("_gt", ""), ("annot", "")])
def test_folders_in_pairs(folder, ending, tmp_path) -> None:
    """`train/` and `train_masks/` were two classes of pictures."""
    found = opened(sets.paired_folders(tmp_path, folder=folder, ending=ending))
    assert found.classes == NAMES
    assert same(found)
    assert len(found.eval()) == 2
    assert [part.images for part in found.parts] == [6, 2]


def test_folders_whose_files_differ_are_classes(tmp_path) -> None:
    for name, numbers in (("cat", range(3)), ("cat_mask", range(3, 6))):
        sets.write_pictures(tmp_path / name, numbers)
    assert [layout.task for layout in layouts_of(tmp_path)] == ["classification"]


def test_tiff_masks_without_a_list_are_told_what_is_missing(tmp_path) -> None:
    """Masks that are no PNG were not looked at for the list that is needed."""
    root = sets.paired_folders(tmp_path)
    for file in [*root.rglob("*_masks/*.png")]:
        Image.open(file).convert("L").save(file.with_suffix(".tif"))
        file.unlink()
    (root / "classes.json").unlink()
    with pytest.raises(ValueError, match=r"no class list: put classes\.json .* is no palette PNG either"):
        opened(root)


def test_folders_without_splits_are_divided(tmp_path) -> None:
    found = opened(sets.flat_masks(tmp_path), hold_out=0.25)
    assert (len(found.train), len(found.eval())) == (6, 2)
    assert not set(found.train_source.files) & set(found.eval().dataset.files)


def test_0_and_1_in_ade20ks_layout_lose_no_class(tmp_path) -> None:
    """Masks 0/1 lost class 0 without a word (mIoU 0.44)."""
    sets.ade(tmp_path, names=["ground", "insect"], change=lambda values: (values > 0).astype(np.uint8))
    message = r"hold the values 0\.\.1 for 2 names, .* 1 is called 'ground' .* give --data\.reduce_zero_label False"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)
    assert same(opened(tmp_path, reduce_zero_label=False), lambda values: (values > 0).astype(np.int64))


def test_as_many_names_as_values_and_0_ignored(tmp_path, litevit) -> None:
    """`--data.reduce_zero_label True` called 1 by the name of 0, 2 by that of 1, with a warning alone."""
    sets.masks(tmp_path)
    message = (
        r"0\.\.2 for 3 names, .* 1 is called 'ground' and nothing 'bee'\. .* gives the values: {\"1\": \"ground\", "
    )
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, reduce_zero_label=True)
    code, out, _ = litevit("doctor", tmp_path, "--reduce-zero-label", "True")
    assert code == 1
    assert "1 is called 'ground'" in out
    for names in (["ant", "bee"], {"1": "ant", "2": "bee"}):
        sets.write_json(tmp_path / "classes.json", names)
        found = opened(tmp_path, reduce_zero_label=True)
        assert found.classes == ("ant", "bee")
        assert same(found, lambda values: np.where(values == 0, 255, values - 1))
        assert litevit("doctor", tmp_path, "--reduce-zero-label", "True")[0] == 0


def test_a_list_that_gives_the_values_is_believed(tmp_path) -> None:
    """Three classes, of which the last is in no mask: only a list of names alone leaves a doubt."""
    sets.masks(tmp_path, names={"1": "ant", "2": "bee", "3": "wasp"})
    found = opened(tmp_path)
    assert found.labels.values == (1, 2, 3)
    assert same(found, lambda values: np.where(values == 0, 255, values - 1))
    with pytest.raises(ValueError, match=r"hold the values 0; 3 classes allow 1\.\.3 and 255 \(ignored\)"):
        opened(tmp_path, reduce_zero_label=False)


def test_an_evaluation_split_may_lack_the_last_class(tmp_path, litevit) -> None:
    """0 was suspected to be a class there too, although training had just been told otherwise."""
    sets.ade(tmp_path, names=["ground", "ant", "bee"], change=lambda values: (values + 1).astype(np.uint8))
    for path in (tmp_path / "annotations" / "validation").iterdir():
        values = np.array(Image.open(path))
        Image.fromarray(np.where(values == 3, 0, values).astype(np.uint8)).save(path)
    assert len(opened(tmp_path).eval()) == 2
    assert litevit("doctor", tmp_path)[0] == 0


def test_masks_that_count_from_1(tmp_path) -> None:
    sets.masks(tmp_path, names=["ant", "bee"])
    with pytest.raises(ValueError, match=r"hold the values 2; .* Give --data\.reduce_zero_label True if 0 is no class"):
        opened(tmp_path)
    found = opened(tmp_path, reduce_zero_label=True)
    assert same(found, lambda values: np.where(values == 0, 255, values - 1))


def test_0_and_255_are_two_classes_that_a_list_names(tmp_path) -> None:
    """Masks 0/255 trained at loss 0, mIoU nan, exit 0."""
    sets.masks(
        tmp_path, names=["ground", "insect"], change=lambda values: np.where(values > 0, 255, 0).astype(np.uint8)
    )
    with pytest.raises(ValueError, match=r'hold only 0 and 255, .* classes\.json: {"0": "ground", "255": "insect"}'):
        opened(tmp_path)
    sets.write_json(tmp_path / "classes.json", {"0": "ground", "255": "insect"})
    found = opened(tmp_path)
    assert found.classes == ("ground", "insect")
    assert same(found, lambda values: (values > 0).astype(np.int64))
    assert found.labels.to_values(torch.tensor([0, 1])).tolist() == [0, 255], "predictions are written as the masks are"


def test_another_ignore_index(tmp_path) -> None:
    sets.masks(tmp_path, change=lambda values: np.where(values == 2, 9, values).astype(np.uint8))
    with pytest.raises(ValueError, match=r"hold the values 9; 3 classes allow 0\.\.2 and 255 \(ignored\)"):
        opened(tmp_path)
    assert same(opened(tmp_path, ignore_index=9), lambda values: np.where(values == 2, 255, values))


def test_no_labelled_pixel(tmp_path) -> None:
    sets.masks(tmp_path, change=lambda values: np.full_like(values, 255))
    with pytest.raises(ValueError, match="have no labelled pixel: their values are 255, all ignored"):
        opened(tmp_path)


def test_one_class_in_the_masks_is_said(tmp_path) -> None:
    sets.masks(tmp_path, change=np.zeros_like)
    (note,) = opened(tmp_path).notes
    assert "hold a single class, 'ground': there is nothing to tell apart" in note


def test_one_class_in_the_list_is_refused(tmp_path, litevit, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    sets.masks(tmp_path / "set", names=["ground"], change=np.zeros_like)
    code, _, said = litevit("train", "quickstart-segmentation", "--data", tmp_path / "set")
    assert code == 2
    assert "has one class, 'ground'" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("change", [sets.in_colour, sets.with_palette])
def test_colours_with_a_labelmap(change, tmp_path) -> None:
    sets.masks(tmp_path, names=None, change=change)
    (tmp_path / "labelmap.txt").write_text(sets.LABELMAP)
    found = opened(tmp_path)
    assert found.classes == NAMES
    assert same(found)


def test_a_colour_that_the_labelmap_lacks(tmp_path) -> None:
    sets.masks(tmp_path, names=None, change=sets.in_colour)
    (tmp_path / "labelmap.txt").write_text(sets.LABELMAP.replace("30,200,30", "30,200,31"))
    with pytest.raises(ValueError, match="has the colour 30,200,30, which the labelmap does not list"):
        opened(tmp_path)


def test_a_palette_is_a_class_list(tmp_path) -> None:
    found = opened(sets.masks(tmp_path, names=None, change=sets.with_palette))
    assert found.classes == ("#0a141e", "#c81e1e", "#1ec81e")
    assert same(found)


def test_neither_list_nor_palette(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"no class list: put classes\.json"):
        opened(sets.masks(tmp_path, names=None))


def test_colours_without_a_labelmap(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"is a colour picture .* or a labelmap\.txt"):
        opened(sets.masks(tmp_path, change=sets.in_colour))


def test_a_list_with_a_byte_order_mark(tmp_path) -> None:
    sets.masks(tmp_path)
    file = tmp_path / "classes.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(["Straße", "ant", "bee"], ensure_ascii=False).encode())
    assert opened(tmp_path).classes[0] == "Straße"


def test_more_values_than_classes(tmp_path) -> None:
    """Masks of instances: every object has a number of its own."""
    sets.masks(tmp_path, change=lambda values: (values + np.arange(values.shape[1]) // 8).astype(np.uint8))
    with pytest.raises(ValueError, match="Are these masks of other classes, or of instances"):
        opened(tmp_path)


def test_train_and_eval_read_masks_by_one_rule(tmp_path, litevit, monkeypatch) -> None:
    """`eval --annotations` took 0..N-1 where training had taken 1..N: mIoU 0.09, without a word."""
    pytest.importorskip("accelerate", reason="training needs accelerate")
    monkeypatch.chdir(tmp_path)
    sets.ade(tmp_path / "set", change=lambda values: (values + 1).astype(np.uint8))
    small = "--model.overrides.embed_dim 8 --model.overrides.depths 1 1 1 1 --model.overrides.num_heads 1 1 2 2"
    short = "--model.overrides.head_channels 8 --run.max_steps 2 --run.batch_size 2 --run.device cpu --data.crop 64"
    tiny = (*small.split(), *short.split(), "--run.dir", "run")
    code, out, said = litevit("train", "quickstart-segmentation", "--data", "set", *tiny)
    assert code == 0, said
    assert "ADE20K's layout" in out + said
    own = json.loads((tmp_path / "run" / "result.json").read_text())["miou"]
    code, out, said = litevit("eval", "--run", "run", "--json")
    assert code == 0, said
    assert json.loads(out)["metrics"]["miou"] == pytest.approx(own)
    code, out, said = litevit(
        "eval",
        "--run",
        "run",
        "--data",
        "set/images/validation",
        "--annotations",
        "set/annotations/validation",
        "--json",
    )
    assert code == 0, said
    assert json.loads(out)["metrics"]["miou"] == pytest.approx(own)
    code, out, said = litevit("eval", "--run", "run", "--data", "set/images/validation", "--annotations",
                              "set/annotations/validation", "--reduce-zero-label", "False")  # fmt: skip
    assert code == 2
    assert "Give --reduce-zero-label True" in said


def test_a_metric_that_is_no_number_is_null(tmp_path) -> None:
    from litevit.engine.train import without_nan

    assert without_nan({"miou": float("nan"), "AP": -1.0, "n": 3}) == {"miou": None, "AP": -1.0, "n": 3}


def test_voc_borders_in_colour_are_ignored(tmp_path) -> None:
    sets.masks(tmp_path, names=None, change=sets.in_colour)
    (tmp_path / "labelmap.txt").write_text(sets.LABELMAP)
    path = tmp_path / "masks" / "train" / "0.png"
    image = Image.open(path).copy()
    image.putpixel((0, 0), (224, 224, 192))
    image.save(path)
    assert labels(opened(tmp_path))[0][0, 0] == 255


def masks_under(root: Path, name: str, value: int = 255) -> Path:
    """Two pictures, and masks of 0 and `value` under such a name."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (40, 32), (90, 20 * number, 5)).save(root / "images" / f"{number}.jpg")
        pixels = np.zeros((32, 40), np.uint8)
        pixels[4:20, 6:30] = value
        Image.fromarray(pixels).save(root / "masks" / name.format(number))
    return root


def test_masks_with_an_ending_in_capitals(tmp_path: Path) -> None:
    root = masks_under(tmp_path, "{}_mask.PNG", 1)
    (root / "classes.json").write_text('{"0": "ground", "1": "thing"}')
    assert examine(root).exit_code == 0
    source = SegmentationFolder(root / "images", root / "masks", ("ground", "thing"), reduce_zero_label=False)
    assert source.read_mask(0).sum() == 16 * 24


def test_what_a_class_list_could_be_is_said(tmp_path: Path) -> None:
    root = masks_under(tmp_path, "{}.PNG")
    with pytest.raises(ValueError, match=r'classes.json could be \{"0": "name of 0", "255": "name of 255"\}'):
        mask_labels(find_layout(root, "semantic"))


def test_masks_as_jpeg_are_named_and_no_classes_of_pictures(tmp_path: Path) -> None:
    root = masks_under(tmp_path, "{}.jpg")
    layout = find_layout(root, "semantic")
    with pytest.raises(FileNotFoundError, match="Masks cannot be JPEG"):
        mask_labels(layout)
    with pytest.raises(FileNotFoundError, match=r"has no mask .*0.png. Masks cannot be JPEG"):
        SegmentationFolder(root / "images", root / "masks", ("ground", "thing"))
    report = examine(root)
    assert report.exit_code == 1
    assert any("Masks cannot be JPEG" in example for finding in report.findings for example in finding.examples)
