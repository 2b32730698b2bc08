"""Region proposals, box and mask heads of Mask R-CNN and Panoptic FPN against stored outputs of the published code.

See tests/data/dense/detection/README.md.
"""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

import golden
import litevit
from golden_detection import (
    CASES,
    GROUP,
    GT_BOXES,
    GT_LABELS,
    IMAGE_SIZES,
    ORIGINAL_SIZES,
    PADDED_SIZES,
    RPN_SIZES,
    FixedMaps,
    check,
    check_detections,
    check_losses,
    first,
    model_of,
    normal,
    of_kind,
    our_name,
    stored,
)
from litevit.ops.assign import assign_by_iou
from litevit.ops.boxes import decode_boxes, paste_masks
from litevit.tasks.detection import ImageBatch, Objects, per_level, to_original
from litevit.tasks.roi_heads import BOX_STDS, RoIHeads, join_rois, mask_targets, roi_levels
from litevit.tasks.rpn import RPN
from litevit.zoo import MODELS

# ------------------------------------------------------------------- RPN


@cache
def rpn_outputs() -> tuple[list[Tensor], list[Tensor]]:
    logits = [normal(600 + i, 2, 3, *size, factor=3, offset=-2) for i, size in enumerate(RPN_SIZES)]
    return logits, [normal(610 + i, 2, 12, *size, factor=0.5) for i, size in enumerate(RPN_SIZES)]


@pytest.mark.parametrize("case", of_kind("proposals"))
def test_proposals(case: str) -> None:
    empty = getattr(MODELS[our_name(CASES[case]["config"])].head, "remove_empty_proposals", True)
    assert empty == (not case.startswith("lit_"))
    rpn = RPN(8, remove_empty=empty).train(case.endswith("train"))
    for i, (boxes, scores) in enumerate(rpn.proposals(*rpn_outputs(), IMAGE_SIZES)):
        assert len(boxes) == CASES[case]["arrays"][f"props{i}"]["shape"][0]
        got = torch.cat((boxes, scores[:, None]), dim=1)
        wanted = torch.from_numpy(stored(case, f"props{i}"))
        # The order among equal scores is free: each official proposal has one of ours.
        distance = (wanted[:, None] - got).abs().amax(dim=2)
        worst = distance.amin(dim=1).max().item()
        golden.note(GROUP, f"{case} props{i}", worst / 1e-3)
        assert worst < 1e-3
        ranks = torch.arange(0, len(got), CASES[case]["arrays"][f"props{i}"]["every"])
        torch.testing.assert_close(scores[ranks], wanted[:, 4])


@pytest.mark.parametrize("case", of_kind("rpn_targets"))
def test_rpn_targets_and_losses(case: str) -> None:
    rpn = RPN(8, choose=first)
    logits, deltas = rpn_outputs()
    anchors = torch.cat(rpn.anchors(logits))
    for i, boxes in enumerate(GT_BOXES):
        codes, _ = assign_by_iou(anchors, boxes, positive=0.7, negative=0.3, min_positive=0.3)
        np.testing.assert_array_equal(codes.numpy(), stored(case, f"assigned_gt_inds{i}"))
        positive, negative = rpn.sample(anchors, torch.ones(len(anchors), dtype=torch.bool), boxes)
        np.testing.assert_array_equal(positive.anchors.numpy(), stored(case, f"pos_index{i}"))
        sampled = torch.cat((positive.anchors, negative)).sort().values
        np.testing.assert_array_equal(sampled.numpy(), np.sort(stored(case, f"sampled_index{i}")))
    losses = rpn.loss(logits, deltas, GT_BOXES, PADDED_SIZES)
    check_losses(case, losses, {"loss_rpn_cls": "loss_rpn_cls", "loss_rpn_box": "loss_rpn_bbox"})


# ------------------------------------------------------------- RoI heads


@cache
def pyramid(channels: int) -> list[Tensor]:
    return [normal(500 + i, 2, channels, *size) for i, size in enumerate(RPN_SIZES[:4])]


@pytest.mark.parametrize("case", of_kind("roi_heads"))
@torch.no_grad()
def test_roi_features_and_heads(case: str) -> None:
    model = model_of(CASES[case]["config"])
    heads, maps = model.roi_heads, pyramid(model.config.channels)
    rois = torch.from_numpy(stored(case, "rois"))
    np.testing.assert_array_equal(roi_levels(rois, 4).numpy(), stored(case, "levels"))
    box_features, mask_features = heads.features(maps, rois, 7), heads.features(maps, rois, 14)
    logits, deltas = heads.box_head(box_features)
    got = {
        "feat7": box_features,
        "feat14": mask_features,
        "cls": logits,
        "reg": deltas,
        "mask_logits": heads.mask_head(mask_features),
    }
    for array, value in got.items():
        check(case, array, value)


def ellipses(boxes: Tensor) -> Tensor:
    y, x = torch.meshgrid(torch.arange(320) + 0.5, torch.arange(416) + 0.5, indexing="ij")
    centre, radius = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return torch.stack([((x - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 <= 1 for c, r in zip(centre, radius)])


@pytest.mark.parametrize("case", of_kind("roi_targets"))
@torch.no_grad()
def test_roi_targets_and_losses(case: str) -> None:
    model = model_of(CASES[case]["config"])
    heads = model.roi_heads
    random_choice, heads.choose = heads.choose, first
    truth = [Objects(b, label, ellipses(b)) for b, label in zip(GT_BOXES, GT_LABELS)]
    proposals = [torch.from_numpy(stored(case, f"proposals{i}")) for i in range(2)]
    samples = [heads.sample(p, t.boxes) for p, t in zip(proposals, truth)]
    np.testing.assert_array_equal(join_rois([s.boxes for s in samples]).numpy(), stored(case, "rois"))
    for i, s in enumerate(samples):
        np.testing.assert_array_equal(s.objects.numpy(), stored(case, f"pos_assigned_gt{i}"))
    masks = torch.cat(
        [mask_targets(t.masks, s.objects, s.boxes[: len(s.objects)], (320, 416), 28) for t, s in zip(truth, samples)]
    )
    packed = np.packbits(masks.numpy().astype(bool).reshape(len(masks), -1), axis=1)
    np.testing.assert_array_equal(packed, stored(case, "mask_targets_packed"))
    losses = heads.loss(pyramid(model.config.channels), proposals, truth, PADDED_SIZES)
    heads.choose = random_choice
    check_losses(case, losses._asdict(), {"cls": "loss_cls", "box": "loss_bbox", "mask": "loss_mask"})


@pytest.mark.parametrize("case", of_kind("bbox_post"))
def test_roi_selection(case: str) -> None:
    logits = normal(710, 600, 81, factor=2.5)
    logits[:, 80] += 4
    deltas = normal(711, 600, 320)
    heads = RoIHeads(1, hidden=1)
    batch = ImageBatch(torch.empty(0), IMAGE_SIZES, PADDED_SIZES, ORIGINAL_SIZES)
    proposals = [torch.from_numpy(stored("litv2_mask_bbox_post", f"proposals{i}")) for i in range(2)]
    for i in range(2):
        rows = slice(300 * i, 300 * (i + 1))
        heads.max_detections = 100
        found = heads.select(proposals[i], logits[rows], deltas[rows], IMAGE_SIZES[i])
        check_detections(case, str(i), *found)
        boxes = to_original(found.boxes, batch, i)
        check_detections(case, f"_rescaled{i}", boxes, found.scores, found.labels)
        if f"all_dets{i}" in CASES[case]["arrays"]:
            heads.max_detections = 100_000
            found = heads.select(proposals[i], logits[rows], deltas[rows], IMAGE_SIZES[i])
            check_detections(case, str(i), *found, prefix="all_")


@pytest.mark.parametrize("case", of_kind("paste"))
def test_paste(case: str) -> None:
    i = int(case[-1])
    size = ORIGINAL_SIZES[i]
    logits = normal(720, 20, 80, 28, 28, factor=2)
    boxes, labels = (torch.from_numpy(stored(case, name)) for name in ("boxes", "labels"))
    batch = ImageBatch(torch.empty(0), IMAGE_SIZES, PADDED_SIZES, ORIGINAL_SIZES)
    scale = boxes.new_tensor(batch.scale(i)).repeat(2)
    masks = paste_masks(logits[torch.arange(20), labels].sigmoid(), boxes / scale, size)
    official = np.unpackbits(stored(case, "masks_packed"), axis=1)[:, : size[0] * size[1]].astype(bool)
    different = int((masks.flatten(1).numpy() != official).sum(axis=1).max())
    golden.note(GROUP, f"{case} masks", different / 3)
    assert different <= 3


@torch.no_grad()
def test_pipeline_from_fixed_maps() -> None:
    """Maps to proposals to detections and masks in pixels of the original image: LIT's Mask R-CNN."""
    (case,) = of_kind("pipeline")
    config = CASES[case]["config"]
    model = MODELS[our_name(config)].task.model(FixedMaps(140, 320, 416), MODELS[our_name(config)].head).eval()
    model.load_state_dict(model_of(config).state_dict())
    model.roi_heads.box_head.cls_logits.weight *= 4
    maps = model.fpn(model.backbone(torch.empty(0)))
    logits, deltas = per_level(model.rpn, maps)
    ((boxes, scores),) = model.rpn.proposals(logits, deltas, IMAGE_SIZES[:1])
    wanted = torch.from_numpy(stored(case, "proposals"))
    distance = (wanted[:, None] - torch.cat((boxes, scores[:, None]), dim=1)).abs().amax(dim=2)
    near = (distance.amin(dim=1) < 1e-2).float().mean().item()
    golden.note(GROUP, f"{case} proposals", (1 - near) / 0.02)
    assert near > 0.98
    batch = ImageBatch(torch.empty(0), IMAGE_SIZES[:1], PADDED_SIZES[:1], ORIGINAL_SIZES[:1])
    (result,) = model.detect(maps, batch)
    check_detections(case, "", result["boxes"], result["scores"], result["labels"], atol=0.01)
    official = np.unpackbits(stored(case, "masks_packed"), axis=1)[:, : 200 * 260].astype(bool)
    different = int((result["masks"].flatten(1).numpy() != official).sum(axis=1).max())
    golden.note(GROUP, f"{case} masks", different / 10)
    assert different <= 10


# ------------------------------------------------ Panoptic FPN from an image


def test_panoptic_proposals_and_box_head_of_an_image() -> None:
    """Whole model: image to anchors, proposals, and scores and boxes of every class for the first hundred."""
    (proposals_case,), (decode_case,) = of_kind("image_proposals"), of_kind("roi_decode")
    model = litevit.create_model("panoptic_fpn_lvt").eval()
    litevit.load_weights(model, golden.official_state("dense/panoptic_fpn_lvt_fpn_3x_coco"))
    with torch.no_grad():
        maps = model.fpn(model.backbone(golden.golden_input(1, 160, 256, seed=1)))
        for level, anchors in enumerate(model.rpn.anchors(maps), start=2):
            assert len(anchors) == stored(proposals_case, f"anchors_p{level}_count").item()
            check(proposals_case, f"anchors_p{level}_first12", anchors[:12])
            check(proposals_case, f"anchors_p{level}_last3", anchors[-3:])
        ((boxes, scores),) = model.rpn.proposals(*per_level(model.rpn, maps), [(160, 256)])
        check(proposals_case, "proposals", torch.cat((boxes, scores[:, None]), dim=1))

        proposals = torch.from_numpy(stored(proposals_case, "proposals"))[:100, :4].contiguous()
        logits, deltas = model.roi_heads.box_head(model.roi_heads.features(maps, join_rois([proposals]), 7))
    check(decode_case, "scores_first100", logits.softmax(dim=1))
    per_class = decode_boxes(deltas.view(100, 80, 4), proposals[:, None], stds=BOX_STDS, clip_to=(160, 256))
    check(decode_case, "bboxes_first100", per_class.flatten(1))
