"""Every model in every mode into docs/numbers.md: `python -m tests.numerics [--modes eager] [--models 'litv2*']`.

Rows that are there are not measured again (`--again`). Both files are written after every row, whole.
"""

import argparse
import fnmatch
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from numerics import table
from numerics.memory import grows, step_of
from numerics.modes import gradients, judge


def measure(name: str, mode: str) -> dict[str, Any]:
    start = time.process_time()
    if mode.startswith("memory"):
        tensors, kilobytes = grows(step_of(name, mode.removeprefix("memory ")), table.MEMORY_STEPS)
        found: dict[str, Any] = {"tensors": tensors, "kilobytes": kilobytes}
    elif mode == "gradients":
        found = {"dtypes": {dtype: gradients(name, dtype) for dtype in ("fp32", "bf16")}}
    elif mode in ("inductor", "aot_eager"):
        found = {"dtypes": judge(name, "compiled", backend=mode, shallow=mode == "inductor")}
    else:
        found = {"dtypes": judge(name, mode)}
    return {"name": name, "mode": mode, **found, "seconds": time.process_time() - start, **table.machine()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="+", default=["*"], help="shell-style patterns")
    parser.add_argument("--models", nargs="+", default=["*"], help="shell-style patterns")
    parser.add_argument("--again", action="store_true", help="measure rows that are there too")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after so many")
    parser.add_argument("--record", type=Path, default=table.RECORD)
    parser.add_argument("--page", type=Path, default=table.PAGE)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = table.read(given.record)
    asked = [
        key
        for key in table.wanted()
        if any(fnmatch.fnmatch(key[0], pattern) for pattern in given.models)
        and any(fnmatch.fnmatch(key[1], pattern) for pattern in given.modes)
    ]
    start, ended = time.monotonic(), False
    for key in asked:
        if key in rows and not given.again:
            continue
        ended = time.monotonic() - start > 60 * given.minutes
        if ended:
            break
        found = measure(*key)
        rows = {**table.read(given.record), key: found}  # another process may have added some
        table.write(rows, given.record, given.page)
        verdict = "" if table.good(rows[key]) else " FAILED"
        print(f"{' '.join(key)}: {rows[key]['seconds']:.1f} s{verdict}", flush=True)
    rows = table.read(given.record)
    table.write(rows, given.record, given.page)
    failed = [" ".join(key) for key in asked if key in rows and not table.good(rows[key])]
    print(f"{sum(key in rows for key in asked)} of {len(asked)} rows, {len(failed)} failed", *failed, sep="\n  ")
    return int(ended or bool(failed))
