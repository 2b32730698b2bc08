"""The arguments of a verb: read by tyro; what is wrong with them is said in one line."""

import ast
import contextlib
import difflib
import functools
import inspect
import io
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tyro
from tyro.conf import FlagCreatePairsOff, Positional

POSITIONAL = typing.get_args(Positional[str])[1]  # tyro's mark
# What tyro says -> what is said.
FORMS = (
    (r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)", r"\1 must be a whole number, got \2"),
    (r"Error parsing (\S+): could not convert string to float: (.*)", r"\1 must be a number, got \2"),
    (r"Error parsing (\S+): no type matching (.*) could be instantiated from \[(.*)\]\.?", r"\1 takes \2, got \3"),
    (r"Error parsing (\S+): Could not find valid parse for arguments: \[(.*)\]", r"\1 cannot be read from \2"),
    (r"Error parsing (\S+): (.*)", r"\1: \2"),
    (r"Missing value for argument '(?:\(')?([^\s',]+).*", r"\1 needs a value"),  # a tuple until tyro 1.0.14
    (r"Unrecognized options: (.*?)(, .*)?", r"Unexpected argument '\1'"),
)


def bind(function: Callable[..., Any], arguments: Sequence[str], *, prog: str) -> Callable[[], Any]:
    """The call of a verb's function that its arguments ask for.

    Raises:
        ValueError: an option that does not exist, a value that cannot be read, something that is missing or too much.
    """
    options, needed = parameters(function)
    refuse_unknown(arguments, options)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Callable[[], Any]:
        return functools.partial(function, *args, **options)

    try:
        return parse(call, arguments, prog=prog, config=(FlagCreatePairsOff,))
    except ValueError as error:
        if str(error).startswith("Missing from "):
            raise ValueError(f"{prog} needs {' and '.join(needed)}: `{prog} --help` says what they are") from None
        if str(error).startswith("Unexpected argument ") and len(options) == len(
            inspect.signature(function).parameters
        ):
            raise ValueError(f"{error}: {prog} takes options alone, such as {options[0]}") from None
        raise


def parameters(function: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """The options of a verb, and what it cannot do without, as they are typed or shown in its help."""
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


def refuse_unknown(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Raises ValueError for the first option that there is not, with a near one."""
    for word in arguments:
        if word == "--":
            return
        name = word.partition("=")[0]
        if re.match(r"--?[A-Za-z]", name) and name.replace("_", "-") not in (*known, "--help", "-h"):
            raise ValueError(unknown_option(name, known))


def unknown_option(option: str, known: Iterable[str]) -> str:
    """Args: option, known: with their dashes."""
    spelt = {name.replace("_", "-"): name for name in known}
    near = difflib.get_close_matches(option.replace("_", "-"), spelt, n=1)
    return f"Unknown option {option}. " + (f"Did you mean {spelt[near[0]]}?" if near else "--help lists them all.")


def parse(target: Callable[..., Any], arguments: Sequence[str], **options: Any) -> Any:
    """`tyro.cli`, whose complaints are a ValueError of one line instead of a box. `target` must not do the work."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(target, args=list(arguments), **options)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    box = [line.strip(" │") for line in said.getvalue().splitlines()]
    # The lines of the box are ASCII where the terminal has nothing else.
    first = next((k for k, line in enumerate(box) if re.match("╭|-{8}", line)), -1) + 1
    last = next((k for k in range(first, len(box)) if re.fullmatch("[-─╰╯]*", box[k])), len(box))
    raise ValueError(_in_words(" ".join(box[first:last]) or said.getvalue()))


def _in_words(said: str) -> str:
    said = re.sub(r"\{None\}\|(\w+)", r"\1 or None", said)
    if match := re.fullmatch(r"invalid choice '(.*)' for argument '(.*)'. Expected one of (\(.*\))\.?", said):
        value, option, choices = match[1], match[2], [str(choice) for choice in ast.literal_eval(match[3])]
        if "None" in choices:  # then they come in any order
            choices = sorted(set(choices) - {"None"})
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f". Did you mean {near[0]}?" if near else ""
        return f"{option} must be one of {', '.join(choices)}, got '{value}'{hint}"
    for form, words in FORMS:
        if match := re.fullmatch(form, said):
            return match.expand(words)
    return said
