"""Scenes: deterministic, and with truths that agree to the pixel in every format they are written in."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from litevit.data.ade20k import ade20k
from litevit.data.coco import coco2017
from litevit.data.coco_masks import decode_masks, segmentation_to_rle
from litevit.data.coco_panoptic import coco2017_panoptic
from litevit.data.doctor import examine
from litevit.data.scene_patterns import GROUNDS, SHAPES
from litevit.data.scenes import ScenesConfig, draw_scene, mask_to_segmentation, write_ade, write_coco

pytest.importorskip("faster_coco_eval", reason="COCO masks need faster-coco-eval (the extra 'coco')")

BUSY = ScenesConfig(height=64, width=96, objects=(2, 7), crowd_rate=0.5, empty_rate=0.1)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_coco(tmp_path_factory.mktemp("scenes") / "coco", train=12, val=6, config=BUSY)


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    first, again, other = draw_scene(4, BUSY), draw_scene(4, BUSY), draw_scene(4, BUSY, seed=1)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.panoptic_ids(), again.panoptic_ids())
    assert not np.array_equal(first.image, other.image)


def test_segments_do_not_overlap_and_things_are_seen() -> None:
    kinds = {"thing": 0, "crowd": 0, "stuff": 0, "empty": 0}
    for index in range(60):
        scene = draw_scene(index, BUSY)
        covered = np.zeros(scene.image.shape[:2], dtype=int)
        for segment in scene.segments:
            covered += segment.mask
            assert segment.mask.sum() >= (16 if segment.isthing else 1)
            kinds["crowd" if segment.iscrowd else "thing" if segment.isthing else "stuff"] += 1
        kinds["empty"] += not any(segment.isthing for segment in scene.segments)
        assert covered.max() == 1
        assert (covered == 0).mean() < 0.2, "void is the seams between grounds only"
    assert min(kinds.values()) > 0, kinds


def test_every_shape_and_ground_is_drawn() -> None:
    config = ScenesConfig(things=tuple(SHAPES), stuff=tuple(GROUNDS), objects=(6, 6))
    labels = {segment.label for index in range(25) for segment in draw_scene(index, config).segments}
    assert labels == set(range(len(SHAPES) + len(GROUNDS)))


def test_shapes_differ_from_one_another() -> None:
    """At one size and place no shape covers another to more than an IoU of 0.9."""
    v, u = np.mgrid[-1:1:81j, -1:1:81j]
    drawn = {name: shape(u, v) for name, shape in SHAPES.items()}
    for a in drawn:
        for b in drawn:
            if a < b:
                assert (drawn[a] & drawn[b]).sum() / (drawn[a] | drawn[b]).sum() < 0.9, (a, b)


def test_segmentations_decode_to_the_very_masks() -> None:
    kinds = set()
    for index in range(25):
        for segment in draw_scene(index, BUSY).segments:
            written = json.loads(json.dumps(mask_to_segmentation(segment.mask)))
            kinds.add(type(written))
            rle = segmentation_to_rle(written, *segment.mask.shape)
            assert np.array_equal(decode_masks([rle], *segment.mask.shape)[0].numpy(), segment.mask)
    assert kinds == {list, dict}, "both polygons and run lengths occur"


@pytest.mark.parametrize("fill", [False, True])
def test_masks_that_touch_the_first_pixel_or_are_full(fill: bool) -> None:
    mask = np.full((5, 7), fill)
    mask[0, 0] = mask[4, 6] = True
    rle = segmentation_to_rle(mask_to_segmentation(mask), 5, 7)
    assert np.array_equal(decode_masks([rle], 5, 7)[0].numpy(), mask)


def test_instances_and_panoptic_agree(root) -> None:
    instances, panoptic = coco2017(root, "val"), coco2017_panoptic(root, "val", train=False)
    assert instances.classes == panoptic.classes[:3] == ("disc", "square", "triangle")
    assert instances.category_ids == (1, 3, 5)
    crowds = 0
    for index in range(len(instances)):
        image, ours = instances[index]
        again, theirs = panoptic[index]
        keep = ~ours["iscrowd"]
        crowds += int((~keep).sum())
        assert torch.equal(image, again)
        assert torch.equal(ours["masks"][keep], theirs["masks"])
        assert torch.equal(ours["boxes"][keep], theirs["boxes"])
        assert torch.equal(ours["labels"][keep], theirs["labels"])
        assert torch.equal((theirs["semantic"] == 4), ours["masks"].any(0)), "things, crowds included"
    assert crowds > 0


def test_ade_layout_holds_the_same_scenes(root, tmp_path) -> None:
    ade = write_ade(tmp_path / "ade", train=12, val=6, config=BUSY)
    dataset, panoptic = ade20k(ade, "validation"), coco2017_panoptic(root, "val", train=False)
    assert dataset.classes == panoptic.classes
    for index in range(len(dataset)):
        image, target = dataset[index]
        other, truth = panoptic[index]
        assert torch.equal(image, other)
        stuff = target["semantic"] - 3
        things = target["semantic"] < 3
        expected = torch.where(things, 4, torch.where(target["semantic"] == 255, 255, stuff))
        assert torch.equal(expected, torch.as_tensor(truth["semantic"]))


def test_written_scenes_pass_the_doctor(root, tmp_path) -> None:
    assert examine(root).exit_code == 0, examine(root).render()
    assert examine(write_ade(tmp_path / "ade", train=6, val=3)).exit_code == 0


def test_writing_is_all_or_nothing(tmp_path, monkeypatch) -> None:
    import litevit.data.scenes as scenes

    calls = []

    def failing(index: int, *arguments, **options):
        calls.append(index)
        if index == 2:
            raise OSError("disk full")
        return draw_scene(index, *arguments, **options)

    monkeypatch.setattr(scenes, "draw_scene", failing)
    with pytest.raises(OSError, match="disk full"):
        write_coco(tmp_path / "scenes", train=4, val=1, config=BUSY)
    assert calls == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "scenes").mkdir()
    with pytest.raises(ValueError, match="exists; scenes are written into a new folder"):
        write_coco(tmp_path / "scenes", train=4, val=1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ScenesConfig(things=("disc", "cube")), "things must be different names out of disc, square"),
        (ScenesConfig(stuff=()), "stuff must be different names"),
        (ScenesConfig(height=16), "at least 32, got 16 x 128"),
        (ScenesConfig(objects=(3, 1)), "least <= most"),
    ],
)
def test_wrong_configs(config, message) -> None:
    with pytest.raises(ValueError, match=message):
        draw_scene(0, config)
