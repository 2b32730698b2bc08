"""Cases of tests/data/dense/detection, their inputs made from seeds, and the models they are about."""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

import golden
from litevit.checkpoints import lit, mmdet
from litevit.layers.features import FeatureSpec
from litevit.zoo import MODELS

FOLDER = "dense/detection"
GROUP = "detection"
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


def _cases() -> dict[str, dict]:
    """A case that is `same_as` another holds that one's arrays, where it has none of its own."""
    cases = golden.cases(FOLDER)
    return {
        name: case | {"arrays": (cases[case["same_as"]]["arrays"] if "same_as" in case else {}) | case["arrays"]}
        for name, case in cases.items()
    }


CASES = _cases()


def of_kind(kind: str) -> list[str]:
    return [name for name, case in CASES.items() if case["kind"] == kind]


@cache
def _arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(golden.DATA / FOLDER / file) as stored:
        return dict(stored)


def stored(case: str, array: str) -> np.ndarray:
    own = golden.cases(FOLDER)[case]
    if array not in own["arrays"]:
        case = own["same_as"]
    return _arrays(CASES[case]["file"])[f"{case}/{array}"]


def check(case: str, array: str, got: Tensor) -> None:
    """Compares, and notes how much of the tolerance is used."""
    deviation = golden.worst_deviation(got, stored(case, array), CASES[case]["arrays"][array])
    golden.note(GROUP, f"{case} {array}", float(deviation))
    assert deviation <= 1


def check_rows(case: str, array: str, got: Tensor, *, atol: float, rtol: float = 1e-4) -> None:
    """As `check`, for a list of which every such row is stored."""
    spec = CASES[case]["arrays"][array]
    assert len(got) == spec["shape"][0]
    wanted = stored(case, array)
    deviation = (np.abs(got.numpy()[:: spec.get("every", 1)] - wanted) / (atol + rtol * np.abs(wanted))).max()
    golden.note(GROUP, f"{case} {array}", float(deviation))
    assert deviation <= 1


def check_detections(
    case: str, suffix: str, boxes: Tensor, scores: Tensor, labels: Tensor, prefix: str = "", atol: float = 1e-3
) -> None:
    """Boxes and scores within the tolerance, labels equal, all in the official order."""
    check_rows(case, f"{prefix}dets{suffix}", torch.cat((boxes, scores[:, None]), dim=1), atol=atol)
    every = CASES[case]["arrays"][f"{prefix}dets{suffix}"].get("every", 1)
    np.testing.assert_array_equal(labels.numpy()[::every], stored(case, f"{prefix}labels{suffix}"))


def check_losses(case: str, losses: dict[str, Tensor], names: dict[str, str]) -> None:
    """Args: names: ours -> official."""
    for ours, official in names.items():
        wanted = stored(case, official).item()
        deviation = abs(losses[ours].item() - wanted) / (1e-5 * abs(wanted))
        golden.note(GROUP, f"{case} {official}", deviation)
        assert deviation <= 1


def normal(seed: int, *shape: int, factor: float = 1.0, offset: float = 0.0) -> Tensor:
    values = factor * np.random.RandomState(seed).standard_normal(shape) + offset
    return torch.from_numpy(values.astype(np.float32))


def first(candidates: Tensor, count: int) -> Tensor:
    return candidates[:count]


class FixedMaps(nn.Module):
    """A backbone that answers with given maps."""

    def __init__(self, seed: int, height: int, width: int, channels: tuple[int, ...] = (96, 192, 384, 768)):
        super().__init__()
        self.features = tuple(FeatureSpec(c, s) for c, s in zip(channels, (4, 8, 16, 32)))
        self.maps = [normal(seed + i, 1, c, height // s, width // s) for i, (c, s) in enumerate(self.features)]

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.maps


def our_name(config: str) -> str:
    return config.replace("_fpn_1x_coco", "").replace("_fpn_3x_coco", "").replace("_ws_4", "_ws4")


@cache
def model_of(config: str) -> nn.Module:
    """Our model of a published config: its neck and heads with the made-up weights, fixed maps for a backbone."""
    entry = MODELS[our_name(config)]
    channels = (64, 64, 160, 256) if "lvt" in config else (96, 192, 384, 768)
    model = entry.task.model(FixedMaps(0, 32, 32, channels), entry.head).eval()
    shapes = golden.manifests()[f"dense/{config}"]
    state = golden.state_from({k: v for k, v in shapes.items() if not k.startswith("backbone.")})
    model.load_state_dict(mmdet.to_ours(state, lit.to_ours).state)
    return model
