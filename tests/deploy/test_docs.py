"""docs/deploy.md: its Python runs, its commands exist."""

import re
from pathlib import Path

from litevit.cli import VERBS

PAGE = (Path(__file__).parents[2] / "docs/deploy.md").read_text(encoding="utf-8")


def test_python_of_the_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/deploy.md", "exec"), {})


def test_commands_of_the_page_exist() -> None:
    verbs = re.findall(r"^litevit (\S+)", PAGE, flags=re.M)
    assert set(verbs) >= {"export", "predict", "eval", "bench"}
    assert set(verbs) <= set(VERBS)
