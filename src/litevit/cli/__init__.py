"""The command line: `litevit VERB ...`. Parses arguments and prints; the work is done by the library.

A verb is a function in a module of its own; its arguments and docstring are its help. Libraries are imported when a
verb runs.
"""

import codecs
import difflib
import importlib
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Verb(NamedTuple):
    """A command, imported when it runs, so that `litevit --help` waits for nothing."""

    module: str  # of this folder
    function: str
    what: str  # the first line of the function's docstring
    raw: bool = False  # takes the list of arguments and parses it itself

    def load(self) -> Callable[..., int | None]:
        """Its function. Returns None or 0 where all went well."""
        return getattr(importlib.import_module(f"litevit.cli.{self.module}"), self.function)


VERBS: dict[str, Verb] = {
    "list": Verb(
        "models", "list_", "Shows the models: parameters, multiply-adds, published figures, licence and source."
    ),
    "info": Verb("models", "info", "Shows everything known about one model."),
    "predict": Verb(
        "predict",
        "predict",
        "Predicts on images, folders and videos: what the model's task is, with the preprocessing of its weights.",
    ),
    "eval": Verb(
        "evaluate",
        "eval_",
        "Measures a model on a data set, as its task is measured: top-1, COCO's AP, mIoU or panoptic quality.",
    ),
    "train": Verb(
        "train", "train", "Runs a recipe: litevit train RECIPE --data PATH [--field.name value ...].", raw=True
    ),
    "convert": Verb(
        "convert",
        "convert",
        "Converts an official checkpoint to litevit's layout, or a litevit checkpoint back, bit for bit.",
    ),
    "export": Verb(
        "export",
        "export",
        "Writes a model as a file of another runtime, proven to be the same function; the proof lies beside it.",
    ),
    "pack": Verb(
        "pack",
        "pack",
        "Writes a model as a folder in Hugging Face's layout: configuration, weights and a model card.",
    ),
    "bench": Verb(
        "bench",
        "bench",
        "Measures speed beside today's models: litevit bench {models,attention,ops,scaling} [OPTIONS].",
        raw=True,
    ),
    "explain": Verb(
        "explain",
        "explain",
        "Draws what a model looks at: offsets, attention, frequencies, features, class activation, its errors.",
    ),
    "app": Verb(
        "app",
        "app",
        "Serves a web page on this machine: try the models on pictures, see what they look at, follow training runs.",
    ),
    "token-labels": Verb(
        "token_labels",
        "token_labels",
        "Writes label maps for token labelling, made by any classifier; an interrupted run is continued.",
    ),
    "reproduce": Verb(
        "reproduce",
        "reproduce",
        "Measures every published figure on your own data sets, with the official weights, beside what was published.",
    ),
    "doctor": Verb(
        "doctor",
        "doctor",
        "Checks a data set before hours are spent on it. "
        "Exit code 0: clean; 1: training would go wrong; 2: no data set.",
    ),
}


def _usage() -> str:
    lines = ["usage: litevit VERB [OPTIONS]", "", "LIT, LITv2 and LVT: vision Transformers on today's PyTorch.", ""]
    lines += [f"  {name:13} {verb.what}" for name, verb in VERBS.items()]
    return "\n".join([*lines, "", "`litevit VERB --help` says more. `litevit --version` prints the version."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0, or 2 after one line on stderr about what the user can mend."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _write_everything(sys.stdout)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name in ("-V", "--version"):
        import litevit

        print(litevit.__version__)
        return 0
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=2)
        if not near:
            from litevit.recipes import RECIPES

            if name in RECIPES:
                return _fail(f"'{name}' is a recipe: litevit train {name} --data PATH")
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(VERBS)}."
        return _fail(f"Unknown command '{name}'. {hint}")
    verb = VERBS[name]
    warnings.showwarning = _show_warning
    try:
        run = verb.load()
        if verb.raw:
            return run(rest) or 0
        from litevit.cli.arguments import bind

        return bind(run, rest, prog=f"litevit {name}")() or 0
    except BrokenPipeError:  # `litevit list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        said = _in_options(error, name)
        if "failed to map segment" in said:  # of a library, while it is imported
            said = f"Out of memory ({said}). Take a machine or a limit with more."
        return _fail(said)
    except RecursionError:
        return _fail("A file or an argument is nested too deep to be read")
    except (RuntimeError, MemoryError) as error:
        from litevit.cli.faults import explained

        if (line := explained(error)) is None:
            raise
        return _fail(line)


def _write_everything(stream: Any) -> None:
    """What the encoding of a terminal or file lacks (LC_ALL=C, Windows' code pages) is written as JSON writes it."""
    if not isinstance(stream, io.TextIOWrapper):
        return
    utf8 = codecs.lookup(stream.encoding).name == "utf-8"
    if stream.errors == "strict" or (stream.errors == "surrogateescape" and not utf8):  # the latter: LC_ALL=C
        codecs.register_error("litevit", _escaped)
        stream.reconfigure(errors="litevit")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[k]:02x}{units[k + 1]:02x}" for k in range(0, len(units), 2)), error.end


def _in_options(error: Exception, verb: str) -> str:
    """The message; where weights do not fit a model, what to do about it is said in options of the verb."""
    load = sys.modules.get("litevit.checkpoints.load")  # if it has not been imported, it has not complained
    if load is None or not isinstance(error, load.MisfitError):
        return str(error)
    from litevit.cli.misfits import advice

    return " ".join([error.what, *advice(error, verb)])


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line, without the place in the source that Python shows."""
    print("litevit: warning: " + " ".join(str(message).split()), file=sys.stderr)


def _fail(message: str) -> int:
    if " in DataLoader worker process " in message:  # a traceback; its last line that is not indented has the error
        last = [line for line in message.splitlines() if re.match(r"[\w.]+: ", line)][-1:]
        message = last[0].partition(": ")[2] if last else message
    line = " ".join(message.split())  # a file's name may hold what moves a terminal's cursor, or is no character at all
    print("litevit: " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in line), file=sys.stderr)
    return 2
