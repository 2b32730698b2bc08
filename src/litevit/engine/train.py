"""The training loop: one readable function, `fit`, for every task.

A run is a sequence of optimizer steps, and step i is a function of the state after step i - 1 and of numbers in the
recipe: the batch comes from (seed, epoch, position), the augmentation from (seed, epoch, index), the learning rate from
i, and dropout, drop path and mixing from generators seeded with (seed, process, i). So a checkpoint needs no generator
states, and a run killed anywhere continues bit for bit, with any number of loader workers.
"""

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from litevit.data.class_folders import Part, table
from litevit.data.sampling import STEP, BatchStream, SeededDataset, Unreadable, seed_everything
from litevit.data.streaming import StreamedBatches, StreamedImages
from litevit.engine import parallel
from litevit.engine.checkpoint import list_checkpoints, load_latest, save_checkpoint, save_weights
from litevit.engine.config import Recipe, check, differences, to_dict
from litevit.engine.curves import draw_curves
from litevit.engine.ema import all_finite, create_ema
from litevit.engine.logging import (
    Display,
    MetricsFile,
    check_trackers,
    default_console,
    launcher,
    memory_mb,
    open_trackers,
    scalars,
)
from litevit.engine.optim import create_optimizer, param_groups, scaled_lr
from litevit.engine.schedule import epochs_for, learning_rate, total_steps
from litevit.engine.stages import decay_by_layer, freeze_stages
from litevit.files import without_nan, write_json

INIT = 3  # seeds the weights; the other streams are in litevit.data.sampling
STOP_CHECK = 8  # steps between two looks at the other processes' stop signals


class Task(Protocol):
    """What the loop has to be told about classification, detection, ...

    Optional: `param_groups(model, optim, lr)` instead of the published grouping, `repeats` (of repeated augmentation),
    `batch_stream(dataset, **options)` instead of `BatchStream`, `max_unreadable` (images a run may skip),
    `class_names` and `class_ids` (kept with the best weights), `parts` and `notes` (what was read, and what to warn of:
    shown at the start), `said` (other lines for the start), `optimized` (which modules `build_model` has replaced by
    faster ones: kind -> number), `evaluate_own_size(model, accelerator)` (further metrics of the best weights),
    `report(model, folder)` (process 0, after the last evaluation).
    """

    metric: str  # the entry of `evaluate`'s result that says which checkpoint is best; higher is better

    def build_model(self) -> nn.Module: ...

    def train_dataset(self) -> Dataset:
        """Map-style, or `StreamedImages`; augmentation uses Python's, NumPy's and PyTorch's generators as it likes."""
        ...

    def collate(self, samples: list[Any]) -> Any: ...

    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Losses, which are summed; entries called `metric/...` are only logged. `batch` is on the device."""
        ...

    def evaluate(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        """Called by every process; each takes its share and all return the same."""
        ...


@dataclass(frozen=True, kw_only=True)
class FitResult:
    folder: Path
    step: int
    best: dict[str, float] = field(default_factory=dict)  # metrics of the best weights
    stopped: bool = False  # by SIGTERM or Ctrl-C, with a checkpoint written

    @property
    def weights(self) -> Path:
        return self.folder / "best.safetensors"


def fit(recipe: Recipe, task: Task, *, console: Console | None = None) -> FitResult:
    """Trains, evaluates and saves under `runs/<name>/`; continues when `run.dir` holds an unfinished run.

    Raises:
        ValueError: a checkpoint of another recipe, a batch larger than the data, a loss that is not finite, ...
        OSError: a checkpoint could not be written (a full disk); the ones before it are untouched.
    """
    check(recipe)
    chosen, run = recipe.run.precision, parallel.with_precision(recipe.run)
    recipe = replace(recipe, run=run)
    accelerator = parallel.create_accelerator(run)
    check_trackers(run.trackers)
    main = accelerator.is_main_process
    console = console or default_console()
    if not main:
        console = Console(quiet=True)

    # Model, optimizer, data
    seed_everything(run.seed, INIT)
    model = task.build_model()
    frozen, said_of_frozen = freeze_stages(model, recipe.optim.freeze)
    ema = create_ema(model, run.ema_decay, fsdp=run.fsdp)
    wrapped = parallel.prepare_model(_train_mode(model, frozen), run, accelerator)
    if ema is not None:
        ema.to(accelerator.device)
        if run.fsdp:
            parallel.shard_parameters(ema.module)
    base_lr = scaled_lr(recipe.optim, run.batch_size)
    bound_scale = base_lr / recipe.optim.lr
    groups = _groups(recipe, task, model, base_lr)
    base_rates = [group["lr"] for group in groups]
    optimizer = accelerator.prepare(create_optimizer(groups, recipe.optim))
    dataset = task.train_dataset()
    parts: list[Part] = getattr(task, "parts", [])
    if parts:
        console.print(table(parts), highlight=False, markup=False, soft_wrap=True)
    for note in getattr(task, "notes", ()):
        console.print(f"warning: {note}", highlight=False, markup=False, soft_wrap=True)
    stream = _batch_stream(
        task,
        dataset,
        batch_size=run.batch_size,
        accumulate=run.accumulate,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        seed=run.seed,
    )
    per_epoch = stream.steps_per_epoch
    said = [*getattr(task, "said", ()), *([said_of_frozen] if said_of_frozen else [])]
    follows = {"data.num_samples"}  # fields that follow from the data
    if recipe.schedule.epochs is None:
        follows.add("schedule.epochs")
        streamed = isinstance(dataset, StreamedImages)
        images = per_epoch * run.batch_size if streamed else len(dataset)  # type: ignore[arg-type]
        recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=epochs_for(images)))
        said.append(f"{recipe.schedule.epochs} epochs of {images} images (10,000 images, within 12 to 100 epochs)")
    for line in said:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    steps = total_steps(recipe.schedule, per_epoch)
    last_step = min(steps, run.max_steps or steps)
    made = {
        "device": _device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "precision": run.precision,
        "optimized": getattr(task, "optimized", {}),
    }
    folder = Path(parallel.from_main_process(str(_open_folder(recipe, made)) if main else "", accelerator))
    console.print(_how(made, chosen), highlight=False, markup=False, soft_wrap=True)

    # Where it stands
    state = _Progress()
    found = load_latest(folder / "checkpoints", lambda text: console.print(f"warning: {text}", soft_wrap=True))
    if found is not None:
        path, saved = found
        if (changes := _data_changes(parts, saved)) and not run.data_changed:
            raise ValueError(
                f"{path} was trained on other data: {'; '.join(changes)}. Give the data it began with, or go on with "
                "these by --run.data_changed True."
            )
        if changes:
            _refuse_other_classes(path, model, saved)
            changes += differences(recipe, saved["recipe"], only=follows)
        if different := differences(recipe, saved["recipe"], but=follows if changes else ()):
            raise ValueError(
                f"{path} is a checkpoint of another recipe; it differs in " + "; ".join(different) + ". "
                "Give --run.dir a new folder, or the recipe saved beside it."
            )
        parallel.restore(model, optimizer, saved, fsdp=run.fsdp)
        if ema is not None:
            parallel.restore_model(ema.module, saved["ema"], fsdp=run.fsdp)
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(saved["scaler"])
        state = _Progress.load(saved, accelerator.device)
        console.print(f"Continuing {folder} after step {state.step} of {last_step}.", soft_wrap=True)
        if changes:
            console.print(f"warning: the data have changed: {'; '.join(changes)}", soft_wrap=True)
    if main and parts:
        write_json(folder / "data.json", {part.name: part.to_dict() for part in parts}, indent=2)
    stream.start, stream.steps = state.step, last_step

    log = None
    if main:
        log = MetricsFile(folder / "metrics.jsonl", resume_step=state.step, evaluates=state.owes_evaluation)
    trackers = open_trackers(run.trackers if main else (), folder, to_dict(recipe))
    display = Display(console, steps=last_step, start=state.step)
    batches = _batches(dataset, stream, task, run.workers, accelerator)

    def write(row: dict[str, Any]) -> None:
        if log is not None:
            log.write(without_nan(row))
            for tracker in trackers:
                tracker.log(scalars(row), step=row["step"])

    def evaluate() -> None:
        """Evaluates the weights that would be kept; the best ones go to best.safetensors."""
        judged = ema.module if ema is not None else model
        parallel.share_buffers(judged)
        judged.eval()
        with torch.no_grad(), accelerator.autocast():
            metrics = task.evaluate(judged, accelerator)
        _train_mode(model, frozen)
        state.judged_step = state.step
        state.owes_evaluation = False
        write({"kind": "eval", "epoch": state.step // per_epoch, "step": state.step, **metrics})
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        display.line(f"evaluated after step {state.step}: {shown}")
        _warn_of_nan(metrics, task.metric, display.line)
        if task.metric not in metrics:
            raise ValueError(f"The task's metric '{task.metric}' is not in what it evaluates: {', '.join(metrics)}")
        if not state.best or metrics[task.metric] > state.best[task.metric] or math.isnan(state.best[task.metric]):
            state.best, state.best_step = metrics, state.step
            weights = parallel.model_state(judged, fsdp=run.fsdp)
            if main:
                save_weights(
                    folder / "best.safetensors",
                    weights,
                    {"recipe": to_dict(recipe), "step": state.step, "metrics": metrics}
                    | ({"classes": list(names)} if (names := getattr(task, "class_names", ())) else {})
                    | ({"class_ids": list(ids)} if (ids := getattr(task, "class_ids", ())) else {}),
                )

    def save() -> None:
        state.share_sums(accelerator)
        entry = {
            "recipe": to_dict(recipe),
            "data": {part.name: part.to_dict() for part in parts},
            "model": parallel.model_state(model, fsdp=run.fsdp),
            "optimizer": parallel.optimizer_state(model, optimizer.optimizer, fsdp=run.fsdp),
            "ema": parallel.model_state(ema.module, fsdp=run.fsdp) if ema is not None else None,
            "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
            **state.entry(),
        }
        if main:
            save_checkpoint(folder / "checkpoints", state.step, entry, keep=run.keep)
        accelerator.wait_for_everyone()

    stopped = False
    unchecked: list[Tensor] = []
    interval_start, interval_images = time.perf_counter(), 0
    with _stop_signal() as stop:
        try:
            if state.owes_evaluation:  # its checkpoint was written before
                evaluate()
            while state.step < last_step:
                step = state.step
                rates = [
                    learning_rate(recipe.schedule, base, step=step, steps_per_epoch=per_epoch, bound_scale=bound_scale)
                    for base in base_rates
                ]
                for group, rate in zip(optimizer.param_groups, rates):
                    group["lr"] = rate * group.get("lr_scale", 1.0)

                # One optimizer step over `accumulate` micro-batches
                for micro in range(run.accumulate):
                    batch, unreadable = next(batches)
                    state.count(unreadable, getattr(task, "max_unreadable", 0), display)
                    seed_everything(run.seed, STEP, accelerator.process_index, step * run.accumulate + micro)
                    last = micro == run.accumulate - 1
                    with contextlib.nullcontext() if last or run.fsdp else accelerator.no_sync(wrapped):
                        with accelerator.autocast(), _explained(run.batch_size):
                            losses = task.loss(wrapped, batch)
                        total = sum(value for name, value in losses.items() if not name.startswith("metric/"))
                        assert isinstance(total, Tensor)
                        accelerator.backward(total / run.accumulate)
                    state.add(losses, total)
                    unchecked.append(total.detach())
                if recipe.optim.clip_grad is not None:
                    accelerator.clip_grad_norm_(model.parameters(), recipe.optim.clip_grad)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if ema is not None:
                    ema.update(model)
                state.step += 1
                interval_images += run.batch_size

                # What is due after it
                logs = state.step % run.log_every == 0 or state.step == last_step
                due = run.eval_steps or run.eval_every * per_epoch
                evaluates = state.step % due == 0 or state.step == last_step
                saves = evaluates or (run.checkpoint_every is not None and state.step % run.checkpoint_every == 0)
                if accelerator.num_processes == 1 or state.step % STOP_CHECK == 0:
                    stopped = parallel.any_process(stop.is_set(), accelerator)
                if accelerator.device.type == "cpu" or logs or saves or stopped:
                    _check_finite(unchecked, state.step, run.accumulate, rates, folder)
                    if state.step == len(unchecked) // run.accumulate and not torch.stack(unchecked).any():
                        display.line("warning: the loss is 0 from the first step: these data teach nothing")
                    unchecked.clear()
                if logs:
                    means = state.take_means(accelerator)
                    seconds = time.perf_counter() - interval_start
                    row = {
                        "kind": "train",
                        "epoch": step // per_epoch,
                        "step": state.step,
                        **means,
                        "lr": max(rates),
                        "images_per_s": round(interval_images / seconds, 1),
                        "memory_mb": round(memory_mb(accelerator.device), 1),
                    }
                    write(row)
                    left = (last_step - state.step) * run.batch_size * seconds / interval_images
                    shown = "  ".join(f"{name.removeprefix('metric/')} {value:.4g}" for name, value in means.items())
                    display.update(
                        state.step,
                        f"{step // per_epoch + 1}/{-(-last_step // per_epoch)}",
                        f"{shown}  lr {row['lr']:.3g}  {row['images_per_s']:.0f} images/s",
                        left_s=left,
                    )
                if (saves or stopped) and not all_finite(model):
                    raise ValueError(_not_finite("the weights are not finite", state.step, rates, folder))
                if saves or stopped:  # before the evaluation, which may meet an image that it cannot read
                    state.owes_evaluation = evaluates
                    save()
                if evaluates:
                    evaluate()
                if logs or evaluates:
                    interval_start, interval_images = time.perf_counter(), 0
                if stopped:
                    break
        finally:
            del batches  # ends the loader's workers
            display.close()
            if log is not None:
                log.close()
            for tracker in trackers:
                tracker.finish()

    if stopped and state.step < last_step:
        console.print(f"Stopped after step {state.step}; a checkpoint is written.", soft_wrap=True)
        console.print(f"Continue with the same command and --run.dir {folder}", soft_wrap=True)
        return FitResult(folder=folder, step=state.step, best=state.best, stopped=True)
    return _finish(recipe, task, folder, state, ema.module if ema is not None else model, accelerator, console)


def _finish(
    recipe: Recipe,
    task: Task,
    folder: Path,
    state: "_Progress",
    model: nn.Module,
    accelerator: Any,
    console: Console,
) -> FitResult:
    """Writes what the best weights reach: as the last step's evaluation found, where they are its, else evaluated."""
    from safetensors.torch import load_file

    judged: nn.Module = model
    if state.judged_step == state.best_step and not recipe.run.fsdp:  # just now, by this process
        metrics = state.best
    else:
        if recipe.run.fsdp:
            judged = task.build_model().to(accelerator.device)
        judged.load_state_dict(load_file(folder / "best.safetensors"))
        judged.eval()
        with torch.no_grad(), accelerator.autocast():
            metrics = task.evaluate(judged, accelerator)
    judged.eval()
    with torch.no_grad(), accelerator.autocast():
        metrics = metrics | getattr(task, "evaluate_own_size", lambda *_: {})(judged, accelerator)
    if accelerator.is_main_process:
        write_json(folder / "result.json", {"step": state.best_step, **without_nan(metrics)}, indent=2)
        draw_curves(folder)
        with torch.no_grad(), accelerator.autocast():
            getattr(task, "report", lambda *_: None)(judged, folder)
    shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    console.print(f"best weights (step {state.best_step}): {shown}", soft_wrap=True)
    accelerator.wait_for_everyone()
    return FitResult(folder=folder, step=state.step, best=metrics)


@dataclass
class _Progress:
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
    def load(cls, saved: dict[str, Any], device: torch.device) -> "_Progress":
        values = {name: saved[name] for name in ("step", "best", "best_step", "added")}
        return cls(
            **values,
            skipped=list(saved.get("skipped", ())),
            owes_evaluation=saved.get("owes_evaluation", False),
            sums={name: value.to(device) for name, value in saved["sums"].items()},
        )


def _data_changes(parts: Sequence[Part], saved: dict[str, Any]) -> list[str]:
    """In what the data differ from those of a checkpoint."""
    before = saved.get("data", {})
    return [change for part in parts if part.name in before for change in part.changes(before[part.name])]


def _refuse_other_classes(path: Path, model: nn.Module, saved: dict[str, Any]) -> None:
    """More or fewer classes need another head."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for key, value in saved["model"].items():
        if shapes.get(key, tuple(value.shape)) != tuple(value.shape):
            raise ValueError(
                f"{path} cannot go on with these data: they have another number of classes, so {key} would be "
                f"{shapes[key]} and is {tuple(value.shape)}. Start a new run from it: --model.weights "
                f"{path.parent.parent}, with a new --run.dir."
            )


def _groups(recipe: Recipe, task: Task, model: nn.Module, lr: float) -> list[dict[str, Any]]:
    decay = recipe.optim.layer_decay
    if hasattr(task, "param_groups"):
        return decay_by_layer(model, task.param_groups(model, recipe.optim, lr), decay)
    ratio = recipe.optim.offset_lr_ratio
    offset_lr = None if ratio is None else lr * ratio
    groups = param_groups(model, lr=lr, weight_decay=recipe.optim.weight_decay, offset_lr=offset_lr)
    return decay_by_layer(model, groups, decay)


def _train_mode(model: nn.Module, frozen: Sequence[nn.Module]) -> nn.Module:
    model.train()
    for module in frozen:
        module.eval()
    return model


def _batch_stream(task: Task, dataset: Dataset, **options: Any) -> Any:
    if hasattr(task, "batch_stream"):
        return task.batch_stream(dataset, **options)
    if isinstance(dataset, StreamedImages):
        return StreamedBatches(dataset, **options)
    return BatchStream(len(dataset), repeats=getattr(task, "repeats", 1), **options)  # type: ignore[arg-type]


class _Collate:
    """Parts readable from unreadable samples before the task's own collate; a class, so that it can be pickled."""

    def __init__(self, collate: Any):
        self.collate = collate

    def __call__(self, samples: list[Any]) -> tuple[Any, list[Unreadable]]:
        unreadable = [sample for sample in samples if isinstance(sample, Unreadable)]
        readable = [sample for sample in samples if not isinstance(sample, Unreadable)]
        if not readable:
            names = ", ".join(item.name for item in unreadable[:3])
            raise ValueError(f"No image of a batch of {len(samples)} could be read: {names}, ...")
        return self.collate(readable), unreadable


def _batches(dataset: Dataset, stream: Any, task: Task, workers: int, accelerator: Any) -> Iterator[Any]:
    from accelerate.utils import send_to_device

    workers = min(workers, os.cpu_count() or 1)
    seed_everything(stream.seed, STEP)  # the loader draws its base seed from the global generator
    if isinstance(stream, StreamedBatches):
        workers = stream.usable_workers(workers)
        source: dict[str, Any] = {"dataset": stream, "batch_size": None}  # it gives whole batches
    else:
        source = {"dataset": SeededDataset(dataset, stream.seed), "batch_sampler": stream}
    loader: DataLoader = DataLoader(
        **source,
        collate_fn=_Collate(task.collate),
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=_leave_signals_to_the_main_process if workers else None,
        prefetch_factor=4 if workers else None,
    )
    for batch, unreadable in loader:
        yield send_to_device(batch, accelerator.device, non_blocking=True), unreadable


def _leave_signals_to_the_main_process(_: int) -> None:
    """Ctrl-C, and SIGTERM to a whole process group (`timeout`, a job's end), reach the loader's workers, too.

    They ignore the first, so that the main process can finish its step and save; the second ends them, as PyTorch needs
    to be rid of a worker that hangs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))


@contextlib.contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Sets an event on SIGTERM or the first Ctrl-C, so that the loop can save; the second one acts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def remember(number: int, _: Any) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, remember)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_finite(losses: list[Tensor], step: int, accumulate: int, rates: list[float], folder: Path) -> None:
    if not losses:
        return
    finite = torch.isfinite(torch.stack(losses))
    if not finite.all():
        first = int((~finite).int().argmax())
        bad = step - (len(losses) - first - 1) // accumulate
        value = losses[first].item()
        raise ValueError(_not_finite(f"the loss is {value}", bad, rates, folder))


@contextlib.contextmanager
def _explained(batch_size: int) -> Iterator[None]:
    """Batch normalisation cannot be trained on one value: of one image whose last map is a single pixel."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "Batch normalisation has a single value per channel: one image of 32 pixels or less at a time. Take larger "
            f"images or crops, or more images per process and step than --run.batch_size {batch_size} gives."
        ) from error


def _warn_of_nan(metrics: dict[str, Any], metric: str, say: Any) -> None:
    if math.isnan(metrics.get(metric, 0.0)):
        say(f"warning: {metric} is not a number: nothing in the evaluation data could be counted")


def _not_finite(what: str, step: int, rates: list[float], folder: Path) -> str:
    good = list_checkpoints(folder / "checkpoints")
    kept = f"The last good checkpoint is {good[0]}" if good else "No checkpoint was written yet"
    return (
        f"Training stopped: {what} at step {step}, learning rate {max(rates):.3g}. {kept}. "
        "Try a lower --optim.lr, a longer warm-up, --optim.clip_grad 5, or bf16 instead of fp16."
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _how(made: dict[str, Any], chosen: str) -> str:
    """How a run computes, in a line."""
    many = "" if made["processes"] == 1 else f", {made['processes']} processes"
    auto = " (run.precision auto)" if chosen == "auto" else ""
    fast = ", ".join(f"{number} {kind}" for kind, number in made["optimized"].items())
    faster = f"; faster modules of the same function (run.optimize auto): {fast}" if fast else ""
    return f"Training on {made['device']}{many} in {made['precision']}{auto}{faster}."


def _open_folder(recipe: Recipe, made: dict[str, Any]) -> Path:
    """The run's folder, with the resolved recipe in it: `run.dir`, or a new `runs/<name>`, `runs/<name>-2`, ...

    Workers that torchrun restarted go on in the folder of the first try.
    """
    run = recipe.run
    if run.dir is not None:
        folder = Path(run.dir)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = _same_launch(recipe) or _new_folder(Path(run.root), recipe.name)
    if not list_checkpoints(folder / "checkpoints"):
        write_json(folder / "recipe.json", to_dict(recipe), indent=2, sync=True)
        write_json(folder / "launch.json", {"launcher": launcher(), "command": sys.argv, **made}, indent=2)
    return folder


def _new_folder(root: Path, name: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = root / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _same_launch(recipe: Recipe) -> Path | None:
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        return None
    for file in Path(recipe.run.root).glob(f"{recipe.name}*/launch.json"):
        with contextlib.suppress(OSError, json.JSONDecodeError):
            if json.loads(file.read_text())["launcher"] == launcher():
                return file.parent
    return None
