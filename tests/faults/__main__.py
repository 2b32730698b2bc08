"""Every fault at its whole number: `make faults`. Prints counts and writes them into docs/faults.md."""

import json
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- counts: written by `make faults` -->", "<!-- end of counts -->"


def table(rows: list[tuple[str, int, str | dict[str, int]]]) -> str:
    """Rows of one fault together: numbers are summed, texts said once."""
    tried: Counter[str] = Counter()
    numbers: dict[str, Counter[str]] = {}
    texts: dict[str, list[str]] = {}
    for fault, number, outcome in rows:
        tried[fault] += number
        if isinstance(outcome, dict):
            numbers.setdefault(fault, Counter()).update(outcome)
        elif outcome not in texts.setdefault(fault, []):
            texts[fault].append(outcome)
    lines = ["| fault | tried | what came of it |", "|---|---|---|"]
    for fault, number in tried.items():
        counts = [f"{count} {what}" for what, count in numbers.get(fault, {}).items() if count]
        lines.append(f"| {fault} | {number} | {'; '.join(counts + texts.get(fault, []))} |")
    kills = sum(number for fault, number in tried.items() if fault.startswith("kill: "))
    return "\n".join([f"{kills} kills, {sum(tried.values())} faults in all.", "", *lines])


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.jsonl"
        os.environ["LITEVIT_FAULTS_COUNTS"] = str(counts)
        whole = ["-m", "slow or not slow", "--deselect", "tests/faults/test_kills.py::test_a_share_of_the_kills"]
        code = pytest.main(["-q", "-p", "no:cacheprovider", *whole, str(Path(__file__).parent), *sys.argv[1:]])
        rows = [json.loads(line) for line in counts.read_text(encoding="utf-8").splitlines()]
    found = table([tuple(row) for row in rows])
    print(found)
    if code == 0:
        page = PAGE.read_text(encoding="utf-8")
        pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
        PAGE.write_text(pattern.sub(lambda _: f"{BEGIN}\n{found}\n{END}", page), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
