"""Nothing grows: tensors that are alive, and the process, over many steps and predictions."""

import sys

import pytest
import torch
from torch import Tensor

from numerics.memory import ALLOWED_KB, HOW, KINDS, grows, step_of

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc")


@needs_proc
def test_a_list_that_keeps_its_losses_is_found() -> None:
    kept: list[Tensor] = []
    assert grows(lambda: kept.append(torch.ones(8)), 50)[0] == 50


@needs_proc
@pytest.mark.parametrize("how", ["train", "optimised"])
def test_twenty_steps_leave_no_tensor(how: str) -> None:
    assert grows(step_of("classifier", how), 20)[0] == 0


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_steps(kind: str, how: str) -> None:
    tensors, kilobytes = grows(step_of(kind, how), 2000)
    print(f"{kind} {how}: {tensors} tensors, {kilobytes} kB")
    assert tensors == 0
    assert kilobytes < ALLOWED_KB
