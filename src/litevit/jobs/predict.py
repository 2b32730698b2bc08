"""Predictions of a classifier on image files, with the preprocessing its weights were published with."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from timm.data import ImageNetInfo
from torch import Tensor, nn

from litevit.checkpoints.files import Pathlike
from litevit.checkpoints.packed import is_packed, open_packed
from litevit.checkpoints.preprocessing import Preprocessing
from litevit.checkpoints.published import preprocessing, weights_word
from litevit.data.class_folders import hidden_path
from litevit.data.images import READABLE, is_image, read_header, read_image
from litevit.data.many_images import expand
from litevit.files import whole_file
from litevit.jobs.draw import text_font
from litevit.jobs.fonts import drawable
from litevit.jobs.inference import filled, fixed_batch
from litevit.jobs.preprocessing import of_classifier
from litevit.jobs.runs import CLASSIFICATION, find_run
from litevit.models import create_model
from litevit.seals import load_sealed
from litevit.zoo import MODELS


@dataclass(frozen=True)
class Guess:
    """One of the classes a model holds likely."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """Most likely classes of one file, best first, or why there are none."""

    path: str
    guesses: tuple[Guess, ...] = ()
    error: str | None = None


def class_names(num_classes: int) -> list[str]:
    """ImageNet-1K's names for 1,000 classes, numbers otherwise."""
    if num_classes != 1000:
        return [f"class {i}" for i in range(num_classes)]
    imagenet = ImageNetInfo()
    return [imagenet.index_to_description(i) for i in range(1000)]


def find_in_folder(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """Wanted files anywhere below a folder, sorted; hidden ones are none."""
    inside = (path for path in folder.rglob("*") if not hidden_path(path.relative_to(folder).as_posix()))
    return sorted(path for path in inside if wanted(path) and path.is_file())


def find_images(inputs: Iterable[Pathlike]) -> list[Path]:
    """The files themselves, what patterns with `*` match, and what looks like an image below the folders, sorted."""
    found: list[Path] = []
    for item in map(Path, expand(inputs)):
        if item.is_dir():
            inside = find_in_folder(item, is_image)
            if not inside:
                raise FileNotFoundError(f"No images in the folder {item} ({READABLE})")
            found += inside
        else:
            found.append(item)
    if not found:
        raise ValueError("Nothing to predict: give image files or folders")
    return found


def why_none(paths: Iterable[Path], look: Callable[[Path], Any] = read_header) -> list[str]:
    """Why not one of these files can be opened, a reason each; empty where one can. Nothing is decoded."""
    reasons = []
    for path in paths:
        try:
            look(path)
        except (ValueError, OSError) as error:
            reasons.append(str(error))
        else:
            return []
    return reasons


@torch.no_grad()
def predict(
    model: nn.Module,
    paths: Iterable[Pathlike],
    how: Preprocessing,
    *,
    names: Sequence[str] | None = None,
    top: int = 5,
    batch_size: int = 16,
) -> Iterator[Prediction]:
    """Classifies image files; a file that cannot be read gives a `Prediction` with its error and stops nothing.

    Args:
        model: a classifier, on any device, or an exported one; it is put into evaluation mode.
        paths: files.
        how: preprocessing, such as `litevit.checkpoints.published.preprocessing("litv2_s")`.
        names: class names; None takes ImageNet's for 1,000 classes.
        top: how many classes per image.
        batch_size: images at a time.

    Raises:
        ValueError: `top` or `batch_size` is less than 1.
    """
    if top < 1 or batch_size < 1:
        raise ValueError(f"top and batch_size must be at least 1, got top={top}, batch_size={batch_size}")
    model.eval()
    device = next(model.parameters()).device
    # An exported file may take the image as it is, and may take one number of images.
    prepare = getattr(model, "prepare", None) or of_classifier(how)
    fixed = fixed_batch(model)
    batch_size = fixed or batch_size
    pending: list[tuple[str, Tensor | str]] = []
    paths = list(paths)
    for i, path in enumerate(paths):
        try:
            pending.append((str(path), prepare(read_image(path))))
        except (ValueError, OSError) as error:
            pending.append((str(path), str(error)))
        if len(pending) < batch_size and i + 1 < len(paths):
            continue
        images = [item for _, item in pending if isinstance(item, Tensor)]
        answers = iter(model(filled(torch.stack(images), fixed).to(device)).float().softmax(-1).cpu() if images else ())
        for name, item in pending:
            if isinstance(item, str):
                yield Prediction(name, error=item)
                continue
            probabilities = next(answers)
            names = names or class_names(len(probabilities))
            values, indices = probabilities.topk(min(top, len(probabilities)))
            guesses = [Guess(int(k), names[int(k)], float(p)) for p, k in zip(values, indices)]
            yield Prediction(name, tuple(guesses))
        pending.clear()


def load_classifier(
    name: str | None, weights: Pathlike | None, *, num_classes: int | None = None
) -> tuple[nn.Module, Preprocessing]:
    """A classifier with its weights, and how its images are prepared.

    Args:
        name: model name; None: what the checkpoint of a training run says; or a packed model (`local-dir:FOLDER`,
            `hf-hub:OWNER/NAME`), whose own weights are its `"official"` ones.
        weights: None or `"none"` (random), `"official"` or `"imagenet"`, a checkpoint file, or the folder of a training
            run.
        num_classes: where it is not the model's own.
    """
    weights = weights_word(weights)
    run = find_run(weights)
    overrides: dict[str, Any] = {}
    how = None
    if is_packed(name):
        packed = open_packed(str(name))
        weights = packed.weights() if weights == "official" else weights
        name, overrides, how = packed.name, dict(packed.options), packed.preprocessing
    if run is not None:
        weights = run.weights
        if name in (None, run.model_name) and run.task in CLASSIFICATION:
            name, overrides, how = run.model_name, run.overrides, run.preprocessing
        elif name is None:
            name = run.model_name
    if name is None:
        raise ValueError(f"{weights} does not say which model it is of: give its name (--model)")
    if name in MODELS and MODELS[name].task.name != "classification":
        raise ValueError(f"{name} does {MODELS[name].task.name}; predict takes a classification model")
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if how is not None and name.startswith("timm/"):
        return _timm_model(name, str(weights), overrides), how
    model = create_model(name, weights=None if weights is None else str(weights), **overrides).eval()
    return model, how or preprocessing(name)


def _timm_model(name: str, weights: str, overrides: dict[str, Any]) -> nn.Module:
    """Of a training run."""
    from litevit.checkpoints.load import load_exactly
    from litevit.engine.config import ModelConfig
    from litevit.jobs.classification import build_classifier

    classes = overrides.pop("num_classes")
    model = build_classifier(ModelConfig(name=name, overrides=overrides), classes)
    load_exactly(model, load_sealed(weights), weights)
    return model.eval()


def recorded_classes(weights: Pathlike) -> list[str] | None:
    """Class names that a training run has kept with its best weights (file or folder), or that a packed model has.

    None: there are none.
    """
    if is_packed(weights):
        return list(open_packed(str(weights)).classes) or None
    run = find_run(weights)
    return list(run.names) if run is not None and run.names else None


def to_json(predictions: Iterable[Prediction]) -> str:
    """A list of objects with `path`, `error` (null: it could be read) and `guesses` (index, name, probability)."""
    rows = [
        {"path": one.path, "error": one.error, "guesses": [asdict(guess) for guess in one.guesses]}
        for one in predictions
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False)


def draw(prediction: Prediction, folder: Pathlike, *, name: str | None = None, width: int = 480) -> Path:
    """Writes the picture with bars of its classes below to `folder`; returns the file.

    Args:
        name: file name without suffix; None takes the image's.
        width: of the picture, in pixels.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    image = read_image(prediction.path)
    height = min(max(round(image.height * width / image.width), 1), 3 * width)
    row = 26
    page = Image.new("RGB", (width, height + row * len(prediction.guesses) + 8), "white")
    page.paste(image.resize((width, height), Image.Resampling.BICUBIC))
    pen = ImageDraw.Draw(page)
    for i, guess in enumerate(prediction.guesses):
        y = height + 6 + i * row
        pen.rectangle((0, y, round(guess.probability * (width - 1)), y + row - 4), fill=(190, 215, 240))
        text = f"{100 * guess.probability:5.1f} %  {guess.name.split(';')[0]}"
        pen.text((6, y + 2), drawable(text), fill="black", font=text_font(14, text))
    target = folder / f"{name or Path(prediction.path).stem}.png"
    with whole_file(target) as temporary:
        page.save(temporary, format="PNG")
    return target


def draw_all(predictions: Iterable[Prediction], folder: Pathlike) -> list[Path]:
    """`draw` for every prediction without an error; files of the same name get a number."""
    written: list[Path] = []
    used: dict[str, int] = {}
    for prediction in predictions:
        if prediction.error:
            continue
        stem = Path(prediction.path).stem
        used[stem] = used.get(stem, 0) + 1
        written.append(draw(prediction, folder, name=stem if used[stem] == 1 else f"{stem}-{used[stem]}"))
    return written
