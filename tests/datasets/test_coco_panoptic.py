"""COCO panoptic: labels of both heads, crowds, void, and ids that PNG and JSON do not share."""

import numpy as np
import pytest
import torch

from litevit.data.coco_masks import read_panoptic_png, write_panoptic_png
from litevit.data.coco_panoptic import CocoPanoptic


def test_labels_follow_things_then_stuff(panoptic_content, write_panoptic_set) -> None:
    dataset = CocoPanoptic(*write_panoptic_set(*panoptic_content))
    assert dataset.classes == ("car", "cup", "grass", "sea", "sky")
    assert (dataset.num_things, dataset.num_stuff) == (2, 3)
    _, target = dataset[0]
    assert target["labels"].tolist() == [1], "the crowd of cars is no object"
    assert target["boxes"].tolist() == [[10, 5, 30, 15]]
    assert torch.equal(target["masks"][0], torch.from_numpy(panoptic_content[1]["a.png"] == 300))
    semantic = target["semantic"]
    assert semantic.dtype == torch.int64
    assert semantic[0, 0] == 2, "sky is the third stuff"
    assert semantic[22, 0] == 0, "grass is the first"
    assert semantic[6, 12] == 3, "a thing"
    assert semantic[26, 50] == 3, "a crowd is a thing, too"
    assert semantic[39, 0] == 255, "void"
    assert torch.equal(target["panoptic"], torch.from_numpy(panoptic_content[1]["a.png"]))
    described = {s["id"]: (s["category_id"], s["isthing"], s["iscrowd"]) for s in target["segments_info"]}
    assert described == {70_000: (4, False, 0), 7: (2, False, 0), 300: (1, True, 0), 9: (0, True, 1)}


def test_semantic_target_is_that_of_the_model(panoptic_content, write_panoptic_set) -> None:
    """The same rule is written in tasks/, which may not import data."""
    from litevit.tasks.panoptic_fpn import semantic_target

    dataset = CocoPanoptic(*write_panoptic_set(*panoptic_content))
    _, target = dataset[0]
    classes = torch.full((40, 60), 999)
    for segment in target["segments_info"]:
        classes[target["panoptic"] == segment["id"]] = segment["category_id"]
    assert torch.equal(semantic_target(classes, num_things=2, num_stuff=3), torch.as_tensor(target["semantic"]))


def test_training_keeps_images_with_things(panoptic_content, write_panoptic_set) -> None:
    content, maps = panoptic_content
    assert len(CocoPanoptic(*write_panoptic_set(content, maps), train=True)) == 1
    content["annotations"][0]["segments_info"][2]["iscrowd"] = 1
    paths = write_panoptic_set(content, maps)
    with pytest.raises(ValueError, match="none of its 1 images has a thing"):
        CocoPanoptic(*paths, train=True)
    _, target = CocoPanoptic(*paths, train=True, keep_empty=True)[0]
    assert target["masks"].shape == (0, 40, 60)
    assert "panoptic" not in target


def test_png_id_without_json_entry(panoptic_content, write_panoptic_set) -> None:
    content, maps = panoptic_content
    maps["a.png"][0, 0] = 12
    with pytest.raises(ValueError, match=r"a\.png has segment id 12, which .* does not list"):
        CocoPanoptic(*write_panoptic_set(content, maps))[0]


def test_json_id_without_pixels(panoptic_content, write_panoptic_set) -> None:
    content, maps = panoptic_content
    maps["a.png"][maps["a.png"] == 9] = 7
    with pytest.raises(ValueError, match=r"lists segment id 9, which the panoptic map .*a\.png does not have"):
        CocoPanoptic(*write_panoptic_set(content, maps))[0]


def test_other_wrong_input(panoptic_content, write_panoptic_set, tmp_path) -> None:
    content, maps = panoptic_content
    images, file = write_panoptic_set(content, {"a.png": maps["a.png"][:, :30]})
    with pytest.raises(ValueError, match=r"is 30 x 40 .*its image 60 x 40"):
        CocoPanoptic(images, file)[0]
    (file.with_suffix("") / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match="panoptic map"):
        CocoPanoptic(images, file)[0]
    content["annotations"][0]["segments_info"][0]["category_id"] = 6
    with pytest.raises(ValueError, match="segment 70000 of image 5 has category 6, not listed"):
        CocoPanoptic(*write_panoptic_set(content, maps))
    content["annotations"] = []
    with pytest.raises(ValueError, match=r"image 5 \(a\.png\) has no annotation"):
        CocoPanoptic(*write_panoptic_set(content, maps))
    content["images"] = []
    with pytest.raises(ValueError, match="lists no images"):
        CocoPanoptic(*write_panoptic_set(content, {}))
    del content["categories"]
    with pytest.raises(ValueError, match="categories are needed"):
        CocoPanoptic(*write_panoptic_set(content, {}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "an entry has None for 'id'"),
        ({"category_id": [3]}, r"an entry has \[3\] for 'category_id'"),
        ({"area": "x"}, "an entry has 'x' for 'area'"),
    ],
)
def test_segments_of_another_type(change, message, panoptic_content, write_panoptic_set) -> None:
    content, maps = panoptic_content
    content["annotations"][0]["segments_info"][2] |= change
    with pytest.raises(ValueError, match=message):
        CocoPanoptic(*write_panoptic_set(content, maps))


def test_things_need_a_box_but_no_area(panoptic_content, write_panoptic_set) -> None:
    content, maps = panoptic_content
    thing = content["annotations"][0]["segments_info"][2]
    del thing["area"]
    assert CocoPanoptic(*write_panoptic_set(content, maps))[0][1]["area"].tolist() == [200]
    del thing["bbox"]
    with pytest.raises(ValueError, match="segment 300 of image 5 needs a bbox of four numbers, got None"):
        CocoPanoptic(*write_panoptic_set(content, maps))


def test_training_does_not_see_segments_narrower_than_a_pixel(panoptic_content, write_panoptic_set) -> None:
    content, maps = panoptic_content
    stuff = content["annotations"][0]["segments_info"][1]
    stuff["bbox"] = [0, 20, 60, 0]
    paths = write_panoptic_set(content, maps)
    where = torch.from_numpy(maps["a.png"] == stuff["id"])
    assert (CocoPanoptic(*paths, train=True)[0][1]["semantic"][where] == 255).all()
    assert (CocoPanoptic(*paths)[0][1]["semantic"][where] != 255).all()


def test_png_round_trip_and_index_mask_named(tmp_path) -> None:
    from PIL import Image

    ids = np.array([[0, 1, 255], [256, 65_536, 2**24 - 1]])
    write_panoptic_png(tmp_path / "x.png", ids)
    assert np.array_equal(read_panoptic_png(tmp_path / "x.png"), ids)
    Image.new("CMYK", (4, 4)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="mode CMYK; an RGB, grey or palette PNG"):
        read_panoptic_png(tmp_path / "x.tif")
