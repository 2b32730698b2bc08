"""Panoptic FPN against stored outputs of the published code: tests/data/segmentation/README.md."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import golden
import litevit
from litevit.layers.features import FeatureSpec
from litevit.ops.boxes import select_detections
from litevit.tasks.detection import ImageBatch
from litevit.tasks.panoptic_fpn import PanopticFPN, fuse, semantic_labels, semantic_target
from litevit.tasks.segmentation import View, segmentation_loss

CASES = golden.cases("segmentation")
MANIFEST = "dense/panoptic_fpn_lvt_fpn_3x_coco"
STRIDES = (4, 8, 16, 32)
CLASSES = {"num_things": 80, "num_stuff": 53}


def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(golden.DATA / "segmentation" / f"{name}.npz") as arrays:
        return dict(arrays)


def check(name: str, got: dict[str, Tensor]) -> None:
    arrays, specs = stored(name), CASES[name]["arrays"]
    worst = {key: golden.worst_deviation(got[key], arrays[key], specs[key]) for key in specs}
    for key, share in worst.items():
        golden.note("panoptic", f"{name} {key}", share)
    assert max(worst.values()) <= 1, worst


def published(panoptic: Tensor) -> np.ndarray:
    """The published maps call void 133; the other numbers are the same."""
    return torch.where(panoptic == 0, 133, panoptic).numpy()


@pytest.fixture(scope="module")
def model() -> PanopticFPN:
    model = litevit.create_model("panoptic_fpn_lvt")
    report = litevit.load_weights(model, golden.official_state(MANIFEST))
    assert (report.missing, report.unexpected, report.dropped) == ((), (), ())
    return model.eval()


class FixedMaps(nn.Module):
    """A backbone that returns what it was given."""

    def __init__(self, size: tuple[int, int], seed: int):
        super().__init__()
        channels = (64, 64, 160, 256)
        self.features = tuple(FeatureSpec(c, s) for c, s in zip(channels, STRIDES))
        self.maps = tuple(
            golden.golden_map(1, c, size[0] // s, size[1] // s, seed + i)
            for i, (c, s) in enumerate(zip(channels, STRIDES))
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.maps


def on_maps(model: PanopticFPN, size: tuple[int, int], seed: int) -> PanopticFPN:
    fixed = PanopticFPN(FixedMaps(size, seed), model.config)
    heads = {k: v for k, v in model.state_dict().items() if not k.startswith("backbone.")}
    fixed.load_state_dict(heads)
    return fixed.eval()


@pytest.mark.parametrize("manifest", [MANIFEST, "dense/panoptic_fpn_lvt_fpn_1x_coco", "lvt/panoptic_fpn_lvt"])
def test_every_key_of_the_official_checkpoint_has_its_place(manifest):
    """... and the way back gives the same tensors."""
    from litevit.checkpoints import layouts

    official = golden.official_state(manifest)
    model = litevit.create_model("panoptic_fpn_lvt")
    litevit.load_weights(model, official)
    assert sum(p.numel() for p in model.parameters()) == 5_349_770
    back = layouts.to_official(model.state_dict())
    assert set(back) == set(official)
    assert all(torch.equal(back[key], official[key]) for key in official)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["kind"] == "panoptic heads"])
@torch.no_grad()
def test_heads(name, model):
    case = CASES[name]
    fixed = on_maps(model, case["size"], case["seed"])
    check(name, fixed.forward_raw(torch.zeros(1, 3, *case["size"])))


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["kind"] == "whole" and "panoptic" in n])
@torch.no_grad()
def test_whole_model(name, model):
    case = CASES[name]
    check(name, model.forward_raw(golden.golden_input(1, *case["size"], seed=case["seed"])))


@torch.no_grad()
def test_semantic_branch_at_the_original_size_and_its_loss(model):
    seg = on_maps(model, (320, 416), 120).forward_raw(torch.zeros(1, 3, 320, 416))["seg"]
    name, size = "lvt_panoptic_sem_test_img0", (200, 260)
    view = View(seg, (320, 416), (320, 416))
    share = golden.worst_deviation(view.rows(size, 0, 200), stored(name)["seg"], CASES[name]["arrays"]["seg"])
    golden.note("panoptic", f"{name} seg", share)
    assert share <= 1
    k = CASES[name]["arrays"]["argmax"]["k"]
    assert np.array_equal(semantic_labels(view, size).flatten()[::k].numpy(), stored(name)["argmax"])

    classes = torch.from_numpy(np.random.RandomState(901).randint(0, 134, (1, 80, 104)))
    labels = semantic_target(classes, **CLASSES)  # 133 is void
    loss = 0.5 * segmentation_loss(seg, labels)
    wanted = CASES["lvt_panoptic_sem_loss"]["loss_seg"]
    golden.note("panoptic", "lvt_panoptic_sem_loss", golden.share_of(float(loss), wanted, abs_=1e-5))
    assert float(loss) == pytest.approx(wanted, abs=1e-5)


def test_detections_suppress_each_other_across_classes():
    arrays = stored("lvt_panoptic_det_nms")
    logits = (3 * np.random.RandomState(951).standard_normal((200, 81))).astype(np.float32)
    logits[:, [0, 5, 60]] += 3
    scores = torch.from_numpy(logits).softmax(1)[:, :80]
    rows, labels = (scores > 0.6).nonzero(as_tuple=True)
    boxes, scores, labels = select_detections(
        torch.from_numpy(arrays["boxes"])[rows],
        scores[rows, labels],
        labels,
        iou_threshold=0.5,
        max_detections=100,
        class_agnostic=True,
    )
    got, wanted = torch.cat([boxes, scores[:, None]], 1).numpy(), arrays["dets"]
    assert got.shape == wanted.shape
    golden.note(
        "panoptic", "lvt_panoptic_det_nms", float((np.abs(got - wanted) / (1e-4 + 1e-5 * np.abs(wanted))).max())
    )
    assert np.allclose(got, wanted, atol=1e-4)
    assert np.array_equal(labels.numpy(), arrays["labels"])


def test_fusion():
    arrays = stored("lvt_panoptic_fusion")
    logits = (0.5 * np.random.RandomState(900).standard_normal((54, 160, 200))).astype(np.float32)
    logits[5, :80] += 6
    logits[20, 80:, :150] += 6
    logits[53, 80:, 150:] += 6
    logits[33, 100:140, 100:140] += 12
    semantic = torch.from_numpy(logits).argmax(0)
    masks = torch.from_numpy(np.unpackbits(arrays["masks"], axis=1).reshape(8, 160, 200)).bool()
    scores, labels = torch.from_numpy(arrays["scores"]), torch.from_numpy(arrays["labels"]).long()
    panoptic, segments = fuse(scores, labels, masks, semantic, **CLASSES)
    assert np.array_equal(published(panoptic), arrays["pan"])
    assert {s["id"] for s in segments} == set(np.unique(arrays["pan"]).tolist()) - {133}
    panoptic, _ = fuse(scores[:0], labels[:0], masks[:0], semantic, **CLASSES)
    assert np.array_equal(published(panoptic), arrays["pan_no_dets"])


def test_fusion_at_two_area_limits():
    arrays = stored("panoptic_fusion_unit")
    masks = torch.from_numpy(np.unpackbits(arrays["masks"], axis=1).reshape(6, 120, 160)).bool()
    scores, labels = torch.from_numpy(arrays["scores"]), torch.from_numpy(arrays["labels"]).long()
    semantic = torch.from_numpy(arrays["semantic"]).long()
    for limit, expected in ((4096, "pan_limit4096"), (int(arrays["alt_limit"][0]), "pan_limit_alt")):
        panoptic, _ = fuse(scores, labels, masks, semantic, **CLASSES, min_stuff_area=limit)
        assert np.array_equal(published(panoptic), arrays[expected])


def agreement(boxes: Tensor, labels: Tensor, expected: np.ndarray, expected_labels: np.ndarray, atol: float) -> float:
    """Share of the expected detections that ours hold: same label, all corners within `atol`."""
    near = (boxes[:, None] - torch.from_numpy(expected)[None, :, :4]).abs().amax(2) <= atol
    same = labels[:, None] == torch.from_numpy(expected_labels).long()[None]
    return float((near & same).any(0).float().mean())


@torch.no_grad()
def test_whole_inference_from_fixed_maps(model):
    arrays = stored("lvt_panoptic_pipeline")
    fixed = on_maps(model, (320, 416), 140)
    fixed.roi_heads.box_head.cls_logits.weight *= 5  # else no score would pass 0.6
    batch = ImageBatch(torch.zeros(1, 3, 320, 416), [(320, 416)], [(320, 416)], [(200, 260)])
    (result,) = fixed.detect(fixed.fpn(fixed.backbone(batch.images)), batch)
    assert agreement(result["boxes"], result["labels"], arrays["dets"], arrays["labels"], 0.05) >= 0.95
    assert len(result["boxes"]) == 100
    same = (published(result["panoptic"]).flatten()[::5] == arrays["pan"]).mean()
    golden.note("panoptic", "fixed maps, panoptic map", (1 - same) / 0.01)
    assert same >= 0.99


@torch.no_grad()
def test_whole_inference_from_an_image(model):
    """The image's padding is not zero here, and the original twice as large as what the network saw."""
    arrays = stored("panoptic_end_to_end_1x160x256_s1")
    images = golden.golden_input(1, 160, 256, seed=1)
    batch = ImageBatch(images, [(150, 250)], [(160, 256)], [(300, 500)])
    threshold, model.roi_heads.score_threshold = model.roi_heads.score_threshold, 0.2
    try:
        (result,) = model.detect(model.fpn(model.backbone(images)), batch)
    finally:
        model.roi_heads.score_threshold = threshold
    assert len(result["boxes"]) == len(arrays["det"])
    assert agreement(result["boxes"], result["labels"], arrays["det"], arrays["labels"], 0.02) == 1
    areas = result["masks"].flatten(1).sum(1).numpy()
    different = np.abs(np.sort(areas) - np.sort(arrays["mask_area"])).max()
    golden.note("panoptic", "end to end, area of a mask", float(different) / 5)
    assert different <= 5
    logits = View(result["semantic_logits"][None], (160, 256), (150, 250)).rows((300, 500), 0, 300)[0]
    worst = float(np.abs(logits.flatten()[:: 501 * 5].numpy() - arrays["seg"]).max())
    golden.note("panoptic", "end to end, seg", worst / 2e-4)
    assert worst <= 2e-4
    same = (published(result["panoptic"]).flatten()[::7] == arrays["pan"]).mean()
    golden.note("panoptic", "end to end, panoptic map", (1 - same) / 0.002)
    assert same >= 0.998
