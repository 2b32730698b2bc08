"""The arguments of every verb but `train`: read by tyro; what is wrong with them is said in one line."""

import difflib
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tyro.conf import FlagCreatePairsOff, Positional

from litevit.cli.terminal import parse

POSITIONAL = typing.get_args(Positional[str])[1]  # tyro's mark


def bind(function: Callable[..., Any], arguments: Sequence[str], *, prog: str) -> Callable[[], Any]:
    """The call of a verb's function that its arguments ask for.

    Raises:
        ValueError: an option that does not exist, a value that cannot be read, something that is missing or too much.
    """
    given, places = _parameters(function)
    refuse_unknown(arguments, given)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Callable[[], Any]:
        return functools.partial(function, *args, **options)

    try:
        return parse(call, arguments, prog=prog, config=(FlagCreatePairsOff,))
    except ValueError as error:
        raise ValueError(_in_words(str(error), prog, places)) from None


def refuse_unknown(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Raises ValueError for the first option that there is not, with a near one."""
    for word in arguments:
        if word == "--":
            return
        name = word.partition("=")[0].replace("_", "-")
        if re.match(r"--?[A-Za-z]", name) and name not in (*known, "--help", "-h"):
            raise ValueError(unknown_option(name, known))


def unknown_option(option: str, known: Iterable[str]) -> str:
    """Args: option, known: with their dashes."""
    spelt = {name.replace("_", "-"): name for name in known}
    near = difflib.get_close_matches(option.replace("_", "-"), spelt, n=1)
    return f"Unknown option {option}. " + (f"Did you mean {spelt[near[0]]}?" if near else "--help lists them all.")


def _parameters(function: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """The options of a verb, and what it cannot do without, both as they are typed or shown in its help."""
    hints = typing.get_type_hints(function, include_extras=True)
    options, needed = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        positional = POSITIONAL in getattr(hints[name], "__metadata__", ())
        option = f"--{'no-' * (parameter.default is True)}{name.replace('_', '-')}"
        if not positional:
            options.append(option)
        if parameter.default is parameter.empty:
            needed.append(name.upper() if positional else option)
    return options, needed


def _in_words(said: str, prog: str, needed: Sequence[str]) -> str:
    if said.startswith("Missing from "):
        return f"{prog} needs {' and '.join(needed)}: `{prog} --help` says what they are"
    return said
