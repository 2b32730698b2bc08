"""What can be chosen in the page: models of the zoo, training runs, exported files. The last few stay open.

The page names a choice by its key; only what stands in the list here is ever opened, never a path from a browser.
"""

import itertools
import shlex
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from litevit.checkpoints.published import WEIGHTS, is_file, weights_word
from litevit.checkpoints.recorded import BEST
from litevit.deploy import load_exported
from litevit.deploy.exported import Exported
from litevit.files import cache_dir
from litevit.jobs.dense_models import task_of
from litevit.jobs.looking import Look, open_look
from litevit.jobs.runs import Run
from litevit.models import list_models
from litevit.zoo import MODELS, unknown

RECIPE = "recipe.json"
KEPT_OPEN = 3


@dataclass(frozen=True)
class Choice:
    """One model with weights, and how it is called."""

    key: str
    label: str
    group: str  # "model", "run", "exported"
    task: str
    model: str | None = None
    weights: str | None = None  # "official" or a path; None: random
    file: Path | None = None  # exported

    @property
    def arguments(self) -> str:
        """As `litevit explain` and `litevit predict` take it."""
        if self.file is not None:
            return f"--weights {_quoted(self.file)}"
        model = [] if self.group == "run" or self.model is None else [f"--model {self.model}"]
        return " ".join([*model, f"--weights {_quoted(self.weights or 'none')}"])


def _quoted(path: str | Path) -> str:
    return shlex.quote(str(path))


_serials = itertools.count()


class Opened:
    """A choice that is in memory: either a plain model (`look`) or an exported file."""

    def __init__(self, choice: Choice, look: Look | None, exported: Exported | None):
        self.choice, self.look, self.exported = choice, look, exported
        self.serial = next(_serials)  # an address may be given again, a number is not

    def plain(self) -> Look:
        """The model, to be looked into. Raises ValueError for an exported file."""
        if self.look is None:
            raise ValueError(
                f"{self.choice.label} is an exported file: it holds no layers to look into. Choose the model it was "
                "exported from; it computes the same."
            )
        return self.look


def _official_is_here(name: str) -> bool:
    return name in WEIGHTS and (cache_dir() / WEIGHTS[name].filename).is_file()


def _state(choice: Choice) -> int | None:
    """When the file of a choice was written; None: it has none. Raises FileNotFoundError where it is gone."""
    if choice.file is None and choice.weights in (None, "official"):
        return None
    path = choice.file or Path(str(choice.weights)).expanduser()
    file = path / BEST if path.is_dir() and choice.file is None else path
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        raise FileNotFoundError(f"{choice.label} cannot be opened: {file} is no longer there") from None


class Choices:
    """The list, and what of it is open.

    Args:
        model, weights: what the page starts with; weights of a file or a run are added to the list.
        runs: folders of training runs, or folders that hold some; read again at every look, as runs come and grow.
        exported: files of `litevit export`.
        device: where plain models run.

    Raises:
        ValueError, FileNotFoundError: something of this is not there.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        weights: str | None = None,
        runs: Sequence[Path] = (),
        exported: Sequence[Path] = (),
        device: torch.device | str = "cpu",
    ):
        self._device = device
        self._runs = [Path(path) for path in runs]
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, Any], Opened] = OrderedDict()
        self._exported: list[Choice] = []
        for path in self._runs:
            if not path.is_dir():
                raise FileNotFoundError(f"{path} is not a folder of training runs")
        for n, path in enumerate(map(Path, exported)):
            file = load_exported(path)
            key, group = f"exported:{n}:{path.name}", "exported"
            self._exported.append(Choice(key, path.name, group, file.task, file.metadata.model, None, path))
            self._keep((key, _state(self._exported[-1])), Opened(self._exported[-1], None, file))
        self._given: Choice | None = None
        word = weights_word(weights)
        if word == "imagenet":
            raise ValueError("--weights takes official, none, a checkpoint file or a run; imagenet is for training")
        if model is not None and model not in MODELS:
            raise unknown(model, sorted(MODELS), "model")
        if is_file(word):
            path = Path(str(word)).expanduser()
            if not path.exists():
                raise FileNotFoundError(f"{path} does not exist: --weights takes official, none, a file or a run")
            name = path.name if path.is_file() else f"{path.name} ({path})"
            self._given = Choice("given", name, "run", task_of(model, path), model, str(path))
            self.first = self._given.key
        elif model is None and weights is None and (found := [*self.runs(), *self._exported]):
            self.first = found[0].key
        else:
            name = model or "litv2_s"
            official = _official_is_here(name) if weights is None else word is not None
            self.first = f"model:{name}:{'official' if official else 'none'}"
            self.find(self.first)

    def runs(self) -> list[Choice]:
        """Those that have weights."""
        found = []
        for name, folder in self.run_folders().items():
            try:
                run = Run.find(folder)
            except (ValueError, OSError):  # none yet, or being written
                continue
            if run is not None:
                task = task_of(run.model_name)
                found.append(Choice(f"run:{name}", name, "run", task, run.model_name, str(folder)))
        return found

    def run_folders(self) -> dict[str, Path]:
        """Name -> folder of every run, those that have only begun too."""
        found: dict[str, Path] = {}
        for path in self._runs:
            inside = [path] if (path / RECIPE).is_file() else sorted(p.parent for p in path.glob(f"*/{RECIPE}"))
            for folder in inside:
                name, n = folder.resolve().name, 1
                while name in found:
                    n += 1
                    name = f"{folder.resolve().name}-{n}"
                found[name] = folder
        return found

    def listed(self) -> dict[str, Any]:
        """For the page: models with what is known of their weights, and everything else."""
        models = []
        for name in list_models():
            official = "none" if name not in WEIGHTS else "here" if _official_is_here(name) else "elsewhere"
            models.append({"name": name, "task": MODELS[name].task.name, "official": official})
        others = [*([self._given] if self._given else []), *self.runs(), *self._exported]
        rows = [{"key": c.key, "label": c.label, "group": c.group, "task": c.task, "model": c.model} for c in others]
        return {"models": models, "others": rows, "first": self.first}

    def find(self, key: str) -> Choice:
        """Raises ValueError for what is not in the list."""
        kind, _, rest = key.partition(":")
        if kind == "model":
            name, _, weights = rest.partition(":")
            if name not in MODELS:
                raise unknown(name, sorted(MODELS), "model")
            if weights not in ("none", "official"):
                raise ValueError(f"Weights of {name} must be official or none, got {weights!r}")
            if weights == "official" and name not in WEIGHTS:
                raise ValueError(f"No weights of {name} were published. Choose no weights, or a run.")
            if weights == "official" and not _official_is_here(name):
                raise ValueError(
                    f"The published weights of {name} are not on this machine, and the page downloads nothing. "
                    f"litevit predict PICTURE --model {name} --weights official fetches them once; then choose again."
                )
            known = None if weights == "none" else "official"
            label = f"{name}, {'published weights' if known else 'random weights'}"
            return Choice(key, label, "model", MODELS[name].task.name, name, known)
        for choice in [*([self._given] if self._given else []), *self.runs(), *self._exported]:
            if choice.key == key:
                return choice
        raise ValueError(f"{rest or key} is not, or no longer, in the list: load the page again")

    def open(self, key: str) -> Opened:
        """A choice in memory; a run that has written better weights since, or a file written anew, is read again."""
        choice = self.find(key)
        state = _state(choice)
        with self._lock:
            if (found := self._open.get((key, state))) is not None:
                self._open.move_to_end((key, state))
                return found
        if choice.file is not None:
            opened = Opened(choice, None, load_exported(choice.file))
        else:
            name = None if choice.group == "run" and choice.key != "given" else choice.model
            opened = Opened(choice, open_look(name, choice.weights, device=self._device), None)
        self._keep((key, state), opened)
        return opened

    def _keep(self, key: tuple[str, Any], opened: Opened) -> None:
        with self._lock:
            self._open[key] = opened
            while len(self._open) > KEPT_OPEN:
                self._open.popitem(last=False)
