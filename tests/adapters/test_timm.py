"""timm's ways of making, changing, splitting and training a model, on ours."""

import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
from timm.data import create_transform, resolve_data_config
from timm.optim import create_optimizer_v2
from timm.optim._param_groups import param_groups_layer_decay

import litevit
import litevit.adapters.timm
from litevit.checkpoints import layouts
from litevit.checkpoints import published as weights

SMALL = {
    "lit_s": {"embed_dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 2)},
    "lit_ti": {"embed_dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 2)},
    "litv2_s": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 4), "alpha": 0.5},
    "pvt_s": {"embed_dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 2)},
    "swin_ti_dtm": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 2)},
    "lvt": {"embed_dims": (16, 16, 32, 64), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 4)},
    "lvt_plain": {"embed_dims": (16, 16, 32, 64), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 4)},
}
models = pytest.mark.parametrize("name", SMALL)


def create(name: str, **kwargs) -> torch.nn.Module:
    return timm.create_model(name, **SMALL[name], **kwargs).eval()


def test_every_classifier_is_registered() -> None:
    names = litevit.list_models(task="classification")
    assert len(names) > 20
    for name in names:
        assert timm.is_model(name)
        cfg = timm.get_pretrained_cfg(name)
        prepared = weights.preprocessing(name)
        assert (cfg.mean, cfg.std, cfg.crop_pct) == (prepared.mean, prepared.std, prepared.crop_pct)
        assert (cfg.interpolation, cfg.crop_mode) == (prepared.interpolation, prepared.crop_mode)
        assert bool(cfg.url) == bool(name in weights.WEIGHTS and weights.WEIGHTS[name].url)
    assert {"lit_s", "litv2_s"} <= set(timm.list_models("lit*"))


@models
@torch.no_grad()
def test_same_function_and_keys_as_litevit(name: str) -> None:
    ours = litevit.create_model(name, num_classes=5, **SMALL[name]).eval()
    theirs = create(name, num_classes=5)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(theirs(x), ours(x))


@models
@torch.no_grad()
def test_forward_is_features_then_head(name: str) -> None:
    model = create(name, num_classes=5)
    x = torch.randn(2, 3, 64, 96)
    features = model.forward_features(x)
    torch.testing.assert_close(model.forward_head(features), model(x))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
    final, maps = model.forward_intermediates(x, indices=2)
    torch.testing.assert_close(final, features)
    assert [m.shape[1] for m in maps] == [f["num_chs"] for f in model.feature_info[2:]]
    (only,) = model.forward_intermediates(x, indices=[-1], norm=True, output_fmt="NHWC", intermediates_only=True)
    assert only.shape == (2, 2, 3, model.num_features)


@models
@torch.no_grad()
def test_features_only(name: str) -> None:
    model = create(name, features_only=True, out_indices=(1, 3))
    channels = model.feature_info.channels()
    assert model.feature_info.reduction() == [8, 32]
    maps = model(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, channels[0], 8, 12), (1, channels[1], 2, 3)]
    assert len(create(name, features_only=True)(torch.randn(1, 3, 64, 64))) == 4
    assert not any(key.startswith("model.head.") for key in model.state_dict())


@models
@torch.no_grad()
def test_classifier_can_be_changed(name: str) -> None:
    model = create(name, num_classes=5, drop_rate=0.1, drop_path_rate=0.1)
    assert model.get_classifier().out_features == 5
    model.reset_classifier(7)
    x = torch.randn(2, 3, 64, 64)
    assert model(x).shape == (2, 7)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)
    model.reset_classifier(0, global_pool="")
    assert model(x).ndim in (3, 4)
    with pytest.raises(ValueError, match="global_pool must be one of"):
        model.reset_classifier(3, global_pool="max")


@models
def test_grad_checkpointing_and_other_channels(name: str) -> None:
    model = create(name, num_classes=3, in_chans=1).train()
    model.set_grad_checkpointing()
    model(torch.randn(2, 1, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@models
def test_optimizer_factory(name: str) -> None:
    """Tables and the class token are not decayed; layer decay finds a depth for every parameter."""
    model = create(name, num_classes=3)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    undecayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    for key, parameter in model.named_parameters():
        expected = parameter.ndim <= 1 or "relative_position_bias_table" in key or "cls_token" in key
        assert (id(parameter) in undecayed) == expected, key
    groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.7)
    scales = [g["lr_scale"] for g in groups]
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert max(scales) == 1.0
    assert len(set(scales)) > 4
    assert min(g["lr_scale"] for g in groups for p in g["params"] if p is model.get_classifier().weight) == 1.0


def test_data_config_is_the_published_preprocessing() -> None:
    config = resolve_data_config({}, model=create("litv2_s"))
    assert (config["input_size"], config["crop_pct"], config["interpolation"]) == ((3, 224, 224), 0.875, "bicubic")
    assert create_transform(**config).transforms[0].size == 256
    config = resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg("litv2_b_384").to_dict())
    assert (config["input_size"], config["crop_mode"]) == ((3, 384, 384), "squash")
    assert resolve_data_config({}, model=create("lvt"))["crop_pct"] == 0.96


def test_pretrained_takes_the_published_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Here a file of small models stands in for the download."""
    source = litevit.create_model("litv2_s", num_classes=1000, **SMALL["litv2_s"])
    path = tmp_path / "litv2_s.pth"
    torch.save({"model": source.state_dict()}, path)
    fetched: list[str] = []
    monkeypatch.setattr(weights, "fetch", lambda name: (fetched.append(name), path)[1])

    whole = create("litv2_s", pretrained=True)
    assert torch.equal(whole.head.weight, source.head.weight)
    tuned = create("litv2_s", pretrained=True, num_classes=3)
    assert torch.equal(tuned.norm.weight, source.norm.weight)
    assert tuned.head.weight.shape[0] == 3
    grey = create("litv2_s", pretrained=True, in_chans=1)
    expected = source.backbone.embeds[0].proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(grey.backbone.embeds[0].proj.weight, expected)
    maps = create("litv2_s", pretrained=True, features_only=True)
    assert torch.equal(maps.model.backbone.embeds[0].proj.bias, source.backbone.embeds[0].proj.bias)
    assert fetched == ["litv2_s"] * 4

    from_file = create("litv2_s", pretrained=True, pretrained_cfg_overlay={"file": str(path)})
    assert torch.equal(from_file.head.weight, source.head.weight)
    whole_cfg = create("litv2_s", pretrained=True, pretrained_cfg={"file": str(path)})
    assert torch.equal(whole_cfg.head.weight, source.head.weight)
    assert len(fetched) == 4


def test_checkpoint_path_of_timm(tmp_path: Path) -> None:
    """What timm's training script saves, timm's validation script and litevit load."""
    model = create("litv2_s", num_classes=3)
    torch.save({"arch": "litv2_s", "state_dict": model.state_dict(), "epoch": 1}, tmp_path / "last.pth.tar")
    again = create("litv2_s", num_classes=3, checkpoint_path=str(tmp_path / "last.pth.tar"))
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again(x), model(x))


@torch.no_grad()
def test_official_file_as_checkpoint_path(tmp_path: Path) -> None:
    """Validating the published file with timm's script; a head of another size is refused as timm refuses it."""
    model = create("litv2_s", num_classes=3)
    torch.save({"model": layouts.to_official(model.state_dict())}, tmp_path / "litv2_s.pth")
    again = create("litv2_s", num_classes=3, checkpoint_path=str(tmp_path / "litv2_s.pth"))
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again(x), model(x))
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.weight"):
        create("litv2_s", num_classes=4, checkpoint_path=str(tmp_path / "litv2_s.pth"))


def test_dtype_and_device() -> None:
    model = create("litv2_s", dtype=torch.bfloat16, device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="option of litv2_s"):
        create("litv2_s", num_headz=3)
    with pytest.raises(ValueError, match="output_stride"):
        create("litv2_s", output_stride=16)


def test_scripts_that_use_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As timm's train.py and validate.py: names on the command line, a module beside the script."""
    (tmp_path / "beside.py").write_text("WHAT = 'parameters'")
    script = "import sys, timm, beside; from pathlib import Path\n"
    script += "known = timm.is_model(sys.argv[1]) and __name__ == '__main__'\n"
    script += "Path(sys.argv[2]).write_text(f'{sys.argv[1]} {known} {beside.WHAT}')\n"
    (tmp_path / "validate.py").write_text(script)
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["-m", str(tmp_path / "validate.py"), "litv2_s", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_module("litevit.adapters", run_name="__main__")
    assert (tmp_path / "out").read_text() == "litv2_s True parameters"
    monkeypatch.setattr(sys, "argv", ["-m", str(tmp_path / "nowhere.py")])
    with pytest.raises(SystemExit):
        runpy.run_module("litevit.adapters", run_name="__main__")


@pytest.mark.slow  # importing transformers takes longer than all of the above
@torch.no_grad()
def test_transformers_autobackbone() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.TimmBackboneConfig(backbone="litv2_s", out_indices=[1, 2, 3], use_pretrained_backbone=False)
    backbone = transformers.AutoBackbone.from_config(config).eval()
    assert backbone.channels == [192, 384, 768]
    maps = backbone(torch.randn(1, 3, 64, 96)).feature_maps
    assert [tuple(m.shape) for m in maps] == [(1, 192, 8, 12), (1, 384, 4, 6), (1, 768, 2, 3)]
