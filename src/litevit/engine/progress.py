"""What a run has to remember besides its model and optimizer, to go on where it stood."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litevit.data.class_folders import Part
from litevit.data.sampling import Unreadable
from litevit.engine.logging import Display


@dataclass
class Progress:
    """What a run has to remember besides model and optimizer."""

    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    skipped: list[str] = field(default_factory=list)  # names of unreadable images, each once
    sums: dict[str, Tensor] = field(default_factory=dict)  # of the losses since the last log line
    added: int = 0
    judged_step: int = -1  # whose weights this process has evaluated last; not kept
    owes_evaluation: bool = False  # it was due after this step, and the checkpoint was written before it

    def add(self, losses: dict[str, Tensor], total: Tensor) -> None:
        values = {"loss": total, **losses} if len(losses) > 1 or "loss" not in losses else losses
        for name, value in values.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.added += 1

    def take_means(self, accelerator: Any) -> dict[str, float]:
        """Means over the micro-batches of all processes since the last call."""
        names = sorted(self.sums)
        sums = torch.stack([self.sums[name] for name in names])
        means = accelerator.reduce(sums / self.added, "mean").tolist()
        self.sums, self.added = {}, 0
        return dict(zip(names, means))

    def count(self, unreadable: list[Unreadable], allowed: int, display: Display) -> None:
        for item in unreadable:
            if item.name in self.skipped:  # in an earlier epoch
                continue
            self.skipped.append(item.name)
            display.line(f"warning: skipped unreadable {item.name}: {item.reason} ({len(self.skipped)} so far)")
        if len(self.skipped) > allowed:
            raise ValueError(
                f"{len(self.skipped)} unreadable images, more than data.max_unreadable = {allowed} allows; the last: "
                f"{unreadable[-1].name}: {unreadable[-1].reason}. `litevit doctor` lists them all."
            )

    def is_best(self, metrics: dict[str, float], metric: str) -> bool:
        """Whether these metrics beat the best so far."""
        if metric not in metrics:
            raise ValueError(f"The task's metric '{metric}' is not in what it evaluates: {', '.join(metrics)}")
        return not self.best or metrics[metric] > self.best[metric] or math.isnan(self.best[metric])

    def share_sums(self, accelerator: Any) -> None:
        """Spreads the sums evenly, so that what process 0 saves is what every process goes on with."""
        if self.sums and accelerator.num_processes > 1:
            names = sorted(self.sums)
            shared = accelerator.reduce(torch.stack([self.sums[name] for name in names]), "mean")
            self.sums = dict(zip(names, shared.unbind()))

    def entry(self) -> dict[str, Any]:
        return {"sums": {k: v.cpu() for k, v in self.sums.items()}} | {
            name: getattr(self, name) for name in ("step", "best", "best_step", "skipped", "added", "owes_evaluation")
        }

    @classmethod
    def load(cls, saved: dict[str, Any], device: torch.device) -> "Progress":
        values = {name: saved[name] for name in ("step", "best", "best_step", "added")}
        return cls(
            **values,
            skipped=list(saved.get("skipped", ())),
            owes_evaluation=saved.get("owes_evaluation", False),
            sums={name: value.to(device) for name, value in saved["sums"].items()},
        )


def data_changes(parts: Sequence[Part], saved: dict[str, Any]) -> list[str]:
    """In what the data differ from those of a checkpoint."""
    before = saved.get("data", {})
    return [change for part in parts if part.name in before for change in part.changes(before[part.name])]


def refuse_other_classes(path: Path, model: nn.Module, saved: dict[str, Any]) -> None:
    """More or fewer classes need another head."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for key, value in saved["model"].items():
        if shapes.get(key, tuple(value.shape)) != tuple(value.shape):
            raise ValueError(
                f"{path} cannot go on with these data: they have another number of classes, so {key} would be "
                f"{shapes[key]} and is {tuple(value.shape)}. Start a new run from it: --model.weights "
                f"{path.parent.parent}, with a new --run.dir."
            )
