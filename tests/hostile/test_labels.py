"""Hostile YAML."""

import pytest
from PIL import Image

from litevit.data.layouts import layouts_of
from litevit.data.yolo import class_names as yolo_names


def test_a_bomb_of_references_names_no_classes(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "1.jpg")
    (tmp_path / "data.yaml").write_text("\n".join([*lines, "names: *a29", "train: images", "val: images"]))
    with pytest.raises(ValueError, match="name of a class"):
        yolo_names(layouts_of(tmp_path)[0])
