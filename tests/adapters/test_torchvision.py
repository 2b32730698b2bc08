"""Our backbones in torchvision's detectors; our detectors in scripts written for torchvision's."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_masks
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet

import litevit
from litevit.adapters.torchvision import backbone_with_fpn, torchvision_detector

SMALL = {"min_size": 64, "max_size": 96}


def a_target(label: int, *, masks: bool = True) -> dict[str, torch.Tensor]:
    """As torchvision's references make it: labels from 1, masks uint8."""
    target = {"boxes": torch.tensor([[8.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([label])}
    if not masks:
        return target
    mask = torch.zeros(1, 64, 72, dtype=torch.uint8)
    mask[0, 6:50, 8:40] = 1
    return {**target, "masks": mask}


@pytest.mark.parametrize("name", ["lit_s", "lit_ti", "litv2_s", "lvt", "pvt_s", "swin_ti_dtm"])
def test_backbones_of_every_family(name):
    made = backbone_with_fpn(name, out_channels=16)
    maps = made.eval()(torch.randn(1, 3, 64, 96))
    assert made.out_channels == 16
    sizes = {"0": (16, 24), "1": (8, 12), "2": (4, 6), "3": (2, 3), "pool": (1, 2)}
    assert {key: tuple(value.shape[2:]) for key, value in maps.items()} == sizes


@pytest.mark.parametrize("kind", [FasterRCNN, MaskRCNN, RetinaNet, FCOS])
def test_detectors_of_torchvision_learn_on_them(kind):
    options = {} if kind in (FasterRCNN, MaskRCNN) else {"anchor_generator": anchors(kind)}
    model = kind(backbone_with_fpn("lvt", out_channels=32), num_classes=4, **SMALL, **options)
    images = [torch.rand(3, 64, 72), torch.rand(3, 60, 80)]
    targets = [a_target(3), {**a_target(1), "masks": torch.zeros(1, 60, 80, dtype=torch.uint8)}]
    sum(model(images, targets).values()).backward()
    used = model.backbone.body.backbone.stages
    assert all(parameter.grad is not None for parameter in used.parameters())
    assert len(model.eval()(images)) == 2


def anchors(kind):
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    sizes = tuple((side,) for side in (8, 16, 32, 64, 128))
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5 if kind is RetinaNet else ((1.0,),) * 5)


def test_a_backbone_with_weights_keeps_them():
    body = litevit.create_backbone("litv2_s", out_norms="detection")
    assert backbone_with_fpn(body).body.backbone is body
    with pytest.raises(TypeError, match=r"takes a backbone of litevit.create_backbone, got Linear"):
        backbone_with_fpn(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["retinanet", "mask_rcnn"])
def test_our_detectors_learn_from_torchvision_targets(name):
    torch.manual_seed(0)
    plain = litevit.create_model(name, backbone="lvt", num_classes=3, **SMALL)
    model = torchvision_detector(plain).train()
    images = [torch.rand(3, 64, 72)]
    theirs = a_target(3, masks=name == "mask_rcnn")
    ours = {**theirs, "labels": torch.tensor([2])}
    if name == "mask_rcnn":
        ours["masks"] = ours["masks"].bool()
    torch.manual_seed(1)
    losses = model(images, [theirs])
    torch.manual_seed(1)
    same = plain(images, [ours])
    assert losses.keys() == same.keys()
    torch.testing.assert_close(losses, same)
    sum(losses.values()).backward()


def prepare_for_coco_segmentation(predictions):
    """What `CocoEvaluator.prepare_for_coco_segmentation` of torchvision's references does with a result."""
    results = []
    for image_id, prediction in predictions.items():
        masks = prediction["masks"] > 0.5
        rles = [coco_masks.encode(np.array(mask[0, :, :, np.newaxis], dtype=np.uint8, order="F"))[0] for mask in masks]
        rows = zip(prediction["labels"].tolist(), rles, prediction["scores"].tolist())
        results += [{"image_id": image_id, "category_id": k, "segmentation": r, "score": s} for k, r, s in rows]
    return results


def test_coco_evaluators_of_torchvision_read_our_results():
    torch.manual_seed(0)
    plain = litevit.create_model("mask_rcnn", backbone="lvt", num_classes=3, score_threshold=0.0, **SMALL).eval()
    model = torchvision_detector(plain, class_ids=(1, 18, 90)).eval()
    image = [torch.rand(3, 64, 72)]
    with torch.no_grad():
        (ours,), (theirs,) = plain(image), model(image)
    assert theirs["masks"].shape[1:] == (1, 64, 72)
    assert theirs["masks"].dtype == torch.float32
    rows = prepare_for_coco_segmentation({7: theirs})
    assert len(rows) == len(ours["scores"]) > 0
    assert [row["category_id"] for row in rows] == [(1, 18, 90)[k] for k in ours["labels"].tolist()]
    for row, mask in zip(rows, ours["masks"]):
        assert (coco_masks.decode(row["segmentation"]).astype(bool) == mask.numpy()).all()


def test_what_does_not_fit_is_said():
    plain = litevit.create_model("retinanet", backbone="lvt", num_classes=3, **SMALL)
    with pytest.raises(ValueError, match="class_ids must be 3 different numbers, one for each class, got 2"):
        torchvision_detector(plain, class_ids=(1, 2))
    with pytest.raises(TypeError, match=r"takes a RetinaNet or Mask R-CNN of litevit, got LVTClassifier"):
        torchvision_detector(litevit.create_model("lvt"))
    model = torchvision_detector(plain).train()
    with pytest.raises(ValueError, match=r"labels \[0\], which are none of class_ids: \[1, 2, 3\]"):
        model([torch.rand(3, 64, 72)], [a_target(0, masks=False)])
