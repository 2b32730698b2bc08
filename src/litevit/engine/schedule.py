"""The learning rate of a step as a pure function: nothing to save, so a resumed run cannot drift.

Two habits of the published code are kept as options because the published numbers came from them.
Warm-up does not shift the schedule: a cosine over 300 epochs with 20 of warm-up stands at epoch 20 of 300 when it takes
over, so the rate jumps down to 9.892e-4 of 1e-3. And LIT and LITv2 step their scheduler with the index of the step (or
epoch) just finished, so step i runs at the rate of i - 1 and the first two are equal (`late=True`). LVT does not.
"""

import math

from litevit.engine.config import ScheduleConfig


def epochs_for(images: int) -> int:
    """Epochs for so many training images: those that show 10,000 images, but at least 12 and at most 100."""
    return min(100, max(12, -(-10_000 // images)))


def _epochs(config: ScheduleConfig) -> int:
    if config.epochs is None:
        raise ValueError("schedule.epochs is None: it follows from the number of training images, `epochs_for`")
    return config.epochs


def total_steps(config: ScheduleConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run, cooldown included."""
    if config.steps is not None:
        return config.steps
    return (_epochs(config) + config.cooldown_epochs) * steps_per_epoch


def learning_rate(
    config: ScheduleConfig, base: float, *, step: int, steps_per_epoch: int, bound_scale: float = 1.0
) -> float:
    """The rate a parameter group with base rate `base` uses in optimizer step `step` (from 0).

    Args:
        bound_scale: total batch / lr_batch; multiplies `warmup_lr` and `min_lr` where the recipe scales them too.
    """
    scale = bound_scale if config.scale_bounds else 1.0
    warmup_lr, min_lr = config.warmup_lr * scale, config.min_lr * scale
    length: float = _epochs(config) * steps_per_epoch if config.steps is None else config.steps
    warmup: float = config.warmup_epochs * steps_per_epoch if config.warmup_steps is None else config.warmup_steps
    now: float = step
    if config.per == "epoch":
        now, length, warmup = step // steps_per_epoch, length / steps_per_epoch, warmup / steps_per_epoch
    if config.late:
        now = max(now - 1, 0)

    if now < warmup and config.warmup_ratio is None:
        return warmup_lr + now * (base - warmup_lr) / warmup
    if config.kind == "cosine":
        rate = min_lr if now >= length else min_lr + 0.5 * (base - min_lr) * (1 + math.cos(math.pi * now / length))
    elif config.kind == "poly":
        rate = min_lr + (base - min_lr) * (1 - min(now / length, 1)) ** config.power
    elif config.kind == "step":
        rate = base * config.gamma ** sum(step // steps_per_epoch >= milestone for milestone in config.milestones)
    else:
        rate = base
    if now < warmup and config.warmup_ratio is not None:
        rate *= 1 - (1 - now / warmup) * (1 - config.warmup_ratio)
    return rate
