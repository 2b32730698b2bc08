"""Hostile COCO JSON: the untouched file is read, and a mended copy stays in its folder."""

import json

import pytest
from PIL import Image

from hostile.kinds.coco import content, prepare
from litevit.data.coco import CocoInstances
from litevit.data.doctor.fix import mend


@pytest.fixture
def root(tmp_path):
    prepare(tmp_path)
    return tmp_path


def read(root, told):
    file = root / "instances.json"
    file.write_text(told if isinstance(told, str) else json.dumps(told))
    data = CocoInstances(root / "images", file)
    return [data[k] for k in range(len(data))]


def test_the_untouched_file_is_read(root):
    assert len(read(root, content())) == 3


def test_the_mended_copy_stays_in_its_folder(tmp_path):
    root, out = tmp_path / "a" / "set", tmp_path / "b" / "mended"
    prepare(root)
    Image.new("RGB", (48, 40)).save(tmp_path / "evil.png")  # beside the sets: root/images/../../../evil.png
    told = content()
    told["images"][0]["file_name"] = "../../../evil.png"
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(told))
    before = {file for file in tmp_path.rglob("*") if not file.is_relative_to(out)}
    (out.parent).mkdir()
    mend(root, out)
    after = {file for file in tmp_path.rglob("*") if not file.is_relative_to(out)}
    assert after - before == {out.parent}
    assert (out / "images" / "train" / "evil.png").is_file()
