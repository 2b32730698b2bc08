"""What learns in a run: the model, its moving average and the optimizer, on this process."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from litevit.data.sampling import seed_everything
from litevit.engine import parallel
from litevit.engine.config import Recipe
from litevit.engine.ema import create_ema
from litevit.engine.optim import create_optimizer, param_groups, scaled_lr
from litevit.engine.schedule import learning_rate
from litevit.engine.stages import decay_by_layer, freeze_stages
from litevit.engine.task import Task

INIT = 3  # seeds the weights; the other streams are in litevit.data.sampling


class Learner:
    """Model, moving average and optimizer, made on the accelerator's device and divided as the recipe says.

    Attributes:
        model: what is trained and saved.
        wrapped: what the training step calls: the model, or DDP around it.
        said: what the run says about it at the start.
    """

    def __init__(self, recipe: Recipe, task: Task, accelerator: Any):
        run = recipe.run
        self.run, self.accelerator = run, accelerator
        seed_everything(run.seed, INIT)
        self.model = task.build_model()
        self.frozen, said_of_frozen = freeze_stages(self.model, recipe.optim.freeze)
        self.said = [said_of_frozen] if said_of_frozen else []
        self.ema = create_ema(self.model, run.ema_decay, fsdp=run.fsdp)
        self.wrapped = parallel.prepare_model(train_mode(self.model, self.frozen), run, accelerator)
        if self.ema is not None:
            self.ema.to(accelerator.device)
            if run.fsdp:
                parallel.shard_parameters(self.ema.module)
        base_lr = scaled_lr(recipe.optim, run.batch_size)
        self.bound_scale = base_lr / recipe.optim.lr
        groups = groups_of(recipe, task, self.model, base_lr)
        self.base_rates = [group["lr"] for group in groups]
        self.optimizer = accelerator.prepare(create_optimizer(groups, recipe.optim))

    @property
    def judged(self) -> nn.Module:
        """The weights that are evaluated and kept: the average, where there is one."""
        return self.ema.module if self.ema is not None else self.model

    def set_rates(self, schedule: Any, step: int, steps_per_epoch: int) -> list[float]:
        """Sets the learning rates of a step. Returns them, without the shares of layers."""
        rates = [
            learning_rate(schedule, base, step=step, steps_per_epoch=steps_per_epoch, bound_scale=self.bound_scale)
            for base in self.base_rates
        ]
        for group, rate in zip(self.optimizer.param_groups, rates):
            group["lr"] = rate * group.get("lr_scale", 1.0)
        return rates

    def step(self, clip_grad: float | None) -> None:
        """One step of the optimizer with the gradients that are there, and of the average."""
        if clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model)

    def evaluate(self, task: Task) -> dict[str, float]:
        """What the judged weights reach; the model goes on training as before."""
        parallel.share_buffers(self.judged)
        self.judged.eval()
        with torch.no_grad(), self.accelerator.autocast():
            metrics = task.evaluate(self.judged, self.accelerator)
        train_mode(self.model, self.frozen)
        return metrics

    def judged_weights(self) -> dict[str, Tensor]:
        return parallel.model_state(self.judged, fsdp=self.run.fsdp)

    def entry(self) -> dict[str, Any]:
        """Its part of a checkpoint; every process has to call it."""
        fsdp, scaler = self.run.fsdp, self.accelerator.scaler
        return {
            "model": parallel.model_state(self.model, fsdp=fsdp),
            "optimizer": parallel.optimizer_state(self.model, self.optimizer.optimizer, fsdp=fsdp),
            "ema": parallel.model_state(self.ema.module, fsdp=fsdp) if self.ema is not None else None,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of `entry`."""
        parallel.restore(self.model, self.optimizer, saved, fsdp=self.run.fsdp)
        if self.ema is not None:
            parallel.restore_model(self.ema.module, saved["ema"], fsdp=self.run.fsdp)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])


def groups_of(recipe: Recipe, task: Task, model: nn.Module, lr: float) -> list[dict[str, Any]]:
    decay = recipe.optim.layer_decay
    if hasattr(task, "param_groups"):
        return decay_by_layer(model, task.param_groups(model, recipe.optim, lr), decay)
    ratio = recipe.optim.offset_lr_ratio
    offset_lr = None if ratio is None else lr * ratio
    groups = param_groups(model, lr=lr, weight_decay=recipe.optim.weight_decay, offset_lr=offset_lr)
    return decay_by_layer(model, groups, decay)


def train_mode(model: nn.Module, frozen: Sequence[nn.Module]) -> nn.Module:
    model.train()
    for module in frozen:
        module.eval()
    return model
