"""What is exported: a model with its classes, preprocessing, licence and recipe, from a name, a run or a module."""

from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from litevit.checkpoints.preprocessing import Preprocessing
from litevit.checkpoints.published import ADOBE, ADOBE_NOTICE, WEIGHTS, is_file, preprocessing, weights_word
from litevit.checkpoints.recorded import BEST, recorded_recipe
from litevit.data.class_names import ClassList, detection_classes, panoptic_classes, read_class_list, semantic_classes
from litevit.deploy.graph import FEATURES, MODULE, Graph, build_graph
from litevit.files import read_text
from litevit.jobs.dense_models import load_dense, task_of
from litevit.jobs.predict import class_names, load_classifier, recorded_classes
from litevit.zoo import GENERIC, MODELS


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model and what is known about it."""

    model: nn.Module
    name: str
    classes: ClassList | None = None
    preprocessing: Preprocessing | None = None
    licence: str | None = None
    source: str | None = None
    notice: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)


def open_source(
    model: str | Path | nn.Module,
    *,
    weights: str | Path | None = "official",
    num_classes: int | None = None,
    names: str | Path | None = None,
) -> Source:
    """
    Args:
        model: a module, a name of `litevit list`, a training run's folder or its checkpoint.
        weights: for a name: "official", a file, or None or "none" (random).
        num_classes: of the checkpoint, where it is not the published one's.
        names: text file with one class name per line; for dense models also COCO's annotation file.
    """
    if isinstance(model, nn.Module):
        _refuse("a module", weights, num_classes)
        return _of_module(model, names)
    if str(model) not in MODELS and str(model) not in GENERIC and Path(model).exists():
        _refuse(f"the training run {model}", weights, None)
        return _named(None, Path(model), num_classes, names)
    return _named(str(model), weights_word(weights), num_classes, names)


def _refuse(what: str, weights: str | Path | None, num_classes: int | None) -> None:
    """What was given for a name, where there is none."""
    for word, given, default in (("weights", weights, "official"), ("num_classes", num_classes, None)):
        if given != default:
            raise ValueError(f"{word} is for a model's name; {what} has its own, got {word}={given}")


def _of_module(model: nn.Module, names: str | Path | None) -> Source:
    graph = build_graph(model)
    name = type(getattr(model, "backbone", model)).__name__
    how: Preprocessing | None = None
    if graph.task not in (FEATURES, MODULE):
        how = preprocessing(name.lower()) if graph.task == "classification" else _dense_preprocessing(model)
    return Source(model=model, name=type(model).__name__, classes=_classes(graph, names), preprocessing=how)


def _named(name: str | None, weights: Any, num_classes: int | None, names: str | Path | None) -> Source:
    if task_of(name, weights) != "classification":
        dense = load_dense(name, weights, num_classes=num_classes, names=names)
        found, label, classes = dense.model, dense.name, dense.classes
        how: Preprocessing | None = _dense_preprocessing(found)
    else:
        listed = _read_names(names) if names is not None else None
        from_file = is_file(weights)
        listed = listed or (recorded_classes(weights) if from_file else None)
        if num_classes is None and listed is not None and name is not None:
            num_classes = len(listed)
        found, how = load_classifier(name, weights, num_classes=num_classes)
        label = name or _recipe(weights)["model"]["name"]
        classes = _checked(listed or class_names(int(found.num_classes)), found, names or weights)  # type: ignore[arg-type]
    known = None if weights is None or is_file(weights) else WEIGHTS.get(label)
    derived = WEIGHTS.get(label)
    recipe = _recipe(weights) if is_file(weights) else {}
    adobe = derived is not None and derived.licence == ADOBE and weights is not None and not recipe
    return Source(
        model=found,
        name=label,
        classes=classes,
        preprocessing=how,
        licence=known.licence if known else ADOBE if adobe else None,
        source=known.source if known else None,
        notice=ADOBE_NOTICE if adobe else None,
        recipe=recipe,
    )


def _recipe(weights: Any) -> dict[str, Any]:
    path = Path(weights)
    return recorded_recipe(path / BEST if path.is_dir() else path)


def _read_names(names: str | Path) -> list[str]:
    found = [line.strip() for line in read_text(names, "class list").splitlines() if line.strip()]
    if not found:
        raise ValueError(f"{names} has no class names: it wants one per line")
    return found


def _checked(names: list[str], model: nn.Module, source: Any) -> ClassList:
    if len(names) != model.num_classes:
        raise ValueError(f"{source} has {len(names)} class names, the model {model.num_classes} classes")
    return ClassList(tuple(names), tuple(range(len(names))))


def _classes(graph: Graph, names: str | Path | None) -> ClassList | None:
    config: Any = getattr(graph.model, "config", None)
    if graph.task == "classification":
        own = class_names(int(graph.model.num_classes))  # type: ignore[arg-type]
        return _checked(_read_names(names) if names is not None else own, graph.model, names)
    if graph.task in (FEATURES, MODULE):
        if names is not None:
            raise ValueError(f"names are of classes, and {type(graph.model).__name__} has none, got names={names}")
        return None
    if graph.task == "semantic segmentation":
        classes = semantic_classes(config.num_classes)
    elif graph.task == "panoptic segmentation":
        classes = panoptic_classes(config.num_things, config.num_stuff)
    else:
        classes = detection_classes(config.num_classes)
    if names is None:
        return classes
    given = read_class_list(names, first_id=classes.ids[0])
    if len(given.names) != len(classes.names):
        raise ValueError(f"{names} has {len(given.names)} class names, the model {len(classes.names)} classes")
    return replace(given, num_things=classes.num_things)


def _dense_preprocessing(model: nn.Module) -> Preprocessing:
    config: Any = model.config
    if hasattr(config, "test"):
        longest, shortest = config.test.scale or (0, 0)
        return Preprocessing(size=(shortest, longest), crop_pct=None, interpolation="bilinear")
    size = (config.min_size, config.max_size) if config.resize else (0, 0)
    return Preprocessing(size=size, crop_pct=None, interpolation="bilinear")


def plain_config(model: nn.Module) -> dict[str, Any]:
    """The head's config as plain values."""
    config = getattr(model, "config", None)
    return asdict(config) if is_dataclass(config) and not isinstance(config, type) else {}
