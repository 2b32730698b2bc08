"""RetinaNet and Mask R-CNN against stored outputs of the published code: tests/data/dense/detection/README.md."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import golden
import litevit
from litevit.convert import lit, mmdet
from litevit.layers.features import FeatureSpec
from litevit.ops.anchors import base_anchors
from litevit.ops.assign import assign_by_iou
from litevit.ops.boxes import decode_boxes, encode_boxes, paste_masks
from litevit.tasks.detection import ImageBatch, Objects, to_original
from litevit.tasks.mask_rcnn import MaskRCNN, MaskRCNNConfig
from litevit.tasks.retinanet import RetinaNet, RetinaNetConfig
from litevit.tasks.roi_heads import RoIHeads, join_rois, mask_targets, roi_levels
from litevit.tasks.rpn import RPN

FOLDER = "dense/detection"
CASES = golden.cases(FOLDER)
CHANNELS = (96, 192, 384, 768)
RETINANET_SIZES = ((40, 52), (20, 26), (10, 13), (5, 7), (3, 4))
RPN_SIZES = ((80, 104), (40, 52), (20, 26), (10, 13), (5, 7))
IMAGE_SIZES = [(320, 416), (300, 400)]
PADDED_SIZES = [(320, 416), (320, 416)]
ORIGINAL_SIZES = [(200, 260), (187, 250)]
GT_BOXES = (
    torch.tensor(
        [
            [10.0, 20.0, 110.0, 220.0],
            [150.5, 30.25, 300.75, 140.0],
            [200.0, 180.0, 260.0, 300.0],
            [300.0, 200.0, 415.0, 319.0],
            [5.0, 250.0, 25.0, 262.0],
            [12.0, 24.0, 108.0, 215.0],
        ]
    ),
    torch.tensor([[50.0, 60.0, 90.0, 110.0], [100.0, 100.0, 390.0, 290.0]]),
)
GT_LABELS = (torch.tensor([0, 16, 79, 2, 5, 40]), torch.tensor([0, 61]))


def of_kind(kind: str) -> list[str]:
    return [name for name, case in CASES.items() if case["kind"] == kind]


@cache
def _arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(golden.DATA / FOLDER / file) as stored:
        return dict(stored)


def stored(case: str, array: str) -> np.ndarray:
    return _arrays(CASES[case]["file"])[f"{case}/{array}"]


def check(case: str, array: str, got: Tensor) -> None:
    deviation = golden.worst_deviation(got, stored(case, array), CASES[case]["arrays"][array])
    assert deviation <= 1, f"{case} {array}: {deviation:.2f} times the tolerance"


def normal(seed: int, *shape: int, factor: float = 1.0, offset: float = 0.0) -> Tensor:
    values = factor * np.random.RandomState(seed).standard_normal(shape) + offset
    return torch.from_numpy(values.astype(np.float32))


def first(candidates: Tensor, count: int) -> Tensor:
    return candidates[:count]


class FixedMaps(nn.Module):
    """A backbone that answers with given maps."""

    features = tuple(FeatureSpec(c, s) for c, s in zip(CHANNELS, (4, 8, 16, 32)))

    def __init__(self, seed: int, height: int, width: int):
        super().__init__()
        self.maps = [normal(seed + i, 1, c, height // s, width // s) for i, (c, s) in enumerate(self.features)]

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.maps


def official_heads(manifest: str) -> dict[str, Tensor]:
    """Official neck and heads under our keys."""
    shapes = golden.manifests()[f"dense/{manifest}"]
    state = golden.state_from({k: v for k, v in shapes.items() if not k.startswith("backbone.")})
    return mmdet.to_ours(state, lit.to_ours).state


@cache
def retinanet() -> RetinaNet:
    model = RetinaNet(FixedMaps(0, 32, 32), RetinaNetConfig()).eval()
    model.load_state_dict(official_heads("retinanet_litv2_s_fpn_1x_coco"))
    return model


@cache
def mask_rcnn() -> MaskRCNN:
    model = MaskRCNN(FixedMaps(0, 32, 32), MaskRCNNConfig()).eval()
    model.load_state_dict(official_heads("mask_rcnn_litv2_s_fpn_1x_coco"))
    return model


# ------------------------------------------------------------------ maps


@pytest.mark.parametrize("case", of_kind("maps"))
@torch.no_grad()
def test_pyramid_and_heads(case: str) -> None:
    height, width = (int(side) for side in case.rsplit("_", 1)[1].split("x"))
    is_retinanet = "retina" in case
    model = retinanet() if is_retinanet else mask_rcnn()
    seed = {("retina", 320): 100, ("retina", 224): 110, ("mask", 320): 120, ("mask", 224): 130}
    model.backbone = FixedMaps(seed["retina" if is_retinanet else "mask", height], height, width)
    raw = model.forward_raw(torch.zeros(1, 3, height, width))
    prefix, finest = ("", 3) if is_retinanet else ("rpn_", 2)
    for level in range(5):
        check(case, f"P{level + finest}", raw[f"F{level}"])
        check(case, f"cls{level}", raw[f"{prefix}cls{level}"])
        check(case, f"reg{level}", raw[f"{prefix}reg{level}"])


def our_name(config: str) -> str:
    return config.replace("_fpn_1x_coco", "").replace("_ws_4", "_ws4")


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


def test_anchors_and_decoding() -> None:
    (case,) = of_kind("anchors")
    model = retinanet()
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


def assert_same_detections(
    boxes: Tensor, scores: Tensor, labels: Tensor, case: str, suffix: str, prefix: str = ""
) -> None:
    every = CASES[case]["arrays"][f"{prefix}dets{suffix}"].get("every", 1)
    assert len(boxes) == CASES[case]["arrays"][f"{prefix}dets{suffix}"]["shape"][0]
    got = torch.cat((boxes, scores[:, None]), dim=1).numpy()[::every]
    np.testing.assert_allclose(got, stored(case, f"{prefix}dets{suffix}"), atol=1e-3, rtol=1e-4)
    np.testing.assert_array_equal(labels.numpy()[::every], stored(case, f"{prefix}labels{suffix}"))


@pytest.mark.parametrize("case", of_kind("retina_post"))
def test_retinanet_postprocessing(case: str) -> None:
    """LIT keeps 1000 anchors of a level, LITv2 1000 (anchor, class) pairs."""
    official_lit = case.startswith("lit_")
    config = RetinaNetConfig(
        selection="anchors" if official_lit else "pairs",
        remove_empty_boxes=not official_lit,
        max_detections=100_000 if case.endswith("all") else 100,
    )
    original = ORIGINAL_SIZES if case.endswith("rescale1") else IMAGE_SIZES
    batch = ImageBatch(torch.empty(0), IMAGE_SIZES, PADDED_SIZES, original)
    results = RetinaNet(FixedMaps(0, 32, 32), config).postprocess(*retinanet_outputs(), batch)
    for i, result in enumerate(results):
        assert_same_detections(result["boxes"], result["scores"], result["labels"], case, str(i))


def test_retinanet_targets_and_losses() -> None:
    case = "litv2_retina_targets_losses"
    model = retinanet()
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
    np.testing.assert_allclose(losses["loss_cls"], stored(case, "loss_cls"), rtol=1e-5)
    np.testing.assert_allclose(losses["loss_box"], stored(case, "loss_bbox"), rtol=1e-5)


def test_retinanet_leaves_out_anchors_beyond_the_image() -> None:
    case = "litv2_retina_targets_validflags"
    model = retinanet()
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
    np.testing.assert_allclose(losses["loss_cls"], stored(case, "loss_cls"), rtol=1e-5)
    np.testing.assert_allclose(losses["loss_box"], stored(case, "loss_bbox"), rtol=1e-5)


# ------------------------------------------------------------------- RPN


@cache
def rpn_outputs() -> tuple[list[Tensor], list[Tensor]]:
    logits = [normal(600 + i, 2, 3, *size, factor=3, offset=-2) for i, size in enumerate(RPN_SIZES)]
    return logits, [normal(610 + i, 2, 12, *size, factor=0.5) for i, size in enumerate(RPN_SIZES)]


@pytest.mark.parametrize("case", of_kind("proposals"))
def test_proposals(case: str) -> None:
    rpn = RPN(8, remove_empty=case.startswith("litv2")).train(case.endswith("train"))
    for i, (boxes, scores) in enumerate(rpn.proposals(*rpn_outputs(), IMAGE_SIZES)):
        assert len(boxes) == CASES[case]["arrays"][f"props{i}"]["shape"][0]
        got = torch.cat((boxes, scores[:, None]), dim=1)
        wanted = torch.from_numpy(stored(case, f"props{i}"))
        # The order among equal scores is free: each official proposal has one of ours.
        distance = (wanted[:, None] - got).abs().amax(dim=2)
        assert distance.amin(dim=1).max() < 1e-3
        ranks = torch.arange(0, len(got), CASES[case]["arrays"][f"props{i}"]["every"])
        torch.testing.assert_close(scores[ranks], wanted[:, 4])


def test_rpn_targets_and_losses() -> None:
    (case,) = of_kind("rpn_targets")
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
    np.testing.assert_allclose(losses["loss_rpn_cls"], stored(case, "loss_rpn_cls"), rtol=1e-5)
    np.testing.assert_allclose(losses["loss_rpn_box"], stored(case, "loss_rpn_bbox"), rtol=1e-5)


# ------------------------------------------------------------- RoI heads


@cache
def pyramid() -> list[Tensor]:
    return [normal(500 + i, 2, 256, *size) for i, size in enumerate(RPN_SIZES[:4])]


@torch.no_grad()
def test_roi_features_and_heads() -> None:
    (case,) = of_kind("roi_heads")
    heads = mask_rcnn().roi_heads
    rois = torch.from_numpy(stored(case, "rois"))
    np.testing.assert_array_equal(roi_levels(rois, 4).numpy(), stored(case, "levels"))
    box_features, mask_features = heads.features(pyramid(), rois, 7), heads.features(pyramid(), rois, 14)
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


@torch.no_grad()
def test_roi_targets_and_losses() -> None:
    (case,) = of_kind("roi_targets")
    heads = mask_rcnn().roi_heads
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
    losses = heads.loss(pyramid(), proposals, truth, PADDED_SIZES)
    heads.choose = random_choice
    for ours, official in (("loss_cls", "loss_cls"), ("loss_box", "loss_bbox"), ("loss_mask", "loss_mask")):
        np.testing.assert_allclose(losses[ours], stored(case, official).item(), rtol=1e-5)


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
        assert_same_detections(*found, case, str(i))
        boxes = to_original(found.boxes, batch, i)
        assert_same_detections(boxes, found.scores, found.labels, case, f"_rescaled{i}")
        if f"all_dets{i}" in CASES[case]["arrays"]:
            heads.max_detections = 100_000
            found = heads.select(proposals[i], logits[rows], deltas[rows], IMAGE_SIZES[i])
            assert_same_detections(*found, case, str(i), prefix="all_")


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
    assert (masks.flatten(1).numpy() != official).sum(axis=1).max() <= 3


@torch.no_grad()
def test_pipeline_from_fixed_maps() -> None:
    """Maps to proposals to detections and masks in pixels of the original image: LIT's Mask R-CNN."""
    (case,) = of_kind("pipeline")
    model = MaskRCNN(FixedMaps(140, 320, 416), MaskRCNNConfig(remove_empty_proposals=False)).eval()
    model.load_state_dict(official_heads("mask_rcnn_lit_s_fpn_1x_coco"))
    model.roi_heads.box_head.cls_logits.weight *= 4
    maps = model.fpn(model.backbone(torch.empty(0)))
    logits, deltas = model.rpn(maps)
    ((boxes, scores),) = model.rpn.proposals(logits, deltas, IMAGE_SIZES[:1])
    wanted = torch.from_numpy(stored(case, "proposals"))
    distance = (wanted[:, None] - torch.cat((boxes, scores[:, None]), dim=1)).abs().amax(dim=2)
    assert (distance.amin(dim=1) < 1e-2).float().mean() > 0.98
    batch = ImageBatch(torch.empty(0), IMAGE_SIZES[:1], PADDED_SIZES[:1], ORIGINAL_SIZES[:1])
    (result,) = model.detect(maps, batch)
    got = torch.cat((result["boxes"], result["scores"][:, None]), dim=1).numpy()
    np.testing.assert_allclose(got, stored(case, "dets"), atol=0.01, rtol=1e-4)
    np.testing.assert_array_equal(result["labels"].numpy(), stored(case, "labels"))
    official = np.unpackbits(stored(case, "masks_packed"), axis=1)[:, : 200 * 260].astype(bool)
    assert (result["masks"].flatten(1).numpy() != official).sum(axis=1).max() <= 10
