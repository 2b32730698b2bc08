"""A task that trains in a second, with randomness everywhere a real one has it. Also a script, for torchrun."""

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset

from litevit.data.sampling import Unreadable
from litevit.engine import ModelConfig, OptimConfig, Recipe, RunConfig, ScheduleConfig, fit

SAMPLES, CLASSES = 96, 4


class Points(Dataset):
    """Noisy points around a centre per class; the noise comes from all three global generators."""

    def __init__(self, unreadable: tuple[int, ...] = ()):
        self.centres = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(7))
        self.unreadable = unreadable

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int):
        if index in self.unreadable:
            return Unreadable(f"point {index}", "it is a hole")
        label = index % CLASSES
        noise = torch.randn(6) + random.random() + float(np.random.rand())
        return self.centres[label] + 0.3 * noise, label


class Model(nn.Module):
    def __init__(self, dropout: float, norm: type[nn.Module] = nn.LayerNorm):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), norm(6), nn.GELU()) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.dropout(x))


class ToyTask:
    metric = "top1"

    def __init__(self, recipe: Recipe, *, die_at: int | None = None, die_rank: int = 0, nan_at: int | None = None,
                 signal_number: int = signal.SIGKILL, norm: type[nn.Module] = nn.LayerNorm,
                 slope: float = 0, sleep: float = 0):  # fmt: skip
        self.recipe = recipe
        self.die_at, self.die_rank, self.nan_at, self.signal_number = die_at, die_rank, nan_at, signal_number
        self.norm, self.slope, self.sleep = norm, slope, sleep
        self.calls = self.built = self.evaluated = 0
        self.batches: list[Tensor] = []

    def build_model(self) -> nn.Module:
        self.built += 1
        return Model(self.recipe.model.overrides.get("dropout", 0.2), self.norm)

    def train_dataset(self) -> Dataset:
        return Points()

    def collate(self, samples):
        return torch.stack([x for x, _ in samples]), torch.tensor([y for _, y in samples])

    def loss(self, model: nn.Module, batch) -> dict[str, Tensor]:
        time.sleep(self.sleep)
        self.calls += 1
        if self.calls == self.die_at and int(os.environ.get("RANK", "0")) == self.die_rank:
            os.kill(os.getpid(), self.signal_number)
        points, labels = batch
        self.batches.append(points)
        logits = model(points)
        loss = F.cross_entropy(logits, labels)
        if self.calls == self.nan_at:
            loss = loss * float("nan")
        return {"loss": loss, "metric/accuracy": (logits.argmax(1) == labels).float().mean()}

    def evaluate(self, model: nn.Module, accelerator) -> dict[str, float]:
        self.evaluated += 1
        labels = torch.arange(SAMPLES) % CLASSES
        logits = model(Points().centres[labels].to(accelerator.device))
        return {
            "top1": 100 * (logits.argmax(1).cpu() == labels).float().mean().item() + 100 * self.slope * self.evaluated,
            "loss": F.cross_entropy(logits.cpu().float(), labels).item(),
        }

    def report(self, model: nn.Module, folder: Path) -> None:
        """What the best weights say, twice: the first call must leave them for the second."""
        said = [model(Points().centres) for _ in range(2)]
        assert torch.equal(*said)
        torch.save(said[0].float().cpu(), folder / "said.pt")


def toy_recipe(folder: Path | str, *, epochs: int = 3, **run) -> Recipe:
    """Six steps per epoch at a batch of 16; evaluates every epoch, saves every 4 steps."""
    run = {"batch_size": 16, "workers": 0, "ema_decay": 0.9, "log_every": 3, "checkpoint_every": 4, **run}
    return Recipe(
        name="toy",
        task="classification",
        model=ModelConfig(name="toy"),
        data=None,
        optim=OptimConfig(lr=1e-2, clip_grad=1.0),
        schedule=ScheduleConfig(epochs=epochs, warmup_epochs=1, warmup_lr=1e-4, min_lr=1e-4),
        run=RunConfig(dir=str(folder), device="cpu", seed=5, **run),
    )


def quiet() -> Console:
    return Console(quiet=True)


def alone() -> None:
    """In a process of its own: one thread, because sums depend on it; a loader's workers as children of this process,
    because they end by seeing it gone."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)


def fit_quietly(recipe: Recipe, task: ToyTask) -> None:
    """For a process of its own."""
    alone()
    fit(recipe, task, console=quiet())


def fit_digits_to_the_death(recipe: Recipe, die_at: int) -> None:
    """A real task, which is killed; for a process of its own."""
    from litevit.jobs.classification import ClassificationTask

    class Dying(ClassificationTask):
        calls = 0

        def loss(self, model, batch):
            self.calls += 1
            if self.calls == die_at:
                signal.raise_signal(signal.SIGKILL)
            return super().loss(model, batch)

    alone()
    fit(recipe, Dying(recipe), console=quiet())


def main() -> None:
    """python toy.py FOLDER [key=value ...]: fields of the run, and what is popped below."""
    from dataclasses import replace

    folder, *rest = sys.argv[1:]
    values = {key: int(value) if value.isdigit() else float(value) for key, value in (arg.split("=") for arg in rest)}
    torch.set_num_threads(1)
    task_values = {key: values.pop(key) for key in ("die_at", "die_rank", "slope") if key in values}
    if values.pop("first_try", 0) and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        task_values = {}
    dropout, sleep, root = values.pop("dropout", 0.2), values.pop("sleep", 0.0), values.pop("new_folder", 0)
    values = {key: bool(value) if key == "fsdp" else value for key, value in values.items()}
    if values.get("ema_decay") == 0:
        values["ema_decay"] = None
    recipe = toy_recipe(folder, **values)
    if root:
        recipe = replace(recipe, run=replace(recipe.run, dir=None, root=folder))
    recipe = replace(recipe, model=ModelConfig(name="toy", overrides={"dropout": dropout}))
    task = ToyTask(recipe, sleep=sleep, **task_values)
    result = fit(recipe, task)
    print(f"folder={result.folder} step={result.step} stopped={result.stopped}", flush=True)
    print(f"built {task.built}, evaluated {task.evaluated}", flush=True)


if __name__ == "__main__":
    main()
