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
            near("norm of all gradients", total.item(), ref["grad_norm_before_clip_step0_total"], rel=1e-8)
            check_gradients(model, ref["grad_norm_after_clip_step0"])
        optimizer.step()
    assert len(losses) == len(ref["losses"])
    for step, (loss, wanted) in enumerate(zip(losses, ref["losses"])):
        near(f"loss of step {step}", loss, wanted, rel=1e-6)

    with torch.no_grad():
        logits = model.eval()(images)
    near("mean of the last logits", logits.mean().item(), ref["final_eval_logits_mean"], abs_=1e-5)
    near("deviation of the last logits", logits.std(correction=0).item(), ref["final_eval_logits_std"], abs_=1e-5)
    assert len(ref["final_eval_logits_row0_first8"]) == 8
    for logit, wanted in zip(logits[0, :8].tolist(), ref["final_eval_logits_row0_first8"]):
        near("one of the last logits", logit, wanted, abs_=1e-5)


def near(what: str, got: float, wanted: float, *, rel: float = 0.0, abs_: float = 0.0) -> None:
    golden.note("training, float64", what, golden.share_of(got, wanted, rel=rel, abs_=abs_))
    assert got == pytest.approx(wanted, rel=rel, abs=abs_), what


def check_gradients(model: torch.nn.Module, norms: dict[str, float]) -> None:
    """The same norm for every official parameter; HiLo's fused projection is taken apart as its weights are."""
    grads = {name.removeprefix("backbone."): p.grad for name, p in model.named_parameters()}
    official = convert.to_official(grads).state
    assert set(official) == set(norms)
    for name, norm in norms.items():
        near(f"norm of {name}'s gradient", official[name].norm().item(), norm, rel=1e-8, abs_=1e-12)


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
