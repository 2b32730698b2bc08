"""`litevit doctor --fix OUT`: a copy in which what can be mended mechanically is, and a table of what was done."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import annotated_sets as sets
from litevit.data.dense import DetectionData, DetectionSets, SegmentationData, SegmentationSets
from litevit.data.doctor import examine
from litevit.data.doctor.fix import mend

pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")


def opened(root: Path, **options) -> DetectionSets:
    return DetectionSets(DetectionData(path=str(root), resize=False, flip=0, **options), cache=root)


def by_name(found: DetectionSets) -> dict[str, tuple]:
    source = found.train_source
    return {Path(source.images[i]["file_name"]).stem: source[i] for i in range(len(source))}


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_broken_coco_set(tmp_path, litevit) -> None:
    root = sets.official(tmp_path / "set")
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    first, second = content["annotations"][:2]
    content["annotations"] += [
        first | {"id": 50, "bbox": [3, 3, 0, 0]},
        first | {"id": 50, "bbox": [50, 30, 40, 40], "iscrowd": "0"},
        second | {"image_id": 77},
    ]
    for image in content["images"]:
        image["height"] = str(image["height"])
    content["images"] += [{"id": 5, "file_name": "0.png", "height": 48, "width": 64}]
    file.write_text(json.dumps(content))
    (root / "train2017" / "2.png").write_bytes(b"no picture")
    before = snapshot(root)
    code, out, said = litevit("doctor", root, "--fix", tmp_path / "out")
    assert code == 1
    assert snapshot(root) == before, "the data set itself is not touched"
    assert "nothing that training would trip over is left" in said
    for row in ("types: height", "images left out: one id for several files", "boxes clipped to the picture"):
        assert row in out
    assert examine(tmp_path / "out").exit_code == 0
    mended = opened(tmp_path / "out")
    assert sorted(by_name(mended)) == ["0", "1", "3", "4"], "2 is broken; 5 has the id of another"
    assert len(mended.eval()) == 2
    written = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    ids = [annotation["id"] for annotation in written["annotations"]]
    assert len(set(ids)) == len(ids)
    assert "mended: annotation ids renumbered" not in out, "50 is left once: the other box is empty"


def test_repeated_annotation_ids_get_new_ones(tmp_path) -> None:
    root = sets.official(tmp_path / "set")
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][1]["id"] = 1
    file.write_text(json.dumps(content))
    assert mend(root, tmp_path / "out").done == {"annotation ids renumbered": 1}
    written = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert sorted(annotation["id"] for annotation in written["annotations"]) == [1, 3, 4, 5, 6, 7, 8, 9, 10]


def test_turned_pictures_and_their_objects(tmp_path) -> None:
    """Boxes, polygons and run lengths of the stored pixels are turned with the picture: training sees the same."""
    from litevit.data.coco_masks import encode_masks

    root = sets.official(tmp_path / "set")
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    exif = Image.Exif()
    exif[0x0112] = 6
    for n in range(2):
        sets.picture(n).save(root / "train2017" / f"{n}.png", exif=exif)
    (rle,) = encode_masks(torch.from_numpy(sets.mask(0) > 0)[None])
    content["annotations"][0]["segmentation"] = rle
    file.write_text(json.dumps(content))
    plain = by_name(opened(root))
    done = mend(root, tmp_path / "out")
    assert done.done["annotations turned with their picture"] == 3
    mended = by_name(opened(tmp_path / "out"))
    assert plain.keys() == mended.keys()
    for name, (image, target) in plain.items():
        ours, truth = mended[name]
        assert torch.equal(ours, image)
        assert torch.equal(truth["boxes"], target["boxes"])
        assert torch.equal(truth["masks"], target["masks"])


@pytest.mark.parametrize("write", [sets.roboflow, sets.label_studio, sets.cvat])
def test_other_cocos_keep_their_objects(write, tmp_path) -> None:
    root = write(tmp_path / "set")
    mend(root, tmp_path / "out")
    assert examine(tmp_path / "out").exit_code == 0
    ours, theirs = by_name(opened(tmp_path / "out", masks=True)), by_name(opened(root, masks=True))
    if write is not sets.label_studio:  # whose shares depend on the names
        assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name][1]["boxes"], theirs[name][1]["boxes"]) for name in ours.keys() & theirs.keys())


@pytest.mark.parametrize("write", [sets.yolo, sets.voc])
def test_yolo_and_voc_become_coco(write, tmp_path) -> None:
    root = write(tmp_path / "set")
    mend(root, tmp_path / "out")
    ours, theirs = by_name(opened(tmp_path / "out", masks=False)), by_name(opened(root, masks=False))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name][1]["boxes"], theirs[name][1]["boxes"]) for name in ours)


def test_panoptic_maps_become_rgb(tmp_path) -> None:
    def grey(path, ids):
        Image.fromarray(ids.astype(np.uint8)).save(path)

    root = sets.panoptic(tmp_path / "set", save=grey, isthing=lambda thing: "true" if thing else "false")
    done = mend(root, tmp_path / "out")
    assert done.done["panoptic maps written as RGB"] == 8
    assert done.done["types: isthing"] == 6
    assert examine(tmp_path / "out").exit_code == 0
    found = [
        DetectionSets(DetectionData(path=str(place), resize=False, flip=0), cache=tmp_path, panoptic=True)
        for place in (root, tmp_path / "out")
    ]
    for (_, ours), (_, theirs) in zip(found[0].train_source, found[1].train_source):
        assert torch.equal(ours["semantic"], theirs["semantic"])
        assert torch.equal(ours["masks"], theirs["masks"])


def test_0_and_255_become_0_and_1(tmp_path) -> None:
    white = lambda values: np.where(values > 0, 255, 0).astype(np.uint8)  # noqa: E731
    root = sets.masks(tmp_path / "set", names=["ground", "insect"], change=white)
    assert examine(root).exit_code == 1
    done = mend(root, tmp_path / "out")
    assert done.done["masks of 0 and 255: 255 is the second class"] == 1
    mended = SegmentationSets(SegmentationData(path=str(tmp_path / "out")), cache=tmp_path)
    assert mended.classes == ("ground", "insect")
    assert np.array_equal(mended.train_source.read_mask(1).numpy(), (sets.mask(1) > 0).astype(np.int64))
    assert examine(tmp_path / "out").exit_code == 0


def test_colours_become_indices(tmp_path) -> None:
    mend(sets.cvat_masks(tmp_path / "set"), tmp_path / "out")
    mended = SegmentationSets(SegmentationData(path=str(tmp_path / "out")), cache=tmp_path)
    assert mended.classes == ("ground", "ant", "bee")
    assert np.array_equal(mended.train_source.read_mask(1).numpy(), sets.mask(1))


def test_masks_that_nobody_can_explain_stay(tmp_path, litevit) -> None:
    root = sets.ade(tmp_path / "set")
    code, _, said = litevit("doctor", root, "--fix", tmp_path / "out")
    assert code == 2
    assert "cannot be mended without knowing what they mean" in said
    assert not (tmp_path / "out").exists()


def test_class_folders(tmp_path) -> None:
    for name, n in (("ant", 0), ("bee", 1)):
        sets.write_pictures(tmp_path / "set" / "train" / name, range(4 * n, 4 * n + 3))
    folder = tmp_path / "set" / "train" / "ant"
    exif = Image.Exif()
    exif[0x0112] = 6
    sets.picture(0).save(folder / "0.png", exif=exif)
    sets.picture(20).convert("CMYK").save(folder / "deep.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    done = mend(tmp_path / "set", tmp_path / "out")
    assert set(done.done) == {
        "pictures written as RGB PNG: turned upright (EXIF)",
        "pictures written as RGB PNG: JPEG of the mode CMYK",
        "pictures left out: missing or broken",
    }
    assert Image.open(tmp_path / "out" / "train" / "ant" / "0.png").size == (sets.H, sets.W)
    assert sorted(p.name for p in (tmp_path / "out" / "train" / "ant").iterdir()) == [
        "0.png",
        "1.png",
        "2.png",
        "deep.png",
    ]


def test_where_the_copy_may_not_lie(tmp_path, litevit) -> None:
    root = sets.official(tmp_path / "set")
    assert "is there already" in litevit("doctor", root, "--fix", root)[2]
    code, _, said = litevit("doctor", root, "--fix", root / "mended")
    assert code == 2
    assert "lies in" in said


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_everything_that_is_left_out_of_coco_is_in_the_table(tmp_path) -> None:
    root = sets.official(tmp_path / "set")

    def damage(content) -> None:
        first = content["annotations"][0]
        content["annotations"] += [first | {"category_id": 99}, first | {"id": None, "area": None, "iscrowd": True}]
        content["annotations"] += [{"id": 70, "image_id": 0}]
        content["images"] += [
            {"id": 8},
            content["images"][0],
            {"id": 9, "file_name": "gone.png", "height": 4, "width": 4},
        ]
        content["images"][1] |= {"height": None, "width": None}
        content["images"][2] |= {"height": 9, "width": 9}

    edit(root / "annotations" / "instances_train2017.json", damage)

    def rename(content) -> None:
        for category in content["categories"]:
            category["id"] += 10
        for annotation in content["annotations"]:
            annotation["category_id"] += 10

    edit(root / "annotations" / "instances_val2017.json", rename)
    done = mend(root, tmp_path / "out").done
    for what, count in {
        "annotations left out: fields are missing": 1,
        "images left out: no id or file_name": 1,
        "image entries left out: repeated": 1,
        "pictures left out: missing or broken": 1,
        "sizes of images written": 1,
        "images left out: another size than the annotations say": 1,
        "annotation ids renumbered": 1,
        "categories with the ids of the training split": 2,
    }.items():
        assert done[what] == count, what
    assert done["annotations left out: image or category is not there"] >= 1
    assert examine(tmp_path / "out").exit_code == 0
    written = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [a["area"] for a in written["annotations"]] == [a["bbox"][2] * a["bbox"][3] for a in written["annotations"]]


def test_everything_that_is_left_out_of_panoptic_sets_is_in_the_table(tmp_path) -> None:
    root = sets.panoptic(tmp_path / "set")

    def damage(content) -> None:
        first, second, third, fourth = content["annotations"][:4]
        content["annotations"] += [{"image_id": 99, "segments_info": []}]
        del first["file_name"]
        second["segments_info"] = second["segments_info"][:1]  # an object that nothing describes
        second["segments_info"].append(second["segments_info"][0] | {"id": 500})  # described, and not there
        third["file_name"] = "gone.png"
        Image.new("RGB", (5, 5)).save(maps / fourth["file_name"])

    maps = root / "annotations" / "panoptic_train2017"
    edit(root / "annotations" / "panoptic_train2017.json", damage)
    done = mend(root, tmp_path / "out").done
    for what, count in {
        "annotations left out: image is not there": 1,
        "annotations left out: no file_name": 1,
        "annotations left out: map is missing or broken": 1,
        "annotations left out: map of another size": 1,
        "segments left out: not in the map": 1,
    }.items():
        assert done[what] == count, what
    assert done["segments without a description are void"] >= 1
    assert examine(tmp_path / "out").errors == 0


def test_masks_and_class_folders_that_lose_files(tmp_path) -> None:
    root = sets.masks(tmp_path / "set", names=("ground", "ant", "bee"))
    files = sorted((root / "masks" / "train").iterdir())
    files[0].write_bytes(b"no picture")
    Image.new("L", (5, 5)).save(files[1])
    (root / "images" / "train" / f"{files[2].stem}.png").write_bytes(b"no picture")
    exif = Image.Exif()
    exif[0x0112] = 3
    sets.picture(3).save(root / "images" / "train" / f"{files[3].stem}.png", exif=exif)
    done = mend(root, tmp_path / "out").done
    assert done["images left out: their mask cannot be read"] == 1
    assert done["images left out: their mask has another size"] == 1
    assert done["pictures left out: missing or broken"] == 1
    assert done["pictures written as RGB PNG: turned upright (EXIF)"] == 1
    assert examine(tmp_path / "out").errors == 0
    with pytest.raises(ValueError, match="is a tar: unpack it, then --fix can write a mended copy"):
        mend(_tar(tmp_path), tmp_path / "other")


def _tar(folder: Path) -> Path:
    sets.write_pictures(folder / "classes" / "ant", range(2))
    sets.write_pictures(folder / "classes" / "bee", range(2, 4))
    return Path(shutil.make_archive(str(folder / "classes"), "tar", folder / "classes"))


def test_a_link_to_an_empty_folder(tmp_path, litevit) -> None:
    """Another disk, mostly: the copy goes there, and the link stays."""
    root = sets.official(tmp_path / "set")
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    litevit("doctor", root, "--fix", tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert not list(tmp_path.glob(".*"))
    assert examine(tmp_path / "out").exit_code == 0
