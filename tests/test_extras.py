"""The extras of pyproject.toml: each is imported somewhere, where it is used, with an error that names it."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import litevit

ROOT = Path(litevit.__file__).parent
PROJECT = Path(__file__).parent.parent / "pyproject.toml"
# Distribution -> what is imported, where the two differ.
MODULES = {
    "pillow-heif": "pillow_heif",
    "faster-coco-eval": "faster_coco_eval",
    "tensorboard": "accelerate.tracking.TensorBoardTracker",
    "wandb": "accelerate.tracking.WandBTracker",
    "onnx": "torch.onnx",
    "grad-cam": "pytorch_grad_cam",
    "ai-edge-litert": "ai_edge_litert",
}
# Without these there are no pictures, or one kind of picture less, and nothing is raised.
SILENT = {"matplotlib", "pillow-heif", "coremltools"}  # `needs` of deploy's formats name their extra


def extras() -> list[tuple[str, str]]:
    table = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pairs = [(extra, need) for extra, needs in table.items() if extra not in ("all", "dev", "docs") for need in needs]
    return [(extra, re.match(r"[\w-]+", need)[0]) for extra, need in pairs if not need.startswith("litevit[")]


def sources() -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}


def imports_of(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize(("extra", "package"), extras())
def test_every_extra_is_used_and_named_where_it_is_missing(extra, package):
    module = MODULES.get(package, package)
    files = {path: text for path, text in sources().items() if any(
        name == module or name.startswith(module + ".") for name in imports_of(ast.parse(text))
    )}  # fmt: skip
    assert files, f"nothing imports {module}: the extra '{extra}' installs it for nobody"
    if package not in SILENT:
        named = f"litevit[{extra}]" in "".join(files.values()) or "litevit[{extra}]" in "".join(files.values())
        assert named, f"no ImportError near {module} names litevit[{extra}]"


def test_all_has_every_extra_but_the_tracker_that_needs_an_account_and_ray():
    table = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = set(re.search(r"\[(.*)\]", table["all"][0])[1].split(","))
    assert named == set(table) - {"all", "dev", "docs", "wandb", "ray"}
