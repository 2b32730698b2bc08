"""LIT, LITv2 and PVT against stored outputs of the published code: tests/data/lit/README.md."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import golden
import litevit
import merging
from litevit.checkpoints import lit as convert
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.hilo import HiLo
from litevit.ops.deformable_sampling import deformable_sample

CASES = golden.cases("lit")
# Whole models with these in their name take seconds each; the rest shows every mechanism once.
SLOW = ("lit_b", "litv2_b", "litv2_m", "pvt", "alpha", "224x224", "dense_lit_s_det", "ti_seg", "loadcls_litv2_s_seg")
SLOW += ("dense_lit_s_seg_160x256", "dense_litv2_s_det_ws2_160x256", "dense_litv2_s_seg_ws2_160x256")


def of_kind(kind: str) -> list:
    names = [name for name, case in CASES.items() if case["kind"] == kind]
    return [pytest.param(n, marks=[pytest.mark.slow] if any(s in n for s in SLOW) else []) for n in names]


@cache
def _arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(golden.DATA / "lit" / file) as stored:
        return dict(stored)


def stored(name: str, array: str) -> np.ndarray:
    return _arrays(CASES[name]["file"])[f"{name}/{array}"]


def check(name: str, array: str, got: Tensor) -> None:
    spec = CASES[name]["arrays"][array]
    deviation = golden.worst_deviation(got, stored(name, array), spec)
    golden.note("LIT, LITv2, PVT", f"{name} {array}", deviation)
    assert deviation <= 1


def our_name(official: str) -> str:
    if official == "pvt_small_full_msa":
        return "pvt_s_msa"
    return official.replace("alpha_0.", "alpha_0").replace("alpha_1.", "alpha_1")


def backbone_of(model: str) -> nn.Module:
    """`litv2_s_det_ws4` and the like, as the manifests name dense backbones."""
    base, flavour, *window = (
        model.replace("_det", " detection").replace("_seg", " segmentation").replace("_ws", " ").split()
    )
    overrides = {"window_sizes": (0, 0, int(window[0]), 1)} if window else {}
    return litevit.create_backbone(base, out_norms=flavour, **overrides).eval()


def module_of(model: nn.Module, official: str) -> nn.Module:
    """Our module for the name of an official one; `layers.{i}` ends with the merging, which is our next entry."""
    parts = official.split(".")
    backbone = model.backbone
    if official == "norm":
        return model.norm
    if official == "patch_embed":
        return backbone.embeds[0]
    if parts[0].startswith("patch_embed"):
        return backbone.embeds[int(parts[0][-1]) - 1]
    if parts[0].startswith("block"):
        return backbone.stages[int(parts[0][-1]) - 1].blocks[int(parts[1])]
    stage = int(parts[1])
    if len(parts) == 2:
        return backbone.embeds[stage + 1] if stage < 3 else backbone.stages[3].blocks[-1]
    if parts[2] == "downsample":
        return backbone.embeds[stage + 1]
    block = backbone.stages[stage].blocks[int(parts[3])]
    return block.get_submodule(".".join(parts[4:]))


def watch(module: nn.Module, seen: dict) -> None:
    module.register_forward_hook(lambda _, args, out: seen.__setitem__(module, (args[0], out)))


@pytest.mark.parametrize("name", of_kind("classification"))
@torch.no_grad()
def test_classifier(name: str) -> None:
    case = CASES[name]
    model = litevit.create_model(our_name(case["model"])).eval()
    litevit.load_weights(model, golden.official_state(f"lit/{case['model']}"))
    inside = [a.removeprefix("inter:") for a in case["arrays"] if a.startswith("inter:") and a != "inter:norm"]
    attention = [a for a in case["arrays"] if a.startswith("attn_")]
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    last = model.backbone.stages[3].blocks[-1]
    for module in {last, *(module_of(model, official) for official in inside)}:
        watch(module, seen)
    for array in attention:
        stage, block = (int(p[1:]) for p in array.split("_")[1:3])
        watch(model.backbone.stages[stage].blocks[block].attn, seen)

    check(name, "logits", model(golden.golden_input(case["n"], case["h"], case["w"], case["seed"])))

    for official in inside:
        shape = case["arrays"]["inter:" + official]["shape"]
        module = module_of(model, official)
        x, out = seen[module]
        if official.endswith("conv_offset"):
            out = module.predict_offset(x).permute(0, 3, 1, 2)
        elif official.endswith("dconv"):
            merged = module.proj(deformable_sample(x, module.predict_offset(x)))
            out = merged.permute(0, 3, 1, 2)
        elif official.endswith("dwconv"):
            out = out.permute(0, 2, 3, 1)
        check(name, "inter:" + official, out.reshape(shape) if out.ndim != len(shape) else out)
    if "inter:norm" in case["arrays"]:
        shape = case["arrays"]["inter:norm"]["shape"]
        check(name, "inter:norm", model.norm(seen[last][1]).reshape(shape))
    for array in attention:
        stage, block = (int(p[1:]) for p in array.split("_")[1:3])
        attn = model.backbone.stages[stage].blocks[block].attn
        check(name, array, attn.attention_probabilities(seen[attn][0]).mean(0))


@pytest.mark.parametrize("name", of_kind("dense"))
@torch.no_grad()
def test_dense_backbone(name: str) -> None:
    case = CASES[name]
    model = backbone_of(case["model"])
    litevit.load_weights(model, golden.official_state(f"lit/{case['model']}"))
    maps = model(golden.golden_input(case["n"], case["h"], case["w"], case["seed"]))
    for i, x in enumerate(maps):
        check(name, f"feat{i}", x)


@pytest.mark.parametrize("name", of_kind("dense_from_cls"))
@torch.no_grad()
def test_backbone_from_classifier(name: str) -> None:
    """A classification checkpoint in a backbone: head left out, position tables resized, output norms as they start."""
    case = CASES[name]
    model = backbone_of(case["model"])
    litevit.load_weights(model, golden.official_state("lit/" + case["model"].split("_det")[0].split("_seg")[0]))
    maps = model(golden.golden_input(case["n"], case["h"], case["w"], case["seed"]))
    for i, x in enumerate(maps):
        check(name, f"feat{i}", x)
    for array in case["arrays"]:
        if array.startswith("table:"):
            key = array.removeprefix("table:").replace("layers.", "stages.")
            check(name, array, model.state_dict()[key])


def module_state(case: dict, official: str, ours: str) -> dict[str, Tensor]:
    """Filled weights of one official module under our names, converted where it sits in a whole model."""
    state = golden.state_from(case["state_dict"])
    renamed = convert.to_ours({f"{official}.{key}": value for key, value in state.items()}).state
    return {key.removeprefix(ours + "."): value for key, value in renamed.items()}


@pytest.mark.parametrize("name", of_kind("hilo"))
@torch.no_grad()
def test_hilo(name: str) -> None:
    case = CASES[name]
    H, W = case["H"], case["W"]
    hilo = HiLo(**case["build"], pad_windows=case["variant"] == "dense").eval()
    assert (hilo.lo_heads, hilo.hi_heads, hilo.lo_dim, hilo.hi_dim) == tuple(
        case[k] for k in ("l_heads", "h_heads", "l_dim", "h_dim")
    )
    hilo.load_state_dict(module_state(case, "layers.2.blocks.0.attn", "stages.2.blocks.0.attn"))
    tokens = golden.golden_tokens(case["n"], H * W, case["build"]["dim"], case["seed"])
    check(name, "out", hilo(tokens, H, W))
    # Inside the models the official count takes the grid for a square.
    grid = (H, W) if case["variant"] == "standalone" else (math.isqrt(H * W),) * 2
    assert hilo.flops(*grid) == case["official_flops"]


@pytest.mark.parametrize("form", ["gather", "taps", "torchvision"])
@pytest.mark.parametrize("name", of_kind("dtm"))
@torch.no_grad()
def test_deformable_token_merging(name: str, form: str) -> None:
    """`amp6`: offsets of many pixels, most samples outside the map."""
    case = CASES[name]
    n, C, H, W = (case[k] for k in ("n", "C", "H", "W"))
    shape = case["state_dict"]["dconv.weight"]
    merge = DeformableTokenMerging(shape[1], shape[0]).eval()
    merge.load_state_dict(module_state(case, "layers.0.downsample", "embeds.1"))
    if "_ti_" in name:
        x = golden.golden_map(n, C, H, W, case["seed"]).permute(0, 2, 3, 1)
    else:
        x = golden.golden_tokens(n, H * W, C, case["seed"]).view(n, H, W, C)
    x = x * case["input_scale"]
    offset = merge.predict_offset(x)
    merged = merging.merge(x, offset, merging.kernel_of(merge.proj), merge.proj.bias, form).permute(0, 3, 1, 2)
    check(name, "offset", offset.permute(0, 3, 1, 2))
    check(name, "dconv_out", merged)
    check(name, "bn_out", merge.norm(merged))
    if form == "gather":
        assert torch.equal(merged, merge.proj(deformable_sample(x, offset)).permute(0, 3, 1, 2))
    out = merge(x)
    check(name, "out", out.flatten(1, 2))
    assert out.shape[1:3] == tuple(case["returned_HW"] or (H // 2, W // 2))
