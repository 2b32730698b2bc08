"""Sizes, tables and progress bars, as several verbs read and show them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

Device = Literal["auto", "cpu", "cuda", "mps"]


NO_FILES = ("none", "official", "imagenet")  # words for weights, in any case; anything else is a path


def plain_word(weights: str) -> str:
    return weights.lower() if weights.lower() in NO_FILES else weights


def show(*items: Any, **options: Any) -> None:
    from rich.console import Console

    Console(soft_wrap=True).print(*items, **options)


def parse_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    if not size:
        return None
    if len(size) > 2 or min(size) < 32:
        raise ValueError(f"--size takes one side or H W, each at least 32, got {' '.join(map(str, size))}")
    from litevit.checkpoints.preprocessing import check_largest

    check_largest(*size)
    return (size[0], size[-1])


def at_least_one(**options: int | None) -> None:
    """Raises ValueError for a number below 1; None: not given. Args: options: by their names."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")


def refuse(options: dict[str, Any], meant: str) -> None:
    """Raises ValueError for options that were given although they do not apply.

    Args:
        options: by their names; what was not given is None, empty or off.
        meant: what they are there for, and what this is.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value not in (None, (), False, 0)]
    if given:
        raise ValueError(f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} {meant}")


def refuse_for_run(model: str, options: dict[str, Any]) -> None:
    """A training run's folder, or its file, in place of a model's name knows its weights and classes."""
    from litevit.zoo import GENERIC, MODELS

    if model not in (*MODELS, *GENERIC) and Path(model).exists():
        refuse(options, f"for the name of a model; {model} has its own")


def show_rows(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    used = [k for k in range(len(headers)) if any(row[k] for row in rows)]
    # Nothing is cut off: names stay on one line, so that they can be copied, the rest is folded where it must; names
    # that would leave the rest no room, such as long paths, are folded as well.
    narrow = all(len(row[0]) <= Console().width // 2 for row in rows)
    table = Table(*(Column(headers[k], overflow="fold", no_wrap=k == 0 and narrow) for k in used))
    for row in rows:
        table.add_row(*(Text(row[k]) for k in used))
    show(table)


def progress(stream: Any, total: int, what: str) -> Any:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = total < 3 or not console.is_terminal
    return track(stream, description=what, total=total, console=console, transient=True, disable=hidden)


@contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Yields `advance(done, total)`, drawn on stderr."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
