"""The command line: `litevit VERB ...`. Parses arguments and prints; the work is done by the library.

A verb is a function in a module of its own; its arguments and docstring are its help. Libraries are imported when a
verb runs.
"""

import difflib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tyro
from tyro.conf import FlagCreatePairsOff

from litevit.cli.bench import bench
from litevit.cli.convert import convert
from litevit.cli.doctor import doctor
from litevit.cli.evaluate import eval_
from litevit.cli.explain import explain
from litevit.cli.export import export
from litevit.cli.models import info, list_
from litevit.cli.predict import predict
from litevit.cli.token_labels import token_labels
from litevit.cli.train import train


class Verb(NamedTuple):
    """A command: its function, and the module without which it is not offered."""

    run: Callable[..., int | None]  # None: 0
    needs: str
    raw: bool = False  # takes the list of arguments and parses it itself


VERBS: dict[str, Verb] = {
    "list": Verb(list_, "litevit.models"),
    "info": Verb(info, "litevit.models"),
    "predict": Verb(predict, "litevit.jobs.predict"),
    "eval": Verb(eval_, "litevit.jobs.evaluate_dense"),
    "train": Verb(train, "litevit.recipes", raw=True),
    "convert": Verb(convert, "litevit.checkpoints.convert"),
    "export": Verb(export, "litevit.deploy.exporter"),
    "bench": Verb(bench, "litevit.bench.commands", raw=True),
    "explain": Verb(explain, "litevit.explain.figures"),
    "token-labels": Verb(token_labels, "litevit.jobs.token_labels"),
    "doctor": Verb(doctor, "litevit.data.doctor"),
}


def verbs() -> dict[str, Verb]:
    """The verbs whose library is here."""
    return {name: verb for name, verb in VERBS.items() if importlib.util.find_spec(verb.needs) is not None}


def _usage() -> str:
    lines = ["usage: litevit VERB [OPTIONS]", "", "LIT, LITv2 and LVT: vision Transformers on today's PyTorch.", ""]
    for name, verb in verbs().items():
        lines.append(f"  {name:13} {(verb.run.__doc__ or '').splitlines()[0]}")
    return "\n".join([*lines, "", "`litevit VERB --help` says more. `litevit --version` prints the version."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0, or 2 after one line on stderr about what the user can mend."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name in ("-V", "--version"):
        import litevit

        print(litevit.__version__)
        return 0
    known = verbs()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(known)}."
        return _fail(f"Unknown command '{name}'. {hint}")
    verb = known[name]
    warnings.showwarning = _show_warning
    try:
        if verb.raw:
            return verb.run(rest) or 0
        code = tyro.cli(verb.run, args=rest, prog=f"litevit {name}", config=(FlagCreatePairsOff,))
        return code or 0
    except BrokenPipeError:  # `litevit list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        return _fail(str(error))


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line, without the place in the source that Python shows."""
    print("litevit: warning: " + " ".join(str(message).split()), file=sys.stderr)


def _fail(message: str) -> int:
    if " in DataLoader worker process " in message:  # a traceback; its last line that is not indented has the error
        last = [line for line in message.splitlines() if re.match(r"[\w.]+: ", line)][-1:]
        message = last[0].partition(": ")[2] if last else message
    print("litevit: " + " ".join(message.split()), file=sys.stderr)
    return 2
