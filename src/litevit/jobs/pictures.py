"""Pictures of a classifier's results: confusion matrix, and predictions with the mistakes marked."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from litevit.data.classification import ClassificationData
from litevit.files import whole_file
from litevit.jobs.fonts import drawable, families

SHOWN = 48


def draw_confusion(confusion: Tensor, names: Sequence[str], path: Path) -> None:
    """Args: confusion: (K, K) counts, rows are the true classes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    classes = len(names)
    side = max(4.0, min(0.45 * classes, 24.0))
    shown = [drawable(name) for name in names]
    with rc_context({"font.family": families(shown)}):
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axis = figure.subplots()
        share = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
        axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
        axis.set(title="held-out images", xlabel="predicted", ylabel="true")
        axis.set_xticks(range(classes), shown, rotation=90, parse_math=False)
        axis.set_yticks(range(classes), shown, parse_math=False)
        if classes <= 20:
            for row in range(classes):
                for column in range(classes):
                    if count := int(confusion[row, column]):
                        colour = "white" if share[row, column] > 0.5 else "black" if row == column else "crimson"
                        axis.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
        with whole_file(path) as temporary:
            figure.savefig(temporary, dpi=100, format="png")


@torch.no_grad()
def draw_predictions(
    model: nn.Module, dataset: Dataset, names: Sequence[str], data: ClassificationData, path: Path
) -> None:
    """A sheet of images with what the model says; every mistake first, in red, with the true class."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    device = next(model.parameters()).device
    mistakes: list[tuple[int, int, float]] = []  # number of the image, guess, how sure
    right: list[tuple[int, int, float]] = []
    for first in range(0, len(dataset), data.eval_batch_size):  # type: ignore[arg-type]
        samples = [dataset[i] for i in range(first, min(first + data.eval_batch_size, len(dataset)))]  # type: ignore[arg-type]
        images = torch.stack([image for image, _ in samples])
        best, predicted = model(images.to(device)).float().softmax(1).cpu().max(1)
        for i, ((_, label), guess, sure) in enumerate(zip(samples, predicted.tolist(), best.tolist()), first):
            (right if guess == label else mistakes).append((i, guess, sure))
    shown = mistakes[:SHOWN]
    spare = SHOWN - len(shown)
    shown += right[:: max(1, len(right) // spare)][:spare] if spare else []
    columns = 8
    rows = -(-len(shown) // columns)
    shown_names = [drawable(name) for name in names]
    with rc_context({"font.family": families(shown_names)}):
        figure = Figure(figsize=(1.4 * columns, 1.7 * rows + 0.2), layout="constrained")
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
        for axis, item in zip(figure.subplots(rows, columns, squeeze=False).flat, shown + [None] * columns):
            axis.set_xticks([])
            axis.set_yticks([])
            if item is None:
                axis.set_visible(False)
                continue
            number, guess, sure = item
            image, label = dataset[number]
            axis.imshow((image * std + mean).clamp(0, 1).permute(1, 2, 0).numpy())
            wrong = guess != label
            text = f"{shown_names[guess]} {sure:.0%}" + (f"\nis {shown_names[label]}" if wrong else "")
            axis.set_title(text, fontsize=8, color="crimson" if wrong else "black", parse_math=False)
            for spine in axis.spines.values():
                spine.set_color("crimson" if wrong else "lightgrey")
                spine.set_linewidth(3 if wrong else 1)
        with whole_file(path) as temporary:
            figure.savefig(temporary, dpi=100, format="png")
