"""The one judge of all formats: an exported file must be the function that the model is.

Judged are at least three sizes (one odd, none the traced one) x three batches x (noise, images, extreme values), where
the file leaves them free. The tolerance is derived: the model is run in float32 and in float64, and the difference is
what rounding does to this output on these images. Another order of summation, in another engine, may differ by a few
times that.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from litevit.deploy.graph import Difference, Graph
from litevit.deploy.preprocess import PreprocessedGraph
from litevit.deploy.shapes import InputShape

BATCHES = (1, 2, 3)
# Of 255, from Pillow's result: its weights are integers of 22 bits, so that in each of its two passes a half may be
# rounded the other way.
LEVELS = 2.001
KINDS = ("noise", "images", "extreme")
PILLOW = "Pillow"  # kind of the check that asks for its resizing


@dataclass(frozen=True)
class Check:
    """One comparison of the file with the model."""

    batch: int
    size: tuple[int, int]
    kind: str  # of the images
    output: str  # the one that came nearest to its tolerance, or passed it
    worst: float  # largest difference
    tolerance: float
    ok: bool

    def __str__(self) -> str:
        H, W = self.size
        if self.kind == PILLOW:
            return (
                f"the resized image differs from Pillow's by {self.worst:.3g} of 255 (tolerance {self.tolerance:.3g}), "
                f"batch {self.batch}, {H} x {W}"
            )
        return (
            f"output {self.output!r} differs by {self.worst:.3g} (tolerance {self.tolerance:.3g}) "
            f"on {self.kind}, batch {self.batch}, {H} x {W}"
        )


def sizes(shape: InputShape) -> list[tuple[int, int]]:
    """Heights and widths to judge at."""
    if shape.size is not None:
        return [shape.size]
    if shape.uint8:  # smaller and larger than what they are resized to, flat and tall
        return [(61, 175), (301, 227), (160, 640)]
    s = shape.smallest
    return [(s, s + 32), (s + 61, s + 35), (2 * s, s + 96)]


def images_of(kind: str, count: int, size: tuple[int, int], *, uint8: bool, photos: Sequence[Image.Image]) -> Tensor:
    """(count, 3, H, W) images, normalised or uint8.

    Args:
        kind: "noise"; "images": `photos`, or drawn scenes where there are none; "extreme": a chess board of black and
            white pixels, one white pixel on black, both with a slope (on a periodic picture detections tie, and either
            of two that suppress each other may stay), and noise ten times as large as images are (uint8: 0 or 255).
        photos: RGB.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of images {kind!r}. Known: {', '.join(KINDS)}.")
    H, W = size
    random = torch.Generator().manual_seed(7 * H + W)
    if kind == "noise":
        if uint8:
            return torch.randint(0, 256, (count, 3, H, W), dtype=torch.uint8, generator=random)
        return torch.randn(count, 3, H, W, generator=random)
    if kind == "images":
        pixels = torch.stack([_photo(i, size, photos) for i in range(count)])
        return pixels if uint8 else (pixels.float() - 120) / 58
    slope = 40 * torch.arange(H)[:, None] // H + 20 * torch.arange(W) // W  # 0 to 58
    board = ((torch.arange(H)[:, None] + torch.arange(W)) % 2 * 255 - slope).abs()
    point = slope.clone()
    point[H // 2, W // 3] = 255
    loud = torch.randint(0, 2, (3, H, W), generator=random) * 255
    extremes = [board.expand(3, H, W), point.expand(3, H, W), loud]
    pixels = torch.stack([extremes[i % 3] for i in range(count)])
    if uint8:
        return pixels.to(torch.uint8)
    found = (pixels.float() - 120) / 58
    found[2::3] = 10 * torch.randn(3, H, W, generator=random)
    return found


def _photo(index: int, size: tuple[int, int], photos: Sequence[Image.Image]) -> Tensor:
    H, W = size
    if photos:
        image = photos[index % len(photos)].convert("RGB").resize((W, H), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
    from litevit.data.scenes import ScenesConfig, draw_scene

    config = ScenesConfig(height=H, width=W, empty_rate=0.0)
    return torch.from_numpy(draw_scene(index, config).image).permute(2, 0, 1)


Run = Callable[[Tensor], dict[str, Tensor]]
Outputs = dict[str, Tensor]


def judge(
    graph: Graph,
    run: Run,
    shape: InputShape,
    *,
    photos: Sequence[Image.Image] = (),
    batches: Sequence[int] = BATCHES,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Check]:
    """Compares a file with its model.

    Args:
        graph: of the model.
        run: the file: images to named outputs.
        photos: images for the kind "images".
    """
    if isinstance(graph, PreprocessedGraph):
        for size in sizes(shape):
            pictures = [images_of(kind, 2, size, uint8=True, photos=photos) for kind in ("images", "noise")]
            levels = graph.levels_from_pillow(torch.cat(pictures))
            yield Check(4, size, PILLOW, "pixels", levels, LEVELS, levels <= LEVELS)
    exact = copy.deepcopy(graph).double()
    batches = batches if shape.batch is None else (shape.batch,)
    for size in sizes(shape):
        seen: dict[tuple[str, int], tuple[Outputs, Outputs, list[Difference]]] = {}
        for kind in KINDS:
            progress(f"{kind} at {size[0]} x {size[1]}")
            images = images_of(kind, max(batches), size, uint8=shape.uint8, photos=photos)
            ours = graph.reference(images)
            best = exact.reference(images if shape.uint8 else images.double())
            for batch in batches:
                found = run(images[:batch])
                mine = {name: x[:batch] for name, x in ours.items()}
                differences = graph.compare(found, mine, {name: x[:batch] for name, x in best.items()})
                seen[kind, batch] = found, mine, differences
                yield _check(differences, batch, size, kind)
        for batch in batches:
            yield _depends_on_input(seen["noise", batch], seen["images", batch], batch, size)


def _check(differences: Sequence[Difference], batch: int, size: tuple[int, int], kind: str) -> Check:
    """The output that comes nearest to its tolerance."""
    far = max(differences, key=lambda d: d.share)
    return Check(batch, size, kind, far.output, far.worst, far.tolerance, far.share <= 1)


def _depends_on_input(
    noise: tuple[Outputs, Outputs, list[Difference]],
    images: tuple[Outputs, Outputs, list[Difference]],
    batch: int,
    size: tuple[int, int],
) -> Check:
    """Whether other images give another answer: a traced graph can have lost its input and still agree once.

    Asked of the output that the model itself changes most, in tolerances: the file must change it by more than one.
    """
    asked, most = Check(batch, size, "other images", "", 0.0, 0.0, True), -1.0
    for a, b in zip(noise[2], images[2]):
        tolerance = a.tolerance + b.tolerance
        if a.output not in noise[1] or not tolerance > 0:  # no tensor, or one that is wrong already
            continue
        model = _change(noise[1][a.output], images[1][a.output])
        if model / tolerance > most:
            change = _change(noise[0][a.output], images[0][a.output])
            asked = Check(
                batch, size, "other images", a.output, change, tolerance, change > tolerance or model <= tolerance
            )
            most = model / tolerance
    return asked


def _change(x: Tensor, y: Tensor) -> float:
    if x.shape != y.shape:
        return float("inf")
    return float((x.double() - y.double()).abs().nan_to_num(0.0).max()) if x.numel() else 0.0


@torch.no_grad()
def agreement(graph: Graph, run: Run, images: Sequence[Tensor]) -> dict[str, float]:
    """What a user's own images say: the share of equal answers of the file and the model.

    Args:
        images: batches as the file takes them; only the first image of each is looked at.

    Returns:
        `images`, and `top1` (classes), `pixels` and `miou` (segmenters: of the file's map against the model's) or
        `detections` (detectors: share that both find); nothing without images or for other tasks.
    """
    equal = pixels = 0.0
    both = either = torch.zeros(1)
    for batch in images:
        ours, found = graph.reference(batch), run(batch)
        if graph.task == "classification":
            equal += float(ours["logits"][0].argmax() == found["logits"][0].argmax())
        elif graph.task == "semantic segmentation":
            x, y = ours["logits"][0].argmax(0).flatten(), found["logits"][0].argmax(0).flatten()
            K = ours["logits"].shape[1]
            hits = torch.bincount(x[x == y], minlength=K)
            both = both + hits
            either = either + torch.bincount(x, minlength=K) + torch.bincount(y, minlength=K) - hits
            pixels += float((x == y).double().mean())
        elif "count" in ours:
            lost = next(d for d in graph.compare(found, ours, ours) if d.output == "detections")
            equal += 1 - lost.worst
    n = len(images)
    if n == 0:
        return {}
    if graph.task == "classification":
        return {"images": n, "top1": equal / n}
    if graph.task == "semantic segmentation":
        seen = either > 0
        return {"images": n, "pixels": pixels / n, "miou": float((both[seen] / either[seen]).mean())}
    return {"images": n, "detections": equal / n} if "count" in graph.names else {}


@torch.no_grad()
def with_lively_heads(model: nn.Module) -> nn.Module:
    """A model of random weights whose heads are spread out, in place, in evaluation mode.

    A detector starts with one score everywhere, and finds nothing: its files would be proven on empty lists.
    """
    random = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        spread = 1 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.0
        if "cls_logits" in name or "objectness" in name:
            bias = torch.full_like(parameter, -1.0)
            parameter.copy_(6 * spread * torch.randn(parameter.shape, generator=random) if spread else bias)
        elif name.endswith("deltas.weight"):
            parameter.copy_(0.3 * spread * torch.randn(parameter.shape, generator=random))
        elif name.endswith(("semantic_head.classifier.weight", "mask_head.logits.weight")):
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    return model.eval()
