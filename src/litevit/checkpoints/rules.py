"""Key maps between official checkpoints and litevit: a table of patterns, read in both directions.

A rule is `(official, ours)`. `{}` stands for an index and `**` for the rest of a key; both are copied across in order.
`ours=None` names a key that is dropped on purpose (it has no place in litevit and is not restored on the way back).
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Rule(NamedTuple):
    """One row of a key map; see the top of this file."""

    official: str
    ours: str | None


class Renamed(NamedTuple):
    """Result of `rename`: every source key is in exactly one of `used`, `dropped`, `unexpected`."""

    state: dict
    used: dict[str, str]  # source key -> target key
    dropped: tuple[str, ...]  # named by a rule with ours=None
    unexpected: tuple[str, ...]  # matched by no rule


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)").replace(r"\*\*", r"(.+)") + r"\Z")


def _fill(pattern: str, groups: Iterable[str]) -> str:
    values = iter(groups)
    return re.sub(r"\{\}|\*\*", lambda _: next(values), pattern)


def rename(state: Mapping[str, T], rules: Iterable[Rule], *, reverse: bool = False) -> Renamed:
    """Renames the keys of `state` by the first rule that matches each.

    Args:
        state: flat key -> value (tensors, shapes, gradients: values are passed through untouched).
        rules: tried in order.
        reverse: False maps official -> ours, True maps ours -> official.
    """
    table: list[tuple[re.Pattern[str], str | None]] = []
    for rule in rules:
        if not reverse:
            table.append((_compile(rule.official), rule.ours))
        elif rule.ours is not None:
            table.append((_compile(rule.ours), rule.official))
    out: dict[str, T] = {}
    used: dict[str, str] = {}
    dropped, unexpected = [], []
    for key, value in state.items():
        for pattern, target in table:
            if match := pattern.match(key):
                if target is None:
                    dropped.append(key)
                else:
                    used[key] = _fill(target, match.groups())
                    out[used[key]] = value
                break
        else:
            unexpected.append(key)
    return Renamed(out, used, tuple(dropped), tuple(unexpected))
