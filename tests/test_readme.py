"""README.md: its Python blocks run, its first screen is whole, its claims name what shows them. Links: test_docs.py."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_blocks_are_found():
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number):
    exec(compile(BLOCKS[number], f"README.md block {number}", "exec"), {})


def test_it_is_short_and_its_first_screen_is_whole():
    lines = README.splitlines()
    assert len(lines) < 120
    first = "\n".join(lines[:40])
    title, sentence = first.split("\n\n")[:2]
    assert title == "# litevit"
    assert sentence.count(". ") == 0
    assert len(BLOCKS[0].splitlines()) == 6  # what it does, in six lines
    assert BLOCKS[0] in first
    assert re.search(r"^!\[[^\]]+\]\([^)]+\)$", first, flags=re.MULTILINE)
    assert "make run" in first
    assert "make test" in first
    assert "|---|" in first


def test_every_claim_has_a_command():
    section = README.partition("## What no other")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 5
    for row in rows:
        command = re.fullmatch(r"\| .+ \| `([^`]+)` \|", row)[1]
        assert command.startswith(("litevit ", ".venv/bin/python -m pytest tests/")), command
