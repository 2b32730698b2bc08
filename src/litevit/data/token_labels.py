"""Label maps for token labelling (arXiv:2104.10858, as LVT trains): files, and augmentation that moves them along.

One file per training image, in the published layout: `<root>/<class folder>/<image name>.pt`, a tensor (2, k, Y, X)
with the scores and the ids of the k best classes of each cell (published: k = 5, 18 x 18 cells, the whole image).
The augmentation is the published one in its order: flip, RandAugment, RandomResizedCrop, then random erasing. Flips and
the geometric operations of RandAugment move the map as they move the image; the crop is appended as a third slice and
applied by the target builder (`litevit.tasks.token_labeling`), because RoIAlign resizes at the same time.
"""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from litevit.data.classification import Augment, ClassificationData, create_dataset
from litevit.data.labelled_images import ClassificationImages
from litevit.data.posterize import with_posterize_to_black
from litevit.data.sampling import Unreadable
from litevit.files import torch_file

# Output position -> input position, in pixels from the image's corner: (a, b, c, d, e, f) means
# x_in = a x + b y + c, y_in = d x + e y + f (Pillow's affine transform).
Affine = tuple[float, float, float, float, float, float]


class TokenLabelImages(Dataset):
    """Training images with their label maps: (image (3, S, S), packed map (3, k, Y, X)).

    The third slice of a packed map holds, at [0, 0, :4], the crop (top, left, height, width as fractions of the image)
    and, at [0, 0, 5], the true class.
    """

    def __init__(self, data: ClassificationData):
        if data.token_labels is None:
            raise ValueError(
                "Token labelling needs label maps: --data.token_labels DIR (`litevit token-labels` makes them)"
            )
        self.root = Path(data.token_labels)
        if not self.root.is_dir():
            raise FileNotFoundError(f"No label maps at {self.root}: the folder does not exist.")
        images = create_dataset(data, "train")
        if not isinstance(images, ClassificationImages):
            raise ValueError(f"Token labelling needs image files, not {data.path}.")
        self.images = images
        self.transform = TokenLabelTransform(data)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        self.images.transform = None
        item = self.images[index]
        if isinstance(item, Unreadable):
            return item
        image, label = item
        path = label_map_path(self.root, self.images.key(index))
        maps = load_label_map(path)
        if (largest := int(maps[1].max())) >= self.images.num_classes:
            raise ValueError(
                f"{path} has class {largest}, the head has {self.images.num_classes} classes: label maps have to be "
                "made by a classifier of the same classes."
            )
        return self.transform(image, maps, label)


def label_map_path(root: Path, key: str) -> Path:
    """`<class folder>/<image name>.pt` under root, as published; folders in a class folder stay.

    Args:
        key: of the image, see `ClassificationImages.key`.
    """
    name = PurePosixPath(key)
    return root / name.parent / f"{name.stem}.pt"


def load_label_map(path: Path) -> Tensor:
    """Returns: (2, k, Y, X) float32: scores and class ids."""
    try:
        with torch_file(path) as file:
            maps = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"No label map {path}. `litevit token-labels` makes the missing ones and keeps what is there."
        ) from None
    except Exception as error:  # torch raises many kinds for a broken file
        said = str(error)[:200]
        raise ValueError(
            f"{path} is damaged or not a label map: {said}. Delete it; `litevit token-labels` makes what is missing."
        ) from error
    if not isinstance(maps, Tensor) or maps.ndim != 4 or maps.shape[0] != 2:
        raise ValueError(f"{path}: a label map is a tensor (2, k, Y, X), got {getattr(maps, 'shape', type(maps))}.")
    return maps.float()


class TokenLabelTransform:
    """Augments an image together with its label map.

    Args:
        data: its `augment` gives the numbers; colour operations of RandAugment leave the map alone.
    """

    def __init__(self, data: ClassificationData):
        from timm.data.auto_augment import rand_augment_transform
        from timm.data.random_erasing import RandomErasing
        from timm.data.transforms import RandomResizedCropAndInterpolation
        from torchvision import transforms

        augment: Augment = data.augment
        self.flip = augment.hflip
        self.rand_augment: Any = None
        if augment.auto_augment:
            fill = tuple(min(255, round(255 * value)) for value in data.mean)
            hparams = {"translate_const": int(data.image_size * 0.45), "img_mean": fill}
            self.rand_augment = with_posterize_to_black(rand_augment_transform(augment.auto_augment, hparams))
        self.crop = RandomResizedCropAndInterpolation(
            data.image_size, scale=augment.scale, ratio=augment.ratio, interpolation=augment.interpolation
        )
        self.size = data.image_size
        self.to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])
        self.erase: Callable[[Tensor], Tensor] = RandomErasing(
            augment.erase_prob, mode=augment.erase_mode, max_count=augment.erase_count, device="cpu"
        )

    def __call__(self, image: Image.Image, maps: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """Args: maps: (2, k, Y, X). Returns: (3, S, S) and (3, k, Y, X)."""
        from torchvision.transforms import functional as TF

        if random.random() < self.flip:
            image, maps = TF.hflip(image), maps.flip(-1)
        if self.rand_augment is not None:
            for op in np.random.choice(self.rand_augment.ops, self.rand_augment.num_layers):
                image, maps = apply_op(op, image, maps)
        top, left, height, width = self.crop.get_params(image, self.crop.scale, self.crop.ratio)
        interpolation = self.crop.interpolation
        if isinstance(interpolation, (tuple, list)):
            interpolation = random.choice(interpolation)
        W, H = image.size
        crop = (top / H, left / W, height / H, width / W)
        image = TF.resized_crop(image, top, left, height, width, [self.size, self.size], interpolation)
        return self.erase(self.to_tensor(image)), pack(maps, crop, label)


def pack(maps: Tensor, crop: Sequence[float], label: int) -> Tensor:
    """Appends the crop and the true class as a third slice. Returns: (3, k, Y, X)."""
    extra = torch.zeros_like(maps[:1])
    if extra.shape[-1] < 6:
        raise ValueError(f"Label maps need at least 6 columns to carry the crop, got {extra.shape[-1]}.")
    extra[0, 0, 0, :4] = torch.tensor(crop, dtype=maps.dtype)
    extra[0, 0, 0, 5] = label
    return torch.cat([maps, extra])


def apply_op(op: Any, image: Image.Image, maps: Tensor) -> tuple[Image.Image, Tensor]:
    """One operation of timm's RandAugment, drawn as timm draws it, on an image and on its label map."""
    if op.prob < 1.0 and random.random() > op.prob:
        return image, maps
    magnitude = op.magnitude
    if op.magnitude_std == float("inf"):
        magnitude = random.uniform(0, magnitude)
    elif op.magnitude_std > 0:
        magnitude = random.gauss(magnitude, op.magnitude_std)
    magnitude = max(0.0, min(magnitude, op.magnitude_max or 10.0))
    arguments = op.level_fn(magnitude, op.hparams) if op.level_fn is not None else ()
    affine = affine_of(op.name, arguments, image.size)
    image = op.aug_fn(image, *arguments, **op.kwargs)
    return image, maps if affine is None else warp_maps(maps, affine, image.size)


def affine_of(name: str, arguments: Sequence[float], size: tuple[int, int]) -> Affine | None:
    """The geometry of a RandAugment operation on an image of `size` (W, H); None for colour operations."""
    if name == "Rotate":
        W, H = size
        angle = -math.radians(arguments[0])
        a, b, d, e = math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)
        return (a, b, W / 2 - a * W / 2 - b * H / 2, d, e, H / 2 - d * W / 2 - e * H / 2)
    if name == "ShearX":
        return (1, arguments[0], 0, 0, 1, 0)
    if name == "ShearY":
        return (1, 0, 0, arguments[0], 1, 0)
    if name.startswith("TranslateX"):
        return (1, 0, arguments[0] * (size[0] if name.endswith("Rel") else 1), 0, 1, 0)
    if name.startswith("TranslateY"):
        return (1, 0, 0, 0, 1, arguments[0] * (size[1] if name.endswith("Rel") else 1))
    return None


def warp_maps(maps: Tensor, affine: Affine, size: tuple[int, int]) -> Tensor:
    """Warps a label map as an image of `size` (W, H) is warped: nearest cell; outside, score 0 and the edge's classes.

    Args:
        maps: (2, k, Y, X).
    """
    W, H = size
    Y, X = maps.shape[-2:]
    a, b, c, d, e, f = affine
    x = ((torch.arange(X) + 0.5) * W / X).expand(Y, X)
    y = ((torch.arange(Y) + 0.5) * H / Y)[:, None].expand(Y, X)
    grid = torch.stack([(a * x + b * y + c) / W * 2 - 1, (d * x + e * y + f) / H * 2 - 1], -1)[None]
    scores = F.grid_sample(maps[:1], grid, mode="nearest", padding_mode="zeros", align_corners=False)
    classes = F.grid_sample(maps[1:], grid, mode="nearest", padding_mode="border", align_corners=False)
    return torch.cat([scores, classes])
