"""The pictures of docs/app.md: small, all shown, and none that the script does not make."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from litevit.cli.train import read_options
from litevit.recipes import get_recipe

DOCS = Path(__file__).parents[2] / "docs"
pytest.importorskip("starlette", reason="the extra `app`")
spec = importlib.util.spec_from_file_location("screenshots", DOCS / "site/screenshots.py")
assert spec is not None
assert spec.loader is not None
screenshots = importlib.util.module_from_spec(spec)
spec.loader.exec_module(screenshots)


def test_every_picture_is_made_shown_and_small() -> None:
    files = sorted((DOCS / "images/app").iterdir())
    assert {path.name for path in files} == {f"{name}.png" for name in screenshots.SHOTS}
    assert all(path.stat().st_size < screenshots.LARGEST for path in files)
    page = (DOCS / "app.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(images/app/(\w+)\.png\)", page)) == set(screenshots.SHOTS)


@pytest.mark.parametrize("words", screenshots.TRAINED.values())
def test_what_trains_the_models_is_understood(words: str) -> None:
    name, *options = shlex.split(words)
    read_options(get_recipe(name), options, prog=name)
