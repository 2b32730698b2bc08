"""Makes label maps for token labelling with any classifier, so that nobody depends on a download."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from litevit.checkpoints.published import is_file, weights_word
from litevit.data.classification import ClassificationData, create_dataset, resolve_classes
from litevit.data.labelled_images import ClassificationImages
from litevit.data.token_labels import label_map_path
from litevit.files import whole_file
from litevit.jobs.dense_models import task_of
from litevit.jobs.predict import load_classifier


def make_token_labels(
    model: str | nn.Module,
    data: str,
    out: str | Path,
    *,
    weights: str | None = None,
    num_classes: int | None = None,
    reader: str = "",
    split: str = "train",
    image_size: int = 576,
    grid: int = 18,
    k: int = 5,
    batch_size: int = 16,
    workers: int = 4,
    device: str | torch.device = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Writes one label map per training image; existing ones are kept, so an interrupted run is continued.

    Each image is resized to a square, whole, and the classifier's head is applied to every position of its last map
    (no pooling); the logits are resized to `grid` x `grid`, and the k best classes of each cell are kept.

    Args:
        model: a name of ours, timm's as `timm/NAME` (with timm's weights unless `weights` says otherwise), or a module.
        weights: of our model: "official", a file, or the folder of a training run.
        num_classes: of the checkpoint of our model, where it is not the published one's.
        data: a folder, tar or shards of images, as for training.
        image_size: 576 gives an 18 x 18 map at stride 32.
        on_progress: called with images done and images to do.

    Returns:
        How many maps were written.
    """
    if isinstance(model, str) and (task := task_of(model, weights)) != "classification":
        raise ValueError(f"{model} does {task}: token labels are made by a classifier")
    source = resolve_classes(ClassificationData(path=data, reader=reader, train_split=split, num_classes=0))
    network, mean, std = _network(model, weights, num_classes)
    network = network.eval().to(device)
    images = create_dataset(_squashed(source, image_size, mean, std, split), "eval")
    if not isinstance(images, ClassificationImages):
        raise ValueError(f"Token labels need image files, not {data}.")
    out = Path(out)
    files = [label_map_path(out, images.key(i)) for i in range(len(images))]
    if doubled := [file for file, count in Counter(files).items() if count > 1]:
        raise ValueError(
            f"{len(doubled)} label maps would be shared by several images, such as {doubled[0]}: rename them."
        )
    missing = [i for i, file in enumerate(files) if not _is_there(file)]
    _remove_temporaries(out, {files[i].name[:60] for i in missing})
    loader = DataLoader(_Named(images, missing), batch_size=batch_size, num_workers=workers)
    done = 0
    for batch, indices in loader:
        with torch.no_grad():
            maps = label_maps(network, batch.to(device), grid=grid, k=k).cpu()
        for label_map, index in zip(maps, indices.tolist()):
            _write(files[index], label_map)
        done += len(indices)
        if on_progress:
            on_progress(done, len(missing))
    return done


def label_maps(model: nn.Module, images: Tensor, *, grid: int = 18, k: int = 5) -> Tensor:
    """Args: images: (B, 3, H, W), normalised. Returns: (B, 2, k, grid, grid): probabilities and class ids.

    float16 where it holds every class id exactly (up to 2,048 classes), else float32.
    """
    logits = dense_logits(model, images).float()
    if logits.shape[-2:] != (grid, grid):
        logits = F.interpolate(logits, size=(grid, grid), mode="bilinear", align_corners=False)
    classes = logits.shape[1]
    scores, ids = logits.softmax(1).topk(min(k, classes), dim=1)
    dtype = torch.float16 if classes <= 2048 else torch.float32
    return torch.stack([scores, ids.to(scores.dtype)], 1).to(dtype)


def dense_logits(model: Any, images: Tensor) -> Tensor:
    """The classifier at every position of its last map. Returns: (B, K, h, w)."""
    if hasattr(model, "aux_head"):  # LVT: it was trained for exactly this
        _, tokens = model(images, return_tokens=True)
        stride = model.backbone.features[-1].stride
        h, w = (-(-side // stride) for side in images.shape[-2:])
        return tokens.transpose(1, 2).unflatten(2, (h, w))
    if hasattr(model, "forward_pooled"):  # ours
        if getattr(model.backbone, "has_class_token", False):
            raise ValueError("This model classifies its class token, not its map; choose one that pools, as litv2_s.")
        x = model.forward_features(images).permute(0, 2, 3, 1)
        return model.head(model.norm(x)).permute(0, 3, 1, 2)
    features = model.forward_features(images)  # timm
    if features.ndim == 3:  # tokens: prefix tokens first
        tokens = features[:, getattr(model, "num_prefix_tokens", 0) :]
        side = round(tokens.shape[1] ** 0.5)
        if side * side != tokens.shape[1]:
            raise ValueError(f"The model's {tokens.shape[1]} tokens are no square map; choose a convolutional one.")
        cells = tokens.reshape(-1, 1, tokens.shape[-1])
        shape: tuple[int, ...] = (len(images), side, side)
    elif str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC"):
        shape = tuple(features.shape[:3])
        cells = features.reshape(-1, 1, 1, features.shape[-1])
    else:
        features = features.permute(0, 2, 3, 1)
        shape = tuple(features.shape[:3])
        cells = features.reshape(-1, features.shape[-1], 1, 1)
    return model.forward_head(cells).unflatten(0, shape).permute(0, 3, 1, 2)


class _Named(Dataset):
    def __init__(self, images: ClassificationImages, indices: list[int]):
        self.images, self.indices = images, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        index = self.indices[position]
        return self.images[index][0], index


def _network(model: str | nn.Module, weights: str | None, num_classes: int | None) -> tuple[nn.Module, Any, Any]:
    default = ClassificationData()
    if isinstance(model, nn.Module):
        return model, default.mean, default.std
    if weights_word(weights) is None and not (weights is None and model.startswith("timm/")):
        raise ValueError(f"{model} without weights would label at random: give --weights official, or a file.")
    if model.startswith("timm/"):
        import timm
        from timm.data import resolve_model_data_config

        network = timm.create_model(model.removeprefix("timm/"), pretrained=not is_file(weights))
        if weights is not None and is_file(weights):
            timm.models.load_checkpoint(network, weights)
        config = resolve_model_data_config(network)
        return network, config["mean"], config["std"]
    network, prepared = load_classifier(model, weights, num_classes=num_classes)
    return network, prepared.mean, prepared.std


def _squashed(source: ClassificationData, image_size: int, mean: Any, std: Any, split: str) -> ClassificationData:
    return ClassificationData(
        path=source.path,
        reader=source.reader,
        num_classes=source.num_classes,
        eval_split=split,
        image_size=image_size,
        crop_pct=1.0,
        mean=tuple(mean),
        std=tuple(std),
    )


def _is_there(file: Path) -> bool:
    """A power cut can leave the name of a file without its content."""
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


def _remove_temporaries(out: Path, names: set[str]) -> None:
    """What killed processes have left of these maps."""
    for left in out.rglob(".*.tmp"):
        if left.name[1:].rpartition(".tmp")[0].rpartition(".")[0] in names:
            left.unlink(missing_ok=True)


def _write(path: Path, label_map: Tensor) -> None:
    with whole_file(path, fails_with=(RuntimeError,)) as temporary:  # how torch reports a full disk
        torch.save(label_map.clone(), temporary)
