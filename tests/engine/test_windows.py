"""Memory is asked of psutil on Windows; `test_portability.py` imports everything without what it lacks."""

import sys
import types

import torch

from litevit.engine import logging


def test_memory_on_windows(monkeypatch):
    process = types.SimpleNamespace(memory_info=lambda: types.SimpleNamespace(peak_wset=3 * 2**20))
    monkeypatch.setitem(sys.modules, "psutil", types.SimpleNamespace(Process=lambda: process))
    here = logging.memory_mb(torch.device("cpu"))
    assert 50 < here < 100_000
    monkeypatch.setattr(logging.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert logging.memory_mb(torch.device("cpu")) == 3
