"""docs/numbers.md: every model and mode, all good, as the record has it; the command goes on where it was stopped."""

from pathlib import Path
from typing import Any

import pytest

from numerics import table
from numerics.command import main


def test_the_page_is_whole_good_and_up_to_date() -> None:
    """`python -m tests.numerics` measures the rows that are missing."""
    rows = table.read(table.RECORD)
    assert not [key for key, row in rows.items() if not table.good(row)]
    assert table.PAGE.read_text(encoding="utf-8") == table.render(rows)


def row(name: str, mode: str, **changes: Any) -> dict[str, Any]:
    x = {"share": 0.5, "other": 0.0, "repeats": True, "broken": [], "tolerance": 1e-5, **changes}
    return {
        "name": name,
        "mode": mode,
        "dtypes": dict.fromkeys(table.DTYPES, x),
        "seconds": 1.0,
        "torch": "2",
        "cpu": "",
    }


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({}, "| 0.50 = |"),
        ({"other": 0.25}, "| 0.50 0.25 |"),
        ({"share": 1.5}, "| **1.50 =** |"),
        ({"repeats": False}, "| **0.50 = differs on repeat** |"),
        ({"broken": ["+1e4"]}, "| **0.50 = +1e4** |"),
    ],
)
def test_what_fails_is_bold(changes: dict[str, Any], cell: str) -> None:
    found = row("lvt", "eager", **changes)
    page = table.render({("lvt", "eager"): found})
    assert table.good(found) == ("**" not in cell)
    assert cell in next(line for line in page.splitlines() if line.startswith("| `lvt` |"))
    assert (" 0 failed" in page) == table.good(found)


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def measure(name: str, mode: str) -> dict[str, Any]:
        if len(asked) == 2:
            asked.append(("stopped", ""))
            raise KeyboardInterrupt
        asked.append((name, mode))
        return row(name, mode, share=2.0 if name == "lvt" else 0.1)

    monkeypatch.setattr("numerics.command.measure", measure)
    arguments = ["--models", "lvt", "litv2_?", "--modes", "eager", "--record", str(tmp_path / "rows.jsonl")]
    arguments += ["--page", str(tmp_path / "page.md")]
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    assert set(table.read(tmp_path / "rows.jsonl")) == set(asked[:2])
    assert main(arguments) == 1  # lvt failed
    assert sorted(asked) == sorted({*asked})
    assert {name for name, mode in asked if mode} == {"lvt", "litv2_s", "litv2_m", "litv2_b"}
    assert "4 of" in (tmp_path / "page.md").read_text(encoding="utf-8")
