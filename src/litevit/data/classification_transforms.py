"""What happens to a picture before a classifier sees it: the published augmentation, and the published crop."""

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from litevit.data.config import ClassificationData
from litevit.data.posterize import with_posterize_to_black


def train_transform(data: ClassificationData) -> Callable[[Image.Image], Tensor]:
    from timm.data import create_transform

    augment = data.augment
    if augment.crop == "padded":
        return _small_image_transform(data)
    transform = create_transform(
        input_size=(3, data.image_size, data.image_size),
        is_training=True,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip,
        color_jitter=augment.color_jitter or 0.0,
        auto_augment=augment.auto_augment,
        interpolation=augment.interpolation,
        mean=data.mean,
        std=data.std,
        re_prob=augment.erase_prob,
        re_mode=augment.erase_mode,
        re_count=augment.erase_count,
        use_prefetcher=False,
    )
    return with_posterize_to_black(transform)


def _small_image_transform(data: ClassificationData) -> Callable[[Image.Image], Tensor]:
    """CIFAR's: pad by an eighth, crop, flip, then as for large images."""
    from timm.data.auto_augment import rand_augment_transform
    from timm.data.random_erasing import RandomErasing
    from torchvision import transforms

    augment, size = data.augment, data.image_size
    steps: list[Any] = [transforms.Resize(size), transforms.RandomCrop(size, padding=size // 8)]
    steps.append(transforms.RandomHorizontalFlip(augment.hflip))
    if augment.auto_augment:
        fill = tuple(round(255 * value) for value in data.mean)
        steps.append(rand_augment_transform(augment.auto_augment, {"translate_const": size // 3, "img_mean": fill}))
    steps += [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
    if augment.erase_prob:
        mode, count = augment.erase_mode, augment.erase_count
        steps.append(RandomErasing(augment.erase_prob, mode=mode, max_count=count, device="cpu"))
    return with_posterize_to_black(transforms.Compose(steps))


def eval_transform(data: ClassificationData) -> Callable[[Image.Image], Tensor]:
    """The published protocol: shorter side to int(size / crop_pct), centre crop; at crop_pct 1 a square resize."""
    return centre_transform(
        data.image_size,
        crop_pct=data.crop_pct,
        crop_mode=crop_mode(data.crop_pct),
        interpolation=data.eval_interpolation,
        mean=data.mean,
        std=data.std,
    )


def crop_mode(crop_pct: float) -> str:
    """Without a crop both sides are resized, whatever the shape of the picture."""
    return "squash" if crop_pct == 1.0 else "center"


def centre_transform(
    size: int, *, crop_pct: float, crop_mode: str, interpolation: str, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Image.Image], Tensor]:
    """What evaluation and `predict` do to a picture before a classifier sees it: (3, size, size), normalised."""
    from timm.data import create_transform
    from torchvision.transforms import Compose

    transform = create_transform(
        input_size=(3, size, size),
        is_training=False,
        interpolation=interpolation,
        mean=tuple(mean),
        std=tuple(std),
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        use_prefetcher=False,
    )
    return transform if crop_mode == "squash" else Compose([_cut_ends, *transform.transforms])


MAX_ASPECT = 8


def _cut_ends(image: Image.Image) -> Image.Image:
    """A strip of more than 8 : 1 loses its ends before it is resized: the centre crop does not see them, and resizing
    them could take any memory."""
    W, H = image.size
    longest = MAX_ASPECT * min(W, H)
    if max(W, H) <= longest:
        return image
    dw, dh = max(W - longest, 0) // 2, max(H - longest, 0) // 2
    return image.crop((dw, dh, W - dw, H - dh))
