"""A training run's folder, opened once: recipe, weights, classes, metrics, model."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from litevit.checkpoints.claims import check_options
from litevit.checkpoints.files import Pathlike, read_metadata, refuse_exported
from litevit.checkpoints.preprocessing import Preprocessing, checked_preprocessing
from litevit.checkpoints.published import is_file, preprocessing
from litevit.checkpoints.recorded import BEST, check_recipe, recorded
from litevit.data.classification_transforms import crop_mode
from litevit.engine.config import Recipe
from litevit.files import read_json
from litevit.jobs.recipe_files import recipe_from_dict
from litevit.tasks.segmentation import read_overrides
from litevit.zoo import MODELS

CLASSIFICATION = ("classification", "token_labeling")


@dataclass(frozen=True, repr=False)
class Run:
    """What a training run has left: in its folder, or in its weights alone.

    Attributes:
        folder: of the run, or where the weights lie.
        weights: `best.safetensors`.
        saved: the resolved recipe as JSON has it; `recipe` is the same, typed.
        names: the run's classes as its data called them; (): they had no names.
        class_ids: the numbers that the data of a dense task give its classes.
    """

    folder: Path
    weights: Path
    saved: dict[str, Any]
    names: tuple[str, ...] = ()
    class_ids: tuple[int, ...] = ()

    def __repr__(self) -> str:  # not the whole recipe
        return f"Run({str(self.folder)!r}: {self.model_name}, {self.task})"

    @classmethod
    def open(cls, path: Pathlike) -> "Run":
        """Opens a run.

        Args:
            path: its folder, or the weights file it has written.

        Returns:
            The run.

        Raises:
            FileNotFoundError: there is nothing, or the run has written no weights yet.
            ValueError: a file that says nothing of a run.
        """
        run = cls.find(path)
        if run is None:
            raise ValueError(f"{path} was not written by a training run: it has no recipe. Give the run's folder.")
        return run

    @classmethod
    def find(cls, path: Pathlike) -> "Run | None":
        """Opens what may be a run.

        Args:
            path: as of `open`.

        Returns:
            The run; None for a checkpoint that no run of litevit has written.

        Raises:
            FileNotFoundError: there is nothing, or the run has written no weights yet.
            ValueError: a file that cannot be read, or a recipe that is none.
        """
        path = Path(path).expanduser()
        refuse_exported(path)
        weights = path / BEST if path.is_dir() else path
        if not weights.is_file():
            if path.is_dir():
                raise FileNotFoundError(
                    f"{path} is not the folder of a finished training run: no {BEST}"
                    + (" yet; it is written by the first evaluation" if (path / "recipe.json").is_file() else "")
                )
            raise FileNotFoundError(f"Checkpoint {path} does not exist.")
        header = read_metadata(weights)
        saved = check_recipe(recorded(header, "recipe", dict, weights), weights)
        if not saved and path.is_dir() and (path / "recipe.json").is_file():
            saved = check_recipe(read_json(path / "recipe.json"), path / "recipe.json")
        if not saved:
            return None
        saved = saved | {"data": _from_where_it_began(saved["data"], weights.parent)}
        names, ids = (tuple(recorded(header, key, list, weights)) for key in ("classes", "class_ids"))
        return cls(weights.parent, weights, saved, names, ids)

    @property
    def model_name(self) -> str:
        """As its recipe calls it."""
        return self.saved["model"]["name"]

    @property
    def backbone(self) -> str | None:
        """Name of the model's backbone; None: timm's classifier, which has none of ours."""
        known = MODELS.get(self.model_name)
        return known.backbone_name if known is not None else self.saved["model"]["overrides"].get("backbone")

    @property
    def task(self) -> str:
        """As recipes say it: classification, token_labeling, detection, panoptic, segmentation."""
        return self.saved.get("task", "classification")

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return recipe_from_dict(self.saved)

    @cached_property
    def _made(self) -> dict[str, Any]:
        made = read_overrides(self.saved["model"]["overrides"])
        if self.task in CLASSIFICATION:
            made["num_classes"] = self._data("num_classes")
        check_options(self.model_name, made, self.weights, self.weights)
        return made

    @property
    def overrides(self) -> dict[str, Any]:
        """What the model was made with, beside its name. Raises ValueError where its weights are of no such model."""
        return dict(self._made)

    def _data(self, field: str) -> Any:
        if field not in self.saved["data"]:
            raise ValueError(f"{self.weights}: its recipe lacks data.{field}; the file is damaged")
        return self.saved["data"][field]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the model's order; of WordNet ids too. (): unknown."""
        data = self.folder / "data.json"
        if self.names or self.task not in CLASSIFICATION or not data.is_file():
            return self.names or self._written("per_class.json")
        told = read_json(data)
        training = told.get("training") if isinstance(told, dict) else None
        if not isinstance(training, dict) or not isinstance(training.get("classes"), dict | list):
            raise ValueError(f"{data} does not say which classes were trained: it needs training.classes")
        names = tuple(training["classes"])
        return () if names == tuple(str(label) for label in range(len(names))) else names  # of shards: numbers alone

    def _written(self, name: str) -> tuple[str, ...]:
        file = self.folder / name
        told = read_json(file) if file.is_file() else {}
        if not isinstance(told, dict | list):
            raise ValueError(f"{file} must hold the metrics of every class, got {told!r:.60}")
        return tuple(told)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Of the best weights, and `step`, the one that made them."""
        result = self.folder / "result.json"
        if result.is_file():
            told = read_json(result)
            if not isinstance(told, dict):
                raise ValueError(f"{result} must be an object of metrics, got {told!r:.60}")
            return told
        header = read_metadata(self.weights)
        if not header.get("step", "0").isdecimal():
            raise ValueError(f"{self.weights}: 'step' in its header must be a number, got {header['step']!r:.60}")
        return {"step": int(header.get("step", 0)), **recorded(header, "metrics", dict, self.weights)}

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become the model's input."""
        if self.task not in CLASSIFICATION:
            return preprocessing(self.model_name)
        return checked_preprocessing(
            {
                "size": self._data("image_size"),
                "crop_pct": (crop := self._data("crop_pct")),
                "crop_mode": crop_mode(crop) if isinstance(crop, float | int) else "center",
                "interpolation": self._data("eval_interpolation"),
                "mean": self._data("mean"),
                "std": self._data("std"),
            },
            self.weights,
        )

    def model(self) -> nn.Module:
        """The model with its best weights, in evaluation mode."""
        if self.task in CLASSIFICATION:
            from litevit.jobs.classification import load_run

            return load_run(self)
        from litevit.jobs.dense_models import load_dense

        return load_dense(None, self.weights).model


def find_run(weights: Pathlike | None) -> Run | None:
    """The run that weights are of. Args: weights: a word (see `weights_word`), a file or a folder."""
    return Run.find(weights) if is_file(weights) else None  # type: ignore[arg-type]


def _from_where_it_began(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A run's data with paths that hold in any working folder: relative ones lead on from where the run was started."""
    file = folder / "launch.json"
    if not file.is_file():
        return data
    told = read_json(file)
    start = told.get("folder") if isinstance(told, dict) else None
    if not isinstance(start, str):
        return data
    places = {
        key: Path(start) / value for key in ("path", "eval_path") if isinstance(value := data.get(key), str) and value
    }
    return data | {key: str(place) for key, place in places.items() if place.exists()}
