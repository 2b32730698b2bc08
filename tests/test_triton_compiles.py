"""Every kernel goes through Triton's compiler to a binary for sm_80 and sm_90. That needs no GPU, and runs nothing."""

import inspect
import os
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter is on: there is nothing to compile", allow_module_level=True)
if torch.version.hip:
    pytest.skip("this Triton compiles for AMD", allow_module_level=True)

import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from litevit.ops.triton import dilated, merging  # noqa: E402

F32 = {"ACC": tl.float32}
MERGING = {"BM": 64, "BC": 32, "COORD": tl.float32, **F32}
DILATED = {"RATES": (1, 3, 5), "BP": 32, "BC": 64, **F32}


# Kernel, its constants, and its pointers: None is the dtype that is asked for.
KERNELS: dict[str, tuple[Any, dict[str, Any], dict[str, str | None]]] = {
    "sample_forward": (merging.sample_forward, MERGING, {"x": None, "offset": None, "out": None}),
    "sample_backward": (
        merging.sample_backward,
        MERGING,
        {"x": None, "offset": None, "grad": None, "grad_x": "*fp32", "grad_offset": None},
    ),
    "dilated_forward": (dilated.dilated_forward, DILATED, {"x": None, "weight": None, "out": None}),
    "dilated_backward_convolutions": (
        dilated.dilated_backward_convolutions,
        DILATED,
        {"x": None, "weight": None, "grad": None, "grad_z": None, "grad_weight": "*fp32"},
    ),
    "dilated_backward_input": (
        dilated.dilated_backward_input,
        DILATED,
        {"grad_z": None, "weight": None, "grad_x": None},
    ),
}


def compile_for(name: str, arch: int, dtype: str) -> Any:
    kernel, constants, pointers = KERNELS[name]
    names = list(inspect.signature(kernel.fn).parameters)
    types = {n: (t or dtype) for n, t in pointers.items()} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature={n: types.get(n, "i32") for n in names}, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 4})


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def test_the_smallest_kernel():
    assert len(compile_for("sample_forward", 90, "*bf16").asm["cubin"]) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("arch", "dtype"), [(80, "*fp16"), (90, "*bf16"), (90, "*fp32")])
def test_every_kernel(name, arch, dtype):
    assert len(compile_for(name, arch, dtype).asm["cubin"]) > 1000
