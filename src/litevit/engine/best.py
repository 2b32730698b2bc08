"""The best weights of a run: what is kept with them, and what they reach in the end."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from litevit.engine import parallel
from litevit.engine.config import Recipe, to_dict
from litevit.engine.curves import draw_curves
from litevit.engine.learner import Learner
from litevit.engine.progress import Progress
from litevit.engine.task import Task
from litevit.files import without_nan, write_json
from litevit.seals import load_sealed

BEST = "best.safetensors"


def kept_with(recipe: Recipe, task: Task, step: int, metrics: dict[str, float]) -> dict[str, Any]:
    """What the file of the weights says of them."""
    kept = {"recipe": to_dict(recipe), "step": step, "metrics": metrics}
    for name, values in {"classes": "class_names", "class_ids": "class_ids"}.items():
        if known := getattr(task, values, ()):
            kept[name] = list(known)
    return kept


def finish(learner: Learner, task: Task, folder: Path, state: Progress, console: Console) -> dict[str, float]:
    """Writes what the best weights reach: as the last step's evaluation found, where they are its, else evaluated."""
    judged, accelerator, fsdp = learner.judged, learner.accelerator, learner.run.fsdp
    metrics = state.best
    if again := state.judged_step != state.best_step:  # not found just now, by this process
        parallel.restore_model(judged, load_sealed(folder / BEST), fsdp=fsdp)
    judged.eval()
    with parallel.gathered(judged, fsdp=fsdp), torch.no_grad(), accelerator.autocast():
        if again:
            metrics = task.evaluate(judged, accelerator)
        metrics = metrics | getattr(task, "evaluate_own_size", lambda *_: {})(judged, accelerator)
        if accelerator.is_main_process:
            write_json(folder / "result.json", {"step": state.best_step, **without_nan(metrics)}, indent=2, sync=True)
            draw_curves(folder)
            getattr(task, "report", lambda *_: None)(judged, folder)
        accelerator.wait_for_everyone()
    shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    console.print(f"best weights (step {state.best_step}): {shown}", soft_wrap=True)
    return metrics
