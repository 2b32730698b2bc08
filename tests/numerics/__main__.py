"""Prints every model in every mode: `python -m tests.numerics [--modes eager optimised compiled] [--models litv2*]`.

Compiled models keep one block per stage: `torch.compile` takes a minute and more for a deep one.
"""

import argparse
import sys

import torch

import litevit

from .modes import DTYPES, MODES, judge, passes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--models", default="*", help="shell-style pattern")
    given = parser.parse_args()
    torch.set_num_threads(1)
    head = [f"{mode} {dtype}" for mode in given.modes for dtype in DTYPES]
    print(f"| model | {' | '.join(head)} |\n|---|{'---|' * len(head)}")
    checked = failed = 0
    worst = dict.fromkeys(head, 0.0)
    for name in litevit.list_models(given.models):
        cells = []
        for mode in given.modes:
            for dtype, row in judge(name, mode, shallow=mode == "compiled").items():
                checked, failed = checked + 1, failed + (not passes(row))
                worst[f"{mode} {dtype}"] = max(worst[f"{mode} {dtype}"], row["share"])
                alone = "" if row["alone"] is None else ", " + ("=" if row["alone"] == 0 else f"{row['alone']:.2f}")
                notes = [*row["broken"], *([] if row["repeats"] else ["differs on repeat"])]
                cells.append(f"{row['share']:.2f}{alone}{' **' + ', '.join(notes) + '**' if notes else ''}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"| worst | {' | '.join(f'{share:.2f}' for share in worst.values())} |")
    print(f"\n{checked} of models x modes, {failed} failed. PyTorch {torch.__version__}.")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
