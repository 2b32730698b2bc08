"""Files of classes, masks and annotations that say something impossible: one line that names the file and the fault."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import annotated_sets as sets
from litevit.data import voc, yolo
from litevit.data.class_folders import Part, table
from litevit.data.class_names import ClassList, panoptic_classes, read_class_list
from litevit.data.doctor import examine
from litevit.data.layouts import find_layout
from litevit.data.mask_labels import check_values, labels_of, read_index_mask, read_labels
from litevit.data.shards import count_images

CATEGORIES = [{"id": 7, "name": "sky", "isthing": 0}, {"id": 9, "name": "cat", "isthing": 1}]


def test_class_lists_of_every_kind(tmp_path):
    file = tmp_path / "classes.json"
    file.write_text(json.dumps({"categories": CATEGORIES}))
    assert read_class_list(file) == ClassList(("cat", "sky"), (9, 7), 1)  # things first
    (text := tmp_path / "names.txt").write_text("\ufeffant\n\nbee\n", encoding="utf-8")
    assert read_class_list(text, first_id=1) == ClassList(("ant", "bee"), (1, 2))
    assert panoptic_classes(2, 1) == ClassList(("class 0", "class 1", "class 2"), (0, 1, 2), 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.txt", None, "gone.txt does not exist"),
        ("empty.txt", "\n\n", "empty.txt is empty"),
        ("broken.json", "{", "broken.json is not JSON"),
        ("nameless.json", '[{"id": 1}]', "every category needs 'id', a whole number, and 'name'"),
        ("twice.json", '[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]', "one id per name, all different"),
    ],
)
def test_wrong_class_lists(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, OSError), match=message):
        read_class_list(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.json", None, "gone.json does not exist"),
        ("bytes.txt", b"\xff\xfe\xfd", "bytes.txt is not text"),
        ("broken.json", b"[", "broken.json is not JSON"),
        ("object.json", b'{"wall": 1}', "an object with the masks' values for keys"),
        ("_classes.csv", b"Pixel Value, Class\nground, 0\n", "must have lines 'value, name' below its head"),
        ("labelmap.txt", b"ant:1,2:\n", "every line must be 'name:red,green,blue:...', got 'ant:1,2:'"),
        ("labelmap.txt", b"ant:1,2,3::\nbee:1,2,3::\n", "gives one colour to two classes"),
    ],
)
def test_wrong_lists_of_masks_classes(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, OSError), match=message):
        read_labels(tmp_path / name)


def test_a_list_that_names_0_and_a_setting_that_ignores_it(tmp_path):
    (tmp_path / "classes.json").write_text('{"0": "ground", "1": "ant"}')
    with pytest.raises(ValueError, match=r"calls 0 'ground', and .*reduce_zero_label True ignores it"):
        read_labels(tmp_path / "classes.json", reduce_zero_label=True)


def test_masks_that_cannot_be_classes(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png does not exist"):
        read_index_mask(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no mask")
    with pytest.raises(OSError, match=r"text\.png cannot be decoded"):
        read_index_mask(tmp_path / "text.png")
    Image.fromarray(np.full((4, 4), 70_000, dtype=np.int32)).save(tmp_path / "large.tif")
    with pytest.raises(ValueError, match="has values from 70000 to 70000"):
        read_index_mask(tmp_path / "large.tif")


@pytest.mark.parametrize(
    ("seen", "options", "advice"),
    [
        ({1, 2}, {}, "reduce_zero_label True if 0 is no class and 1..2 are the classes"),
        ({0, 3}, {"reduce_zero_label": True}, ""),
    ],
)
def test_values_outside_of_the_classes_are_advised(seen, options, advice):
    labels = labels_of(("ant", "bee"), **({"reduce_zero_label": False} | options))
    with pytest.raises(ValueError, match=r"2 classes allow") as caught:
        check_values(labels, dict.fromkeys(seen, 5), "these masks")
    assert advice in str(caught.value)


def test_voc_files_that_say_something_impossible(tmp_path):
    root = sets.voc(tmp_path / "voc")
    layout = find_layout(root, "instances")
    part, names, file = layout.part("val")[1], voc.class_names(layout), root / "Annotations" / "6.xml"
    text = file.read_text()

    def read(changed: str) -> str:
        file.write_text(changed)
        with pytest.raises(ValueError) as caught:
            voc.read(layout, part, names, from_zero=False)
        return str(caught.value)

    assert "6.xml is not XML" in read("<annotation>")
    assert "6.xml: object 'ant' has no bndbox" in read(text.replace("bndbox", "box"))
    assert "6.xml: xmin of a box must be a number, got 'left'" in read(_replace_number(text))
    assert "an object has the class 'wasp', not one of ant, bee" in read(text.replace("ant<", "wasp<"))
    file.write_text(text.replace(f"<width>{sets.W}</width>", "<width>?</width>"))
    (image,) = (i for i in voc.read(layout, part, names, from_zero=False)["images"] if "6" in i["file_name"])
    assert (image["height"], image["width"]) == (sets.H, sets.W)  # the picture's own


def _replace_number(text: str) -> str:
    start = text.index("<xmin>") + len("<xmin>")
    return text[:start] + "left" + text[text.index("</xmin>") :]


def test_yolo_with_lists_of_names_and_images(tmp_path):
    root = sets.yolo(tmp_path / "yolo", yaml="train: images/train\nval: images/val\nnames: {0: ant, 2: bee}\n")
    with pytest.raises(ValueError, match=r"must be 0, 1, 2, ... without gaps, got \[0, 2\]"):
        yolo.class_names(find_layout(root, "instances"))
    (root / "data.yaml").write_text("train: [images/train, images/val]\nval: images/val\nnames: [ant, bee]\n")
    with pytest.raises(ValueError, match=r"'train' of data\.yaml is a list of 2 folders; one folder is needed"):
        find_layout(root, "instances")
    (root / "val.txt").write_text("images/val/6.png\n\nimages\\val\\7.png\n")
    (root / "data.yaml").write_text("train: images/train\nval: val.txt\nnames: [ant, bee]\n")
    layout = find_layout(root, "instances")
    content = yolo.read(layout, layout.part("val")[1])
    assert len(content["images"]) == 2
    assert len(content["annotations"]) == sum(len(sets.boxes(n)) for n in sets.VAL)
    (root / "images" / "val" / "7.png").unlink()
    with pytest.raises((ValueError, OSError), match=r"7\.png"):
        yolo.read(layout, layout.part("val")[1])


def test_what_the_doctor_says_of_panoptic_annotations(tmp_path):
    root = sets.panoptic(tmp_path / "set")
    file = root / "annotations" / "panoptic_val2017.json"
    content = json.loads(file.read_text())
    first, second = content["annotations"]
    content["annotations"] = [first, first | {"image_id": 99}, dict(first), second]
    second["segments_info"][0]["bbox"] = [0, 0, -4, 3]
    file.write_text(json.dumps(content))
    maps = root / "annotations" / "panoptic_val2017"
    (maps / first["file_name"]).write_text("no map")
    Image.new("RGB", (3, 3)).save(maps / second["file_name"])
    found = {finding.problem for finding in examine(root).findings}
    assert {
        "annotations of an image that is not listed", "images annotated twice", "broken panoptic maps",
        "panoptic maps of another size than their image", "segment boxes: negative size",
    } <= found  # fmt: skip
    file.write_text("[")
    assert "unreadable annotation files" in {finding.problem for finding in examine(root).findings}


def test_what_the_doctor_says_of_class_folders(tmp_path):
    for split, classes in (("train", ("ant", "bee")), ("val", ("ant", "fly"))):
        for name in classes:
            (tmp_path / split / name).mkdir(parents=True)
            sets.picture(0).save(tmp_path / split / name / "1.png")
    found = {finding.problem for finding in examine(tmp_path).findings}
    assert {"classes that training does not have", "classes without an image in a split"} <= found
    shutil.rmtree(tmp_path / "val")
    shutil.rmtree(tmp_path / "train" / "bee")
    found = {finding.problem for finding in examine(tmp_path).findings}
    assert "a single class (there is nothing to tell apart)" in found


def test_a_long_table_shows_the_largest_and_the_smallest_classes():
    part = Part("train", "here", 325, {f"c{k}": k for k in range(1, 26)}, note="said at the end")
    text = table([part])
    assert "... 5 more" in text
    assert all(f"c{k} " in text for k in (1, 10, 16, 25))
    assert "c12 " not in text
    assert text.splitlines()[-1] == "said at the end"


def test_a_shard_that_is_no_tar(tmp_path):
    Path(tmp_path / "a.tar").write_text("x" * 2000)
    with pytest.raises(ValueError, match=r"a\.tar is not a readable tar file"):
        count_images(str(tmp_path / "a.tar"))
