"""What of a `.pt2` file may reach `torch.export.load`, which trusts its files.

It unpickles weights and example inputs without restriction where the file asks for that, finds the operators of a graph
by walking attributes from `torch` (`torch.os.system` is one), evaluates sizes as Python, and loads compiled libraries.
So the archive is looked at first: only entries that `litevit export` writes, no pickles but of plain tensors, only
operators, only arithmetic in sizes.
"""

import ast
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from litevit.files import check_sums, parse_json

ENTRIES = re.compile(
    r"models/\w+\.json|data/(weights|constants)/(\w+_config\.json|(weight|tensor)_\d+)|data/sample_inputs/\w+\.pt"
    r"|extra(_files)?/[\w.]+|archive_format|archive_version|version|byteorder|\.data/\w+|\.format_version"
    r"|\.storage_alignment|serialized_(exported_program\.json|(state_dict|constants|example_inputs)\.pt)"
)
OPERATORS = re.compile(
    r"torch\.ops\.(aten|torchvision|litevit|prims|quantized_decomposed)"
    r"\.([A-Za-z]\w*|_[a-z]\w*|__(and|or|xor)__)\.[A-Za-z]\w*"
    r"|torch\.ops\.higher_order\.[a-z]\w*"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pos|abs|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|index)"
    r"|math\.[a-z]\w*|torch\.(_sym_\w+|sym_\w+|_check|_check_is_size)"
)
TOUCHES_FILES = re.compile(r"from_file|triton|torchbind|print|aoti|py_autograd|_save|_load|import")
SIZES = {
    "Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv",
    "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ToFloat", "IntTrueDiv",
    "FloatTrueDiv", "ModularIndexing", "Where", "Piecewise", "ExprCondPair", "Abs", "Identity", "Eq",
    "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan",
    "GreaterThan", "And", "Or", "Not",
}  # fmt: skip
NODES = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare,
    ast.Tuple, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip


def check_archive(path: Path) -> None:
    """Raises ValueError for a file that `litevit export` has not written so."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, archive)
            check_sums(archive)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        size = path.stat().st_size
        raise ValueError(
            f"{path} ({size} bytes) cannot be opened by PyTorch: it is truncated or damaged. Export it again. ({error})"
        ) from None


def _check(path: Path, archive: zipfile.ZipFile) -> None:
    length, names = path.stat().st_size, archive.namelist()
    if len(set(names)) != len(names):
        raise _refused(path, "has two entries of one name")
    for entry in archive.infolist():
        _, _, name = entry.filename.partition("/")
        if not ENTRIES.fullmatch(name):
            raise _refused(path, f"has the entry {entry.filename!r:.60}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > length:
            raise _refused(path, f"claims {entry.file_size:,} bytes for {entry.filename!r:.60}")
        if name.endswith(".pt"):
            try:
                torch.load(io.BytesIO(archive.read(entry)), map_location="cpu", weights_only=True)
            except Exception:  # damaged, or more than tensors
                raise _refused(path, f"holds more than tensors in {entry.filename!r:.60}") from None
        elif name.endswith(".json") and not name.startswith("extra"):
            for key, value in _walk(parse_json(archive.read(entry), f"{path}: {entry.filename}")):
                _check_value(path, key, value)


def _check_value(path: Path, key: str, value: Any) -> None:
    if key == "use_pickle" and value is not False:
        raise _refused(path, "asks for a pickle to be read")
    if key == "target" and not (
        isinstance(value, str) and OPERATORS.fullmatch(value) and not TOUCHES_FILES.search(value)
    ):
        raise _refused(path, f"calls {value!r:.60}")
    if key == "expr_str" and not (isinstance(value, str) and _is_arithmetic(value)):
        raise _refused(path, f"has the size {value!r:.60}")
    if key == "guards_code" and value:
        raise _refused(path, "brings Python code")


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object with its value; texts that are JSON themselves stay texts."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            yield from one.items()
            todo += one.values()
        elif isinstance(one, list):
            todo += one


def _is_arithmetic(text: str) -> bool:
    """Whether evaluating it can do nothing but compute: numbers, symbols, and the functions that sizes are made of."""
    if len(text) > 20_000:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, NODES):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in SIZES):
            return False
        if isinstance(node, ast.Name) and node.id not in SIZES and not re.fullmatch(r"[a-z]+\d+|true|false", node.id):
            return False
        if isinstance(node, ast.Constant) and not (
            re.fullmatch(r"[a-zA-Z_]\w{0,60}", node.value)
            if isinstance(node.value, str)
            else isinstance(node.value, bool | float) or (isinstance(node.value, int) and abs(node.value) < 2**63)
        ):
            return False
        large = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift)
        if large or (isinstance(node, ast.Call) and node.func.id == "Pow" and _exponent(node) > 4):  # type: ignore[attr-defined]
            return False
    return True


def _exponent(call: ast.Call) -> float:
    """Of `Pow(base, Integer(n))`; infinite where it is no such number."""
    last = call.args[-1] if call.args else None
    if isinstance(last, ast.Call) and len(last.args) == 1:
        last = last.args[0]
    if isinstance(last, ast.UnaryOp):
        last = last.operand
    return last.value if isinstance(last, ast.Constant) and isinstance(last.value, int) else float("inf")


def _refused(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path} was refused: it {why}, which litevit export does not write, and opening it may run code. "
        "If you trust its maker, ask for the weights and export them yourself."
    )
