"""A model in Hugging Face's layout, `config.json` and `model.safetensors`, in a folder or on the Hub: read here.

`litevit pack` writes it. The configuration is timm's, so timm and transformers open classifiers; what litevit knows
beside it stands under `litevit`: task, options, classes, preprocessing, licence.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litevit.checkpoints.files import Pathlike
from litevit.checkpoints.preprocessing import Preprocessing
from litevit.tasks.segmentation import read_overrides
from litevit.zoo import GENERIC, MODELS, model_options

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LOCAL, HUB = "local-dir:", "hf-hub:"


@dataclass(frozen=True)
class Packed:
    """What a packed model says about itself.

    Attributes:
        source: as it was asked for: `local-dir:FOLDER` or `hf-hub:OWNER/NAME`.
        name, options: what `litevit.create_model` makes it with.
        about: the rest of litevit's part: `classes`, `class_ids`, `num_things`, `licence`, ...
    """

    source: str
    name: str
    options: dict[str, Any]
    about: Mapping[str, Any]

    @property
    def task(self) -> str:
        """As in `litevit.list_models(task=...)`."""
        return self.about["task"]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.about.get("classes", ()))

    @property
    def preprocessing(self) -> Preprocessing:
        told: dict[str, Any] = read_overrides(self.about["preprocessing"])
        return Preprocessing(**told)

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
        config = json.loads(path.read_text(encoding="utf-8"))
        name, about = config["architecture"], config.get("litevit", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: {CONFIG} describes no model of timm's layout ({error!r})") from None
    if name not in MODELS and name not in GENERIC:
        raise ValueError(f"{source} is {name}, which is not litevit's; timm.create_model({source!r}) may know it")
    if "task" not in about and name in MODELS:
        about = _from_timm(config)
    return Packed(source, name, read_overrides(about.get("options", {})), about)


def _from_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """litevit's part of a classifier that timm has saved (`timm.models.push_to_hf_hub`)."""
    told = config.get("pretrained_cfg", {})
    how = {key: told[key] for key in ("crop_pct", "crop_mode", "interpolation", "mean", "std") if key in told}
    if "input_size" in told:
        how["size"] = told["input_size"][-1]
    known = model_options(config["architecture"])  # beside them are timm's own, such as global_pool
    options = {key: value for key, value in config.get("model_args", {}).items() if key in known}
    options["num_classes"] = config.get("num_classes", 1000)
    names = config.get("label_names", ())
    return {
        "task": "classification",
        "options": options,
        "classes": list(names.values()) if isinstance(names, dict) else list(names),
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
