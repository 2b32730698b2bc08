"""Panoptic sets whose PNGs are grey or have a palette, and whose categories say isthing in other ways or not at all."""

import numpy as np
import pytest
import torch
from PIL import Image

import annotated_sets as sets
from litevit.data.dense import DetectionData, DetectionSets

pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")


def opened(root) -> DetectionSets:
    return DetectionSets(DetectionData(path=str(root), resize=False, flip=0), cache=root, panoptic=True)


def semantics(found: DetectionSets) -> torch.Tensor:
    return torch.stack([found.train[i][1]["semantic"].as_subclass(torch.Tensor) for i in range(len(found.train))])


def grey(path, ids) -> None:
    Image.fromarray(ids.astype(np.uint8)).save(path)


def palette(path, ids) -> None:
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    image.putpalette([v for k in range(256) for v in (k * 7 % 256, k, 255 - k)])
    image.save(path)


def colours_in_a_palette(path, ids) -> None:
    """What a tool that makes PNGs small leaves of COCO's RGB."""
    rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE, colors=8).save(path)


@pytest.mark.parametrize(
    ("save", "ids"),
    [(grey, lambda k: 40 * k), (palette, lambda k: k), (colours_in_a_palette, lambda k: 70_000 + 300 * k)],
)
def test_grey_and_palette_maps(save, ids, tmp_path) -> None:
    plain = semantics(opened(sets.panoptic(tmp_path / "plain")))
    assert torch.equal(semantics(opened(sets.panoptic(tmp_path / "other", save=save, ids=ids))), plain)


@pytest.mark.parametrize(("true", "false"), [(True, False), ("true", "false"), ("1", "0"), (1.0, 0.0)])
def test_isthing_in_other_words(true, false, tmp_path) -> None:
    found = opened(sets.panoptic(tmp_path, isthing=lambda thing: true if thing else false))
    assert (found.train_source.num_things, found.train_source.num_stuff) == (2, 1)
    assert found.classes == ("ant", "bee", "ground")


def test_isthing_that_is_no_flag(tmp_path) -> None:
    with pytest.raises(ValueError, match="isthing must be 0 or 1, got 'yes!'"):
        opened(sets.panoptic(tmp_path, isthing=lambda thing: "yes!"))


def test_no_isthing_is_taken_from_the_maps_and_said(tmp_path) -> None:
    """Of a thing, a picture can hold several: here two ants."""
    import json

    sets.panoptic(tmp_path, isthing=lambda thing: None)
    for split in ("train", "val"):
        file = tmp_path / "annotations" / f"panoptic_{split}2017.json"
        content = json.loads(file.read_text())
        for annotation in content["annotations"]:
            for segment in annotation["segments_info"]:
                segment["category_id"] = min(segment["category_id"], 3) if segment["category_id"] == 3 else 1
        file.write_text(json.dumps(content))
    found = opened(tmp_path)
    assert found.classes[: found.train_source.num_things] == ("ant",)
    assert found.notes == [
        "3 categories have no 'isthing': taken for things ant; for stuff bee, ground. "
        "Write isthing 0 or 1 into the file where that is wrong"
    ]
    assert found.eval().dataset.classes == found.classes


def test_no_isthing_and_nothing_to_take_it_from(tmp_path) -> None:
    sets.panoptic(tmp_path, isthing=lambda thing: None)
    with pytest.raises(ValueError, match=r"isthing 1: none\. 3 categories have no 'isthing': taken for things none"):
        opened(tmp_path)


def test_no_isthing_with_cocos_names(tmp_path) -> None:
    import json

    sets.panoptic(tmp_path, isthing=lambda thing: None)
    for split in ("train", "val"):
        file = tmp_path / "annotations" / f"panoptic_{split}2017.json"
        file.write_text(json.dumps(json.loads(file.read_text())).replace('"ant"', '"dog"').replace('"bee"', '"cat"')
                        .replace('"ground"', '"road"'))  # fmt: skip
    found = opened(tmp_path)
    assert found.classes == ("dog", "cat", "road")
    assert found.train_source.num_things == 2
