"""`make fuzz`: every kind of hostile input in workers with limits, and a table of what came of it.

python -m hostile.fuzz [KIND ...] [--inputs N] [--seed S]     N inputs of each; default: each kind's own number
python -m hostile.fuzz --out FOLDER [--minutes M]             goes on where an earlier start has ended
python -m hostile.fuzz KIND --seed S --at I                   one input again, in the open

FOLDER gets `rows.json` and `table.md`, whole after every slice, so that a run that is ended has lost one slice at most.
"""

import argparse
import dataclasses
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hostile.arena import Arena, Kind, Row, run_one, run_slice, seeded
from litevit.files import write_json, write_text

KINDS = ("checkpoints", "safetensors", "runs", "packed", "exported", "images", "videos", "shards", "parquet", "coco",
         "panoptic", "labels", "uploads", "arguments")  # fmt: skip
SLICE = 2000  # inputs of a worker
MOST_CRASHES = 20  # after which a kind has shown enough


def find_kind(name: str) -> Kind:
    return importlib.import_module(f"hostile.kinds.{name}").KIND


def prepare(kind: Kind, seeds: Path) -> None:
    """In a process of its own, so that the workers begin without what making the seeds has left in memory."""
    seeds.mkdir(parents=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            kind.prepare(seeds)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"the seeds of {kind.name} could not be made")


class Results:
    """The rows of a run, in a folder where there is one.

    Args:
        folder: what an earlier start of the same seed has left there is gone on with; None: nothing is kept.
    """

    def __init__(self, folder: Path | None, seed: int):
        self.folder, self.seed = folder, seed
        self.rows: dict[str, Row] = {}
        if folder is not None and (folder / "rows.json").is_file():
            told = json.loads((folder / "rows.json").read_text())
            if told["seed"] != seed:
                raise ValueError(f"{folder} has a run of seed {told['seed']}")
            self.rows = {row["kind"]: Row(**row) for row in told["rows"]}

    def row(self, kind: Kind) -> Row:
        return self.rows.setdefault(kind.name, Row(kind.name))

    def save(self) -> None:
        if self.folder is None:
            return
        ordered = [self.rows[name] for name in KINDS if name in self.rows]
        write_json(
            self.folder / "rows.json",
            {"seed": self.seed, "rows": [dataclasses.asdict(row) for row in ordered]},
            indent=1,
        )
        write_text(self.folder / "table.md", table(ordered) + "\n")


def run_kind(kind: Kind, inputs: int, results: Results, work: Path, until: float) -> Row:
    row = results.row(kind)
    if row.inputs >= inputs or time.monotonic() > until:
        return row
    seeds = work / f"seeds-{kind.name}"
    prepare(kind, seeds)
    while row.inputs < inputs and row.crashes < MOST_CRASHES and time.monotonic() < until:
        slice_ = range(row.inputs, min(row.inputs + SLICE, inputs))
        run_slice(kind, results.seed, slice_, work / f"arena-{kind.name}", seeds, row, until)
        results.save()
    return row


def run_again(kind: Kind, seed: int, index: int) -> int:
    """One input in this process; its files stay."""
    work = Path(tempfile.mkdtemp(prefix="hostile-again-"))
    (work / "seeds").mkdir()
    kind.prepare(work / "seeds")
    arena = Arena(work / "arena")
    outcome = run_one(kind, seeded(kind, seed, index), arena, work / "seeds")
    print(outcome.trace)
    print(f"{'refused' if outcome.refused else 'accepted'}, {outcome.seconds:.2f} s, finding: {outcome.finding}")
    print(f"files: {arena.inside}")
    return int(outcome.finding is not None)


def table(rows: list[Row]) -> str:
    lines = [
        "| kind | inputs | refused | accepted | worst seconds | worst MiB | findings |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        lines.append(
            f"| {r.kind} | {r.inputs:,} | {r.refused:,} | {r.accepted:,} | {r.slowest:.2f} | {r.largest:.0f} | "
            f"{len(r.findings)} |"
        )
    total = [sum(getattr(r, name) for r in rows) for name in ("inputs", "refused", "accepted")]
    worst = max(r.slowest for r in rows), max(r.largest for r in rows)
    found = sum(len(r.findings) for r in rows)
    lines.append(f"| all | {total[0]:,} | {total[1]:,} | {total[2]:,} | {worst[0]:.2f} | {worst[1]:.0f} | {found} |")
    return "\n".join(lines)


def _place(trace: str) -> str:
    """The last line of a traceback that is of litevit, and the last of all."""
    files = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    ours = [line for line in files if "/litevit/" in line]
    return " / ".join(line.rpartition("/")[2] for line in (*ours[-1:], *files[-1:]))


def show_findings(rows: list[Row]) -> None:
    for row in rows:
        groups: Counter[tuple[str, str]] = Counter()
        first: dict[tuple[str, str], dict] = {}
        for found in row.findings:
            key = found["what"].split(":")[0], _place(found["trace"])
            groups[key] += 1
            first.setdefault(key, found)
        for key, count in groups.most_common():
            found = first[key]
            print(f"\n{row.kind}: {count} x {found['what'][:300]}\n    at {key[1]}")
            print(f"    again: python -m hostile.fuzz {row.kind} --seed {found['seed']} --at {found['at']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []])
    parser.add_argument("--inputs", type=int, help="of each kind")
    parser.add_argument("--share", action="store_true", help="as many as the default tests run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at", type=int, help="this input alone")
    parser.add_argument("--out", type=Path, help="folder of the rows and the table")
    parser.add_argument("--minutes", type=float, help="end after these; the next start goes on")
    chosen = parser.parse_args()
    kinds = [find_kind(name) for name in chosen.kinds or KINDS]
    if chosen.at is not None:
        return run_again(kinds[0], chosen.seed, chosen.at)
    started = time.monotonic()
    until = started + 60 * chosen.minutes if chosen.minutes else float("inf")
    results = Results(chosen.out, chosen.seed)
    work = Path(tempfile.mkdtemp(prefix="hostile-"))
    rows, left = [], False
    try:
        for kind in kinds:
            inputs = chosen.inputs or (kind.share if chosen.share else kind.inputs)
            row = run_kind(kind, inputs, results, work, until)
            rows.append(row)
            left |= row.inputs < inputs
            said = f"{kind.name}: {row.inputs:,} inputs in {row.seconds:.0f} s, {len(row.findings)} findings"
            print(said, file=sys.stderr)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table(rows))
    print(f"\nseed {chosen.seed}, {time.monotonic() - started:.0f} s{'; not all: start it again' if left else ''}")
    show_findings(rows)
    return int(left or any(row.findings for row in rows))


if __name__ == "__main__":
    sys.exit(main())
