"""The maps of the four stages: as they are, as three principal components, as likeness to one cell."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.explain.inside import as_batch, backbone_of, evaluation


@torch.no_grad()
def feature_maps(model: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """The backbone's maps, as evaluation has them.

    Args:
        model: a model or backbone of any family; it is left as it was.
        image: (3, H, W) or (1, 3, H, W), normalised.

    Returns:
        Four maps (1, C_i, H_i, W_i), strides 4, 8, 16, 32.
    """
    backbone = backbone_of(model)
    parameter = next(backbone.parameters())
    with evaluation(backbone):
        return tuple(backbone(as_batch(image).to(parameter.device, parameter.dtype)))


def principal_components(features: Tensor) -> Tensor:
    """The first three principal components of a map's cells, each stretched to [0, 1].

    Args:
        features: (C, H, W) or (1, C, H, W).

    Returns:
        (H, W, 3); each component's sign makes its largest loading positive, so that a picture is reproducible.
    """
    x = features.reshape(*features.shape[-3:]).float()
    H, W = x.shape[1:]
    cells = x.flatten(1).T
    cells = cells - cells.mean(0)
    _, _, axes = torch.linalg.svd(cells, full_matrices=False)
    axes = F.pad(axes[:3], (0, 0, 0, max(3 - len(axes), 0)))
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    scores = cells @ (axes * largest).T  # cells 3
    low, high = scores.amin(0), scores.amax(0)
    return ((scores - low) / (high - low).clamp(min=1e-12)).view(H, W, 3).cpu()


def cosine_similarity(features: Tensor, row: int, column: int) -> Tensor:
    """Likeness of every cell of a map to one of them.

    Args:
        features: (C, H, W) or (1, C, H, W).
        row, column: of the one.

    Returns:
        (H, W) cosines, in [-1, 1].

    Raises:
        ValueError: a cell outside the map.
    """
    x = features.reshape(*features.shape[-3:]).float()
    if not (0 <= row < x.shape[1] and 0 <= column < x.shape[2]):
        raise ValueError(f"The cell must be in a {x.shape[1]} x {x.shape[2]} map, got row {row}, column {column}")
    return F.cosine_similarity(x, x[:, row, column, None, None], dim=0).cpu()
