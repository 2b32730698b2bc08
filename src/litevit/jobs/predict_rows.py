"""What a model says of an image as one row of a table: a plain dictionary, and the Arrow schema that such rows have.

Every row has `path` and `error` (None: it could be read). Beside them, by what the model does:

    classification          `guesses`: index, name, probability, best first; or `embedding`, what the head sees
    dense tasks             see `litevit.jobs.dense_columns`

The work is in three parts, so that it can overlap: `prepare`
(decode and resize: in any thread), `answer` (the model, a batch at a time), and whatever becomes of the rows.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from litevit.checkpoints.files import Pathlike
from litevit.checkpoints.packed import is_packed
from litevit.checkpoints.preprocessing import Preprocessing
from litevit.checkpoints.published import weights_word
from litevit.data.class_names import read_class_list
from litevit.data.images import read_image
from litevit.devices import find_device
from litevit.jobs.dense_columns import check_codec, columns_of, names_of
from litevit.jobs.dense_models import DETECTION, INSTANCES, PANOPTIC, SEMANTIC, DenseModel, Size, load_dense, task_of
from litevit.jobs.inference import filled, fixed_batch, for_inference
from litevit.jobs.predict import class_names, load_classifier, recorded_classes
from litevit.jobs.predict_dense import SHOWN, answer
from litevit.jobs.preprocessing import of_classifier, side_of

Row = dict[str, Any]
Source = str | bytes | Path | Image.Image
BATCH = 16


class RowPredictor:
    """Images to rows.

    Attributes:
        batch_size: images that `answer` is given at a time, at most.
        columns: names of what `answer` gives.
        about: what the rows depend on, as plain values: model, task, classes, weights, options.
    """

    batch_size: int = 1
    columns: tuple[str, ...]
    about: dict[str, Any]

    def prepare(self, source: Source, name: str | None = None) -> Any:
        """One image as `answer` takes it. Raises ValueError or OSError for what is no readable image."""
        raise NotImplementedError

    def answer(self, images: Sequence[Any]) -> list[Row]:
        """The columns of every image, without `path` and `error`; `error` where the model cannot take it."""
        raise NotImplementedError

    def types(self) -> dict[str, Any]:
        """The Arrow types of the columns."""
        raise NotImplementedError

    def schema(self) -> Any:
        """Of the rows. Needs pyarrow."""
        import pyarrow as pa

        types = self.types()
        return pa.schema(
            [("path", pa.string()), ("error", pa.string()), *((name, types[name]) for name in self.columns)]
        )

    def rows(self, images: Sequence[tuple[str, Source]]) -> list[Row]:
        """Whole rows of a few images, given with their paths. What cannot be read has a row with its error."""
        prepared: list[Any] = []
        for path, source in images:
            try:
                prepared.append(self.prepare(source, path))
            except (ValueError, OSError) as error:
                prepared.append(error)
        readable = [image for image in prepared if not isinstance(image, Exception)]
        answers: list[Row] = []
        for first in range(0, len(readable), self.batch_size):
            answers += self.answer(readable[first : first + self.batch_size])
        found = iter(answers)
        return [
            self.row(path, None, str(image)) if isinstance(image, Exception) else self.row(path, next(found))
            for (path, _), image in zip(images, prepared)
        ]

    def row(self, path: str, found: Row | None, error: str | None = None) -> Row:
        """A whole row: every column, None where there is nothing."""
        return {"path": path, "error": error, **dict.fromkeys(self.columns), **(found or {})}


class _Classifier(RowPredictor):
    """Batches of normalised images.

    Args:
        model: on its device, in evaluation mode; an exported file takes one number of images, or bytes of any size.
    """

    def __init__(self, model: nn.Module, how: Preprocessing, batch_size: int | None):
        self.model = model
        self.how = of_classifier(how)
        self.device = next(model.parameters()).device
        shape = getattr(model, "shape", None)
        self.raw = shape is not None and shape.uint8
        self.fixed = fixed_batch(model)
        self.batch_size = self.fixed or (1 if self.raw else batch_size or BATCH)

    def prepare(self, source: Source, name: str | None = None) -> Tensor:
        image = read_image(source, name=name)
        return _pixels(image) if self.raw else self.how.pixels(image)

    def _batch(self, images: Sequence[Tensor]) -> Tensor:
        batch = filled(torch.stack(list(images)), self.fixed).to(self.device, non_blocking=True)
        return batch if self.raw else self.how.normalised(batch)


class ClassRows(_Classifier):
    """The most likely classes."""

    columns = ("guesses",)

    def __init__(self, model: nn.Module, how: Preprocessing, names: Sequence[str], *, top: int, batch_size: int | None):
        super().__init__(model, how, batch_size)
        self.names = names
        self.top = min(top, len(names))

    @torch.no_grad()
    def answer(self, images: Sequence[Tensor]) -> list[Row]:
        probabilities = self.model(self._batch(images)).float().softmax(-1)[: len(images)]
        values, indices = (found.cpu().tolist() for found in probabilities.topk(self.top))
        return [
            {"guesses": [{"index": k, "name": self.names[k], "probability": p} for k, p in zip(ks, ps)]}
            for ks, ps in zip(indices, values)
        ]

    def types(self) -> dict[str, Any]:
        import pyarrow as pa

        guess = pa.struct([("index", pa.int32()), ("name", pa.string()), ("probability", pa.float32())])
        return {"guesses": pa.list_(guess)}


class EmbeddingRows(_Classifier):
    """What the head sees: the last map, normalised and pooled.

    Args:
        pool: the model's function from a batch to (B, C).
    """

    columns = ("embedding",)

    def __init__(self, model: nn.Module, pool: Callable[[Tensor], Tensor], how: Preprocessing, batch_size: int | None):
        super().__init__(model, how, batch_size)
        self.pool = pool
        self.channels = int(model.num_features)  # type: ignore[arg-type]

    @torch.no_grad()
    def answer(self, images: Sequence[Tensor]) -> list[Row]:
        found = self.pool(self._batch(images)).float()[: len(images)].cpu().numpy()
        return [{"embedding": row} for row in found]

    def types(self) -> dict[str, Any]:
        import pyarrow as pa

        return {"embedding": pa.list_(pa.float32(), self.channels)}


class DenseRows(RowPredictor):
    """Objects, classes of pixels, or segments; one image at a time, as their sizes differ."""

    def __init__(self, dense: DenseModel):
        self.dense = dense
        self.columns = names_of(dense)
        check_codec(dense)

    def prepare(self, source: Source, name: str | None = None) -> Tensor:
        return _pixels(read_image(source, name=name))

    def answer(self, images: Sequence[Tensor]) -> list[Row]:
        return [self._one(image) for image in images]

    def _one(self, image: Tensor) -> Row:
        height, width = image.shape[1:]
        pixels = image.to(next(self.dense.model.parameters()).device).float() / 255
        try:
            found = answer(self.dense, pixels)
        except ValueError as error:  # too small for the model, or for an exported file
            return {"error": str(error), "height": height, "width": width}
        return columns_of(self.dense, found, height=height, width=width)

    def types(self) -> dict[str, Any]:
        import pyarrow as pa

        mask = pa.struct([("size", pa.list_(pa.int32(), 2)), ("counts", pa.string())])
        about = [("label", pa.int32()), ("name", pa.string())]
        if self.dense.task == PANOPTIC:
            about += [("isthing", pa.bool_()), ("score", pa.float32())]
        return {
            "height": pa.int32(),
            "width": pa.int32(),
            "boxes": pa.list_(pa.list_(pa.float32(), 4)),
            "scores": pa.list_(pa.float32()),
            "labels": pa.list_(pa.int32()),
            "names": pa.list_(pa.string()),
            "masks": pa.list_(mask),
            "segments": pa.list_(pa.struct([*about, ("area", pa.int64()), ("mask", mask)])),
        }


def _pixels(image: Image.Image) -> Tensor:
    """(3, H, W) uint8. By numpy: a torch operator would start threads of its own in every thread that decodes."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)))


# ------------------------------------------------------------------ opening


def open_predictor(
    model: str | None,
    weights: Pathlike | None,
    *,
    exported: Any = None,
    embeddings: bool = False,
    top: int | None = None,
    size: Size | None = None,
    num_classes: int | None = None,
    names: Pathlike | None = None,
    score_threshold: float | None = None,
    device: str = "auto",
    batch_size: int | None = None,
) -> RowPredictor:
    """A model as something that makes rows, on its device and in its fastest form there.

    Args:
        model: name; None: litev2_s, or what the checkpoint of a training run says.
        weights: None or "none" (random, the same at every start), "official", a file, or a training run's folder.
        exported: the opened file (`litevit.load_exported`), instead of model and weights.
        embeddings: of a classifier, what its head sees instead of classes.
        top: classifiers: how many classes; None: 5.
        size, num_classes, names, score_threshold: as for `litevit predict`.
        device: "auto", "cpu", "cuda" or "mps".
        batch_size: classifiers: images at a time; None: 16.

    Raises:
        ValueError: an option that the model's task does not have, or weights that do not fit.
    """
    for what, number in (("top", top), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ValueError(f"{what} must be at least 1, got {number}")
    options = {"top": top, "size": size, "score_threshold": score_threshold, "embeddings": embeddings}
    weights = weights_word(weights)
    if exported is not None:
        task = exported.task
    elif (task := task_of(model, weights)) == "classification" and model is None and weights in (None, "official"):
        model = "litv2_s"
    dense = task in (DETECTION, INSTANCES, SEMANTIC, PANOPTIC)
    _refuse_for({"top": top, "embeddings": embeddings, "batch_size": batch_size} if dense else {}, f"does {task}")
    _refuse_for({} if dense else {"score_threshold": score_threshold}, f"does {task}")
    predictor: RowPredictor
    if exported is not None:
        predictor = _of_file(exported, options, names, batch_size)
        name, classes, digest = exported.metadata.model, predictor_classes(predictor), _digest_of_file(exported.path)
    elif dense:
        if score_threshold is None and task in (DETECTION, INSTANCES):
            options["score_threshold"] = score_threshold = SHOWN
        torch.manual_seed(0)  # random weights are the same at every start
        found = load_dense(
            model, weights, num_classes=num_classes, names=names, score_threshold=score_threshold, size=size
        )
        name, classes, digest = found.name, found.classes.names, digest_of(found.model)
        predictor = DenseRows(found._replace(model=for_inference(found.model, find_device(device))))
    else:
        labels = list(read_class_list(Path(names)).names) if names is not None else None
        torch.manual_seed(0)
        network, how = load_classifier(model, weights, num_classes=num_classes or (len(labels) if labels else None))
        count = int(network.num_classes)  # type: ignore[arg-type]
        known = model if is_packed(model) else weights
        if labels is None and known not in (None, "official", "imagenet"):
            labels = recorded_classes(known)  # type: ignore[arg-type]
        labels = labels or class_names(count)
        if not embeddings and len(labels) != count:
            raise ValueError(f"{names or weights} has {len(labels)} names, the model {count} classes")
        name, classes, digest = model or _model_of_run(weights), tuple(labels), digest_of(network)
        how = _resized(how, size)
        network = for_inference(network, find_device(device))
        if embeddings:
            predictor = EmbeddingRows(network, _pooling(network), how, batch_size)
        else:
            predictor = ClassRows(network, how, classes, top=5 if top is None else top, batch_size=batch_size)
    if isinstance(predictor, ClassRows):
        options["top"] = predictor.top
    predictor.about = {
        "model": name,
        "task": task,
        "weights": digest,
        "classes": list(classes),
        "preprocessing": asdict(predictor.how) if isinstance(predictor, _Classifier) else None,
        "options": {key: value for key, value in options.items() if value not in (None, False)},
    }
    return predictor


def predictor_classes(predictor: RowPredictor) -> tuple[str, ...]:
    if isinstance(predictor, DenseRows):
        return predictor.dense.classes.names
    return tuple(predictor.names) if isinstance(predictor, ClassRows) else ()


def _refuse_for(options: Mapping[str, Any], what: str) -> None:
    if given := [f"--{name.replace('_', '-')}" for name, value in options.items() if value not in (None, False)]:
        raise ValueError(f"{' and '.join(given)}: not for a model that {what}")


def _of_file(file: Any, options: dict[str, Any], names: Pathlike | None, batch_size: int | None) -> RowPredictor:
    if file.task in (DETECTION, INSTANCES, SEMANTIC, PANOPTIC):
        if options["size"] is not None:
            raise ValueError(f"--size is for checkpoints; {file.path} takes {file.shape.describe()}")
        return DenseRows(file.as_dense(names, options["score_threshold"]))
    if file.task != "classification" or file.preprocessing is None or options["embeddings"]:
        wanted = "--embeddings needs a checkpoint" if options["embeddings"] else "predict needs a classifier's file"
        raise ValueError(f"{file.path} gives {', '.join(file.metadata.outputs)}; {wanted}")
    labels = list(read_class_list(Path(names)).names) if names is not None else list(file.classes)
    if len(labels) != len(file.classes):
        raise ValueError(f"{names} has {len(labels)} names, the model {len(file.classes)} classes")
    size = options["size"]
    if size is not None and (file.shape.uint8 or file.shape.size not in (None, (size, size))):
        raise ValueError(f"--size cannot be changed: {file.path} takes {file.shape.describe()}")
    how = _resized(file.preprocessing, size)
    return ClassRows(file, how, labels, top=options["top"] or 5, batch_size=batch_size)


def _resized(how: Preprocessing, size: Size | None) -> Preprocessing:
    from dataclasses import replace

    side = side_of(size)
    return how if side is None else replace(how, size=side)


def _pooling(model: Any) -> Callable[[Tensor], Tensor]:
    """Of ours, or of a timm model that a run has trained."""
    if hasattr(model, "forward_pooled"):
        return model.forward_pooled
    return lambda images: model.forward_head(model.forward_features(images), pre_logits=True)


def _model_of_run(weights: Any) -> str:
    from litevit.jobs.runs import Run

    return Run.open(weights).model_name


def digest_of(model: nn.Module) -> str:
    """sha256 of a model's parameters and buffers, whatever file they came from."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest_of_file(path: Path) -> str:
    """sha256 of an exported file; of OpenVINO's two, of both."""
    digest = hashlib.sha256()
    for file in (path, path.with_suffix(".bin")):
        if file == path or (path.suffix == ".xml" and file.is_file()):
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
