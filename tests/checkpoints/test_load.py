"""load_weights: every published layout in every wrapping, tables resized, what does not fit refused."""

import copy
import math
import zlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import litevit
from golden import manifests
from litevit.checkpoints import layouts
from litevit.checkpoints.files import write_state_dict
from litevit.checkpoints.load import LoadReport, load_weights, resize_pos_embed, resize_relative_table

# Tensors without memory are told where to go, and PyTorch says that nothing was copied.
pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")

# Official manifest -> how the model is made.
CLASSIFIERS = {
    **{f"lit/{name}": name for name in ("lit_ti", "lit_s", "lit_m", "lit_b")},
    **{f"lit/{name}": name for name in ("litv2_s", "litv2_m", "litv2_b", "litv2_b_384")},
    **{f"lit/litv2_s_alpha_{i / 10}": f"litv2_s_alpha_{i:02}" for i in (0, 2, 4, 5, 7, 9, 10)},
    "lit/pvt_small_full_msa": "pvt_s_msa",
    "lvt/lvt_cls": "lvt",
    "lvt/lvt_plain_cls": "lvt_plain",
}
BACKBONES = {
    "lit/lit_ti_det": ("lit_ti", "detection", {}),
    "lit/lit_ti_seg": ("lit_ti", "segmentation", {}),
    "lit/lit_s_det": ("lit_s", "detection", {}),
    "lit/lit_s_seg": ("lit_s", "segmentation", {}),
    **{
        f"lit/litv2_{v}_det_ws{w}": (f"litv2_{v}", "detection", {"window_sizes": (0, 0, w, 1)})
        for v, w in (("s", 2), ("s", 4), ("m", 2), ("m", 4), ("b", 2), ("b", 4))
    },
    **{f"lit/litv2_{v}_seg_ws2": (f"litv2_{v}", "segmentation", {}) for v in "smb"},
    "lvt/lvt_backbone": ("lvt", "none", {}),
    "lvt/lvt_backbone_cls_ln": ("lvt", "none", {"stage_norms": True}),
}
DENSE = {
    **{
        f"dense/{head}_{b}_fpn_1x_coco": f"{head}_{b}"
        for head in ("retinanet", "mask_rcnn")
        for b in ("lit_ti", "lit_s")
    },
    **{
        f"dense/{head}_litv2_{v}_fpn_1x_coco{ws}": f"{head}_litv2_{v}{ws.replace('_ws_', '_ws')}"
        for head in ("retinanet", "mask_rcnn")
        for v in "smb"
        for ws in ("", "_ws_4")
    },
    **{
        f"dense/{b}_fpn_r50_512x512_80k_ade20k": f"semantic_fpn_{b}"
        for b in ("lit_ti", "lit_s", "litv2_s", "litv2_m", "litv2_b")
    },
    "lvt/segformer_lvt": "segformer_lvt",
    "lvt/panoptic_fpn_lvt": "panoptic_fpn_lvt",
}
WRAPPINGS = {
    "flat": lambda s: s,
    "model": lambda s: {"model": s, "optimizer": {"state": {}}, "epoch": 299},
    "state_dict": lambda s: {"meta": {"CLASSES": ("a",)}, "state_dict": s},
    "module": lambda s: {f"module.{k}": v for k, v in s.items()},
    "model > module": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    "Lightning": lambda s: {
        "state_dict": {f"model.{k}": v for k, v in s.items()} | {"criterion.weight": torch.ones(3)},
        "pytorch-lightning_version": "2.5.0",
    },
    "Lightning, compiled, with a moving average": lambda s: {
        "state_dict": {f"model._orig_mod.{k}": v for k, v in s.items()}
        | {f"ema_model.module.{k}": torch.zeros(1) for k in s}
        | {"ema_model.n_averaged": torch.tensor(7)}
    },
    "AveragedModel": lambda s: {"n_averaged": torch.tensor(7)} | {f"module.{k}": v for k, v in s.items()},
    "torchvision's references": lambda s: {
        "model": s,
        "model_ema": {"n_averaged": torch.tensor(7)} | {f"module.{k}": torch.zeros(1) for k in s},
    },
    "DeepSpeed": lambda s: {"module": s, "ds_version": "0.16", "global_steps": 5},
    "model_state_dict": lambda s: {"model_state_dict": s, "epoch": 3},
    "thop": lambda s: s | {f"{k.rpartition('.')[0]}.total_ops": torch.zeros(1) for k in s},
    "encoder": lambda s: {f"encoder.{k}": v for k, v in s.items()} | {"mask_token": torch.zeros(1)},
}


def state_of(manifest: str, *, real: bool = False) -> dict[str, Tensor]:
    """Official keys and shapes, without memory; with `real`, values that tell keys and positions apart."""
    state = {}
    for key, shape in manifests()[manifest].items():
        integer = bool(shape) and isinstance(shape[-1], str)
        shape = shape[:-1] if integer else shape
        if not real:
            state[key] = torch.empty(shape, dtype=torch.int64 if integer else torch.float32, device="meta")
            continue
        salt = zlib.crc32(key.encode()) % 1000
        if key.endswith("relative_position_index"):
            side = int(shape[0] ** 0.5)
            y, x = torch.arange(side * side) // side, torch.arange(side * side) % side
            dy, dx = y[:, None] - y + side - 1, x[:, None] - x + side - 1
            state[key] = dy * (2 * side - 1) + dx
        elif integer:
            state[key] = torch.full(shape, salt, dtype=torch.int64)
        else:
            size = math.prod(shape)
            state[key] = torch.arange(997.0).repeat(size // 997 + 1)[:size].view(shape) + salt
    return state


def empty(model: nn.Module) -> nn.Module:
    """Memory for a model of the meta device, every value -1."""
    model = model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(-1)
    return model


def build(name: str, **overrides) -> nn.Module:
    """A model without memory: what matters here is where each tensor goes."""
    with torch.device("meta"):
        return litevit.create_model(name, **overrides)


def build_backbone(name: str, out_norms: str = "none", **overrides) -> nn.Module:
    with torch.device("meta"):
        return litevit.create_backbone(name, out_norms=out_norms, **overrides)


def assert_all_set(model: nn.Module, report: LoadReport) -> None:
    assert not report.missing
    assert not report.unexpected
    assert set(report.used) == set(model.state_dict())


def assert_all_named(report: LoadReport, official: set[str]) -> None:
    """Every source key is converted, used under its own name, or dropped by name."""
    assert official == set(report.converted) | (set(report.used) & official) | set(report.dropped)


def assert_same_layout(back: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert {k: (v.shape, v.dtype) for k, v in back.items()} == {k: (v.shape, v.dtype) for k, v in state.items()}


# ----------------------------------------------------------- every manifest


def test_every_manifest_is_covered():
    modules = {"lvt/csa", "lvt/rasa_s2", "lvt/rasa_s3", "lvt/rasa_s4"}  # single layers
    same = {"dense/segformer.lvt.512x512.ade.160k", "dense/panoptic_fpn_lvt_fpn_1x_coco"}
    same.add("dense/panoptic_fpn_lvt_fpn_3x_coco")
    assert set(manifests()) == modules | same | set(CLASSIFIERS) | set(BACKBONES) | set(DENSE)
    for name in same:  # the same keys as the manifest that is loaded
        other = "lvt/segformer_lvt" if "segformer" in name else "lvt/panoptic_fpn_lvt"
        assert set(manifests()[name]) == set(manifests()[other])


@pytest.mark.parametrize("manifest", CLASSIFIERS)
def test_classifier(manifest):
    model, state = build(CLASSIFIERS[manifest]), state_of(manifest)
    report = load_weights(model, {"model": state})
    assert_all_set(model, report)
    assert_all_named(report, set(state))
    assert not report.resized
    assert all(key.endswith("relative_position_index") for key in report.dropped)
    assert_same_layout(layouts.to_official(model.state_dict()), state)


@pytest.mark.parametrize("manifest", BACKBONES)
def test_backbone(manifest):
    name, out_norms, overrides = BACKBONES[manifest]
    model, state = build_backbone(name, out_norms, **overrides), state_of(manifest)
    report = load_weights(model, state)
    assert_all_set(model, report)
    assert_all_named(report, set(state))
    assert not report.dropped
    assert_same_layout(layouts.to_official(model.state_dict()), state)


@pytest.mark.parametrize("manifest", DENSE)
def test_dense_model(manifest):
    model, state = build(DENSE[manifest]), state_of(manifest)
    report = load_weights(model, {"meta": {}, "state_dict": state})
    assert_all_set(model, report)
    assert_all_named(report, set(state))
    unused = {key for key in state if key.startswith("decode_head.conv_seg.")} if "segformer" in manifest else set()
    assert set(report.dropped) == unused
    assert_same_layout(layouts.to_official(model.state_dict()), {k: v for k, v in state.items() if k not in unused})


REAL = ["lit/lit_ti", "lit/lit_s", "lit/litv2_s", "lvt/lvt_cls", "lvt/segformer_lvt", "lvt/panoptic_fpn_lvt"]


@pytest.mark.parametrize("manifest", REAL)
def test_there_and_back_bit_for_bit(manifest):
    model, state = empty(build((CLASSIFIERS | DENSE)[manifest])), state_of(manifest, real=True)
    report = load_weights(model, state)
    ours = model.state_dict()
    assert all(value.min() >= 0 for value in ours.values())
    back = layouts.to_official(ours)
    assert back.keys() == state.keys() - {key for key in report.dropped if "conv_seg" in key}
    assert all(torch.equal(back[key], state[key]) and back[key].dtype == state[key].dtype for key in back)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize(
    "manifest", ["lit/lit_ti", "lit/lit_s", "lit/litv2_s", "lit/pvt_small_full_msa", "lvt/lvt_cls"]
)
def test_wrappings_of_classifiers(manifest, wrapping):
    model, state = build(CLASSIFIERS[manifest]), state_of(manifest)
    report = load_weights(model, WRAPPINGS[wrapping](state))
    assert_all_set(model, report)
    beside = ("mask_token", "n_averaged", "criterion.weight")
    known = ("relative", "total_ops", "ema_model.")
    assert not [key for key in report.dropped if key not in beside and not any(part in key for part in known)]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize(
    "manifest", ["lit/lit_ti_det", "lit/litv2_s_seg_ws2", "lvt/lvt_backbone", "lvt/lvt_backbone_cls_ln"]
)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_wrappings_of_backbones(manifest, wrapping, prefix):
    name, out_norms, overrides = BACKBONES[manifest]
    model = build_backbone(name, out_norms, **overrides)
    state = {prefix + key: value for key, value in state_of(manifest).items()}
    assert_all_set(model, load_weights(model, WRAPPINGS[wrapping](state)))


def test_compiled_parts_of_a_model():
    model, state = build("litv2_s"), build("litv2_s").state_dict()
    wrapped = {key.replace("backbone.", "backbone._orig_mod."): value for key, value in state.items()}
    assert_all_set(model, load_weights(model, wrapped))


@pytest.mark.parametrize("container", ["Lightning", "torchvision"])
def test_moving_average_where_both_are(container):
    model = empty(build("lvt", num_classes=2))
    live = {key: value.clone() for key, value in model.state_dict().items()}
    averaged = {f"module.{key}": value + 3 for key, value in live.items()} | {"n_averaged": torch.tensor(5)}
    if container == "Lightning":
        both = {f"model.{k}": v for k, v in live.items()} | {f"ema_model.{k}": v for k, v in averaged.items()}
        content = {"state_dict": both}
    else:
        content = {"model": live, "model_ema": averaged}
    for ema in (False, True):
        load_weights(model, content, ema=ema)
        assert all((value == (2 if ema else -1)).all() for value in model.state_dict().values())


@pytest.mark.parametrize(("in_chans", "mean"), [(1, 3.0), (4, 0.75), (6, 0.5)])
def test_other_input_channels_are_adapted_as_timm_does(in_chans, mean):
    model = empty(build_backbone("litv2_s", in_chans=in_chans))
    state = {
        key: torch.ones(value.shape, dtype=value.dtype) for key, value in build_backbone("litv2_s").state_dict().items()
    }
    report = load_weights(model, state)
    weight = model.embeds[0].proj.weight
    torch.testing.assert_close(weight, torch.full_like(weight, mean))
    assert report.resized == {"embeds.0.proj.weight": ((96, 3, 4, 4), (96, in_chans, 4, 4))}
    refuses(model, state | {"embeds.0.proj.weight": torch.ones(96, 3, 7, 7)}, "another shape")


SMALL = {  # every family
    "litv2_s": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "num_classes": 10},
    "lit_s": {"embed_dims": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "num_classes": 10},
    "lit_ti": {"embed_dims": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "num_classes": 10},
    "lvt": {"num_classes": 10},
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", SMALL)
def test_own_checkpoints(name, suffix, tmp_path):
    model = litevit.create_model(name, **SMALL[name])
    path = write_state_dict(model.state_dict(), tmp_path / f"a{suffix}")
    again = litevit.create_model(name, weights=path, **SMALL[name])
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
    report = load_weights(again, path)
    assert report.layout == "litevit"
    assert not report.converted
    assert_all_set(again, report)
    backbone = litevit.create_backbone(name, **{k: v for k, v in SMALL[name].items() if k != "num_classes"})
    report = load_weights(backbone, path)
    assert_all_set(backbone, report)
    assert set(report.dropped) == {k for k in model.state_dict() if k.removeprefix("backbone.") not in report.used}
    assert all(torch.equal(v, model.state_dict()[f"backbone.{k}"]) for k, v in backbone.state_dict().items())


# ------------------------------------------------------- between the kinds


@pytest.mark.parametrize(
    ("manifest", "backbone"),
    [("lit/lit_ti", "lit_ti"), ("lit/lit_s", "lit_s"), ("lit/litv2_s", "litv2_s"), ("lvt/lvt_cls", "lvt")],
)
@pytest.mark.parametrize("task", ["retinanet", "semantic_fpn"])
def test_classifier_into_a_dense_model(manifest, backbone, task):
    with torch.device("meta"):
        model = litevit.create_model(task, backbone=backbone)
    state = state_of(manifest)
    report = load_weights(model, {"model": state})
    norms = [key for key in report.missing if key.startswith("backbone.")]
    assert all(key.startswith("backbone.out_norms.") for key in norms)
    assert set(report.missing) - set(norms) == {k for k in model.state_dict() if not k.startswith("backbone.")}
    assert {"norm.weight", "norm.bias", "head.weight", "head.bias"} <= set(report.dropped)
    assert_all_named(report, set(state))
    assert bool(report.resized) == (backbone == "lit_s")  # relative tables: 224 -> 800 or 512


def test_backbone_into_a_classifier_keeps_its_head():
    model = build("lvt")
    report = load_weights(model, state_of("lvt/lvt_backbone"))
    assert set(report.missing) == {key for key in model.state_dict() if not key.startswith("backbone.")}


def test_detector_into_a_backbone():
    backbone = build_backbone("litv2_s", "detection")
    state = state_of("dense/retinanet_litv2_s_fpn_1x_coco")
    report = load_weights(backbone, {"state_dict": state})
    assert_all_set(backbone, report)
    assert all(key.startswith(("neck.", "bbox_head.")) for key in report.dropped)


# -------------------------------------------------------------- tables


def test_relative_table_is_resized_as_an_image_per_head():
    table = torch.randn(27 * 27, 3)
    resized = resize_relative_table(table, 99 * 99)
    for head in range(3):
        image = table[:, head].view(1, 1, 27, 27)
        wanted = F.interpolate(image, size=(99, 99), mode="bicubic", align_corners=False)
        torch.testing.assert_close(resized[:, head].view(99, 99), wanted[0, 0])
    assert torch.equal(resize_relative_table(table, 27 * 27), table)


def test_pos_embed_keeps_the_class_row():
    table = torch.randn(1, 50, 8)
    resized = resize_pos_embed(table, 1 + 12 * 12, class_row=True)
    assert resized.shape == (1, 145, 8)
    assert torch.equal(resized[:, 0], table[:, 0])
    image = table[:, 1:].view(1, 7, 7, 8).permute(0, 3, 1, 2)
    wanted = F.interpolate(image, size=(12, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized[:, 1:].view(1, 12, 12, 8).permute(0, 3, 1, 2), wanted)


def test_tables_of_another_canvas_are_reported():
    backbone, state = build_backbone("lit_s", "segmentation"), state_of("lit/lit_s")
    report = load_weights(backbone, state)
    assert report.resized["stages.2.blocks.0.attn.relative_position_bias_table"] == ((729, 12), (3969, 12))
    assert len(report.resized) == 8
    report = load_weights(build("lit_ti", table_size=384), state_of("lit/lit_ti"))
    assert report.resized["backbone.positions.3.table"] == ((1, 50, 512), (1, 145, 512))
    assert "resized backbone.positions.3.table: (1, 50, 512) -> (1, 145, 512)" in str(report)


def test_resized_tables_reach_the_model():
    small = {key: value for key, value in SMALL["lit_s"].items() if key != "num_classes"}
    source, model = litevit.create_backbone("lit_s", **small), litevit.create_backbone("lit_s", "segmentation", **small)
    state = source.state_dict()
    load_weights(model, state)
    key = "stages.2.blocks.0.attn.relative_position_bias_table"
    assert torch.equal(model.state_dict()[key], resize_relative_table(state[key], 3969))


# ------------------------------------------------------------ wrong input


def refuses(model: nn.Module, source, match: str, **options) -> None:
    with pytest.raises(ValueError, match=match):
        load_weights(model, source, **options)


def test_a_refused_checkpoint_leaves_the_model_as_it_was():
    model = litevit.create_model("litv2_s", **SMALL["litv2_s"])
    before = copy.deepcopy(model.state_dict())
    state = {key: value + 1 for key, value in before.items()}
    del state["backbone.stages.3.blocks.0.norm1.weight"]
    refuses(model, state, r"1 missing \(backbone\.stages\.3\.blocks\.0\.norm1\.weight\)")
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))


def test_checkpoint_of_another_model_is_named():
    model = build("litv2_s")
    refuses(
        model, state_of("lit/litv2_b"), r"is not a checkpoint of this model: .*Its backbone fits litv2_b, litv2_b_384"
    )
    refuses(model, state_of("lvt/lvt_cls"), r"is not a checkpoint of this model: .*Its backbone fits lvt")
    refuses(model, state_of("lit/litv2_s_alpha_0.5"), r"of another shape .*fits litv2_s_alpha_05")
    refuses(build("lvt_plain"), state_of("lvt/lvt_cls"), r"unexpected \(.*post_network")
    detector = state_of("dense/retinanet_litv2_s_fpn_1x_coco")
    refuses(model, detector, r"To take its backbone alone: load_weights\(model\.backbone")
    refuses(build_backbone("litv2_s"), {"conv1.weight": torch.ones(1)}, "No known layout has these keys: conv1.weight")


def test_missing_and_unexpected_tensors():
    model, state = build("lvt"), state_of("lvt/lvt_cls")
    less = {k: v for k, v in state.items() if k != "backbone.2.1.1.norm1.weight"}
    refuses(model, less, r"1 missing \(backbone\.stages\.2\.blocks\.1\.norm1\.weight\)")
    refuses(model, state | {"scale.gamma": torch.ones(1)}, r"1 unexpected \(scale\.gamma\)")
    report = load_weights(model, state | {"scale.gamma": torch.ones(1)}, strict=False)
    assert report.unexpected == ("scale.gamma",)


@pytest.mark.parametrize(("name", "manifest"), [("litv2_s", "lit/litv2_s"), ("lvt", "lvt/lvt_cls")])
def test_another_number_of_classes(name, manifest):
    model = build(name, num_classes=10)
    state = state_of(manifest)
    refuses(model, state, r"for another number of classes \(.*1000.*10.*drop_head=True")
    report = load_weights(model, state, drop_head=True)
    heads = {"head.weight", "head.bias"} | ({"aux_head.weight", "aux_head.bias"} if name == "lvt" else set())
    assert set(report.missing) == set(report.dropped) == heads
    features = build(name, num_classes=0)
    assert set(load_weights(features, state).dropped) == heads
    assert not [key for key in features.state_dict() if "head" in key]


def test_another_number_of_classes_in_a_detector():
    model = build("retinanet_litv2_s", num_classes=3)
    state = state_of("dense/retinanet_litv2_s_fpn_1x_coco")
    refuses(model, state, "for another number of classes .* with num_classes=80,")
    refuses(
        build("mask_rcnn_litv2_s", num_classes=3), state_of("dense/mask_rcnn_litv2_s_fpn_1x_coco"), "num_classes=80,"
    )
    report = load_weights(model, state, drop_head=True)
    assert set(report.missing) == {"head.cls_logits.weight", "head.cls_logits.bias"}
    assert set(report.dropped) == {"bbox_head.retina_cls.weight", "bbox_head.retina_cls.bias"}


def test_head_is_not_dropped_for_what_is_wrong_elsewhere():
    state = state_of("lvt/lvt_cls")
    state["backbone.0.0.proj.weight"] = torch.ones(64, 3, 5, 5)
    refuses(build("lvt", num_classes=10), state, r"embeds\.0\.proj\.weight", drop_head=True)
