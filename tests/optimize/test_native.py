"""The C++ kernels against float64, over shapes that do not fit their vectors, and machines where they cannot run."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import litevit
from litevit.bench.timing import peak_bytes
from litevit.layers.attention import RelativeAttention
from litevit.layers.compiled_norm import CompiledLayerNorm, add_and_norm
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.hilo import HiLo
from litevit.ops.attention import attention
from litevit.ops.dilated import dilated_silu_sum
from litevit.ops.window_attention import window_attention
from litevit.optimize.native import build, kernels

here = pytest.mark.skipif(not kernels.available(), reason="no AVX-512, or no C++ compiler")
DTYPES = [torch.float32, *([torch.bfloat16] if kernels._has_bfloat16() else [])]
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(autouse=True)
def inference():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture
def called(monkeypatch):
    """Names of the kernels that ran."""
    names: list[str] = []
    call = kernels._call
    monkeypatch.setattr(kernels, "_call", lambda name, *args: (names.append(name), call(name, *args)))
    return names


@pytest.fixture
def nothing(monkeypatch):
    """A machine without the kernels."""
    monkeypatch.setattr(kernels, "library", lambda: None)


def check(ours: Tensor, torchs: Tensor, exact: Tensor) -> None:
    """As near to the float64 result as PyTorch's own kernel is, or nearer."""
    assert ours.shape == exact.shape
    assert ours.dtype == torchs.dtype
    unit = torch.finfo(ours.dtype).eps * exact.abs().max().clamp(min=1e-3)
    assert (ours - exact).abs().max() <= 1.5 * (torchs - exact).abs().max() + 2 * unit


def projected(dtype: torch.dtype, B: int, N: int, L: int, M: int, D: int) -> list[Tensor]:
    """Queries, keys and values as they come out of projections: strided views."""
    q = torch.randn(B, L, N, D).to(dtype).transpose(1, 2)
    k, v = torch.randn(B, M, 2, N, D).to(dtype).permute(2, 0, 3, 1, 4)
    return [q, k, v]


@here
@dtypes
@pytest.mark.parametrize(
    ("N", "L", "M", "D"),
    [
        (1, 1, 1, 32),
        (3, 15, 2, 32),
        (2, 16, 49, 32),
        (2, 17, 127, 64),
        (5, 33, 128, 32),
        (1, 49, 129, 64),
        (2, 70, 300, 32),
    ],
)
@pytest.mark.parametrize("with_bias", [False, True])
def test_attention(dtype, N, L, M, D, with_bias, called):
    tensors = projected(dtype, 2, N, L, M, D)
    bias = torch.randn(N, L, M) * 2 if with_bias else None
    ours = attention(*tensors, bias=bias, scale=0.3, native=True)
    assert called == [f"attention_{'float' if dtype == torch.float32 else 'bfloat16'}"]
    exact = [t.double() for t in tensors]
    rounded = None if bias is None else bias.to(dtype)
    check(
        ours,
        attention(*tensors, bias=bias, scale=0.3),
        F.scaled_dot_product_attention(*exact, attn_mask=None if rounded is None else rounded.double(), scale=0.3),
    )


@here
@dtypes
def test_attention_over_blocks_of_keys(dtype):
    """Logits that rise from block to block: the running maximum moves, what was summed before shrinks."""
    q, k, v = projected(dtype, 1, 1, 20, 500, 32)
    k = k * torch.linspace(0.1, 8, 500).view(-1, 1).to(dtype)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    check(attention(q, k, v, native=True), attention(q, k, v), exact)


@here
@dtypes
def test_attention_of_what_is_not_finite(dtype):
    q, k, v = (t.clone() for t in projected(dtype, 2, 2, 40, 70, 32))
    q[0, 1, 3] = torch.nan
    out = attention(q, k, v, native=True)
    expected = attention(q, k, v)
    assert torch.equal(out.isnan(), expected.isnan())  # one row
    assert out.isnan().sum() == 32
    k[1, 0, 69] = torch.nan
    assert attention(q, k, v, native=True)[1, 0].isnan().all()
    far = attention(q[:1, :1] * 1e4, k[:1, :1], v[:1, :1], native=True)  # one key takes all
    torch.testing.assert_close(far, attention(q[:1, :1] * 1e4, k[:1, :1], v[:1, :1]), rtol=2e-2, atol=2e-2)


@here
@dtypes
@pytest.mark.parametrize(
    ("size", "s", "N", "D"),
    [((4, 6), 2, 1, 32), ((6, 4), 2, 3, 64), ((8, 12), 4, 2, 32), ((9, 3), 3, 2, 64), ((7, 14), 7, 1, 32)],
)
def test_windows(dtype, size, s, N, D, called):
    qkv = torch.randn(2, *size, 32 + 3 * N * D).to(dtype)[..., 32:]  # behind Lo-Fi's queries
    args = {"num_heads": N, "window_size": s, "scale": 0.25}
    ours = window_attention(qkv, **args, backend="native")
    assert len(called) == 1
    check(ours, window_attention(qkv, **args), window_attention(qkv.double(), **args))


@here
@pytest.mark.parametrize("s", [2, 4])
def test_a_window_keeps_its_nan(s):
    qkv = torch.randn(1, 8, 8, 96)
    qkv[0, 5, 6] = torch.nan
    spoilt = window_attention(qkv, num_heads=1, window_size=s, scale=1.0, backend="native").isnan()
    inside = torch.zeros(1, 8, 8, 32, dtype=torch.bool)
    inside[:, 4 : 4 + s, 8 - s if s == 2 else 4 : 8] = True
    assert torch.equal(spoilt, inside)


needs_bfloat16 = pytest.mark.skipif(torch.bfloat16 not in DTYPES, reason="no bfloat16 units")


@here
@needs_bfloat16
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 1), (7, 8), (5, 9)])
@pytest.mark.parametrize("C", [32, 96])
def test_depthwise_gelu(size, C, called):
    ffn = ConvFFN(16, C).bfloat16()
    x = torch.randn(3, *size, C).bfloat16().mul_(2)
    dwconv = ffn.dwconv
    dwconv.bias.normal_()

    def plain(x: Tensor, conv: nn.Conv2d) -> Tensor:
        weight, bias = conv.weight.to(x.dtype), conv.bias.to(x.dtype)
        return F.gelu(F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=C)).permute(0, 2, 3, 1)

    ours = kernels.depthwise_gelu(x, dwconv.weight, dwconv.bias)
    check(ours, plain(x, dwconv), plain(x.double(), dwconv))
    if size[0] > 2:
        assert torch.equal(kernels.depthwise_gelu(x, dwconv.weight, dwconv.bias, pad_rows=False), ours[:, 1:-1])
    strided = torch.cat([x, x], 2)[:, :, : size[1]]
    assert torch.equal(kernels.depthwise_gelu(strided, dwconv.weight, dwconv.bias), ours)


@here
@needs_bfloat16
def test_gelu_everywhere():
    x = torch.linspace(-12, 12, 4096).bfloat16().view(1, 8, 16, 32)
    x[0, 0, 0, :6] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, -0.0])
    one = torch.zeros(32, 1, 3, 3)
    one[:, 0, 1, 1] = 1
    inf_free = x.nan_to_num(0, 0, 0)  # a tap of zero times infinity is NaN beside it
    out = kernels.depthwise_gelu(inf_free, one.bfloat16(), torch.zeros(32).bfloat16()).double()
    exact = F.gelu(inf_free.double())
    assert ((out - exact).abs() <= 1e-5 + exact.abs() * 2**-8).all()
    alone = kernels.depthwise_gelu(x[:, :1, :1].contiguous(), one.bfloat16(), torch.zeros(32).bfloat16())[0, 0, 0, :6]
    assert alone[0].isnan()
    assert alone[1] == torch.inf
    assert alone[3] > 9e29
    assert (alone[[2, 4, 5]].abs() < 1e-5).all()


@here
@needs_bfloat16
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (9, 6)])
@pytest.mark.parametrize("rates", [(1,), (1, 3, 5), (2, 9)])
def test_dilated(size, rates, called):
    x = torch.randn(2, size[1], size[0], 64).bfloat16().mul_(3).transpose(1, 2)
    weight = torch.randn(64, 1, 3, 3).bfloat16()
    ours = dilated_silu_sum(x, weight, rates, backend="native")
    assert called == ["dilated_silu_sum"]
    check(ours, dilated_silu_sum(x, weight, rates), dilated_silu_sum(x.double(), weight.double(), rates))


@here
@dtypes
@pytest.mark.parametrize("size", [(8, 8), (7, 13), (8, 9), (9, 8), (1, 1), (1, 6), (5, 2)])
@pytest.mark.parametrize("N", [1, 2])
def test_csa(dtype, size, N, called):
    csa = ConvolutionalSelfAttention(32, N)
    csa.attn.weight.normal_()  # a softmax that is far from flat
    csa.attn.bias.normal_()
    csa.proj.weight.normal_()
    csa.to(dtype)
    x = torch.randn(2, size[1], size[0], 32).to(dtype).transpose(1, 2)
    torchs = csa.forward_whole(x)
    csa.native = True
    ours = csa(x)
    assert [name.split("_")[1] for name in called] == ["split", "mix"]
    check(ours, torchs, csa.double().forward_whole(x.double()))


@here
@dtypes
def test_layer_norm(dtype, called):
    for C in (16, 96, 320):
        norm = CompiledLayerNorm(C)
        norm.weight.normal_()
        norm.bias.normal_()
        norm.to(dtype)
        x, added = torch.randn(2, 3, 5, C).to(dtype).mul_(3).add_(1), torch.randn(2, 3, 5, C).to(dtype)
        exact = F.layer_norm(x.double(), (C,), norm.weight.double(), norm.bias.double(), norm.eps)
        check(norm(x), nn.LayerNorm.forward(norm, x), exact)
        total, normed = add_and_norm(norm, x, added)
        assert torch.equal(total, x + added)
        exact = F.layer_norm(x.double() + added.double(), (C,), norm.weight.double(), norm.bias.double(), norm.eps)
        check(normed, nn.LayerNorm.forward(norm, total), exact)
        strided = x.transpose(1, 2)
        torch.testing.assert_close(norm(strided), nn.LayerNorm.forward(norm, strided))
    assert len(called) == 6


@here
@dtypes
def test_two_threads_give_what_one_gives(dtype):
    q, k, v = projected(dtype, 1, 1, 200, 60, 32)  # fewer heads than threads: queries are divided
    qkv = torch.randn(3, 6, 6, 96).to(dtype)
    csa = ConvolutionalSelfAttention(32, 2).to(dtype)
    csa.native = True
    norm = CompiledLayerNorm(32).to(dtype)
    before = torch.get_num_threads()
    outs = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outs.append(
                [
                    attention(q, k, v, native=True),
                    window_attention(qkv, num_heads=1, window_size=2, scale=1.0, backend="native"),
                    csa(qkv[..., :32].contiguous()),
                    norm(qkv[..., :32].contiguous()),
                ]
            )
    finally:
        torch.set_num_threads(before)
    for ours in zip(*outs):
        assert torch.equal(ours[0], ours[1])
        assert torch.equal(ours[0], ours[2])


@here
def test_who_is_served():
    x = torch.zeros(2, 32)
    assert kernels.takes(x)
    assert not kernels.takes(x.double())
    assert not kernels.takes(x, x.bfloat16())
    assert not kernels.takes(x.t())
    assert not kernels.takes(x[:0])
    with torch.enable_grad():
        assert not kernels.takes(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not kernels.takes(x)
    with torch._subclasses.FakeTensorMode() as mode:
        assert not kernels.takes(mode.from_tensor(x))
    assert not kernels.takes(x.to("meta"))
    # Head sizes and channels that no kernel is made for.
    q = torch.randn(1, 1, 4, 48)
    torch.testing.assert_close(attention(q, q, q, native=True), attention(q, q, q))
    qkv = torch.randn(1, 4, 4, 3 * 24)
    args = {"num_heads": 1, "window_size": 2, "scale": 1.0}
    torch.testing.assert_close(window_attention(qkv, **args, backend="native"), window_attention(qkv, **args))


@here
@dtypes
@pytest.mark.parametrize("name", ["lit_ti", "litv2_s", "lvt", "pvt_s"])
def test_only_optimised_models_take_them(name, dtype, called):
    model = litevit.create_model(name, num_classes=5).eval().to(dtype)
    images = torch.randn(2, 3, 64, 64).to(dtype)
    expected = model(images)
    assert not called
    ours = litevit.optimize_for_inference(model)(images)
    kinds = {called_name.removesuffix("_float").removesuffix("_bfloat16") for called_name in called}
    wanted = {"attention", "layer_norm"} if name != "pvt_s" else {"attention"}
    if name == "litv2_s":
        wanted |= {"windows"}
    if name == "lvt":
        wanted |= {"csa_split", "csa_mix"}
    if dtype == torch.bfloat16 and name in ("litv2_s", "lvt"):
        wanted |= {"depthwise_gelu"}
    if dtype == torch.bfloat16 and name == "lvt":
        wanted |= {"dilated_silu_sum"}
    assert wanted <= kinds
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


def test_without_kernels(nothing):
    model = litevit.create_model("litv2_s", num_classes=5, depths=(1, 1, 1, 1)).eval()
    images = torch.randn(1, 3, 64, 64)
    optimised = litevit.optimize_for_inference(model)
    assert not any(getattr(module, "native", False) for module in optimised.modules())
    torch.testing.assert_close(optimised(images), model(images), rtol=1e-4, atol=1e-4)


@here
def test_an_optimised_model_on_a_machine_without_kernels(monkeypatch):
    """As one that was saved elsewhere."""
    hilo = HiLo(64, 2, window_size=2, alpha=0.5, qkv_bias=True).eval()
    x = torch.randn(1, 4, 4, 64)
    optimised = litevit.optimize_for_inference(hilo)
    assert optimised.native
    monkeypatch.setattr(kernels, "library", lambda: None)
    torch.testing.assert_close(optimised(x), hilo(x))


@here
@pytest.mark.parametrize("scale", [1, 0, -2.0])
def test_any_scale(scale):
    q, k, v = projected(torch.float32, 1, 2, 5, 7, 32)
    torch.testing.assert_close(attention(q, k, v, scale=scale, native=True), attention(q, k, v, scale=scale))
    hilo = HiLo(64, 2, window_size=2, alpha=0.5, qk_scale=scale or None).eval()
    x = torch.randn(1, 4, 4, 64)
    torch.testing.assert_close(litevit.optimize_for_inference(hilo)(x), hilo(x))


@here
def test_shapes_no_kernel_is_made_for(called):
    q, k, v = projected(torch.float32, 2, 4, 6, 5, 32)
    for bias in (torch.randn(1, 6, 5), torch.randn(4, 1, 5), torch.randn(6, 5), torch.randn(2, 4, 6, 5)):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias if bias.ndim != 3 else bias[None])
        torch.testing.assert_close(attention(q, k, v, bias=bias, native=True), out)
    out = attention(q, k[:1], v[:1], native=True)
    torch.testing.assert_close(out, attention(q, k[:1].expand(2, -1, -1, -1), v[:1].expand(2, -1, -1, -1)))
    assert not called
    q = torch._neg_view(q)
    torch.testing.assert_close(attention(q, k, v, native=True), attention(q, k, v))
    with pytest.raises(ValueError, match="multiple of window_size=2"):
        window_attention(torch.zeros(1, 5, 5, 96), num_heads=1, window_size=2, scale=1.0, backend="native")
    with pytest.raises(RuntimeError):
        window_attention(torch.zeros(1, 4, 4, 97), num_heads=1, window_size=2, scale=1.0, backend="native")
    norm = litevit.optimize_for_inference(nn.LayerNorm(32))
    with pytest.raises(RuntimeError, match="normalized_shape"):
        norm(torch.zeros(4, 64))
    elsewhere = norm.to("meta")
    assert not kernels.normalises(torch.zeros(4, 32), elsewhere.weight, elsewhere.bias)
    assert not called


@here
@dtypes
def test_masked_keys(dtype):
    """Logits of -inf: a block of keys without weight, and a query without any key."""
    q, k, v = projected(dtype, 1, 1, 20, 200, 32)
    bias = torch.zeros(1, 20, 200)
    bias[:, :, :150] = -torch.inf
    bias[:, 3] = -torch.inf
    ours, expected = attention(q, k, v, bias=bias, native=True), attention(q, k, v, bias=bias)
    torch.testing.assert_close(ours, expected, atol=1e-5 if dtype == torch.float32 else 1e-2, rtol=1e-2)
    assert (ours[:, :, 3] == 0).all()


@here
@needs_bfloat16
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"dilation": 2, "padding": 2},
        {"padding_mode": "reflect"},
        {"groups": 1},
        {"kernel_size": 1},
    ],
)
def test_a_convolution_put_in_place(options, called):
    class Twice(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    ffn = ConvFFN(32, 64).eval()
    default = {"kernel_size": 3, "padding": 1, "groups": 64}
    if options.get("kernel_size") == 1:
        default["padding"] = 0
    ffn.dwconv = (nn.Conv2d if options else Twice)(64, 64, **{**default, **options})
    ffn.bfloat16()
    x = torch.randn(2, 8, 8, 32).bfloat16()
    torch.testing.assert_close(litevit.optimize_for_inference(ffn)(x), ffn(x), rtol=2e-2, atol=2e-2)
    assert "depthwise_gelu" not in called


@here
@pytest.mark.parametrize("name", ["lit_ti", "litv2_s", "lvt"])
def test_who_follows_the_operators_sees_them_all(name):
    model = litevit.create_model(name, num_classes=5).eval().requires_grad_(False)
    optimised, images = litevit.optimize_for_inference(model), torch.randn(1, 3, 64, 64)
    expected = model(images)
    graph = make_fx(optimised)(images)
    torch.testing.assert_close(graph(images), expected, rtol=1e-4, atol=1e-4)
    counts = []
    for counted in (model, optimised):
        with FlopCounterMode(display=False) as counter:
            counted(images)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


@here
def test_memory_is_counted_with_the_kernels(called):
    norm = CompiledLayerNorm(32)
    x = torch.randn(64, 32)
    assert peak_bytes(lambda: norm(x), torch.device("cpu")) == x.nbytes
    assert called == ["layer_norm_float"] * len(called)
    assert called


@pytest.mark.parametrize("name", ["lit_ti", "litv2_s"])
def test_vmap(name):
    for model in (litevit.create_model(name, num_classes=5).eval(), None):
        model = model or litevit.optimize_for_inference(litevit.create_model(name, num_classes=5))
        images = torch.randn(2, 1, 3, 64, 64)
        out = torch.func.vmap(model)(images)
        torch.testing.assert_close(out, torch.stack([model(image) for image in images]), rtol=1e-4, atol=1e-4)


def test_threads_at_grids_of_their_own():
    layer = RelativeAttention(32, num_heads=1, grid_size=(7, 7)).eval()
    layer.relative_position_bias_table.normal_()
    optimised = litevit.optimize_for_inference(layer)
    inputs = {side: torch.randn(1, side, side, 32) for side in (2, 3, 4, 5)}
    expected = {side: layer(x) for side, x in inputs.items()}

    def run(side: int) -> float:
        with torch.no_grad():
            return max((optimised(inputs[side]) - expected[side]).abs().max().item() for _ in range(300))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert max(pool.map(run, inputs)) < 1e-5
    finally:
        sys.setswitchinterval(before)


def test_the_bias_that_is_kept():
    layer = RelativeAttention(32, num_heads=1, grid_size=(4, 4)).eval()
    optimised = litevit.optimize_for_inference(layer)
    x = torch.randn(1, 6, 6, 32)
    with torch.inference_mode():
        optimised(x)
    with torch.enable_grad():  # what was kept is no inference tensor
        optimised(x.requires_grad_()).sum().backward()
    x = x.detach()
    optimised(x)
    for table in (layer.relative_position_bias_table, optimised.relative_position_bias_table):
        table.copy_(torch.linspace(-2, 2, 49).view(49, 1))
    torch.testing.assert_close(optimised(x), layer(x))
    assert len(pickle.dumps(optimised)) < 1.2 * len(pickle.dumps(litevit.optimize_for_inference(layer)))
    torch.testing.assert_close(pickle.loads(pickle.dumps(optimised))(x), layer(x))


def compiler(folder, script: str) -> str:
    """A compiler that has a version and otherwise does what the script says; $last is the path after -o."""
    path = folder / "c++"
    path.write_text(f'#!/bin/sh\nfor last; do :; done\nif [ "$last" = --version ]; then echo 1.0; exit; fi\n{script}\n')
    path.chmod(0o755)
    return str(path)


def test_the_library_is_built_once(tmp_path):
    cxx = [compiler(tmp_path, 'echo run >> "$0.log"; echo made > "$last"')]
    folder = tmp_path / "cache" / "kernels"
    first = build.build(folder, cxx)
    assert first.read_text() == "made\n"
    assert build.build(folder, cxx) == first
    assert (tmp_path / "c++.log").read_text() == "run\n"
    assert {path.name for path in folder.iterdir()} == {first.name, first.stem + ".sha256"}  # nothing half-made
    first.write_text("ma")  # as after a full disk
    assert build.build(folder, cxx).read_text() == "made\n"
    assert build.build(folder, [*cxx, "-m64"]) != first


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'x.cpp:1: error: bad flag' >&2; exit 1", "bad flag"),
        ("exit 3", "exit status 3"),
        ('echo no library > "$last"', "invalid ELF|file too short"),
    ],
)
def test_a_compiler_that_fails(tmp_path, monkeypatch, script, said):
    monkeypatch.setenv("CXX", compiler(tmp_path, script) + " -O1")
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "runs_here", lambda: True)
    with pytest.warns(RuntimeWarning, match=f"cannot be had.*({said})"):
        assert build.library.__wrapped__() is None


def test_where_they_cannot_run(monkeypatch):
    monkeypatch.setattr(build, "runs_here", lambda: True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(RuntimeWarning, match="no-such-compiler .*was not found"):
        assert build.library.__wrapped__() is None
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: pytest.fail("a compiler was started"))
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    assert build.library.__wrapped__() is None
    monkeypatch.undo()
    monkeypatch.setattr(build, "runs_here", lambda: False)
    assert build.library.__wrapped__() is None


def test_a_folder_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("CXX", compiler(tmp_path, "true"))
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "runs_here", lambda: True)
    with pytest.warns(RuntimeWarning, match="cache folder .*Not a directory.*set LITEVIT_CACHE"):
        assert build.library.__wrapped__() is None
    monkeypatch.setenv("LITEVIT_CACHE", "~no-such-user/cache")
    with pytest.warns(RuntimeWarning, match="home directory"):
        assert build.library.__wrapped__() is None
