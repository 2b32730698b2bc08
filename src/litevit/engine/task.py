"""What the training loop asks of a task."""

from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset


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

    def build_model(self) -> nn.Module:
        """The model to train, with the weights it starts from."""
        ...

    def train_dataset(self) -> Dataset:
        """Map-style, or `StreamedImages`; augmentation uses Python's, NumPy's and PyTorch's generators as it likes."""
        ...

    def collate(self, samples: list[Any]) -> Any:
        """Args: samples: of the data set. Returns: a batch, whose tensors the loop moves to the device."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """One forward of a micro-batch.

        Args:
            model: in training mode, wrapped as the run asks.
            batch: of `collate`, on the device.

        Returns:
            Losses, which are summed; entries called `metric/...` are only logged.
        """
        ...

    def evaluate(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        """Called by every process; each takes its share and all return the same.

        Args:
            model: in evaluation mode, with the moving average where the run keeps one.
            accelerator: Hugging Face's, for sums over processes.

        Returns:
            Metrics by name, `metric` among them.
        """
        ...
