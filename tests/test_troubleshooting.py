"""docs/troubleshooting.md: every message it quotes is one that the source can say."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `([^`]+)` \|", PAGE, flags=re.MULTILINE)


def constants() -> list[str]:
    """Every text of the source, formatted ones with a gap where values go."""
    found = []
    for path in (ROOT / "src/litevit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


SOURCE = [*constants(), (ROOT / "Makefile").read_text(encoding="utf-8")]


def said(message: str) -> bool:
    """Whether some text of the source has all parts of the message in their order."""
    parts = [re.escape(part.strip()) for part in message.split("...") if part.strip()]
    return any(re.search(".*".join(parts), text, flags=re.DOTALL) for text in SOURCE)


def test_the_page_quotes_messages() -> None:
    assert len(QUOTED) > 60
    assert not said("This is a message that nobody has ever written")


@pytest.mark.parametrize("message", QUOTED)
def test_the_source_says_it(message: str) -> None:
    assert sum(len(part) for part in message.split("...")) >= 12, "too little of it is quoted"
    assert said(message)
