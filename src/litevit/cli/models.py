"""`litevit list` and `litevit info`."""

import sys
from contextlib import nullcontext
from fnmatch import fnmatch
from functools import cache
from json import dumps, loads
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from litevit.cli.terminal import parse_size, refuse, show


def list_(
    pattern: Positional[str] = "*",
    *,
    task: str | None = None,
    size: tuple[int, ...] = (),
    names: bool = False,
    json: bool = False,
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
        json: print everything known about each, as JSON: a list of what `litevit info MODEL --json` prints.
        compare: a Markdown table of ours beside the published classification figures, with the reason for each
            difference.
        out: with --compare: write the table to this file.
    """
    found = _names(pattern, task)
    if not found:
        raise ValueError(f"No model matches '{pattern}'. `litevit list --names` shows all.")
    if names:
        refuse(
            {"size": size, "json": json, "compare": compare, "out": out}, "for the table; --names prints names alone"
        )
        print("\n".join(found))
        return
    if json:
        refuse({"compare": compare, "out": out}, "for Markdown; --json prints JSON")
        print(dumps([_for_json(facts(name, parse_size(size))) for name in found], indent=1))
        return
    if compare:
        refuse({"size": size}, "for the list; --compare counts at the published sizes")
        refuse({"task": task}, "for the list; --compare has the classifiers")
        from litevit.bench.figures import figures, markdown
        from litevit.checkpoints.published import ABLATIONS, WEIGHTS
        from litevit.files import write_text
        from litevit.models import list_models

        classifiers = set(list_models(pattern, task="classification"))
        text = markdown(figures([name for name in (*WEIGHTS, *ABLATIONS) if name in classifiers]))
        if out is None:
            print(text, end="")
        else:
            write_text(out, PREFACE + text)
            print(f"Wrote {out}")
        return
    refuse({"out": out}, "for --compare")
    _table(found, parse_size(size))


PREFACE = """# Figures beside the published ones

Written by `litevit list --compare --out docs/figures.md`. Parameters and multiply-adds (convolutions, linear layers,
matrix products; one addition and one multiplication count once) are counted on the models of this package; bold is what
does not round to the published figure, and the last column says why.

"""


# Every model's `litevit.info`, why it differs from what was published, and the preprocessing of its weights. Counting
# takes half a minute and torch seconds to import; a test holds the file to the models.
FACTS = Path(__file__).with_name("models.json")


@cache
def _committed() -> dict[str, dict[str, Any]]:
    return loads(FACTS.read_text(encoding="utf-8"))


def count(name: str, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """A row of `FACTS`, counted on the model."""
    from dataclasses import asdict

    from litevit.bench.figures import DENSE_REASONS, REASONS
    from litevit.checkpoints.published import WEIGHTS
    from litevit.models import info

    found = asdict(info(name, size))
    differs = {**REASONS, **DENSE_REASONS}.get(name, "")
    return {**found, "differs": differs, "preprocessing": str(WEIGHTS[name].preprocessing) if name in WEIGHTS else ""}


def facts(name: str, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """What is known of a model: committed, or counted at another size."""
    return _committed()[name] if size is None and name in _committed() else count(name, size)


def _for_json(known: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in known.items() if key not in ("differs", "preprocessing")}


def _names(pattern: str, task: str | None) -> list[str]:
    rows = _committed()
    if task is not None and task not in {row["task"] for row in rows.values()}:
        from litevit.models import list_models

        return list_models(pattern, task=task)  # which says what there is
    return [name for name, row in rows.items() if fnmatch(name, pattern) and task in (None, row["task"])]


def write_facts() -> None:
    """Counts every model anew and writes `FACTS` and the table of options: `python -m litevit.cli.models`."""
    from litevit.cli import options
    from litevit.files import write_text
    from litevit.models import list_models

    write_text(options.TABLE, options.table())
    rows = (f"{dumps(name)}: {dumps(count(name))}" for name in list_models())
    write_text(FACTS, "{\n" + ",\n".join(rows) + "\n}\n")


def _table(names: list[str], size: tuple[int, int] | None) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=160)
    table = Table(box=None, header_style="bold")
    for header, right in (("model", False), ("parameters", True), ("multiply-adds", True), ("at", True)):
        table.add_column(header, justify="right" if right else "left", no_wrap=True)
    for header in ("task", "published", "weights"):
        table.add_column(header)
    shown = Live(table, console=console, vertical_overflow="visible") if console.is_terminal else nullcontext()
    with shown:  # row by row, as they are counted
        for name in names:
            known = facts(name, size)
            published = [
                f"{short} {known['published'][key]}" for key, short in METRICS.items() if key in known["published"]
            ]
            source = (known["source"] or "").partition(" ")[0]
            table.add_row(
                name,
                f"{known['params'] / 1e6:.2f} M",
                f"{known['macs'] / 1e9:.2f} G",
                "x".join(map(str, known["image_size"])),
                known["task"],
                ", ".join(published),
                f"{source}, {(known['licence'] or '').partition(':')[0]}" if source else "",
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
    known = facts(model, parse_size(size))
    if json:
        print(dumps(_for_json(known), indent=1))
        return
    H, W = known["image_size"]
    with_regions = ", with {} boxes and {} masks".format(*known["regions"]) if known["regions"] else ""
    rows = {
        "task": known["task"],
        "parameters": f"{known['params']:,}",
        "multiply-adds": f"{known['macs']:,} at {H} x {W}{with_regions}",
        "published": ", ".join(f"{key} {value}" for key, value in known["published"].items()) or "nothing",
        "differs": known["differs"],
        "weights": known["weights"] or "none published",
        "preprocessing": known["preprocessing"],
        "licence": known["licence"] or "",
        "source": known["source"] or "",
    }
    show(f"[bold]{model}[/bold]")
    for key, value in rows.items():
        if value:
            show(f"  {key:14} {value}", highlight=False, markup=False)


if __name__ == "__main__":
    write_facts()
