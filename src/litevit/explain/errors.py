"""Which pictures a classifier gets wrong, or barely right."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

Row = tuple[str, list[tuple[int, str]]]


def sheet(
    probabilities: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    columns: int = 8,
    classes: int = 6,
    letters: int = 16,
) -> tuple[list[Row], dict[str, Any]]:
    """What to show: the most confident mistakes, the least certain hits, then examples of the worst classes.

    Args:
        probabilities: (n, K).
        labels: (n,) true classes.
        names: K names.
        columns: pictures per row.
        classes: how many classes get a row of examples, those with most mistakes first.
        letters: how long a name may be; of a longer one the first of its synonyms is shown, or its beginning.

    Returns:
        Rows of a title and (index, caption) pairs, without rows that would be empty; and the arrays.
    """
    names = [_shorter(name, letters) for name in names]
    confidence, predicted = probabilities.max(1)
    wrong = predicted != labels
    mistakes = [i for i in confidence.argsort(descending=True).tolist() if wrong[i]]
    hits = [i for i in confidence.argsort().tolist() if not wrong[i]]

    def caption(i: int) -> str:
        said = f"{names[int(predicted[i])]}, {100 * float(confidence[i]):.0f} %"
        return f"{said}\nis {names[int(labels[i])]}" if wrong[i] else said

    rows: list[Row] = [
        ("surest\nmistakes", [(i, caption(i)) for i in mistakes[:columns]]),
        ("least\ncertain hits", [(i, caption(i)) for i in hits[:columns]]),
    ]
    errors = {k: int((wrong & (labels == k)).sum()) for k in labels.unique().tolist()}
    for k in sorted(errors, key=lambda k: (-errors[k], k))[:classes]:
        own = [i for i in mistakes if labels[i] == k] + [i for i in hits if labels[i] == k]
        total = int((labels == k).sum())
        rows.append((f"{names[k]}\n{errors[k]} of {total} wrong", [(i, caption(i)) for i in own[:columns]]))
    arrays = {"probabilities": probabilities.numpy(), "labels": labels.numpy(), "predicted": predicted.numpy()}
    return [row for row in rows if row[1]], arrays


def _shorter(name: str, letters: int) -> str:
    if len(name) > letters:
        name = name.split(",")[0]
    return name if len(name) <= letters else name[: letters - 1] + "…"
