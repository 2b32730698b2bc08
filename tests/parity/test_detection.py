"""Pyramids, heads, whole models and RetinaNet against stored outputs of the published code.

See tests/data/dense/detection/README.md.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

import golden
import litevit
from golden_detection import (
    CASES,
    GT_BOXES,
    GT_LABELS,
    IMAGE_SIZES,
    ORIGINAL_SIZES,
    PADDED_SIZES,
    RETINANET_SIZES,
    FixedMaps,
    check,
    check_detections,
    check_losses,
    model_of,
    normal,
    of_kind,
    our_name,
    stored,
)
from litevit.checkpoints import lit, mmdet
from litevit.ops.anchors import base_anchors
from litevit.ops.assign import assign_by_iou
from litevit.ops.boxes import decode_boxes, encode_boxes
from litevit.tasks.detection import ImageBatch, Objects
from litevit.tasks.retinanet import RetinaNet
from litevit.zoo import MODELS

# ------------------------------------------------------------------ maps


@pytest.mark.parametrize("case", of_kind("maps"))
@torch.no_grad()
def test_pyramid_and_heads(case: str) -> None:
    height, width = (int(side) for side in case.rsplit("_", 1)[1].split("x"))
    is_retinanet = "retina" in case
    model = model_of(CASES[case]["config"])
    seed = {("retina", 320): 100, ("retina", 224): 110, ("mask", 320): 120, ("mask", 224): 130}
    model.backbone = FixedMaps(seed["retina" if is_retinanet else "mask", height], height, width)
    raw = model.forward_raw(torch.zeros(1, 3, height, width))
    prefix, finest = ("", 3) if is_retinanet else ("rpn_", 2)
    for level in range(5):
        check(case, f"P{level + finest}", raw[f"F{level}"])
        check(case, f"cls{level}", raw[f"{prefix}cls{level}"])
        check(case, f"reg{level}", raw[f"{prefix}reg{level}"])


FAST = (
    "e2e_retinanet_lit_ti_fpn_1x_coco_224x352",
    "e2e_retinanet_litv2_s_fpn_1x_coco_224x352",
    "e2e_retinanet_litv2_s_fpn_1x_coco_ws_4_224x352",
    "e2e_mask_rcnn_litv2_s_fpn_1x_coco_320x416",
)


@pytest.mark.parametrize(
    "case", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in of_kind("e2e")]
)
@torch.no_grad()
def test_whole_model(case: str) -> None:
    """`load_weights` of the official file, then every map of the model."""
    config = CASES[case]["config"]
    height, width = (int(side) for side in case.rsplit("_", 1)[1].split("x"))
    model = litevit.create_model(our_name(config)).eval()
    report = litevit.load_weights(model, golden.official_state(f"dense/{config}"))
    assert not report.missing
    assert not report.unexpected
    raw = model.forward_raw(golden.golden_input(1, height, width, seed=7))
    for array in CASES[case]["arrays"]:
        check(case, array, raw[array])


@torch.no_grad()
def test_window_sizes_differ() -> None:
    """The two published windows take the same tensors and give other outputs."""
    images = golden.golden_input(1, 64, 96, seed=7)
    state = golden.official_state("dense/retinanet_litv2_s_fpn_1x_coco")
    maps = []
    for name in ("retinanet_litv2_s", "retinanet_litv2_s_ws4"):
        model = litevit.create_model(name).eval()
        litevit.load_weights(model, state)
        maps.append(model.forward_raw(images))
    torch.testing.assert_close(maps[0]["C3"], maps[1]["C3"])
    assert (maps[0]["cls0"] - maps[1]["cls0"]).abs().max() > 1e-3


DETECTORS = [
    k.removeprefix("dense/") for k in golden.manifests() if k.startswith(("dense/retinanet", "dense/mask_rcnn"))
]


@pytest.mark.parametrize("manifest", DETECTORS)
def test_every_manifest_fits_and_returns(manifest: str) -> None:
    """Each official layout names every tensor of our model, and comes back bit for bit."""
    shapes = golden.manifests()[f"dense/{manifest}"]
    official = {
        key: torch.empty(
            [n for n in shape if not isinstance(n, str)],
            dtype=torch.int64 if shape and isinstance(shape[-1], str) else torch.float32,
            device="meta",
        )
        for key, shape in shapes.items()
    }
    with torch.device("meta"):
        model = litevit.create_model(our_name(manifest))
    ours = mmdet.to_ours(official, lit.to_ours)
    assert not ours.unexpected
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in ours.state.items()} == wanted
    back = mmdet.to_official(ours.state, lit.to_official)
    assert not back.unexpected
    assert {k: v.shape for k, v in back.state.items()} == {
        k: v.shape for k, v in official.items() if k not in ours.dropped
    }


def test_heads_return_bit_for_bit() -> None:
    shapes = golden.manifests()["dense/retinanet_litv2_s_fpn_1x_coco"]
    state = golden.state_from({k: v for k, v in shapes.items() if not k.startswith("backbone.")})
    back = mmdet.to_official(mmdet.to_ours(state, lit.to_ours).state, lit.to_official).state
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


# --------------------------------------------------------------- anchors


@pytest.mark.parametrize("case", of_kind("anchors"))
def test_anchors_and_decoding(case: str) -> None:
    model = model_of(CASES[case]["config"])
    maps = [torch.empty(1, 1, *size) for size in RETINANET_SIZES]
    for level, anchors in enumerate(model.anchors(maps)):
        base = base_anchors(model.strides[level], scales=model.config.anchor_scales, ratios=model.config.anchor_ratios)
        np.testing.assert_array_equal(base.numpy(), stored(case, f"base{level}"))
        check(case, f"anchors{level}", anchors)
        deltas = normal(200 + level, len(anchors), 4, factor=0.5)
        deltas[::97] *= 20
        check(case, f"decoded_clip{level}", decode_boxes(deltas, anchors, clip_to=(300, 400)))
        check(case, f"decoded_noclip{level}", decode_boxes(deltas, anchors))


# ------------------------------------------------------------- RetinaNet


@cache
def retinanet_outputs() -> tuple[list[Tensor], list[Tensor]]:
    logits, deltas = [], []
    for level, (h, w) in enumerate(RETINANET_SIZES):
        logit = normal(300 + level, 2, 720, h, w, factor=2, offset=-9).view(2, 9, 80, h, w)
        logit[:, :, [0, 16, 79]] += 3
        logits.append(logit.view(2, 720, h, w))
        deltas.append(normal(310 + level, 2, 36, h, w, factor=0.3))
    return logits, deltas


@pytest.mark.parametrize("case", of_kind("retina_post"))
def test_retinanet_postprocessing(case: str) -> None:
    """LIT keeps 1000 anchors of a level, LITv2 1000 (anchor, class) pairs."""
    config = MODELS[our_name(CASES[case]["config"])].head
    assert config.selection == ("anchors" if case.startswith("lit_") else "pairs")
    if case.endswith("all"):
        config = replace(config, max_detections=100_000)
    original = ORIGINAL_SIZES if case.endswith("rescale1") else IMAGE_SIZES
    batch = ImageBatch(torch.empty(0), IMAGE_SIZES, PADDED_SIZES, original)
    results = RetinaNet(FixedMaps(0, 32, 32), config).postprocess(*retinanet_outputs(), batch)
    for i, result in enumerate(results):
        check_detections(case, str(i), result["boxes"], result["scores"], result["labels"])


@pytest.mark.parametrize("case", ["litv2_retina_targets_losses", "lit_retina_targets_losses"])
def test_retinanet_targets_and_losses(case: str) -> None:
    model = model_of(CASES[case]["config"])
    logits, deltas = retinanet_outputs()
    anchors = torch.cat(model.anchors(logits))
    truth = []
    for i, (boxes, labels) in enumerate(zip(GT_BOXES, GT_LABELS)):
        codes, best = assign_by_iou(anchors, boxes, positive=0.5, negative=0.4, min_positive=0)
        np.testing.assert_array_equal(codes.numpy(), stored(case, f"assigned_gt_inds{i}"))
        check(case, f"max_overlaps{i}", best)
        positive = (codes > 0).nonzero().flatten()
        np.testing.assert_array_equal(positive.numpy(), stored(case, f"pos_anchor_index{i}"))
        check(case, f"pos_targets{i}", encode_boxes(anchors[positive], boxes[codes[positive] - 1]))
        truth.append(Objects(boxes, labels, None))
    losses = model.loss(logits, deltas, truth, PADDED_SIZES)
    check_losses(case, losses, {"loss_cls": "loss_cls", "loss_box": "loss_bbox"})


@pytest.mark.parametrize("case", ["litv2_retina_targets_validflags", "lit_retina_targets_validflags"])
def test_retinanet_leaves_out_anchors_beyond_the_image(case: str) -> None:
    model = model_of(CASES[case]["config"])
    logits, deltas = retinanet_outputs()
    boxes = torch.tensor([[50.0, 60.0, 90.0, 110.0], [100.0, 100.0, 299.0, 249.0]])
    truth = [Objects(GT_BOXES[0], GT_LABELS[0], None), Objects(boxes, GT_LABELS[1], None)]
    padded = [(320, 416), (256, 320)]
    for i in range(2):
        codes, inside = model.assign(logits, truth[i].boxes, padded[i])
        if i == 1:
            np.testing.assert_array_equal(inside.numpy(), stored(case, "valid1").astype(bool))
        np.testing.assert_array_equal((codes >= 0).numpy(), stored(case, "label_weights")[i].astype(bool))
        labels = torch.where(codes > 0, truth[i].labels[(codes - 1).clamp(min=0)], 80)
        np.testing.assert_array_equal(labels.numpy(), stored(case, "labels")[i])
    losses = model.loss(logits, deltas, truth, padded)
    check_losses(case, losses, {"loss_cls": "loss_cls", "loss_box": "loss_bbox"})
