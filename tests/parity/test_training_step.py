"""Four float64 AdamW steps of LITv2-S with the published parameter groups, against the published code."""

import json

import pytest
import torch
import torch.nn.functional as F

import golden
import litevit
from litevit.checkpoints import lit as convert
from litevit.engine.optim import param_groups

REFERENCE = json.loads((golden.DATA / "training" / "litv2_s.json").read_text())


@pytest.mark.slow  # 40 s: float64, 4 images of 224 x 224
def test_four_steps_of_litv2_s() -> None:
    ref = REFERENCE
    model = litevit.create_model("litv2_s")
    litevit.load_weights(model, golden.official_state("lit/litv2_s"))
    model.double().train()
    images = golden.golden_input(ref["n"], ref["img"], ref["img"], 11).double()
    targets = torch.tensor(ref["targets"])
    groups = param_groups(model, lr=1e-3, weight_decay=0.05, offset_lr=1e-5)
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)

    losses = []
    for step in range(ref["steps"]):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), targets, label_smoothing=0.1)
        losses.append(loss.item())
        loss.backward()
        total = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        if step == 0:
            assert total.item() == pytest.approx(ref["grad_norm_before_clip_step0_total"], rel=1e-8)
            check_gradients(model, ref["grad_norm_after_clip_step0"])
        optimizer.step()
    assert losses == pytest.approx(ref["losses"], rel=1e-6)

    with torch.no_grad():
        logits = model.eval()(images)
    assert logits.mean().item() == pytest.approx(ref["final_eval_logits_mean"], abs=1e-5)
    assert logits.std(correction=0).item() == pytest.approx(ref["final_eval_logits_std"], abs=1e-5)
    assert logits[0, :8].tolist() == pytest.approx(ref["final_eval_logits_row0_first8"], abs=1e-5)


def check_gradients(model: torch.nn.Module, norms: dict[str, float]) -> None:
    """The same norm for every official parameter; HiLo's fused projection is taken apart as its weights are."""
    grads = {name.removeprefix("backbone."): p.grad for name, p in model.named_parameters()}
    official = convert.to_official(grads).state
    assert set(official) == set(norms)
    for name, norm in norms.items():
        assert official[name].norm().item() == pytest.approx(norm, rel=1e-8, abs=1e-12), name


def test_groups_of_every_published_model() -> None:
    """Tensors and elements per group, as the published grouping functions count them."""
    for name, groups in {
        "lit_ti": {"decay": (59, 19811584), "no_decay": (119, 58304), "offset": (3, 16384)},
        "pvt_s_msa": {"decay": (73, 20122880), "no_decay": (144, 62504)},
        "lit_s": {"decay": (45, 27830784), "no_decay": (106, 121432), "offset": (3, 21504)},
        "lit_b": {"decay": (93, 86882304), "no_decay": (214, 381408), "offset": (3, 28672)},
    }.items():
        with torch.device("meta"):
            model = litevit.create_model(name)
        ours = param_groups(model, lr=1e-3, weight_decay=0.05, offset_lr=1e-5)
        assert {g["name"]: (len(g["params"]), sum(p.numel() for p in g["params"])) for g in ours} == groups, name


def test_groups_of_litv2_have_the_published_sizes() -> None:
    """HiLo's fused projection merges tensors, so only elements can be compared."""
    for name, elements in {
        "litv2_s": (27744000, 78496, 21504),
        "litv2_m": (48652032, 156832, 21504),
        "litv2_b": (86283264, 208768, 28672),
        "litv2_s_alpha_05": (27547392, 78496, 21504),
    }.items():
        with torch.device("meta"):
            model = litevit.create_model(name)
        groups = param_groups(model, lr=1e-3, weight_decay=0.05, offset_lr=1e-5)
        assert tuple(sum(p.numel() for p in g["params"]) for g in groups) == elements, name
