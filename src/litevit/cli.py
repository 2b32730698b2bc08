"""The command line: `litevit VERB ...`. Parses arguments and prints; the work is done by the library.

A verb is a function below; its arguments and docstring are its help. Libraries are imported when a verb runs.
"""

import difflib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro
from tyro.conf import FlagCreatePairsOff, Positional

Device = Literal["auto", "cpu", "cuda", "mps"]


def _print(*items: Any, **options: Any) -> None:
    from rich.console import Console

    Console(soft_wrap=True).print(*items, **options)


def _device(name: Device) -> Any:
    import torch

    if name != "auto":
        available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not available[name]:
            raise ValueError(f"Device '{name}' is not available here. Use --device cpu or auto.")
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _size(size: Sequence[int] | None) -> tuple[int, int] | None:
    if not size:
        return None
    if len(size) > 2 or min(size) < 32:
        raise ValueError(f"--size takes one side or H W, each at least 32, got {' '.join(map(str, size))}")
    return (size[0], size[-1])


# ----------------------------------------------------------------- models


def list_(
    pattern: Positional[str] = "*",
    *,
    task: str | None = None,
    size: tuple[int, ...] = (),
    names: bool = False,
    compare: bool = False,
    out: Path | None = None,
) -> None:
    """Shows the models: parameters, multiply-adds, published figures, licence and source.

    Args:
        pattern: shell-style pattern, such as 'litv2*'.
        task: only this task: 'classification', 'detection', 'instance segmentation', 'semantic segmentation',
            'panoptic segmentation'.
        size: side, or H W, to count multiply-adds at; default: the size of the published figure.
        names: print nothing but names, one per line.
        compare: a Markdown table of ours beside the published classification figures, with the reason for each
            difference.
        out: with --compare: write the table to this file.
    """
    from litevit.zoo import list_models

    found = list_models(pattern, task=task)
    if not found:
        raise ValueError(f"No model matches '{pattern}'. `litevit list --names` shows all.")
    if names:
        print("\n".join(found))
        return
    if compare:
        from litevit.tools.info import figures, markdown
        from litevit.weights import ABLATIONS, WEIGHTS

        classifiers = set(list_models(pattern, task="classification"))
        text = markdown(figures([name for name in (*WEIGHTS, *ABLATIONS) if name in classifiers]))
        if out is None:
            print(text, end="")
        else:
            out.write_text(text)
            print(f"Wrote {out}")
        return
    _table(found, _size(size))


def _table(names: list[str], size: tuple[int, int] | None) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from litevit.zoo import info

    console = Console() if sys.stdout.isatty() else Console(width=160)
    table = Table(box=None, header_style="bold")
    for header, right in (("model", False), ("parameters", True), ("multiply-adds", True), ("at", True)):
        table.add_column(header, justify="right" if right else "left", no_wrap=True)
    for header in ("task", "published", "weights"):
        table.add_column(header)
    shown = Live(table, console=console, vertical_overflow="visible") if console.is_terminal else nullcontext()
    with shown:  # row by row, as they are counted
        for name in names:
            facts = info(name, size)
            published = [f"{short} {facts.published[key]}" for key, short in METRICS.items() if key in facts.published]
            source = (facts.source or "").partition(" ")[0]
            table.add_row(
                name,
                f"{facts.params / 1e6:.2f} M",
                f"{facts.macs / 1e9:.2f} G",
                "x".join(map(str, facts.image_size)),
                facts.task,
                ", ".join(published),
                f"{source}, {(facts.licence or '').partition(':')[0]}" if source else "",
            )
    if not console.is_terminal:
        console.print(table)


METRICS = {"top1": "top-1", "box_ap": "box AP", "mask_ap": "mask AP", "miou": "mIoU", "pq": "PQ"}


def info(model: Positional[str], *, size: tuple[int, ...] = (), json: bool = False) -> None:
    """Shows everything known about one model.

    Args:
        model: name, see `litevit list`.
        size: side, or H W, to count multiply-adds at; default: the size of the published figure.
        json: print JSON.
    """
    from dataclasses import asdict

    from litevit import zoo
    from litevit.tools.info import REASONS
    from litevit.weights import WEIGHTS

    facts = zoo.info(model, _size(size))
    if json:
        from json import dumps

        print(dumps(asdict(facts), indent=1))
        return
    rows = {
        "task": facts.task,
        "parameters": f"{facts.params:,}",
        "multiply-adds": f"{facts.macs:,} at {facts.image_size[0]} x {facts.image_size[1]}",
        "published": ", ".join(f"{key} {value}" for key, value in facts.published.items()) or "nothing",
        "differs": REASONS.get(model, ""),
        "weights": facts.weights or "none published",
        "preprocessing": str(WEIGHTS[model].preprocessing) if model in WEIGHTS else "",
        "licence": facts.licence or "",
        "source": facts.source or "",
    }
    _print(f"[bold]{model}[/bold]")
    for key, value in rows.items():
        if value:
            _print(f"  {key:14} {value}", highlight=False, markup=False)


# ---------------------------------------------------------------- predict


def predict(
    images: Positional[tuple[Path, ...]],
    *,
    model: str | None = None,
    weights: str = "official",
    top: int = 5,
    json: bool = False,
    out: Path | None = None,
    size: int | None = None,
    num_classes: int | None = None,
    names: Path | None = None,
    device: Device = "auto",
    batch_size: int = 16,
) -> None:
    """Classifies images with the preprocessing the weights were published with.

    Args:
        images: files, or folders to search.
        model: name of a classification model; default: litv2_s, or what the checkpoint of a training run says.
        weights: 'official' (downloaded once), a checkpoint file, the folder of a training run, or 'none' (random).
        top: how many classes to show.
        json: print JSON instead of a table.
        out: folder for pictures with the predictions below.
        size: side of the square input; default: the published one.
        num_classes: of the checkpoint, where it is not ImageNet's 1,000.
        names: text file with one class name per line.
        device: where to run.
        batch_size: images at a time.
    """
    from dataclasses import replace

    from litevit.tools import predict as tool

    paths = tool.find_images(images)
    labels = names.read_text().splitlines() if names else None
    classes = num_classes or (len(labels) if labels else None)
    if weights in ("none", "official"):
        model = model or "litv2_s"
    network, how = tool.load_classifier(model, None if weights == "none" else weights, num_classes=classes)
    if labels is not None and len(labels) != classes:
        raise ValueError(f"{names} has {len(labels)} names, the model {classes} classes")
    if size is not None:
        if size < 32:
            raise ValueError(f"--size must be at least 32, got {size}")
        how = replace(how, size=size)
    network = network.to(_device(device))
    if weights == "none":
        print("Random weights: these predictions mean nothing.", file=sys.stderr)
    stream = tool.predict(network, paths, how, names=labels, top=top, batch_size=batch_size)
    results = list(_progress(stream, len(paths), "images"))
    if json:
        print(tool.to_json(results))
    else:
        _show_predictions(results)
    if out is not None:
        written = tool.draw_all(results, out)
        print(f"Wrote {len(written)} pictures to {out}", file=sys.stderr)
    failed = [result for result in results if result.error]
    if failed:
        more = f" ({len(failed)} of {len(results)} files failed)" if len(results) > 1 else ""
        raise ValueError(f"{failed[0].error}{more}")


def _progress(stream: Any, total: int, what: str) -> Any:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(stream, description=what, total=total, console=console, transient=True, disable=total < 3)


def _show_predictions(results: Sequence[Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class", "probability")
    for result in results:
        for i, guess in enumerate(result.guesses):
            table.add_row(
                Text(result.path if i == 0 else ""),
                Text(guess.name),
                f"{100 * guess.probability:.1f} %",
                end_section=i + 1 == len(result.guesses),
            )
        if result.error:
            table.add_row(Text(result.path), Text(result.error, style="red"), "", end_section=True)
    _print(table)


# ---------------------------------------------------------------- convert


def convert(source: Positional[Path], target: Positional[Path], *, ema: bool = False) -> None:
    """Converts an official checkpoint to litevit's layout, or a litevit checkpoint back, bit for bit.

    Args:
        source: checkpoint; its layout decides the direction.
        target: file to write: .safetensors, or .pth for a PyTorch file.
        ema: take the moving average where the checkpoint holds both.
    """
    from litevit.tools.convert import convert as run

    done = run(source, target, ema=ema)
    print(f"{source} ({done.layout_from}) -> {target} ({done.layout_to}): {done.tensors} tensors, checked both ways")
    for what, keys in (("made again on the way back", done.dropped), ("carried along", done.kept)):
        if keys:
            print(f"  {what}: {len(keys)} ({keys[0]}, ...)" if len(keys) > 1 else f"  {what}: {keys[0]}")
    if done.notice:
        print(f"Note: {done.notice}.", file=sys.stderr)


# ------------------------------------------------------------------ train


def train(arguments: Sequence[str]) -> None:
    """Runs a recipe: litevit train RECIPE [--field.name value ...].

    The fields of the recipe are its options: `litevit train quickstart --help` lists them.
    """
    from litevit import recipes

    usage = f"usage: litevit train RECIPE [OPTIONS]\n\nRecipes: {', '.join(recipes.RECIPES)}, or a run's recipe.json"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{usage}\n`litevit train RECIPE --help` lists the options of one.")
        if not arguments:
            sys.exit(2)
        return
    name, *rest = arguments
    recipe = recipes.get_recipe(name)
    recipe, rest = _model_overrides(recipe, rest)
    kind: Any = recipes.Recipe[recipes.TASKS[recipe.task][0]]  # type: ignore[misc, valid-type]
    recipe = tyro.cli(kind, default=recipe, args=rest, prog=f"litevit train {name}")
    recipes.train(recipe)


def _model_overrides(recipe: Any, arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """Takes `--model.overrides.FIELD VALUE` out of the arguments: any field of the model's config may be set."""
    from litevit.engine.config import override

    rest = list(arguments)
    prefix = "--model.overrides."
    while (i := next((i for i, word in enumerate(rest) if word.startswith(prefix)), None)) is not None:
        word, equals, value = rest.pop(i).partition("=")
        values = [value] if equals else []
        while not equals and i < len(rest) and not rest[i].startswith("--"):
            values.append(rest.pop(i))
        if not values:
            raise ValueError(f"{word} needs a value")
        text = values[0] if len(values) == 1 else f"[{', '.join(values)}]"
        recipe = override(recipe, word.removeprefix("--").replace("-", "_"), text)
    return recipe, rest


def bench(arguments: Sequence[str]) -> None:
    """Measures speed beside today's models: litevit bench {models,attention,ops,scaling} [OPTIONS].

    `litevit bench models --help` lists the options of one.
    """
    from litevit.tools.benchmark import COMMANDS

    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:10} {(run.__doc__ or '').splitlines()[0]}" for name, run in COMMANDS.items()]
        print(
            "\n".join(["usage: litevit bench WHAT [OPTIONS]", "", *lines, "", "`litevit bench WHAT --help` says more."])
        )
        if not arguments:
            sys.exit(2)
        return
    what, *rest = arguments
    if what not in COMMANDS:
        raise ValueError(f"Unknown benchmark '{what}'. Known: {', '.join(COMMANDS)}.")
    tyro.cli(COMMANDS[what], args=rest, prog=f"litevit bench {what}", config=(FlagCreatePairsOff,))


def doctor(path: Positional[Path], *, examples: int = 3) -> int:
    """Checks a data set before hours are spent on it; exit code 1 when something would break training.

    Args:
        path: COCO or ADE20K folder, a COCO-format JSON, or class folders.
        examples: how many places to name per finding.
    """
    from litevit.data.doctor import examine

    report = examine(path, examples=examples)
    print(report.render())
    return report.exit_code


# ------------------------------------------------------------------- main


class Verb(NamedTuple):
    """A command: its function, and the module without which it is not offered."""

    run: Callable[..., int | None]  # None: 0
    needs: str
    raw: bool = False  # takes the list of arguments and parses it itself


VERBS: dict[str, Verb] = {
    "list": Verb(list_, "litevit.zoo"),
    "info": Verb(info, "litevit.zoo"),
    "predict": Verb(predict, "litevit.tools.predict"),
    "train": Verb(train, "litevit.recipes", raw=True),
    "convert": Verb(convert, "litevit.tools.convert"),
    "bench": Verb(bench, "litevit.tools.benchmark", raw=True),
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


def _fail(message: str) -> int:
    print("litevit: " + " ".join(message.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
