"""docs/mechanisms: the code is the source's, the commands are those that drew the pictures, and the build runs."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from litevit.checkpoints.published import WEIGHTS

pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib (the extra 'explain')")

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted((DOCS / "mechanisms").glob("*.md"))


def load_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mechanism_pages", DOCS / "mechanisms" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build()
SOURCE = (
    'class A:\n    def f(self, x):\n        """Doc."""\n        # why\n        return x\n\n\ndef g():\n    return 1\n'
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_page_quotes_the_source_and_shows_its_commands(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert build.QUOTED.search(text)
    assert build.with_code(text) == text, "the code has changed: python docs/mechanisms/build.py --code"
    pictures = re.findall(r"!\[[^\]]+\]\(([\w-]+)\.png\)", text)
    commands = re.findall(r"^```\n(litevit explain .*)\n```$", text, flags=re.MULTILINE)
    assert pictures
    assert commands == [build.command(name) for name in pictures]
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target


def test_the_pictures_are_small_and_none_is_forgotten() -> None:
    committed = {path.stem for path in (DOCS / "mechanisms").glob("*.png")}
    assert committed == set(build.PICTURES)
    assert all(path.stat().st_size < 150_000 for path in (DOCS / "mechanisms").iterdir() if path.is_file())
    assert {page.stem for page in PAGES} == {"hilo", "dtm", "csa", "rasa"}


def test_quoted_code_is_read_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "src" / "litevit" / "a.py"
    source.parent.mkdir(parents=True)
    source.write_text(SOURCE)
    monkeypatch.setattr(build, "ROOT", tmp_path)
    assert build.quote("a.py", "A.f g") == "def f(self, x):\n    # why\n    return x\n\ndef g():\n    return 1"
    page = "<!-- code: a.py g -->\n```python\nold\n```\n\n<!-- code: a.py A.f -->\n```python\n```\nend\n"
    made = build.with_code(page)
    assert made.count("return") == 2
    assert "old" not in made
    assert build.with_code(made) == made


def test_the_build_runs(tmp_path: Path) -> None:
    """At a small size: three trained models, the scene, every picture."""
    build.train_models(tmp_path / "runs", images=8, epochs=1, size=64)
    build.draw_pictures(tmp_path / "runs", tmp_path / "out", size=224)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scene.jpg", *(f"{n}.png" for n in build.PICTURES)}
    for name in build.PICTURES:
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.width > 300


def test_the_commands_for_the_papers_figures() -> None:
    """What they write is tested in tests/explain; here, that their models are published."""
    text = (DOCS / "paper_figures.md").read_text(encoding="utf-8")
    commands = re.findall(r"^litevit explain (\w+) .*--model (\w+) --weights official", text, flags=re.MULTILINE)
    assert [what for what, _ in commands] == ["offsets", "attention", "frequency"]
    assert all(model in WEIGHTS for _, model in commands)
