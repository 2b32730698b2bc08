"""Systems that are not this one: what Windows and later Pythons lack is neither imported nor called, and files name
their encoding."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import litevit

ROOT = Path(litevit.__file__).parent
UNIX_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
UNIX_NAMES = (
    "chown", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid",
    "getpriority", "getuid", "killpg", "mkfifo", "nice", "pwrite", "sched_getaffinity", "setpgid", "setsid",
    "statvfs", "sysconf", "uname", "wait3", "wait4",
)  # fmt: skip
# Of the standard library in Python 3.11, and not in 3.12, 3.13 or 3.14; and attributes that have gone since.
GONE_MODULES = (
    "aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils", "imghdr", "imp",
    "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "pkg_resources", "smtpd",
    "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib",
)  # fmt: skip
GONE_NAMES = {
    ("ast", "Bytes"), ("ast", "Ellipsis"), ("ast", "NameConstant"), ("ast", "Num"), ("ast", "Str"),
    ("datetime", "utcfromtimestamp"), ("datetime", "utcnow"), ("importlib", "find_loader"), ("locale", "resetlocale"),
    ("pkgutil", "find_loader"), ("pkgutil", "get_loader"), ("typing", "ByteString"),
}  # fmt: skip
# Behind a question about the system.
GUARDED = {("engine/logging.py", "resource"), ("bench/timing.py", "getloadavg")}
IMPORT_ALL = """
import os, pkgutil, sys
import accelerate, tensorboard, timm, torch, torchvision, torch._dynamo, torch.distributed, torch.utils.cpp_extension
import litevit
for name in {modules!r}:
    sys.modules[name] = None
for name in {names!r}:
    if hasattr(os, name):
        delattr(os, name)
failed = []
for module in pkgutil.walk_packages(litevit.__path__, "litevit."):
    if module.name.endswith("__main__") or ".triton" in module.name or module.name == "litevit.adapters.ray":
        continue
    try:
        __import__(module.name)
    except ImportError as error:
        if "None in sys.modules" in str(error):
            failed.append(f"{{module.name}}: {{error}}")
    except AttributeError as error:
        failed.append(f"{{module.name}}: {{error}}")
from litevit.engine.logging import launcher
assert ":" in launcher()
print("\\n".join(failed))
"""


@functools.cache
def trees() -> list[tuple[str, ast.AST]]:
    files = [path for path in ROOT.rglob("*.py")]
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in files]


def test_nothing_of_unix_outside_of_a_question_about_the_system() -> None:
    found = set()
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {(file, alias.name) for alias in node.names if alias.name in UNIX_MODULES}
            elif isinstance(node, ast.ImportFrom) and node.module in UNIX_MODULES:
                found.add((file, node.module))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                found |= {(file, node.attr)} if node.attr in UNIX_NAMES else set()
    assert found - GUARDED == set()


def test_nothing_that_later_pythons_have_dropped() -> None:
    """Python 3.12 to 3.14, as far as it can be told without them."""
    found = []
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
                found += [f"{file}: {node.module}.{a.name}" for a in node.names if (node.module, a.name) in GONE_NAMES]
            else:
                names = []
            found += [f"{file}: {name}" for name in names if name in GONE_MODULES]
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                found += [f"{file}: {owner}.{node.attr}"] if (owner, node.attr) in GONE_NAMES else []
    assert found == []


def test_every_module_imports_without_what_windows_lacks() -> None:
    code = IMPORT_ALL.format(modules=UNIX_MODULES, names=UNIX_NAMES)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_text_files_name_their_encoding() -> None:
    """On Windows the default is not UTF-8."""
    without = []
    for file, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            named = {keyword.arg for keyword in node.keywords}
            method = isinstance(node.func, ast.Attribute)  # `files.write_text` is a function, and writes UTF-8
            if method and name in ("read_text", "write_text") and "encoding" not in named:
                without.append(f"{file}:{node.lineno}")
            if name == "open" and isinstance(node.func, ast.Name) and "encoding" not in named:
                mode = node.args[1] if len(node.args) > 1 else None
                if not (isinstance(mode, ast.Constant) and "b" in str(mode.value)):
                    without.append(f"{file}:{node.lineno}")
    assert without == []


def test_no_call_asks_for_cuda_by_name() -> None:
    calls = [
        f"{file}:{node.lineno}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"
    ]
    assert calls == []
