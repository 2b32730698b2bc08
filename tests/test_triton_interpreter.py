"""Runs tests/triton_cases: with Triton's interpreter on the CPU, or compiled where there is a GPU.

The interpreter is chosen when Triton is imported, for a whole process, hence a process of its own.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [f"tests/triton_cases/{name}.py" for name in ("merging", "dilated", "models")]

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def run_cases(marker: str, *, interpreted: bool, at_least: int) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpreted else "0"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marker, *FILES]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) >= at_least
    assert "skipped" not in run.stdout


@needs_triton
@pytest.mark.timeout(1800)
def test_kernels_in_the_interpreter() -> None:
    run_cases("not slow", interpreted=True, at_least=39)


@pytest.mark.slow
@needs_triton
@pytest.mark.timeout(3600)
def test_kernels_in_the_interpreter_over_random_shapes_and_in_models() -> None:
    run_cases("slow", interpreted=True, at_least=40)


@pytest.mark.gpu
@needs_triton
@pytest.mark.timeout(1800)
def test_kernels_on_a_gpu() -> None:
    run_cases("slow or not slow", interpreted=False, at_least=79)
