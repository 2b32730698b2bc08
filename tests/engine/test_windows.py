"""What Windows lacks: POSIX modules are not needed to import litevit, and memory is asked of psutil there."""

import subprocess
import sys
import types

import torch

from litevit.engine import logging

IMPORT_ALL = """
import os, pkgutil, sys
import timm, torch, torchvision, rich.console, tyro, PIL.Image, safetensors.torch  # which have ways of their own
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("uname", "getloadavg", "sched_getaffinity", "fork", "mkfifo", "geteuid", "getuid"):
    if hasattr(os, name):
        delattr(os, name)
import importlib, litevit
for module in pkgutil.walk_packages(litevit.__path__, "litevit."):
    importlib.import_module(module.name)
from litevit.engine.logging import launcher
assert ":" in launcher()
print("all imported")
"""


def test_everything_imports_without_posix():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert "all imported" in done.stdout, done.stderr[-2000:]


def test_memory_on_windows(monkeypatch):
    process = types.SimpleNamespace(memory_info=lambda: types.SimpleNamespace(peak_wset=3 * 2**20))
    monkeypatch.setitem(sys.modules, "psutil", types.SimpleNamespace(Process=lambda: process))
    here = logging.memory_mb(torch.device("cpu"))
    assert 50 < here < 100_000
    monkeypatch.setattr(logging.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert logging.memory_mb(torch.device("cpu")) == 3
