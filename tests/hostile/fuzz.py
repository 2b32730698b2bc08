"""`make fuzz`: every kind of hostile input in workers with limits, and a table of what came of it.

python -m hostile.fuzz [KIND ...] [--inputs N] [--seed S]     N inputs of each; default: each kind's own number
python -m hostile.fuzz KIND --seed S --at I                   one input again, in the open
"""

import argparse
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

MODULES = ("checkpoints", "safetensors", "images", "videos", "coco", "panoptic", "labels")
SLICE = 4000  # inputs of a worker


def find_kind(name: str) -> Kind:
    return importlib.import_module(f"hostile.test_{name}").KIND


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


def run_kind(kind: Kind, inputs: int, seed: int, work: Path) -> Row:
    seeds = work / f"seeds-{kind.name}"
    prepare(kind, seeds)
    row = Row(kind.name, findings=[])
    at, crashes = 0, 0
    while at < inputs and crashes < 20:
        stop = min(at + SLICE, inputs)
        reached = run_slice(kind, seed, range(at, stop), work / f"arena-{kind.name}", seeds, row)
        crashes += reached < stop
        at = reached
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
            f"{len(r.findings or ())} |"
        )
    total = [sum(getattr(r, name) for r in rows) for name in ("inputs", "refused", "accepted")]
    worst = max(r.slowest for r in rows), max(r.largest for r in rows)
    found = sum(len(r.findings or ()) for r in rows)
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
        for found in row.findings or ():
            key = found["what"].split(":")[0], _place(found["trace"])
            groups[key] += 1
            first.setdefault(key, found)
        for key, count in groups.most_common():
            found = first[key]
            print(f"\n{row.kind}: {count} x {found['what'][:300]}\n    at {key[1]}")
            print(f"    again: python -m hostile.fuzz {row.kind} --seed {found['seed']} --at {found['at']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*MODULES, []])
    parser.add_argument("--inputs", type=int, help="of each kind")
    parser.add_argument("--share", action="store_true", help="as many as the default tests run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at", type=int, help="this input alone")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    chosen = parser.parse_args()
    kinds = [find_kind(name) for name in chosen.kinds or MODULES]
    if chosen.at is not None:
        return run_again(kinds[0], chosen.seed, chosen.at)
    work = Path(tempfile.mkdtemp(prefix="hostile-"))
    rows, started = [], time.monotonic()
    try:
        for kind in kinds:
            inputs = chosen.inputs or (kind.share if chosen.share else kind.inputs)
            rows.append(run_kind(kind, inputs, chosen.seed, work))
            r = rows[-1]
            print(
                f"{kind.name}: {r.inputs:,} inputs in {r.seconds:.0f} s, {len(r.findings or ())} findings",
                file=sys.stderr,
            )
            if chosen.json:
                chosen.json.write_text(json.dumps([row.__dict__ for row in rows]))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table(rows))
    print(f"\nseed {chosen.seed}, {time.monotonic() - started:.0f} s")
    show_findings(rows)
    return int(any(r.findings for r in rows))


if __name__ == "__main__":
    sys.exit(main())
