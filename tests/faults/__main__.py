"""Every fault at its whole number: `make faults`. Prints counts and writes them into docs/faults.md."""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- counts: written by `make faults` -->", "<!-- end of counts -->"


def table(rows: list[tuple[str, int, str]]) -> str:
    """Rows of one fault together."""
    together: dict[str, tuple[int, list[str]]] = {}
    for fault, tried, outcome in rows:
        before, said = together.get(fault, (0, []))
        together[fault] = before + tried, said if outcome in said else [*said, outcome]
    lines = ["| fault | tried | what came of it |", "|---|---|---|"]
    lines += [f"| {fault} | {tried} | {'; '.join(said)} |" for fault, (tried, said) in together.items()]
    kills = sum(tried for fault, (tried, _) in together.items() if fault.startswith("kill: "))
    return "\n".join([f"{kills} kills, {sum(tried for tried, _ in together.values())} faults in all.", "", *lines])


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.jsonl"
        os.environ["LITEVIT_FAULTS_COUNTS"] = str(counts)
        whole = ["-m", "slow or not slow", "--deselect", "tests/faults/test_kills.py::test_a_share_of_the_kills"]
        code = pytest.main(["-q", "-p", "no:cacheprovider", *whole, str(Path(__file__).parent), *sys.argv[1:]])
        rows = [json.loads(line) for line in counts.read_text(encoding="utf-8").splitlines()]
    found = table([(fault, tried, outcome) for fault, tried, outcome in rows])
    print(found)
    if code == 0:
        page = PAGE.read_text(encoding="utf-8")
        pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
        PAGE.write_text(pattern.sub(lambda _: f"{BEGIN}\n{found}\n{END}", page), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
