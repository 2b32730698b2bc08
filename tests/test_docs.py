"""The site's pages: their Python runs, their commands are understood, their links lead somewhere, nothing is left out.

Pages with `{code-cell}` blocks are run by the build: `make docs`, or the slow test below.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tyro
from tyro.conf import FlagCreatePairsOff

import litevit
from litevit import recipes
from litevit.bench.commands import COMMANDS
from litevit.cli import VERBS
from litevit.cli.train import read_options
from litevit.zoo import MODELS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in (*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md")
    if not {"_build", "generated", "site"} & set(path.relative_to(ROOT).parts)
)
FENCE = re.compile(r"^```(\{?[\w-]*\}?)[^\n]*\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
RUN_ELSEWHERE = {"docs/batch.md", "docs/deploy.md", "README.md"}  # by tests of their own; mechanisms quote the source


def load_generated() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("generated", DOCS / "site/generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def texts() -> dict[Path, str]:
    """Every page, the generated ones as they would be written."""
    made = {DOCS / "generated" / f"{name}.md": text for name, text in load_generated().pages().items()}
    return {**{path: path.read_text(encoding="utf-8") for path in PAGES}, **made}


# ------------------------------------------------------------------------------------------------------ Python blocks


def python_blocks() -> list[Any]:
    found = []
    for path in PAGES:
        name = str(path.relative_to(ROOT))
        blocks = [body for kind, body in FENCE.findall(path.read_text(encoding="utf-8")) if kind == "python"]
        if name not in RUN_ELSEWHERE and "mechanisms" not in path.parts:
            found += [pytest.param(body, id=f"{name}-{i}") for i, body in enumerate(blocks)]
    return found


# Who runs the blocks of a language: this file, the build, or the page's own test.
RUNNERS = {
    "python": "test_a_python_block_runs, or RUN_ELSEWHERE",
    "{code-cell}": "the build",
    "": "test_the_commands_are_understood",
    "bash": "tests/jobs/test_batch_docs.py",
    "yaml": "tests/jobs/test_batch_docs.py",
    "{eval-rst}": "the build",
    "{toctree}": "the build",
    "{include}": "the build",
}


def test_every_block_has_somebody_who_runs_it() -> None:
    assert {kind for text in texts().values() for kind, _ in FENCE.findall(text)} <= RUNNERS.keys()
    pages = {path for path, text in texts().items() if re.search(r"^```(bash|yaml)", text, re.MULTILINE)}
    assert pages == {DOCS / "batch.md"}
    for page in RUN_ELSEWHERE:
        name = Path(page).name
        assert any(
            name in test.read_text(encoding="utf-8")
            for test in (ROOT / "tests").rglob("test_*.py")
            if test != Path(__file__)
        ), page


@pytest.mark.parametrize("code", python_blocks())
def test_a_python_block_runs(code: str) -> None:
    exec(compile(code, "a page", "exec"), {})


# ----------------------------------------------------------------------------------------------------------- commands


QUOTED = r"litevit |make |(\.venv/bin/)?python -m "


class Command(NamedTuple):
    where: str
    words: tuple[str, ...]


def commands() -> Iterator[Command]:
    """Commands of fences and cells, and those quoted in a text where they are whole."""
    for path, text in texts().items():
        where = str(path.relative_to(ROOT))
        lines = []
        for kind, body in FENCE.findall(text):
            if kind in ("", "bash", "sh") or (kind == "{code-cell}" and body.startswith("%%sh")):
                lines += body.replace("\\\n", " ").splitlines()
        if path.name.startswith("models_"):  # cards: the same command with every name
            lines = lines[:1]
        if path.name != "CHANGELOG.md":
            lines += [code for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)) if re.match(QUOTED, code)]
        for line in lines:
            line = line.partition(" | ")[0].strip()
            line = line.removeprefix(".venv/bin/")
            if not re.match(r"(litevit|torchrun|accelerate|python|make|pip) ", line) or "..." in line:
                continue
            yield Command(where, tuple(word for word in shlex.split(line, comments=True) if word != "\\"))


STAND_INS = {"RECIPE": "quickstart", "MODEL": "mask_rcnn_litv2_s", "NAME": "litv2_s", "VERB": "list", "WHAT": "cam"}
NUMBERS = {"N": "2", "X": "0.5", "Y": "7", "Z": "0.5", "D": "0.9", "H": "224", "W": "224", "P": "8765"}


def arguments_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gives its arguments back, with the signature of another."""

    @functools.wraps(function)
    def given(*values: Any, **named: Any) -> dict[str, Any]:
        return inspect.signature(function).bind(*values, **named).arguments

    return given


def understand(words: tuple[str, ...]) -> None:
    """Parses a command of litevit as its verb would, without doing anything."""
    verb, *rest = [re.sub(r"\$\w+", "4", NUMBERS.get(word, STAND_INS.get(word, word))) for word in words]
    if verb.startswith("--") or not rest or rest == ["--help"]:
        assert verb in (*VERBS, "--help", "--version"), verb
        return
    assert verb in VERBS, verb
    if verb == "train":
        name, *rest = rest
        if "--help" in rest or name == "--help":
            return
        recipe = recipes.get_recipe("quickstart" if name.endswith(".json") else name)
        read_options(recipe, [word for word in rest if word != "RUN"], prog="litevit train")
    elif verb == "bench":
        what, *rest = rest
        tyro.cli(arguments_of(COMMANDS[what]), args=rest, config=(FlagCreatePairsOff,))
    elif rest != ["--help"]:
        given = tyro.cli(arguments_of(VERBS[verb].load()), args=rest, config=(FlagCreatePairsOff,))
        model = given.get("model")
        if isinstance(model, str) and not re.search(r"[:/\[]", model):
            assert model in MODELS, f"there is no model {model}"


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def check(command: Command) -> None:
    words = command.words
    program, *rest = words
    if program == "litevit":
        understand(tuple(rest))
    elif "litevit.cli" in rest:
        understand(tuple(rest[rest.index("litevit.cli") + 1 :]))
    elif program == "make":
        assert set(word for word in rest if "=" not in word) <= TARGETS, rest
    elif program == "pip":
        for extra in re.findall(r"(?:litevit|\.)\[([\w,]+)\]", " ".join(rest)):
            assert set(extra.split(",")) <= set(EXTRAS), extra
    elif program == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]), rest[1]
        if rest[1] == "pytest":
            assert all((ROOT / word).exists() for word in rest[2:] if "/" in word), rest
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), rest[0]


def test_the_commands_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    seen, wrong = set(), []
    for command in commands():
        if command.words in seen:
            continue
        seen.add(command.words)
        try:
            check(command)
        except (Exception, SystemExit) as error:
            said = capsys.readouterr().err or repr(error)
            wrong.append(f"{command.where}: {shlex.join(command.words)}\n    {' '.join(said.split())[:300]}")
    assert len(seen) > 150
    assert not wrong, "\n".join(wrong)


def test_a_wrong_command_is_seen() -> None:
    for words in (
        "litevit predikt x.jpg",
        "litevit predict x.jpg --modle y",
        "make cake",
        "litevit train quickstart --lr 1",
    ):
        with pytest.raises((Exception, SystemExit)):
            check(Command("here", tuple(words.split())))


# -------------------------------------------------------------------------------------------------------------- links


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def dead_links(path: Path, text: str) -> list[str]:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        lost = not (there.exists() or there in texts())
        if lost or (anchor and anchor not in slugs(texts().get(there) or there.read_text(encoding="utf-8"))):
            wrong.append(target)
    return wrong


def test_links_lead_somewhere() -> None:
    wrong = {str(path.relative_to(ROOT)): dead_links(path, text) for path, text in texts().items()}
    assert not {page: links for page, links in wrong.items() if links}
    assert dead_links(DOCS / "data.md", "[a](nowhere.md) [b](training.md#no-such) [c](training.md#data)") == [
        "nowhere.md",
        "training.md#no-such",
    ]


def test_pictures_are_small() -> None:
    for path in DOCS.rglob("*"):
        if path.suffix in (".png", ".jpg", ".gif") and "_build" not in path.parts and "generated" not in path.parts:
            assert path.stat().st_size < 200_000, path


# ---------------------------------------------------------------------------------------------------- nothing left out


def test_every_public_name_has_its_place_in_the_reference() -> None:
    text = "".join((DOCS / "api" / name).read_text() for name in ("models.md", "layers.md", "optimize.md", "deploy.md"))
    whole = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    for name in set(litevit.__all__) - {"run"}:
        assert re.search(rf"\.{name}$", text, flags=re.MULTILINE), name
    assert "Run.open" in whole  # litevit.run
    for module in ("engine", "metrics", "explain", "optimize", "deploy"):
        package = importlib.import_module(f"litevit.{module}")
        names = getattr(package, "__all__", None) or [
            name for name, value in vars(package).items() if callable(value) and not name.startswith("_")
        ]
        assert len(names) > 1
        for name in names:
            assert re.search(rf"\.{name}$", whole, flags=re.MULTILINE), f"litevit.{module}.{name}"


def documented() -> Iterator[tuple[str, Any]]:
    """Functions and classes that the reference lists, and the public methods of those whose members it shows."""
    for page in (DOCS / "api").glob("*.md"):
        found = re.findall(r"^\.\. auto(?:function|class):: (\S+)$\n(   :members:)?", page.read_text(), re.MULTILINE)
        for path, members in found:
            module, _, name = path.rpartition(".")
            thing = getattr(importlib.import_module(module), name)
            yield path, thing
            if members:
                yield from (
                    (f"{path}.{key}", getattr(value, "__func__", value))
                    for key, value in vars(thing).items()
                    if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod))
                )


def unsaid(thing: Any) -> list[str]:
    """What the docstring of a function or class leaves out: parameters, fields, results of parameters, errors."""
    said = inspect.getdoc(thing) or ""
    if not said:
        return ["a docstring"]
    if dataclasses.is_dataclass(thing):
        comments = load_generated().comments(thing)
        return [f for f in comments if not comments[f] and not re.search(rf"\b{f}\b", said)]
    if isinstance(thing, type) and ("__init__" not in vars(thing) or getattr(thing, "_is_protocol", False)):
        return []
    function = vars(thing)["__init__"] if isinstance(thing, type) else inspect.unwrap(thing)
    given = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    lost = [name for name in given if not re.search(rf"\b{name}\b", said)]
    if isinstance(thing, type):
        return lost
    result = inspect.signature(function).return_annotation
    if given and result not in (None, "None", inspect.Signature.empty) and "Returns:" not in said:
        lost.append("Returns")
    own = [
        node for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))) if type(node) is ast.Raise
    ]
    if given and any(node.exc is not None for node in own) and "Raises" not in said:
        lost.append("Raises")
    return lost


def test_docstrings_of_the_reference_say_what_goes_in_what_comes_out_and_what_is_refused() -> None:
    seen = dict(documented())
    assert len(seen) > 90
    wrong = {name: lost for name, thing in seen.items() if (lost := unsaid(thing))}
    assert not wrong

    def bare(width: int) -> int:
        """Something."""
        raise ValueError

    assert unsaid(bare) == ["width", "Returns", "Raises"]


@pytest.mark.parametrize(
    "function",
    [verb.load() for verb in VERBS.values() if not verb.raw] + list(COMMANDS.values()),
    ids=lambda f: f.__name__,
)
def test_the_help_of_a_command_says_what_each_option_is(function: Callable[..., Any]) -> None:
    said = inspect.getdoc(function) or ""
    options = inspect.signature(function).parameters
    assert [
        name for name in options if not re.search(rf"^    ([\w, ]+, )?{name}(, [\w, ]+)?: \S", said, re.MULTILINE)
    ] == []


def test_the_tables_are_whole() -> None:
    generated = load_generated()
    made = generated.pages()
    for name in litevit.list_models():
        assert f"`{name}`" in made["models"]
        assert f"\n## {name}\n" in made[f"models_{generated._page_of(name)}"]
    for name in recipes.RECIPES:
        assert f"| `{name}` |" in made["recipes"]
    assert set(generated.MEASURED) <= set(recipes.RECIPES)
    said = generated.comments(litevit.engine.RunConfig)
    assert said["batch_size"] == "total: over processes and accumulated micro-batches"
    assert said["seed"] == "of fresh weights, the order of the images and their augmentation"


# -------------------------------------------------------------------------------------------------------------- build


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_nothing_from_elsewhere() -> None:
    """With every cell run, unless `make docs` has run them before."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    html = DOCS / "_build/html"
    assert (html / "searchindex.js").is_file()
    loaded = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=["'](https?:)?//""")
    for page in html.rglob("*.html"):
        assert not loaded.search(page.read_text(encoding="utf-8")), page
    for sheet in html.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import ['\"]http", sheet.read_text(encoding="utf-8")), sheet
