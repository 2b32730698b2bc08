"""What goes into a file: a model as one function from a batch of images to named tensors.

Classifiers, backbones and segmenters are that already. Detectors and panoptic models get their post-processing at fixed
shapes (`detection.py`, `panoptic.py`), because a file cannot hold lists of any length.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from litevit.tasks.classification import Classifier
from litevit.tasks.lvt_classifier import LVTClassifier
from litevit.tasks.mask_rcnn import MaskRCNN
from litevit.tasks.panoptic_fpn import PanopticFPN
from litevit.tasks.retinanet import RetinaNet
from litevit.tasks.segmentation import Segmenter

FEATURES, MODULE = "features", "module"  # tasks of a backbone, and of a module that is not litevit's


TIMES_NOISE = 16.0  # an engine's rounding differs from ours by at most this many times ours
FLOOR = 8 * 2.0**-23  # of an output's scale: where float32 happens to round to the same as float64


class Difference(NamedTuple):
    """Of one output between a file and its model."""

    output: str
    worst: float
    tolerance: float

    @property
    def share(self) -> float:
        """Of the tolerance; above 1 they are not the same."""
        return self.worst / self.tolerance if self.tolerance else float("inf") if self.worst else 0.0


class Graph(nn.Module):
    """A model that answers with a tuple of tensors.

    Attributes:
        task: as in `litevit.list_models(task=...)`, or `FEATURES` or `MODULE`.
        names: of the outputs.
    """

    def __init__(self, model: nn.Module, task: str, names: tuple[str, ...]):
        super().__init__()
        self.model = model
        self.task = task
        self.names = names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images: (B, 3, H, W), normalised. Returns: one tensor per name."""
        answer = self.model(images)
        tensors = (answer,) if isinstance(answer, Tensor) else tuple(answer)
        if len(tensors) != len(self.names) or not all(isinstance(x, Tensor) for x in tensors):
            wanted = "one tensor" if len(self.names) == 1 else f"{len(self.names)} tensors"
            raise ValueError(f"a module that is exported must return {wanted}, got {_kind(answer)}")
        return tensors

    @torch.no_grad()
    def reference(self, images: Tensor) -> dict[str, Tensor]:
        """What the model itself says, computed as a user of the model does. Args, returns: as `forward`."""
        return dict(zip(self.names, self(images), strict=True))

    def compare(self, found: dict[str, Tensor], ours: dict[str, Tensor], exact: dict[str, Tensor]) -> list[Difference]:
        """Differences of a file's outputs.

        Args:
            ours: of the model in float32.
            exact: of the model in float64; how far `ours` is from it gives the tolerance.
        """
        return [compare_floats(name, found[name], ours[name], exact[name]) for name in self.names]


def compare_floats(name: str, found: Tensor, ours: Tensor, exact: Tensor) -> Difference:
    """The largest difference, and `TIMES_NOISE` times what rounding does to this output."""
    if found.shape != ours.shape:
        return Difference(name, float("inf"), 0.0)
    if not found.numel():
        return Difference(name, 0.0, 1.0)
    # What is not finite says nothing about rounding, and must be the same.
    finite = ours.isfinite() & exact.isfinite()
    noise = torch.where(finite, ours.double() - exact.double(), 0.0).abs().max()
    scale = torch.where(finite, exact.double(), 0.0).abs().max()
    worst = (found.double() - ours.double()).abs()
    same = (found == ours) | (found.isnan() & ours.isnan())
    worst = torch.where(same, 0.0, worst).nan_to_num(float("inf")).max()
    return Difference(name, float(worst), max(float(TIMES_NOISE * noise), float(FLOOR * scale)))


def _kind(answer: object) -> str:
    parts = f" of {len(answer)}" if isinstance(answer, tuple | list | dict) else ""
    return f"{type(answer).__name__}{parts}"


def build_graph(model: nn.Module) -> Graph:
    """The graph of a model, in evaluation mode; the model is not changed."""
    from litevit.deploy import detection, panoptic  # they are made of this module's Graph

    graph: Graph
    if model.training or any(p.is_cuda or p.dtype != torch.float32 for p in model.parameters()):
        model = copy.deepcopy(model).cpu().float()
    if isinstance(model, Classifier | LVTClassifier):
        graph = Graph(model, "classification", ("logits",))
    elif isinstance(model, Segmenter):
        graph = Graph(model, "semantic segmentation", ("logits",))
    elif isinstance(model, RetinaNet):
        graph = detection.RetinaNetGraph(model)
    elif isinstance(model, MaskRCNN):
        graph = detection.MaskRCNNGraph(model)
    elif isinstance(model, PanopticFPN):
        graph = panoptic.PanopticGraph(model)
    elif isinstance(features := getattr(model, "features", None), tuple) and len(features) == 4:
        graph = Graph(model, FEATURES, ("C2", "C3", "C4", "C5"))
    else:
        graph = Graph(model, MODULE, ("output",))
    return graph.eval()  # a copy where that would change the model
