"""The table of a reproduction: Markdown, CSV and JSON."""

import csv
import io
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from litevit.files import write_json, write_text
from litevit.jobs.reproduction.rows import BENCHMARKS, FIGURES
from litevit.jobs.reproduction.run import NEAR, Result, difference

COLUMNS = (
    "row", "figure", "published", "measured", "difference", "verdict", "images", "seconds", "hardware", "torch", "note",
)  # fmt: skip
MEANING = (
    f"pass: the whole data set, within {NEAR} points of the published figure. off: the whole, further away. subset: a "
    "part of the data set, which never passes. failed, not asked, not possible: the note says why."
)


def lines(results: Iterable[Result]) -> list[dict[str, Any]]:
    """One per figure: `COLUMNS` by name; None where there is nothing."""
    out = []
    for result in results:
        row, record = result.row, result.record
        for key, published in row.published.items():
            line: dict[str, Any] = dict.fromkeys(COLUMNS)
            line |= {"row": row.name, "figure": FIGURES[key].title, "published": published, "verdict": result.verdict}
            line["note"] = result.reason or None
            if record is not None:
                line |= {name: record[name] for name in ("images", "seconds", "hardware", "torch")}
                line["measured"] = round(record["measured"][key], 2)
                line["difference"] = difference(record, key)
                line["note"] = record["short"] or None
            out.append(line)
    return out


def cells(line: dict[str, Any]) -> list[str]:
    """As a person reads them."""
    shown = {key: "" if value is None else str(value) for key, value in line.items()}
    for key in ("published", "measured"):
        if line[key] is not None:
            shown[key] = f"{line[key]:.2f}"
    if line["difference"] is not None:
        shown["difference"] = f"{line['difference']:+.2f}"
    if line["images"] is not None:
        shown["images"] = f"{line['images']:,}"
    return [shown[name] for name in COLUMNS]


def markdown(results: Sequence[Result]) -> str:
    """A page with the command, what it found, and by which protocol."""
    command = shlex.join(["litevit", *sys.argv[1:]])
    table = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    table += [f"| {' | '.join(_escaped(cell) for cell in cells(line))} |" for line in lines(results)]
    used: dict[str, list[str]] = {}
    for result in results:
        if result.record is not None:
            used.setdefault(f"{BENCHMARKS[result.row.benchmark].title}, {result.record['protocol']}", []).append(
                result.row.name
            )
    protocols = [f"- {protocol}: {', '.join(names)}" for protocol, names in used.items()]
    counts = {
        verdict: sum(r.verdict == verdict for r in results) for verdict in dict.fromkeys(r.verdict for r in results)
    }
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    parts = ["# Published and measured", f"Written by `{command}`. Rows: {said}.", MEANING, "\n".join(table)]
    return "\n\n".join([*parts, *(["\n".join(protocols)] if protocols else [])]) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def write(results: Sequence[Result], out: Path) -> None:
    """`table.md`, `table.csv` and `table.json`, each whole."""
    found = lines(results)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    write_text(out / "table.csv", text.getvalue())
    write_json(out / "table.json", [line | {"record": r.record} for r in results for line in lines([r])], indent=1)
    write_text(out / "table.md", markdown(results))
