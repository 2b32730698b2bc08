"""What `python -m tests.numerics` has measured, a JSON object a line, and the page that it makes of them."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

import litevit
from litevit import files
from numerics.memory import ALLOWED_KB, HOW, KINDS, warm_up
from numerics.modes import DTYPES, MODES, SAFETY, SIZE, passes

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "numbers.md"
RECORD = ROOT / "benchmarks" / "results" / "2026-11-27_numbers" / "measured.jsonl"
TEMPLATE = Path(__file__).parent / "page.md"
MEMORY_STEPS = 2000
# Inductor takes minutes for a model in three precisions: every family, every task system, with a block per stage. The
# others go through the same tracing and decomposition, whole, and run PyTorch's operators (`aot_eager`).
INDUCTOR = (
    "lit_ti",
    "litv2_s",
    "lvt",
    "pvt_s",
    "swin_ti_dtm",
    "retinanet_litv2_s",
    "mask_rcnn_lit_s",
    "semantic_fpn_lit_ti",
    "segformer_lvt",
    "panoptic_fpn_lvt",
)
Key = tuple[str, str]  # of a row: a model and a mode, "gradients" among them; or a kind of step and how it is taken


def backend(name: str) -> str:
    return "inductor" if name in INDUCTOR else "aot_eager"


def wanted() -> list[Key]:
    """Every row of the page, the quick ones first."""
    names = litevit.list_models()
    rows = [(name, mode) for mode in ("eager", "optimised", "gradients") for name in names]
    rows += [(kind, f"memory {how}") for kind in KINDS for how in HOW]
    return rows + sorted(((name, backend(name)) for name in names), key=lambda row: row[1] != "inductor")


def read(record: Path) -> dict[Key, dict[str, Any]]:
    """Finished rows, by model and mode."""
    if not record.exists():
        return {}
    rows = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return {(row["name"], row["mode"]): row for row in rows}


def write(rows: dict[Key, dict[str, Any]], record: Path, page: Path) -> None:
    """Both files, whole. Rows of models that are no more are left out."""
    kept = [rows[key] for key in wanted() if key in rows]
    files.write_text(record, "".join(json.dumps(row) + "\n" for row in kept))
    files.write_text(page, render(rows))


def machine() -> dict[str, str]:
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), name)
    return {"torch": torch.__version__, "cpu": f"{name}, {torch.backends.cpu.get_cpu_capability()}"}


def good(row: dict[str, Any]) -> bool:
    """Whether a row holds to everything that is asked of it."""
    if row["mode"].startswith("memory"):
        return row["tensors"] == 0 and row["kilobytes"] < ALLOWED_KB
    if row["mode"] == "gradients":
        return all(not x["missing"] and not x["zero"] and x["repeats"] for x in row["dtypes"].values())
    return all(passes(x) for x in row["dtypes"].values())


def cell(x: dict[str, Any]) -> str:
    """Shares of the tolerance: of the worst element, and of the dependence on other images (`=`: none, bit by bit)."""
    notes = [*x["broken"], *([] if x["repeats"] else ["differs on repeat"])]
    text = f"{x['share']:.2f} {'=' if x['other'] == 0 else format(x['other'], '.2f')}"
    return text if passes(x) else f"**{' '.join([text, ', '.join(notes)]).rstrip()}**"


def gradient_cell(row: dict[str, Any]) -> str:
    if good(row):
        return str(row["dtypes"]["fp32"]["parameters"])
    return "**" + "; ".join(f"{dtype}: {x}" for dtype, x in row["dtypes"].items()) + "**"


def render(rows: dict[Key, dict[str, Any]]) -> str:
    """The page: `page.md` with its tables."""
    keys = wanted()
    found = [rows[key] for key in keys if key in rows]
    state = f"{len(found)} of {len(keys)} rows, {sum(not good(row) for row in found)} failed"
    if found:
        versions, machines = sorted({row["torch"] for row in found}), sorted({row["cpu"] for row in found})
        minutes = sum(row["seconds"] for row in found) / 60
        state += f"; PyTorch {', '.join(versions)}; {'; '.join(machines)}; one thread, {minutes:.0f} minutes"
    return TEMPLATE.read_text(encoding="utf-8").format(
        state=state + ".",
        height=SIZE[0],
        width=SIZE[1],
        safety=f"{SAFETY['fp32']:.0f}",
        worst=worst(found),
        models=models(rows),
        memory=memory(rows),
        steps=MEMORY_STEPS,
        warm=warm_up(MEMORY_STEPS),
        allowed=ALLOWED_KB,
    )


def lines_of(head: list[str], body: list[list[str]], right: str = "") -> str:
    """A table; columns whose letter in `right` is r are right-aligned."""
    rule = "".join("---:|" if right[i : i + 1] == "r" else "---|" for i in range(len(head)))
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}", *(f"| {' | '.join(row)} |" for row in body)])


def models(rows: dict[Key, dict[str, Any]]) -> str:
    body = []
    for name in litevit.list_models():
        cells = []
        for mode in MODES:
            row = rows.get((name, backend(name) if mode == "compiled" else mode))
            mark = "\\*" if row and row["mode"] == "inductor" else ""
            cells += [cell(row["dtypes"][dtype]) + mark if row else "" for dtype in DTYPES]
        row = rows.get((name, "gradients"))
        body.append([f"`{name}`", *cells, gradient_cell(row) if row else ""])
    return lines_of(["model", *(f"{mode} {dtype}" for mode in MODES for dtype in DTYPES), "gradients of"], body)


def memory(rows: dict[Key, dict[str, Any]]) -> str:
    def text(row: dict[str, Any] | None) -> str:
        if row is None:
            return ""
        found = f"{row['tensors']}, {row['kilobytes']}"
        return found if good(row) else f"**{found}**"

    body = [
        [f"{kind} ({backbone or 'litv2_s'})", *(text(rows.get((kind, f"memory {how}"))) for how in HOW)]
        for kind, backbone in KINDS.items()
    ]
    return lines_of(["model", *HOW], body)


def worst(found: list[dict[str, Any]]) -> str:
    """Per mode and precision: the tolerances, and who is nearest to them."""
    body = []
    for mode in ("eager", "optimised", "inductor", "aot_eager"):
        for dtype in DTYPES:
            cells = [(row["dtypes"][dtype], row["name"]) for row in found if row["mode"] == mode]
            if not cells:
                continue
            bounds = [100 * x["tolerance"] for x, _ in cells]
            share, name = max((x["share"], name) for x, name in cells)
            same = sum(x["other"] == 0 for x, _ in cells)
            other = max(x["other"] for x, _ in cells)
            asked = f"{min(bounds):.2g} to {max(bounds):.2g}"
            body.append([mode, dtype, asked, f"{share:.2f}", f"`{name}`", f"{other:.2f}", f"{same} of {len(cells)}"])
    head = [
        "mode",
        "precision",
        "tolerance, % of the largest value",
        "worst error",
        "of",
        "other images, worst",
        "none, bit by bit",
    ]
    return lines_of(head, body, "lllrlrr")
