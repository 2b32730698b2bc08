"""Attention probabilities against softmax(q k^T) of what hooks on the plain projections saw, in float64."""

import resource
from typing import Any

import families
import pytest
import torch
from torch import Tensor, nn

import litevit
from litevit.explain import attention_maps, attention_rollout
from litevit.explain.attention import all_attention_sources, attention_blocks, attention_received, attention_sources
from litevit.ops.position import relative_position_bias
from litevit.ops.shifted_windows import apart_mask

SMALL: dict[str, dict[str, Any]] = {
    "lit_s": {"embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 3, 4), "depths": (1, 1, 2, 2), "table_size": 64},
    "lit_ti": {"embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 3, 4), "depths": (1, 1, 1, 2)},
    "pvt_s": {"embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 3, 4), "depths": (1, 1, 1, 1)},
    "pvt_s_msa": {"embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 3, 4), "depths": (1, 1, 1, 1)},
    "litv2_s": {"embed_dim": 8, "num_heads": (1, 1, 4, 4), "depths": (1, 1, 2, 1), "window_sizes": (0, 0, 3, 2),
                "alpha": 0.5},
    "litv2_s_alpha_00": {"embed_dim": 8, "num_heads": (1, 1, 4, 4), "depths": (1, 1, 1, 1)},
    "lvt": {"embed_dims": (8, 8, 20, 32)},
    "swin_ti_dtm": {"embed_dim": 8, "num_heads": (1, 2, 4, 8), "depths": (2, 2, 1, 1), "window_size": 3},
}  # fmt: skip
SIZES = [(64, 64), (75, 101)]


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "lit_ti":  # as a classifier: with its class token
        model = litevit.create_model(name, num_classes=5, **SMALL[name]).backbone.double().eval()
    else:
        model = litevit.create_backbone(name, **SMALL[name]).double().eval()
    for parameter in model.parameters():  # far from uniform attention
        parameter.data = torch.randn_like(parameter) * 0.4
    return model


def last_outputs(model: nn.Module, block: Any, image: Tensor) -> dict[str, Tensor]:
    """What the projections of a block's attention gave at their last call, and what the block was given."""
    seen: dict[str, Tensor] = {}
    handles = []
    for name, child in block.attn.named_children():
        handles.append(child.register_forward_hook(lambda m, a, out, name=name: seen.__setitem__(name, out[0])))
    handles.append(block.register_forward_pre_hook(lambda m, a: seen.__setitem__("block", a[0][0])))
    with torch.no_grad():
        model(image[None])
    for handle in handles:
        handle.remove()
    return seen


def heads(x: Tensor, count: int) -> Tensor:
    """(cells..., count * D) -> (count, cells, D)."""
    return x.reshape(-1, count, x.shape[-1] // count).transpose(0, 1)


def softmax(q: Tensor, k: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    logits = torch.einsum("nld,nmd->nlm", q, k) / q.shape[-1] ** 0.5 + bias
    e = (logits - logits.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def expected(block: Any, seen: dict[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """Branch -> (N, L, M), every row by the equation."""
    attn, (H, W) = block.attn, grid
    kind = [c.__name__ for c in type(attn).__mro__]
    if "HiLo" in kind:
        s, found = attn.window_size, {}
        projected = seen["in_proj"]
        if attn.hi_heads:
            q, k, _ = projected[..., attn.lo_dim :].chunk(3, -1)
            rows = []
            for y in range(H):
                for x in range(W):
                    top, left = y - y % s, x - x % s
                    window = k[top : top + s, left : left + s]
                    rows.append(softmax(heads(q[y, x], attn.hi_heads), heads(window, attn.hi_heads)))
            found["hi"] = torch.cat(rows, 1)
        if attn.lo_heads:
            q, k = projected[:H, :W, : attn.lo_dim], seen["lo_kv"].chunk(2, -1)[0]
            found["lo"] = softmax(heads(q, attn.lo_heads), heads(k, attn.lo_heads))
        return found
    if "ConvolutionalSelfAttention" in kind:
        logits = seen["attn"].unflatten(-1, (attn.num_heads, 9, 9)) * attn.scale
        e = logits.exp()
        return {"csa": (e / e.sum(-1, keepdim=True)).permute(2, 0, 1, 3, 4).flatten(1, 3)}
    if "RecursiveAtrousSelfAttention" in kind:
        with torch.no_grad():
            q = attn.dilate(seen["q"][None])[0] if attn.rates else seen["q"]
        return {"full": softmax(heads(q, attn.num_heads), heads(seen["kv"].chunk(2, -1)[0], attn.num_heads))}
    if "ShiftedWindowAttention" in kind:
        N, s, shift = attn.num_heads, block.window_size[0], block.shift
        q, k, _ = seen["qkv"].chunk(3, -1)  # windows s*s C
        bias = attn._get_rel_pos_bias()[0].detach()
        mask = apart_mask(seen["block"][None], s, shift) if shift else torch.zeros(len(q), s * s, s * s)
        out = torch.zeros(N, H * W, s * s, dtype=q.dtype)
        for i in range(len(q)):
            p = softmax(heads(q[i], N), heads(k[i], N), bias + mask[i])
            for j in range(s * s):
                y, x = i // -(-W // s) * s + j // s, i % -(-W // s) * s + j % s
                if y < H and x < W:
                    out[:, (y + shift) % H * W + (x + shift) % W] = p[:, j]
        return {"window": out}
    N = attn.num_heads
    if attn.sr_ratio > 1:
        return {"full": softmax(heads(seen["q"], N), heads(seen["kv"].chunk(2, -1)[0], N))}
    q, k, _ = seen["qkv"].chunk(3, -1)
    bias = 0.0
    if "RelativeAttention" in kind:
        bias = relative_position_bias(attn.relative_position_bias_table.detach(), attn.grid_size, H, W)
    return {"full": softmax(heads(q, N), heads(k, N), bias)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SMALL)
def test_every_family_holds_to_the_equation(name: str, size: tuple[int, int]) -> None:
    hold_to_the_equation(small(name), torch.randn(3, *size, dtype=torch.float64))


@pytest.mark.parametrize("family", families.SMALL)
def test_every_variant_holds_to_the_equation(family: str) -> None:
    """What is added to `tests/backbones/families.py` is explained as it computes, or refused."""
    torch.manual_seed(0)
    model = families.backbone(family).double().eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.4
    hold_to_the_equation(model, torch.randn(3, 75, 101, dtype=torch.float64))


def hold_to_the_equation(model: nn.Module, image: Tensor) -> None:
    blocks = attention_blocks(model)
    assert blocks
    for stage, block in blocks:
        maps = attention_maps(model, image, stage=stage, block=block)
        module = model.stages[stage - 1].blocks[block]
        seen = last_outputs(model, module, image)
        wanted = expected(module, seen, maps[0].map_grid)
        assert [m.branch for m in maps] == list(wanted)
        for one in maps:
            assert one.probabilities.shape == wanted[one.branch].shape
            torch.testing.assert_close(one.probabilities, wanted[one.branch], rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(one.probabilities.sum(-1), torch.ones(one.probabilities.shape[:2]).double())


@pytest.mark.parametrize("name", SMALL)
def test_rows_are_those_of_the_whole(name: str) -> None:
    model, image = small(name), torch.randn(3, 75, 101, dtype=torch.float64)
    for stage, block in attention_blocks(model):
        whole = attention_maps(model, image, stage=stage, block=block)
        some = attention_maps(model, image, stage=stage, block=block, queries=[0, 5, 3])
        for a, b in zip(whole, some):
            rows = [int(a.class_token) + i for i in (0, 5, 3)]
            torch.testing.assert_close(a.probabilities[:, rows], b.probabilities)
            torch.testing.assert_close(a.on_map(rows[1]), b.on_map(1))
        for source, a in zip(attention_sources(model, image, stage=stage, block=block), whole):
            mean = torch.stack([a.on_map(i) for i in range(source.count)]).mean(0)
            torch.testing.assert_close(attention_received(source), mean.float())


@pytest.mark.parametrize("name", SMALL)
def test_windows_lie_where_they_say(name: str) -> None:
    """A changed input pixel changes only keys whose cells are in the window: the query's own cell is among its keys."""
    model, image = small(name), torch.randn(3, 75, 101, dtype=torch.float64)
    for _, _, sources in all_attention_sources(model, image):
        for source in sources:
            if source.cells is not None and source.branch != "csa":
                H, W = source.map_grid
                cells = source.cells(torch.arange(H * W))
                assert (cells == torch.arange(H * W)[:, None]).any(1).all()
                assert cells.max() < H * W


@pytest.mark.parametrize("name", SMALL)
def test_a_cell_has_its_row(name: str) -> None:
    model, image = small(name), torch.randn(3, 75, 101, dtype=torch.float64)
    for _, _, sources in all_attention_sources(model, image):
        for source in sources:
            H, W = source.map_grid
            for row in range(H):
                for column in range(W):
                    index = source.row_of(row, column)
                    assert 0 <= index < source.count
                    if source.branch == "csa":  # the destination itself, one of the window's nine
                        assert source.cells is not None
                        assert source.cells(torch.tensor([index]))[0, index % 9] == row * W + column
                    else:
                        assert int(source.maps(torch.tensor([index])).queries) == row * W + column


@pytest.mark.parametrize("name", ["lit_ti", "litv2_s", "lvt", "swin_ti_dtm"])
def test_the_model_stays_as_it_was(name: str) -> None:
    model, image = small(name), torch.randn(1, 3, 75, 101, dtype=torch.float64)
    with torch.no_grad():
        before = model(image)
    model.train()
    model.stages[0].eval()
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for stage, block in attention_blocks(model):
        attention_maps(model, image, stage=stage, block=block)
    litevit.explain.feature_maps(model, image)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    model.eval()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(before, model(image)))


@pytest.mark.parametrize("name", ["lit_s", "lit_ti", "litv2_s", "lvt"])
def test_optimised_models_show_the_same(name: str) -> None:
    model, image = small(name).float(), torch.randn(3, 75, 101)
    fast = litevit.optimize_for_inference(model)
    for stage, block in attention_blocks(model):
        plain = attention_maps(model, image, stage=stage, block=block)
        for a, b in zip(plain, attention_maps(fast, image, stage=stage, block=block)):
            torch.testing.assert_close(a.probabilities, b.probabilities, rtol=1e-3, atol=1e-4)


def test_rollout_is_the_product_of_the_blocks() -> None:
    model, image = small("lit_ti"), torch.randn(3, 75, 101, dtype=torch.float64)
    first, second = (attention_maps(model, image, stage=4, block=block) for block in range(2))
    assert first[0].class_token
    assert first.probabilities.shape[1:] == (7, 7)
    product = (second.probabilities.mean(0) + torch.eye(7)) @ (first.probabilities.mean(0) + torch.eye(7)) / 4
    found = attention_rollout(model, image, stage=4, query=2)
    torch.testing.assert_close(found.flatten(), product[3, 1:].float())


def test_a_row_of_a_large_map_is_not_the_matrix() -> None:
    """200 x 336 cells: the whole would be 18 GB per head."""
    model = small("pvt_s_msa").float()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    maps = attention_maps(model, torch.randn(3, 800, 1344), stage=1, block=0, queries=[100 * 336 + 7])
    assert maps.query_grid == (200, 336)
    assert maps.probabilities.shape == (1, 1, 67200)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024
    with pytest.raises(ValueError, match="more than 1 GiB: ask for some of its rows"):
        attention_maps(model, torch.randn(3, 800, 1344), stage=1, block=0)


def test_wrong_input() -> None:
    model, image = small("litv2_s"), torch.randn(3, 64, 64, dtype=torch.float64)
    for options, message in [
        ({"stage": 5, "block": 0}, "stage must be 1 to 4, got 5"),
        ({"stage": 3, "block": 2}, "block must be 0 to 1 in stage 3, got 2"),
        ({"stage": 1, "block": 0}, "Block 0 of stage 1 has no attention; stages 3, 4 have"),
        ({"stage": 3, "block": 0, "queries": [16]}, "queries must be cells 0 to 15"),
    ]:
        with pytest.raises(ValueError, match=message):
            attention_maps(model, image, **options)
    with pytest.raises(ValueError, match="one normalised image"):
        attention_maps(model, torch.randn(2, 3, 64, 64), stage=3, block=0)
    with pytest.raises(ValueError, match="litevit's backbones"):
        attention_maps(nn.Linear(3, 3), image, stage=3, block=0)
    with pytest.raises(ValueError, match="has 2 branches"):
        _ = attention_maps(model, image, stage=3, block=0).probabilities
    with pytest.raises(ValueError, match="Rollout is defined where"):
        attention_rollout(model, image, stage=3, query=0)
