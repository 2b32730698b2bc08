"""Which model goes into which format, and how far the file is from the model: the table of docs/deploy.md.

    python benchmarks/export_tiers.py --models lvt litv2_s --formats pt2 onnx openvino --out tiers.json

Every export proves itself (litevit/deploy/verify.py); a row is written as soon as it is known, and rows that the file
has are not made again. `--image-size 800 1333` writes files of one size and one image, rows of their own. Weights are
random: the proof is about the function, not about what was learned. Heads of detectors are spread out, so that they
find something.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

import litevit
from litevit.deploy.formats import NOT_WRITTEN, formats
from litevit.deploy.report import ExportError
from litevit.deploy.verify import with_lively_heads
from litevit.files import write_json

FORMATS = [*formats(), *NOT_WRITTEN]


def row_of(model: str, format: str, folder: Path, size: tuple[int, int] | None = None) -> dict:
    torch.manual_seed(0)
    started = time.perf_counter()
    try:
        network = with_lively_heads(litevit.create_model(model))
        suffix = formats()[format].suffix if format in formats() else ".x"
        fixed: dict = {} if size is None else {"image_size": size, "batch_size": 1}
        report = litevit.export(network, folder / f"x{suffix}", format=format, **fixed)
    except ExportError as error:
        row = {"tier": "wrong", "why": str(error)}
    except (ValueError, ImportError) as error:
        row = {"tier": "refused", "why": str(error)}
    else:
        worst = report.worst
        if worst is None:
            row = {"tier": "built, not run here", "mb": report.bytes / 1e6, "environment": report.environment}
        else:
            row = {"tier": "proven", "checks": len(report.checks), "worst": worst.worst, "tolerance": worst.tolerance,
                   "output": worst.output, "mb": report.bytes / 1e6, "environment": report.environment}  # fmt: skip
    seconds = round(time.perf_counter() - started)
    return {"model": model, "format": format, "size": size and list(size), "seconds": seconds, **row}


def markdown(rows: list[dict]) -> str:
    """The table, and below it why what is refused is refused."""
    names = [name for name in FORMATS if any(row["format"] == name for row in rows)]
    table = {(_label(row), row["format"]): row for row in rows}
    reasons: list[str] = []
    lines = ["| model | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for label in dict.fromkeys(_label(row) for row in rows):
        cells = [_cell(table.get((label, name)), reasons) for name in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{i}. {reason}" for i, reason in enumerate(reasons, 1))])


def _label(row: dict) -> str:
    size = row.get("size")
    return f"`{row['model']}`" + (f", one image of {size[0]} x {size[1]}" if size else "")


def _cell(row: dict | None, reasons: list[str]) -> str:
    if row is None:
        return "not tried"
    if row["tier"] == "proven":
        return f"{row['worst']:.1e} of {row['tolerance']:.1e}, {row['mb']:.0f} MB"
    if row["tier"] != "refused":
        return row["tier"]
    reason = row["why"].partition(": ")[2] or row["why"].strip()  # "FORMAT cannot hold MODEL: ...", or a converter's
    if reason not in reasons:
        reasons.append(reason)
    return f"refused ({reasons.index(reason) + 1})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[], help="none: print the table of what the file has")
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for model in options.models:
        for format in options.formats:
            asked = (model, format, options.image_size)
            if any((row["model"], row["format"], row.get("size")) == asked for row in rows):
                continue
            with tempfile.TemporaryDirectory() as folder:
                rows.append(row_of(model, format, Path(folder), options.image_size and tuple(options.image_size)))
            write_json(options.out, rows, indent=1)
            print(model, format, _cell(rows[-1], []), f"{rows[-1]['seconds']} s", flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
