"""Arrows point down: which part may import which, and what may be imported at all without the extras."""

import ast
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import litevit
from litevit.bench.commands import COMMANDS
from litevit.cli import VERBS

ROOT = Path(litevit.__file__).parent

# Part -> parts of litevit it may import. A part is a folder or a module of the package.
MODEL = {"ops", "layers", "backbones", "tasks"}
ZOO = {*MODEL, "zoo"}
MACHINE = {"files", "seals", "devices"}  # what is asked of the machine a program runs on; not for model code
ALLOWED: dict[str, set[str]] = {
    "files": {"files"},
    "seals": {"seals"},
    "devices": {"devices"},
    "ops": {"ops"},
    "layers": {"ops", "layers"},
    "backbones": {"ops", "layers", "backbones"},
    "tasks": {"ops", "layers", "tasks"},
    "optimize": {*MODEL, *MACHINE, "optimize"},
    "zoo": ZOO,
    "checkpoints": {*ZOO, *MACHINE, "checkpoints"},
    "models": {*ZOO, "checkpoints", "models"},
    "data": {"ops", *MACHINE, "data"},
    "metrics": {"ops", *MACHINE, "data", "metrics"},  # it reads and writes what data does: run lengths, PNGs of ids
    "engine": {"ops", *MACHINE, "data", "metrics", "engine"},
    "jobs": {*ZOO, *MACHINE, "models", "optimize", "checkpoints", "data", "metrics", "engine", "jobs"},
    "recipes": {"data", "engine", "jobs", "recipes"},
    "explain": {*ZOO, *MACHINE, "explain"},
    "deploy": {*ZOO, *MACHINE, "models", "checkpoints", "data", "metrics", "engine", "jobs", "deploy"},
    "bench": {*ZOO, *MACHINE, "models", "checkpoints", "optimize", "deploy", "bench"},
    "adapters": {*ZOO, *MACHINE, "data", "deploy", "models", "checkpoints", "engine", "jobs", "adapters"},
    "app": {*ZOO, *MACHINE, "models", "checkpoints", "data", "engine", "jobs", "deploy", "explain", "app"},
}
ANYTHING = {"cli", "__init__", "__main__"}
# What model code may import besides the standard library and torch.
MODEL_LIBRARIES = {"torch", "torchvision", "timm", "numpy", "triton"}


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Absolute names of what a file imports; `from litevit import zoo` counts as `litevit.zoo`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "litevit" else {base}
    return found


def test_a_skip_says_why() -> None:
    """With an argument `reason`, or the text that `pytest.skip` takes."""
    silent = []
    for path in Path(__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                said = {keyword.arg for keyword in node.keywords}
                reasoned = "reason" in said or (node.func.attr in ("skip", "fail") and node.args)
                if node.func.attr in ("importorskip", "skipif", "skip", "xfail") and not reasoned:
                    silent.append(f"{path.name}:{node.lineno}")
    assert not silent


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(path: Path) -> None:
    part = part_of(path)
    if part in ANYTHING:
        return
    assert part in ALLOWED, f"{part} is not in the table of parts"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "litevit":
            target = rest.split(".")[0]
            assert target in ALLOWED[part], f"{path.relative_to(ROOT)} imports {name}; {part} may not import {target}"
        elif part in MODEL:
            standard = top in sys.stdlib_module_names
            assert standard or top in MODEL_LIBRARIES, f"{path.relative_to(ROOT)} imports {name}"


PLAIN = {"layers", "backbones", "tasks"}
# What a module that reads as its paper does not ask: which compiler, processor, device or caller there is.
NO_QUESTIONS = ("torch.compiler", "torch.jit", "torch.ops", "torch._", "torch.backends", "torch.is_autocast", "os.")


def dotted(node: ast.AST) -> str:
    """`torch.compiler.is_compiling` of the nodes that spell it; "" for what is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    base = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{base}.{node.attr}" if base else ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", [p for p in modules() if part_of(p) in PLAIN], ids=lambda p: str(p.relative_to(ROOT)))
def test_plain_modules_call_their_submodules_and_ask_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = [dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert not [name for name in names if name.startswith(NO_QUESTIONS)]
    assert not [name for name in names if name.endswith((".__class__", ".is_cuda", ".device.type"))]
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and not function.name.lstrip("_").startswith(("init", "reset")):
            inside = [dotted(node) for node in ast.walk(function) if isinstance(node, ast.Attribute)]
            read = [name for name in inside if name.count(".") > 1 and name.endswith((".weight", ".bias"))]
            assert not read, f"{path.name}: {function.name} reads {read[0]} instead of calling the module"


def test_kernels_are_called_in_one_room() -> None:
    for path in modules():
        names = [dotted(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        private = [name for name in names if name.startswith(("torch.ops.mkldnn", "torch._C"))]
        # `devices` asks what PyTorch has under no other name in every version.
        assert not private or part_of(path) in ("optimize", "devices"), path


def test_no_part_is_forgotten() -> None:
    parts = {part_of(path) for path in modules()}
    assert parts <= set(ALLOWED) | ANYTHING
    assert {"ops", "layers", "backbones", "tasks", "checkpoints", "zoo", "models"} <= parts


def test_no_utils() -> None:
    assert not [p for p in modules() if p.stem in ("utils", "helpers", "misc", "common")]


SECONDS = {"torch", "torchvision", "timm", "scipy", "matplotlib", "accelerate", "litevit.zoo", "litevit.models"}
TENTHS = {"tyro", "rich", "numpy", "PIL"}
HELP = "from litevit.cli import main\ntry: main([*{!r}, '--help'])\nexcept SystemExit as end: assert not end.code"
HELPS = (
    "from litevit.cli import main\nfor words in {!r}:\n"
    "    try: main([*words, '--help'])\n    except SystemExit as end: assert not end.code"
)
A_RECIPE_OF_EACH_KIND = ("finetune", "cifar10_convnext", "finetune-instances", "panoptic_fpn_lvt", "segformer_lvt")
MAIN = "from litevit.cli import main; assert main({}) == 0"


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import litevit; assert dir(litevit)", SECONDS | TENTHS),
        (MAIN.format(["--version"]), SECONDS | TENTHS),
        (MAIN.format(["--help"]), SECONDS | TENTHS),
        (MAIN.format(["list"]), SECONDS),
        (MAIN.format(["list", "litv2*", "--names"]), SECONDS),
        (MAIN.format(["info", "mask_rcnn_lit_s"]), SECONDS),
        *((HELP.format([verb]), SECONDS) for verb in VERBS),
        *((HELP.format(["bench", what]), SECONDS) for what in COMMANDS),
        (HELPS.format([["train", recipe] for recipe in A_RECIPE_OF_EACH_KIND]), SECONDS),
    ],
)
def test_what_takes_seconds_to_import_is_not_imported_to_answer_at_once(code: str, without: set[str]) -> None:
    code += f"\nimport sys; assert not (found := {without!r} & set(sys.modules)), found"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]


def test_every_public_name_has_its_home() -> None:
    assert {*litevit._PUBLIC, "run"} == set(litevit.__all__)
    for name, home in litevit._PUBLIC.items():
        assert getattr(litevit, name) is getattr(importlib.import_module(home), name)
    for name in litevit._SUBMODULES:
        assert getattr(litevit, name).__name__ == f"litevit.{name}"
    folders = {part_of(path) for path in modules()} - {"__init__", "__main__", "cli", "files", "seals", "devices"}
    assert folders == set(litevit._SUBMODULES)
    assert {*litevit.__all__, *litevit._SUBMODULES} <= set(dir(litevit))
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        litevit.create_modle  # noqa: B018


def test_a_type_checker_sees_every_public_name() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == litevit._PUBLIC


IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
from importlib.machinery import PathFinder

class OnlyCore:
    blocked = {blocked!r}
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in cls.blocked else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = OnlyCore
import litevit
names = [m.name for m in pkgutil.walk_packages(litevit.__path__, "litevit.")]
for name in names:
    importlib.import_module(name)
assert not OnlyCore.blocked & set(sys.modules)
print(len(names))
"""


def beyond_the_core() -> set[str]:
    """Whatever can be imported here and neither the core dependencies nor what they need bring."""
    spec = importlib.util.spec_from_file_location("licences", ROOT.parents[1] / "docs/site/licences.py")
    assert spec is not None
    assert spec.loader is not None
    licences = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(licences)
    core = licences.brought({name for name, groups in licences.asked().items() if "core" in groups})
    tops = importlib.metadata.packages_distributions()
    return {
        top
        for top, packages in tops.items()
        if top.isidentifier() and not {canonicalize_name(name) for name in packages} & {*core, "litevit"}
    }


def test_every_module_imports_with_the_core_install_alone() -> None:
    """The extras are imported where they are used."""
    blocked = beyond_the_core()
    assert {"accelerate", "matplotlib", "onnx", "pytest"} <= blocked
    assert not {"torch", "timm", "numpy", "PIL", "huggingface_hub"} & blocked
    code = IMPORT_EVERYTHING.format(blocked=blocked)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert int(run.stdout.split()[-1]) == len([p for p in modules() if p.parent != ROOT or p.stem != "__init__"])
