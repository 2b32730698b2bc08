"""What dense models find, collected and written: COCO's results, ADE20K's index PNGs, COCO's panoptic JSON and PNGs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from litevit.checkpoints.files import Pathlike
from litevit.data.class_names import ClassList
from litevit.data.coco_masks import encode_masks, mask_codec
from litevit.files import write_json
from litevit.jobs import draw
from litevit.jobs.dense_models import INSTANCES, PANOPTIC, SEMANTIC, DenseModel
from litevit.metrics.panoptic import PanopticWriter
from litevit.metrics.segmentation import write_index_png


@dataclass(frozen=True)
class Row:
    """One line of what was found: a detection, a class of a semantic map, or a segment."""

    name: str
    score: float | None = None
    share: float | None = None  # of the image's pixels
    box: tuple[float, float, float, float] | None = None  # xyxy


@dataclass(frozen=True)
class Found:
    """What was found in one image or frame, or why nothing was."""

    path: str
    frame: int | None = None
    rows: tuple[Row, ...] = ()
    error: str | None = None
    columns: Mapping[str, Any] | None = None  # see `litevit.jobs.dense_columns`

    def to_dict(self) -> dict[str, Any]:
        """With `path`, `error`, the frame of a video, and the columns."""
        frame = {} if self.frame is None else {"frame": self.frame}
        return {"path": self.path, **frame, "error": self.error, **(self.columns or {})}


def image_id(name: str) -> int | str:
    """COCO's ids are the numbers in its file names."""
    return int(name) if name.isascii() and name.isdecimal() else name


class DetectionResults:
    """Objects: COCO's results.

    Args:
        folder: where `save` writes; None: nowhere.
        keep: keep the entries for `content` and `save`.
        masks: the objects have masks.
    """

    def __init__(self, classes: ClassList, folder: Path | None = None, *, keep: bool = True, masks: bool = False):
        self.classes, self.folder, self.keep = classes, folder, keep
        self.entries: list[dict[str, Any]] = []
        if keep and masks:
            mask_codec()  # missing? say so before hours of prediction

    def add(self, name: str, found: Mapping[str, Any]) -> tuple[Row, ...]:
        boxes, scores, labels = found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist()
        if self.keep:
            rles = encode_masks(found["masks"]) if "masks" in found else None
            for n, ((x1, y1, x2, y2), score, label) in enumerate(zip(boxes, scores, labels)):
                box = [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]
                entry = {"image_id": image_id(name), "category_id": self.classes.ids[label], "bbox": box}
                entry["score"] = round(score, 5)
                self.entries.append(entry if rles is None else entry | {"segmentation": rles[n]})
        return tuple(Row(self.classes.names[k], score, box=tuple(box)) for k, score, box in zip(labels, scores, boxes))

    def draw(self, image: Image.Image, found: Mapping[str, Any], panel_width: int | None = None) -> Image.Image:
        texts = [
            f"{self.classes.names[label]} {score:.2f}"
            for label, score in zip(found["labels"].tolist(), found["scores"].tolist())
        ]
        return draw.draw_detections(image, found["boxes"], texts, masks=found.get("masks"))

    def content(self) -> list[dict[str, Any]]:
        return self.entries

    def save(self) -> None:
        if self.folder is not None:
            write_json(self.folder / "results.json", self.entries)


class SemanticResults:
    """Class maps: index PNGs in ADE20K's layout, and the classes of each image."""

    def __init__(self, classes: ClassList, folder: Path | None = None, *, keep: bool = True):
        self.classes, self.folder, self.keep = classes, folder, keep
        self.entries: list[dict[str, Any]] = []

    def add(self, name: str, found: Mapping[str, Any]) -> tuple[Row, ...]:
        labels: Tensor = found["semantic"]
        pixels = torch.bincount(labels.flatten(), minlength=len(self.classes.names))
        present = [k for k in pixels.argsort(descending=True).tolist() if pixels[k] > 0]
        if self.folder is not None:
            (self.folder / "index").mkdir(parents=True, exist_ok=True)
            write_index_png(self.folder / "index" / f"{name}.png", torch.tensor(self.classes.ids)[labels.cpu()])
        if self.keep:
            classes = [
                {"id": self.classes.ids[k], "name": self.classes.names[k], "pixels": int(pixels[k])} for k in present
            ]
            self.entries.append({"image_id": image_id(name), "size": list(labels.shape), "classes": classes})
        return tuple(Row(self.classes.names[k], share=float(pixels[k]) / labels.numel()) for k in present)

    def draw(self, image: Image.Image, found: Mapping[str, Any], panel_width: int | None = None) -> Image.Image:
        return draw.draw_map(image, found["semantic"], self.classes.names, panel_width=panel_width)

    def content(self) -> list[dict[str, Any]]:
        return self.entries

    def save(self) -> None:
        if self.folder is not None:
            write_json(self.folder / "results.json", self.entries)


class PanopticResults:
    """Segments: COCO's panoptic results."""

    def __init__(self, classes: ClassList, folder: Path | None = None, *, keep: bool = True):
        self.classes, self.folder, self.keep = classes, folder, keep
        self.writer = None
        if folder is not None:
            self.writer = PanopticWriter(folder / "panoptic", category_ids=classes.ids)
        self.entries: list[dict[str, Any]] = []

    def add(self, name: str, found: Mapping[str, Any]) -> tuple[Row, ...]:
        ids, segments = found["panoptic"], found["segments_info"]
        if self.writer is not None:
            self.writer.add(image_id(name), ids, segments)
        values, counts = torch.unique(ids, return_counts=True)
        area = dict(zip(values.tolist(), counts.tolist()))
        if self.keep:
            listed = [
                {
                    "id": int(s["id"]),
                    "category_id": self.classes.ids[s["category_id"]],
                    "isthing": bool(s["isthing"]),
                    "score": round(float(s["score"]), 5),
                    "area": area[s["id"]],
                }
                for s in segments
            ]
            file_name = self.writer.annotations[-1]["file_name"] if self.writer is not None else f"{name}.png"
            self.entries.append({"image_id": image_id(name), "file_name": file_name, "segments_info": listed})
        ordered = sorted(segments, key=lambda s: (not s["isthing"], -s["score"]))
        return tuple(
            Row(self.classes.names[s["category_id"]], float(s["score"]), area[s["id"]] / ids.numel()) for s in ordered
        )

    def draw(self, image: Image.Image, found: Mapping[str, Any], panel_width: int | None = None) -> Image.Image:
        segments = found["segments_info"]
        return draw.draw_panoptic(image, found["panoptic"], segments, self.classes.names, panel_width=panel_width)

    def content(self) -> dict[str, Any]:
        things = self.classes.num_things or 0
        categories = [
            {"id": i, "name": name, "isthing": int(label < things)}
            for label, (i, name) in enumerate(zip(self.classes.ids, self.classes.names))
        ]
        return {"annotations": self.entries, "categories": categories}

    def save(self) -> None:
        if self.folder is not None:
            write_json(self.folder / "panoptic.json", self.content())


Results = DetectionResults | SemanticResults | PanopticResults


def create_results(dense: DenseModel, folder: Pathlike | None = None, *, keep: bool = True) -> Results:
    """What collects and writes the results of a model's task. See `DetectionResults`."""
    target = None if folder is None else Path(folder)
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
    if dense.task == SEMANTIC:
        return SemanticResults(dense.classes, target, keep=keep)
    if dense.task == PANOPTIC:
        return PanopticResults(dense.classes, target, keep=keep)
    return DetectionResults(dense.classes, target, keep=keep, masks=dense.task == INSTANCES)
