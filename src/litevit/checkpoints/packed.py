"""A model in Hugging Face's layout, `config.json` and `model.safetensors`, in a folder or on the Hub: read here.

`litevit pack` writes it. The configuration is timm's, so timm and transformers open classifiers; what litevit knows
beside it stands under `litevit`: task, options, classes, preprocessing, licence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from litevit.checkpoints.claims import check_options
from litevit.checkpoints.files import Pathlike
from litevit.checkpoints.preprocessing import Preprocessing, checked_preprocessing
from litevit.files import read_json
from litevit.tasks.segmentation import read_overrides
from litevit.zoo import GENERIC, MODELS, model_options

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LOCAL, HUB = "local-dir:", "hf-hub:"


@dataclass(frozen=True)
class Packed:
    """What a packed model says about itself.

    Attributes:
        source: as it was asked for: `local-dir:FOLDER` or `hf-hub:OWNER/NAME`.
        name: what `litevit.create_model` makes it by.
        about: litevit's part: `task`, `options`, `classes`, `class_ids`, `num_things`, `preprocessing`, `licence`, ...
    """

    source: str
    name: str
    about: Mapping[str, Any]

    @property
    def task(self) -> str:
        """As in `litevit.list_models(task=...)`."""
        return self.about["task"]

    @cached_property
    def options(self) -> dict[str, Any]:
        """What `litevit.create_model` makes it with. Raises ValueError where that is no model, or one too large."""
        options = read_overrides(self.about.get("options", {}))
        try:
            weights: Path | None = self.weights()
        except FileNotFoundError:  # random weights may be asked for
            weights = None
        check_options(self.name, options, f"{self.source}: {CONFIG}", weights)
        return options

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.about.get("classes", ()))

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The numbers that data give the classes, in their order."""
        return tuple(self.about.get("class_ids", range(len(self.classes))))

    @property
    def preprocessing(self) -> Preprocessing:
        return checked_preprocessing(self.about.get("preprocessing"), f"{self.source}: {CONFIG}")

    def weights(self) -> Path:
        """The weights file, downloaded where it has to be."""
        return _file(self.source, WEIGHTS)


def is_packed(name: Pathlike | None) -> bool:
    """Whether a name says where a packed model is."""
    return str(name).startswith((LOCAL, HUB))


def open_packed(source: str) -> Packed:
    """Reads a packed model's configuration.

    Args:
        source: `local-dir:FOLDER`, `hf-hub:OWNER/NAME` or `hf-hub:OWNER/NAME@REVISION`.

    Raises:
        FileNotFoundError: there is no such folder or repository, or it has no configuration or weights.
        ValueError: it is another library's model, or the configuration is damaged.
        OSError: the Hub does not answer.
    """
    path = _file(source, CONFIG)
    try:
        config = read_json(path)
    except ValueError as error:
        raise ValueError(f"{source}: {CONFIG} describes no model of timm's layout ({error})") from None
    name = config.get("architecture") if isinstance(config, dict) else None
    about = config.get("litevit", {}) if isinstance(config, dict) else None
    if not isinstance(name, str) or not isinstance(about, dict):
        raise ValueError(f"{source}: {CONFIG} describes no model of timm's layout: it has no architecture")
    if name not in MODELS and name not in GENERIC:
        raise ValueError(f"{source} is {name[:60]}, which is not litevit's; timm.create_model({source!r}) may know it")
    if "task" not in about and name in MODELS:
        about = _from_timm(config)
    for key, (good, what) in FIELDS.items():
        if key in about and not good(about[key]):
            raise ValueError(f"{source}: {CONFIG}: {key} must be {what}, got {about[key]!r:.60}")
    task = (MODELS[name].task if name in MODELS else GENERIC[name]).name
    if about.get("task") != task:
        raise ValueError(f"{source}: {CONFIG}: the task of {name} is {task}, got {about.get('task')!r:.60}")
    if len(about.get("class_ids", about.get("classes", ()))) != len(about.get("classes", ())):
        raise ValueError(f"{source}: {CONFIG}: class_ids must be as many as classes")
    return Packed(source, name, about)


def _list_of(kind: type) -> Any:
    return lambda value: isinstance(value, list) and all(type(one) is kind for one in value)


FIELDS = {
    "task": (lambda value: isinstance(value, str), "a text"),
    "options": (lambda value: isinstance(value, dict), "an object"),
    "classes": (_list_of(str), "a list of texts"),
    "class_ids": (_list_of(int), "a list of whole numbers"),
    "num_things": (lambda value: value is None or type(value) is int, "a whole number"),
}


def _from_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """litevit's part of a classifier that timm has saved (`timm.models.push_to_hf_hub`); damaged ones stay so."""
    told, given, names = (config.get(key, {}) for key in ("pretrained_cfg", "model_args", "label_names"))
    how: Any = told
    if isinstance(told, dict):
        how = {key: told[key] for key in ("crop_pct", "crop_mode", "interpolation", "mean", "std") if key in told}
        size = told.get("input_size")
        if size is not None:
            how["size"] = size[-1] if isinstance(size, list) and size else size
    known = model_options(config["architecture"])  # beside them are timm's own, such as global_pool
    options: Any = given
    if isinstance(given, dict):
        options = {key: value for key, value in given.items() if key in known}
        options["num_classes"] = config.get("num_classes", 1000)
    return {
        "task": MODELS[config["architecture"]].task.name,
        "options": options,
        "classes": list(names.values()) if isinstance(names, dict) else names,
        "preprocessing": how,
    }


def _file(source: str, name: str) -> Path:
    if source.startswith(LOCAL):
        folder = Path(source.removeprefix(LOCAL)).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"{source}: there is no folder {folder}")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{source} is not a packed model: no {name}. `litevit pack` writes such folders.")
        return folder / name
    return _of_hub(source, name)


def _of_hub(source: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = source.removeprefix(HUB).partition("@")
    try:
        return Path(hf_hub_download(repository, name, revision=revision or None))
    except LocalEntryNotFoundError as error:  # an EntryNotFoundError too
        raise OSError(f"{source}: the Hub does not answer, and {name} was not downloaded before") from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"{source} is not a packed model: no {name}") from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{source}: the repository has no revision {revision}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(f"{source}: there is no such repository, or it is private (hf auth login)") from error
    except HFValidationError as error:
        raise ValueError(f"{source} is no name of a repository, which is OWNER/NAME: {error}") from None
    except HfHubHTTPError as error:
        raise OSError(f"{source}: {str(error).splitlines()[0]}") from error
