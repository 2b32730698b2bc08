"""Who takes the Triton kernels: nobody by itself; and without Triton, or on a CPU, the others do the work."""

import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from litevit.ops import kernels
from litevit.ops.csa import mix_windows
from litevit.ops.deformable_merging import deformable_merging
from litevit.ops.dilated import dilated_silu_sum
from litevit.ops.window_attention import window_attention

ON_GPU = SimpleNamespace(is_cuda=True, device=torch.device("cuda"))  # all that the choice looks at
ON_CPU = SimpleNamespace(is_cuda=False, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def triton_is_installed(monkeypatch):
    """Whether it is or not; and not interpreted, whatever the environment says."""
    monkeypatch.setattr(kernels, "HAS_TRITON", True)
    monkeypatch.setattr(kernels, "_is_interpreted", lambda: False)


def test_off_until_chosen():
    assert kernels.chosen() == "torch"
    assert not kernels.takes_triton(ON_GPU, "auto")
    with kernels.use("triton"):
        assert kernels.takes_triton(ON_GPU, "auto")
        assert not kernels.takes_triton(ON_GPU, "gather")
        with kernels.use("torch"):
            assert not kernels.takes_triton(ON_GPU, "auto")
        assert kernels.chosen() == "triton"
    assert kernels.chosen() == "torch"
    kernels.use("triton")
    assert kernels.chosen() == "triton"
    kernels.use("torch")
    assert not kernels.takes_triton(ON_GPU, "auto")


def test_an_exported_program_holds_the_kernel_only_where_it_is_named():
    with kernels.use("triton"), mock.patch("torch.compiler.is_exporting", return_value=True):
        assert not kernels.takes_triton(ON_GPU, "auto")
        assert kernels.takes_triton(ON_GPU, "triton")


def test_not_where_triton_cannot_run(monkeypatch):
    assert kernels.takes_triton(ON_GPU, "triton")
    assert not kernels.takes_triton(ON_CPU, "triton")
    monkeypatch.setattr(kernels, "HAS_TRITON", False)
    assert not kernels.takes_triton(ON_GPU, "triton")


def test_wrong_choice():
    with pytest.raises(ValueError, match="must be one of"):
        kernels.use("cuda")
    with pytest.raises(ValueError, match="backend must be one of"):
        dilated_silu_sum(torch.zeros(1, 2, 2, 1), torch.zeros(1, 1, 3, 3), (1,), backend="cuda")
    with pytest.raises(ValueError, match="backend must be one of"):
        mix_windows(torch.zeros(1, 1, 1, 1, 9, 9), torch.zeros(1, 1, 1, 1, 9, 2), 2, 2, backend="cuda")


def test_on_a_cpu_the_default_back_ends_answer():
    x, weight = torch.randn(1, 4, 4, 6), torch.randn(6, 1, 3, 3)
    cases = [
        (dilated_silu_sum, (x, weight, (1, 3)), {}),
        (deformable_merging, (x, torch.randn(1, 2, 2, 8), torch.randn(5, 6, 2, 2)), {}),
        (window_attention, (x,), {"num_heads": 1, "window_size": 2, "scale": 1.0}),
        (mix_windows, (torch.randn(1, 2, 2, 1, 9, 9), torch.randn(1, 2, 2, 1, 9, 3), 4, 3), {}),
    ]
    for operator, arguments, options in cases:
        default = operator(*arguments, **options)
        assert torch.equal(operator(*arguments, **options, backend="triton"), default)
        with kernels.use("triton"):
            assert torch.equal(operator(*arguments, **options), default)


WITHOUT_TRITON = """
import os, sys
os.environ["TRITON_INTERPRET"] = "1"  # asked for, but there is none
sys.modules["triton"] = None
import torch
from litevit.ops import kernels
from litevit.ops.dilated import dilated_silu_sum
from litevit.layers.csa import ConvolutionalSelfAttention
assert not kernels.HAS_TRITON
x, weight = torch.randn(1, 4, 4, 6), torch.randn(6, 1, 3, 3)
assert torch.equal(dilated_silu_sum(x, weight, (1,), backend="triton"), dilated_silu_sum(x, weight, (1,)))
with kernels.use("triton"):
    assert ConvolutionalSelfAttention(6, 2)(x).isfinite().all()
print("fine")
"""


def test_without_triton():
    run = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, check=False)
    assert run.stdout.strip().endswith("fine"), run.stderr[-2000:]
