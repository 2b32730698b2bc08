"""Scenes: an embedded data set for detection, panoptic and semantic segmentation, drawn from a seed.

Textured things (discs, squares, triangles, ...) of many sizes, tilted and overlapping, lie on a ground of one to three
textured kinds of stuff. A thing's class is its shape; most things also wear the texture of their class, as animals do,
and the others any texture, in any colours. A stuff's class is its texture and tone. The truth is exact to the pixel:
boxes and masks show what is visible, and instance, panoptic and semantic maps agree. Some scenes are empty and some
have a crowd (many small discs under one `iscrowd` region), as in COCO.

`write_coco` writes COCO 2017's own layout and `write_ade` ADE20K's; scene `i` is a function of (seed, i) and the
config.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from litevit.data.coco_masks import write_panoptic_png
from litevit.data.config import ScenesConfig as ScenesConfig
from litevit.data.scene_patterns import GROUNDS, SHAPES, TEXTURES, Array, Rng, noise, plane


@dataclass
class Segment:
    """One thing, crowd, or kind of stuff of a scene."""

    label: int  # index into things + stuff
    mask: Array  # (H, W) bool, the visible part
    isthing: bool
    iscrowd: bool = False


@dataclass
class Scene:
    """A picture and the whole truth about it."""

    image: Array  # (H, W, 3) uint8
    segments: list[Segment] = field(default_factory=list)  # things, then stuff

    def panoptic_ids(self) -> Array:
        """(H, W) int64: 1 + the index of the segment, 0 where the truth is void."""
        ids = np.zeros(self.image.shape[:2], dtype=np.int64)
        for number, segment in enumerate(self.segments, start=1):
            ids[segment.mask] = number
        return ids

    def semantic(self) -> Array:
        """(H, W) uint8: 1 + label, 0 where the truth is void (ADE20K's convention)."""
        labels = np.zeros(self.image.shape[:2], dtype=np.uint8)
        for segment in self.segments:
            labels[segment.mask] = segment.label + 1
        return labels


def draw_scene(index: int, config: ScenesConfig | None = None, *, seed: int = 0) -> Scene:
    """Scene `index` of the endless set that (config, seed) is.

    Args:
        index: from 0.
        config: sizes, classes, how many things; None: 128 x 128, three shapes on four grounds.
        seed: of the set.

    Returns:
        The picture (H, W, 3) uint8 and its segments, things before stuff.

    Raises:
        ValueError: unknown names of shapes or grounds, or a size below 32.
    """
    config = config or ScenesConfig()
    _check(config)
    rng = np.random.default_rng((seed, index))
    height, width = config.height, config.width
    kinds, void = _lay_ground(rng, config)
    image = np.zeros((height, width, 3), dtype=np.float32)
    for kind in np.unique(kinds):
        pattern, dark, light = GROUNDS[config.stuff[kind]]
        jitter = rng.uniform(-25, 25, size=(2, 3))
        area = kinds == kind
        image[area] = _mix(pattern(rng, height, width)[area], np.array(dark) + jitter[0], np.array(light) + jitter[1])

    objects: list[Segment] = []
    if rng.random() >= config.empty_rate:
        for _ in range(int(rng.integers(config.objects[0], config.objects[1] + 1))):
            _add_thing(rng, config, image, objects)
    if rng.random() < config.crowd_rate:
        _add_crowd(rng, config, image, objects)

    covered = np.zeros((height, width), dtype=bool)
    for thing in objects:
        covered |= thing.mask
    stuff = [
        Segment(label=len(config.things) + int(kind), mask=mask, isthing=False)
        for kind in np.unique(kinds)
        if (mask := (kinds == kind) & ~covered & ~void).any()
    ]
    image *= rng.uniform(0.8, 1.15)  # exposure
    image += 4 * rng.standard_normal(size=image.shape, dtype=np.float32)  # sensor
    return Scene(np.clip(image, 0, 255).astype(np.uint8), objects + stuff)


def _check(config: ScenesConfig) -> None:
    for name, chosen, known in (("things", config.things, SHAPES), ("stuff", config.stuff, GROUNDS)):
        if not chosen or len(set(chosen)) < len(chosen) or set(chosen) - set(known):
            raise ValueError(f"scenes: {name} must be different names out of {', '.join(known)}, got {chosen}")
    if min(config.height, config.width) < 32:
        raise ValueError(f"scenes: height and width must be at least 32, got {config.height} x {config.width}")
    if not 0 <= config.objects[0] <= config.objects[1]:
        raise ValueError(f"scenes: objects must be (least, most) with 0 <= least <= most, got {config.objects}")
    if not 0 <= config.typical <= 1:
        raise ValueError(f"scenes: typical must be in [0, 1], got {config.typical}")


def _mix(pattern: Array, dark: Array, light: Array) -> Array:
    return (dark + pattern[..., None] * (light - dark)).astype(np.float32)


def _lay_ground(rng: Rng, config: ScenesConfig) -> tuple[Array, Array]:
    """Index of the stuff at every pixel, and the void seams between two of them."""
    height, width = config.height, config.width
    regions = int(rng.integers(1, min(3, len(config.stuff)) + 1))
    chosen = rng.choice(len(config.stuff), size=regions, replace=False)
    u, _ = plane(rng, height, width)
    field_ = u / u.std() + 1.2 * noise(rng, height, width, min(height, width) / 2)
    cuts = np.quantile(field_, np.sort(rng.uniform(0.15, 0.85, size=regions - 1))) if regions > 1 else np.array([])
    kinds = chosen[np.searchsorted(cuts, field_)]
    void = np.zeros((height, width), dtype=bool)
    void[1:] |= kinds[1:] != kinds[:-1]
    void[:, 1:] |= kinds[:, 1:] != kinds[:, :-1]
    return kinds, void


def _paint(rng: Rng, config: ScenesConfig, name: str, image: Array, mask: Array) -> None:
    """Fill a thing with a texture of two colours that stand out from what lies beneath."""
    beneath = image[mask].mean(axis=0)
    while True:
        colour = rng.uniform(10, 245, size=3)
        second = colour + rng.uniform(-90, 90, size=3)
        if min(np.abs(colour - beneath).sum(), np.abs(second - beneath).sum()) > 150:
            break
    texture = TEXTURES[name if rng.random() < config.typical else str(rng.choice(list(TEXTURES)))]
    image[mask] = _mix(texture(rng, *mask.shape)[mask], colour, second)


def _add_thing(rng: Rng, config: ScenesConfig, image: Array, objects: list[Segment]) -> None:
    """Put one more thing on top; give it up when ten places would hide too much of another one."""
    height, width = config.height, config.width
    y, x = np.mgrid[0:height, 0:width] + 0.5
    label = int(rng.integers(len(config.things)))
    for _ in range(10):
        radius = np.exp(rng.uniform(*np.log(config.radius))) * min(height, width)
        cx, cy = rng.uniform(0.3 * radius, width - 0.3 * radius), rng.uniform(0.3 * radius, height - 0.3 * radius)
        angle = rng.uniform(-config.turn, config.turn)
        dx, dy = (x - cx) / radius, (y - cy) / radius
        mask = SHAPES[config.things[label]](
            dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        )
        # At the border at least 0.8 r^2 of the shape's 1.7 to 2.3 r^2 must be in the picture.
        if mask.sum() < max(0.8 * radius**2, 20):
            continue
        left = [thing.mask & ~mask for thing in objects]
        if all(rest.sum() >= max(0.65 * thing.mask.sum(), 24) for rest, thing in zip(left, objects)):
            for thing, rest in zip(objects, left):
                thing.mask = rest
            _paint(rng, config, config.things[label], image, mask)
            objects.append(Segment(label=label, mask=mask, isthing=True))
            return


def _add_crowd(rng: Rng, config: ScenesConfig, image: Array, objects: list[Segment]) -> None:
    """A swarm of small things of the first class, on free ground, as one crowd region."""
    height, width = config.height, config.width
    y, x = np.mgrid[0:height, 0:width] + 0.5
    free = np.ones((height, width), dtype=bool)
    for thing in objects:
        free &= ~thing.mask
    shape = SHAPES[config.things[0]]
    centre = rng.uniform(0.2, 0.8, size=2) * (width, height)
    radius = 0.025 * min(height, width)
    crowd = np.zeros((height, width), dtype=bool)
    for _ in range(int(rng.integers(8, 15))):
        cx, cy = centre + rng.normal(0, 3.5 * radius, size=2)
        member = shape((x - cx) / radius, (y - cy) / radius) & free
        if member.any():
            _paint(rng, config, config.things[0], image, member)
            crowd |= member
    if crowd.sum() >= 16:
        objects.append(Segment(label=0, mask=crowd, isthing=True, iscrowd=True))


def mask_to_segmentation(mask: Array) -> list[list[int]] | dict[str, Any]:
    """COCO's segmentation of a mask.

    Where every row is one run that touches the next: its outline along pixel edges, a polygon from which COCO's
    rasteriser gives exactly the mask back. Otherwise uncompressed run lengths.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask.argmax(axis=1)[rows], (mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1))[rows]
    whole = (mask.sum(axis=1)[rows] == last - first + 1).all() and len(rows) == rows[-1] - rows[0] + 1
    if whole and (first[1:] <= last[:-1]).all() and (first[:-1] <= last[1:]).all():
        right = [point for y, x in zip(rows, last) for point in ((x + 1, y), (x + 1, y + 1))]
        left = [point for y, x in zip(rows, first) for point in ((x, y), (x, y + 1))][::-1]
        return [[int(v) for point in right + left for v in point]]
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(bounds).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def _box(mask: Array) -> list[int]:
    """xywh of the visible pixels."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(v) for v in (xs[0], ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1)]


def _into(root: Path, write: Callable[[Path], None]) -> Path:
    """Writes a folder beside its place, then moves it there: a folder of that name is always a whole one."""
    if root.exists():
        raise ValueError(f"{root} exists; scenes are written into a new folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        write(temporary)
        temporary.chmod(0o755)
        temporary.rename(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return root


def scene_categories(config: ScenesConfig) -> list[dict[str, Any]]:
    """COCO's `categories` of scenes: things 1, 3, 5, ..., stuff 101, 103, ..."""
    return [
        {"id": first + 2 * i, "name": name, "isthing": int(kind == "thing"), "supercategory": kind}
        for kind, first, names in (("thing", 1, config.things), ("stuff", 101, config.stuff))
        for i, name in enumerate(names)
    ]


def write_coco(root: str | Path, *, train: int, val: int, config: ScenesConfig | None = None, seed: int = 0) -> Path:
    """Scenes 0..train-1 and train..train+val-1 in COCO 2017's layout, with instance and panoptic annotations.

    Category ids have gaps, as COCO's have: things 1, 3, 5, ..., stuff 101, 103, ...

    Args:
        root: the new folder.
        train, val: how many scenes.
        config, seed: as of `draw_scene`.

    Returns:
        The folder, which is written whole or not at all.

    Raises:
        ValueError: it exists, or as `draw_scene`.
    """
    config = config or ScenesConfig()
    categories = scene_categories(config)
    ids = [category["id"] for category in categories]

    def write(folder: Path) -> None:
        for split, numbers in (("train2017", range(train)), ("val2017", range(train, train + val))):
            maps = folder / "annotations" / f"panoptic_{split}"
            (folder / split).mkdir(parents=True)
            maps.mkdir(parents=True)
            images: list[dict[str, Any]] = []
            instances: list[dict[str, Any]] = []
            panoptic: list[dict[str, Any]] = []
            for number in numbers:
                scene, image_id = draw_scene(number, config, seed=seed), number + 1
                name = f"{image_id:012d}"
                PILImage.fromarray(scene.image).save(folder / split / f"{name}.jpg", quality=95)
                write_panoptic_png(maps / f"{name}.png", scene.panoptic_ids())
                images.append(
                    {"id": image_id, "file_name": f"{name}.jpg", "height": config.height, "width": config.width}
                )
                entries = [
                    {
                        "category_id": ids[segment.label],
                        "iscrowd": int(segment.iscrowd),
                        "bbox": _box(segment.mask),
                        "area": int(segment.mask.sum()),
                    }
                    for segment in scene.segments
                ]
                panoptic.append(
                    {
                        "image_id": image_id,
                        "file_name": f"{name}.png",
                        "segments_info": [{"id": k, **entry} for k, entry in enumerate(entries, start=1)],
                    }
                )
                for segment, entry in zip(scene.segments, entries):
                    if segment.isthing:
                        shape = mask_to_segmentation(segment.mask)
                        instances.append(
                            {"id": len(instances) + 1, "image_id": image_id, **entry, "segmentation": shape}
                        )
            info = {"description": "litevit scenes", "seed": seed}
            for kind, annotations, listed in (
                ("instances", instances, [c for c in categories if c["isthing"]]),
                ("panoptic", panoptic, categories),
            ):
                content = {"info": info, "images": images, "annotations": annotations, "categories": listed}
                (folder / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(content), encoding="utf-8")

    return _into(Path(root), write)


def write_ade(root: str | Path, *, train: int, val: int, config: ScenesConfig | None = None, seed: int = 0) -> Path:
    """The same scenes in ADE20K's layout: index PNGs (0 = ignore, 1..K = things then stuff) and `classes.json`.

    Args:
        root: the new folder.
        train, val: how many scenes.
        config, seed: as of `draw_scene`.

    Returns:
        The folder, which is written whole or not at all.

    Raises:
        ValueError: it exists, or as `draw_scene`.
    """
    config = config or ScenesConfig()

    def write(folder: Path) -> None:
        for split, numbers in (("training", range(train)), ("validation", range(train, train + val))):
            (folder / "images" / split).mkdir(parents=True)
            (folder / "annotations" / split).mkdir(parents=True)
            for number in numbers:
                scene, name = draw_scene(number, config, seed=seed), f"{number + 1:012d}"
                PILImage.fromarray(scene.image).save(folder / "images" / split / f"{name}.jpg", quality=95)
                PILImage.fromarray(scene.semantic()).save(folder / "annotations" / split / f"{name}.png")
        names = {str(i): name for i, name in enumerate(config.things + config.stuff, start=1)}
        (folder / "classes.json").write_text(json.dumps(names, indent=1), encoding="utf-8")

    return _into(Path(root), write)
