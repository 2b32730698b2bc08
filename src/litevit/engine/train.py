"""The training loop: one readable function, `fit`, for every task.

A run is a sequence of optimizer steps, and step i is a function of the state after step i - 1 and of numbers in the
recipe: the batch comes from (seed, epoch, position), the augmentation from (seed, epoch, index), the learning rate from
i, and dropout, drop path and mixing from generators seeded with (seed, process, i). So a checkpoint needs no generator
states, and a run killed anywhere continues bit for bit, with any number of loader workers.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from litevit.data.class_folders import Part, table
from litevit.data.sampling import STEP, seed_everything
from litevit.data.streaming import StreamedImages
from litevit.engine import best, parallel, run_folder
from litevit.engine.batches import batch_stream, batches_of
from litevit.engine.best import BEST
from litevit.engine.checkpoint import load_latest, remove_older, save_checkpoint, save_weights
from litevit.engine.config import Recipe, check, differences, to_dict
from litevit.engine.ema import all_finite
from litevit.engine.learner import Learner
from litevit.engine.logging import (
    Display,
    MetricsFile,
    check_trackers,
    default_console,
    memory_mb,
    open_trackers,
    scalars,
)
from litevit.engine.progress import Progress, data_changes, refuse_other_classes
from litevit.engine.schedule import epochs_for, total_steps
from litevit.engine.stopping import stop_signal
from litevit.engine.task import Task as Task
from litevit.engine.trouble import check_finite, explained, not_finite, warn_of_nan
from litevit.files import without_nan, write_json

STOP_CHECK = 8  # steps between two looks at the other processes' stop signals


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run has come to."""

    folder: Path  # of the run
    step: int  # optimizer steps taken
    best: dict[str, float] = field(default_factory=dict)  # metrics of the best weights
    stopped: bool = False  # by SIGTERM or Ctrl-C, with a checkpoint written
    by_keyboard: bool = False  # it was Ctrl-C

    @property
    def weights(self) -> Path:
        """The best weights, `best.safetensors`."""
        return self.folder / BEST


def fit(recipe: Recipe, task: Task, *, console: Console | None = None) -> FitResult:
    """Trains, evaluates and saves under `runs/<name>/`; continues when `run.dir` holds an unfinished run.

    Args:
        recipe: the whole run.
        task: what the loop has to be told about the task.
        console: where its lines go; None: the terminal.

    Returns:
        The folder, the last step, the best metrics.

    Raises:
        ValueError: a checkpoint of another recipe, another run in the folder, a batch larger than the data, a loss
            that is not finite, ...
        OSError: a checkpoint could not be written (a full disk); the ones before it are untouched.
    """
    with contextlib.ExitStack() as held:
        return _fit(recipe, task, console, held)


def _fit(recipe: Recipe, task: Task, console: Console | None, held: contextlib.ExitStack) -> FitResult:
    """Args: held: keeps the run's folder until the end."""
    check(recipe)
    chosen, run = recipe.run.precision, parallel.with_precision(recipe.run)
    recipe = replace(recipe, run=run)
    accelerator = parallel.create_accelerator(run)
    check_trackers(run.trackers)
    main = accelerator.is_main_process
    console = console or default_console()
    if not main:
        console = Console(quiet=True)

    learner = Learner(recipe, task, accelerator)
    dataset = task.train_dataset()
    parts: list[Part] = getattr(task, "parts", [])
    if parts:
        console.print(table(parts), highlight=False, markup=False, soft_wrap=True)
    for note in getattr(task, "notes", ()):
        console.print(f"warning: {note}", highlight=False, markup=False, soft_wrap=True)
    stream = batch_stream(
        task,
        dataset,
        batch_size=run.batch_size,
        accumulate=run.accumulate,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        seed=run.seed,
    )
    per_epoch = stream.steps_per_epoch
    said = [*getattr(task, "said", ()), *learner.said]
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
    made = run_folder.made_on(accelerator, run.precision, getattr(task, "optimized", {}))
    folder = held.enter_context(run_folder.opened(recipe, made, accelerator))
    console.print(run_folder.how(made, chosen), highlight=False, markup=False, soft_wrap=True)

    state = _resume(recipe, parts, follows, learner, folder, last_step, console)
    if main and parts:
        write_json(folder / "data.json", {part.name: part.to_dict() for part in parts}, indent=2, sync=True)
    stream.start, stream.steps = state.step, last_step

    log = None
    if main:
        log = MetricsFile(folder / "metrics.jsonl", resume_step=state.step, evaluates=state.owes_evaluation)
    trackers = open_trackers(run.trackers if main else (), folder, to_dict(recipe))
    display = Display(console, steps=last_step, start=state.step)
    batches = batches_of(dataset, stream, task, run.workers, accelerator)

    def write(row: dict[str, Any]) -> None:
        if log is not None:
            log.write(without_nan(row))
            for tracker in trackers:
                tracker.log(scalars(row), step=row["step"])

    def evaluate() -> None:
        """Evaluates the weights that would be kept; the best ones go to best.safetensors."""
        metrics = learner.evaluate(task)
        state.judged_step, state.owes_evaluation = state.step, False
        write({"kind": "eval", "epoch": state.step // per_epoch, "step": state.step, **metrics})
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        display.line(f"evaluated after step {state.step}: {shown}")
        warn_of_nan(metrics, task.metric, display.line)
        if state.is_best(metrics, task.metric):
            state.best, state.best_step = metrics, state.step
            weights = learner.judged_weights()
            if main:
                save_weights(folder / BEST, weights, best.kept_with(recipe, task, state.step, metrics))

    def save() -> None:
        state.share_sums(accelerator)
        entry = {
            "recipe": to_dict(recipe),
            "data": {part.name: part.to_dict() for part in parts},
            **learner.entry(),
            **state.entry(),
        }
        if main:
            save_checkpoint(folder / "checkpoints", state.step, entry, keep=run.keep)
        accelerator.wait_for_everyone()

    stopped = False
    unchecked: list[Tensor] = []
    interval_start, interval_images = time.perf_counter(), 0
    with stop_signal() as stop:
        try:
            if state.owes_evaluation:  # its checkpoint was written before
                evaluate()
            while state.step < last_step:
                step = state.step
                rates = learner.set_rates(recipe.schedule, step, per_epoch)

                # One optimizer step over `accumulate` micro-batches
                for micro in range(run.accumulate):
                    batch, unreadable = next(batches)
                    state.count(unreadable, getattr(task, "max_unreadable", 0), display)
                    seed_everything(run.seed, STEP, accelerator.process_index, step * run.accumulate + micro)
                    last = micro == run.accumulate - 1
                    with contextlib.nullcontext() if last or run.fsdp else accelerator.no_sync(learner.wrapped):
                        with accelerator.autocast(), explained(run.batch_size):
                            losses = task.loss(learner.wrapped, batch)
                        total = sum(value for name, value in losses.items() if not name.startswith("metric/"))
                        assert isinstance(total, Tensor)
                        accelerator.backward(total / run.accumulate)
                    state.add(losses, total)
                    unchecked.append(total.detach())
                learner.step(recipe.optim.clip_grad)
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
                    check_finite(unchecked, state.step, run.accumulate, rates, folder)
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
                if (saves or stopped) and not all_finite(learner.model):
                    raise ValueError(not_finite("the weights are not finite", state.step, rates, folder))
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
        return FitResult(folder=folder, step=state.step, best=state.best, stopped=True, by_keyboard=stop.by_keyboard)
    metrics = best.finish(learner, task, folder, state, console)
    return FitResult(folder=folder, step=state.step, best=metrics)


def _resume(
    recipe: Recipe,
    parts: Sequence[Part],
    follows: set[str],
    learner: Learner,
    folder: Path,
    last_step: int,
    console: Console,
) -> Progress:
    """Puts the folder's newest checkpoint into the learner. Returns where the run stands.

    Args:
        follows: fields of the recipe that follow from the data, and may change with them.

    Raises:
        ValueError: it is of another recipe, or was trained on other data.
    """
    state = Progress()
    found = load_latest(folder / "checkpoints", lambda text: console.print(f"warning: {text}", soft_wrap=True))
    if found is not None:
        path, saved = found
        if (changes := data_changes(parts, saved)) and not recipe.run.data_changed:
            raise ValueError(
                f"{path} was trained on other data: {'; '.join(changes)}. Give the data it began with, or go on with "
                "these by --run.data_changed True."
            )
        if changes:
            refuse_other_classes(path, learner.model, saved)
            changes += differences(recipe, saved["recipe"], only=follows)
        if different := differences(recipe, saved["recipe"], but=follows if changes else ()):
            raise ValueError(
                f"{path} is a checkpoint of another recipe; it differs in " + "; ".join(different) + ". "
                "Give --run.dir a new folder, or the recipe saved beside it."
            )
        learner.restore(saved)
        state = Progress.load(saved, learner.accelerator.device)
        console.print(f"Continuing {folder} after step {state.step} of {last_step}.", soft_wrap=True)
        if changes:
            console.print(f"warning: the data have changed: {'; '.join(changes)}", soft_wrap=True)
        if learner.accelerator.is_main_process:  # a process that was killed between writing and removing
            remove_older(folder / "checkpoints", state.step, keep=recipe.run.keep)
    return state
