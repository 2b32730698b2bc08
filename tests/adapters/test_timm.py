"""timm's ways of making, changing, splitting and training a model, on ours."""

import copy
import functools
import http.server
import json
import runpy
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config
from timm.models import FeatureDictNet, FeatureListNet, get_notrace_functions, get_notrace_modules
from timm.models._hub import save_for_hf
from timm.optim import create_optimizer_v2
from timm.optim._param_groups import param_groups_layer_decay
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

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
TRACER = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}


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
        assert cfg.pool_size == tuple(side // 32 for side in cfg.input_size[1:])
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
@pytest.mark.parametrize("out_indices", [(0,), (0, 1), (1, 3), (-1,)])
def test_features_only_keeps_what_it_uses(name: str, out_indices: tuple[int, ...]) -> None:
    """Every parameter that is left has a gradient: DistributedDataParallel stops at the second step otherwise."""
    whole = create(name, features_only=True).train()
    model = create(name, features_only=True, out_indices=out_indices).train()
    last = max(i % 4 for i in out_indices)
    assert (sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in whole.parameters())) == (last < 3)
    maps = model(torch.randn(2, 3, 64, 96))
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    sum(m.sum() for m in maps).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("name", "out_indices", "millions"), [("lvt", (0, 1, 2, 3), 3.43), ("litv2_s", (0, 1), 0.85)])
def test_size_of_feature_extractors(name: str, out_indices: tuple[int, ...], millions: float) -> None:
    """Of 5.01 M, the class-attention layers are not kept; of 27.1 M, not the last two stages."""
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True, out_indices=out_indices)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


@models
@torch.no_grad()
def test_pruned_models_give_the_same_maps(name: str) -> None:
    model = create(name, num_classes=5)
    x = torch.randn(2, 3, 64, 96)
    maps = model.forward_intermediates(x, intermediates_only=True)
    for last in range(4):
        pruned = copy.deepcopy(model)
        take = pruned.prune_intermediate_layers([last], prune_norm=True)
        (only,) = pruned.forward_intermediates(x, indices=take, intermediates_only=True)
        torch.testing.assert_close(only, maps[last])
        assert len(pruned.forward_intermediates(x, norm=True, intermediates_only=True)) == last + 1
        if last < 3:
            torch.testing.assert_close(pruned.forward_features(x), maps[last])
    kept = copy.deepcopy(model)
    kept.prune_intermediate_layers([3], prune_head=False)
    torch.testing.assert_close(kept(x), model(x))


@models
@torch.no_grad()
def test_every_feature_class_of_timm_gives_the_same_maps(name: str) -> None:
    model = create(name, features_only=True, out_indices=(1, 3))
    x = torch.randn(1, 3, 64, 96)
    expected = model(x)
    for feature_cls in ("hook", "list", "dict", "fx", FeatureListNet, FeatureDictNet):
        other = create(name, features_only=True, out_indices=(1, 3), feature_cls=feature_cls)
        parts = other.body if feature_cls == "hook" else getattr(other, "model", None)
        if parts is None:  # the graph has the model's tensors under the model's names
            other.graph_module.load_state_dict(model.model.state_dict(), strict=False)
        else:
            parts.load_state_dict(model.model.state_dict(), strict=False)
        maps = other(x)
        if feature_cls in ("dict", FeatureDictNet):
            assert list(maps) == ["1", "3"]
            maps = list(maps.values())
        assert isinstance(maps, list)
        assert other.feature_info.channels() == model.feature_info.channels()
        torch.testing.assert_close(maps, expected)


@models
def test_fx_graphs(name: str) -> None:
    """torchvision's extractor, with our layers as leaves, in training and evaluation."""
    model = create(name, num_classes=5).train()
    nodes = {"backbone.stages.1": "stage", "maps.2": "map", "head": "logits"}
    graph = create_feature_extractor(model, return_nodes=nodes, tracer_kwargs=TRACER)
    x = torch.randn(2, 3, 64, 96)
    sum(out.sum() for out in graph(x).values()).backward()
    used = [key for key, p in graph.named_parameters() if p.grad is None]
    assert all(key.startswith("aux_head") for key in used)  # LVT's second head is behind no node that is asked for
    model.eval()
    graph.eval()
    with torch.no_grad():
        out = graph(x)
        (expected,) = model.forward_intermediates(x, indices=[2], intermediates_only=True)
        torch.testing.assert_close(out["map"], expected)
        if name != "lvt":
            torch.testing.assert_close(out["logits"], model(x))


@models
def test_an_fx_graph_of_the_whole_model(name: str) -> None:
    """As timm's own tests make it: the logits at every size and batch, and a gradient for every parameter."""
    model = create(name, num_classes=5)
    options = {**TRACER, "param_shapes_constant": True}
    train_nodes, eval_nodes = get_graph_node_names(model, tracer_kwargs=options)
    graph = create_feature_extractor(
        model, train_return_nodes=train_nodes[-1:], eval_return_nodes=eval_nodes[-1:], tracer_kwargs=options
    )
    with torch.no_grad():
        for size in ((1, 3, 64, 64), (3, 3, 81, 67), (2, 3, 224, 224)):
            x = torch.randn(size)
            (logits,) = graph.eval()(x).values()
            torch.testing.assert_close(logits, model(x))
    (logits,) = graph.train()(torch.randn(2, 3, 64, 64)).values()
    logits.square().sum().backward()
    assert {key for key, _ in graph.named_parameters()} == {key for key, _ in model.named_parameters()}
    assert [key for key, p in graph.named_parameters() if p.grad is None] == []


@models
@torch.no_grad()
@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace:FutureWarning", "ignore:.*torch.jit:DeprecationWarning"
)
def test_a_trace_serves_every_size(name: str) -> None:
    """TorchScript by trace, which is what there is of it: of the model, and of a graph of it."""
    model = create(name, num_classes=5)
    _, nodes = get_graph_node_names(model, tracer_kwargs=TRACER)
    graph = create_feature_extractor(model, {nodes[-1]: "logits"}, tracer_kwargs=TRACER)
    for traced in (
        torch.jit.trace(model, torch.randn(2, 3, 64, 64)),
        torch.jit.trace(graph, torch.randn(2, 3, 64, 64), strict=False),
    ):
        for size in ((1, 3, 96, 128), (3, 3, 81, 67)):
            x = torch.randn(size)
            logits = traced(x)
            torch.testing.assert_close(logits["logits"] if isinstance(logits, dict) else logits, model(x))


@models
def test_attributes_that_timm_reads(name: str) -> None:
    with torch.device("meta"):
        model = create(name, num_classes=5)
    assert model.in_chans == model.default_cfg["input_size"][0] == 3
    features = model.forward_features(torch.zeros(1, 3, 224, 224, device="meta"))
    last = model.forward_intermediates(torch.zeros(1, 3, 224, 224, device="meta"), intermediates_only=True)[-1]
    assert tuple(last.shape[2:]) == model.default_cfg["pool_size"]
    assert features.shape == last.shape or features.shape == (1, 1 + 49, model.num_features)
    model.to(torch.float64).reset_classifier(7)
    head = model.get_classifier()
    assert (head.weight.device.type, head.weight.dtype, head.training) == ("meta", torch.float64, False)
    assert timm.get_pretrained_cfg("litv2_b_384").pool_size == (12, 12)


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
    unpooled = model(x)
    assert unpooled.ndim in (3, 4)
    assert create(name, num_classes=0)(x).shape == (2, model.num_features)
    assert create(name, num_classes=0, global_pool="")(x).shape == unpooled.shape
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
    with pytest.warns(UserWarning, match="adapted from 3 to 1 input channel"):
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


class Sources:
    """One model of three classes wherever timm may look for weights; the published file is out of reach."""

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url
        self.model = create("litv2_s", num_classes=3)
        save_for_hf(self.model, folder, safe_serialization=True)
        self.file = folder / "model.safetensors"
        self.small = {**SMALL["litv2_s"], "num_classes": 3}

    def check(self, loaded: torch.nn.Module) -> None:
        for key, value in self.model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sources]:
    folder = tmp_path / "repository"

    def download(repo_id: str, filename: str, **_) -> str:
        assert repo_id == "me/my-litv2_s"
        if not (folder / filename).exists():
            raise EntryNotFoundError(filename)
        return str(folder / filename)

    def published(name: str) -> Path:
        raise AssertionError(f"the published file of {name} is asked for")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    monkeypatch.setattr(weights, "fetch", published)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Sources(folder, f"http://127.0.0.1:{server.server_port}/model.safetensors")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("features_only", [False, True])
def test_a_model_of_the_hub_or_of_a_folder_has_its_own_weights(sources: Sources, features_only: bool) -> None:
    for name in ("hf-hub:me/my-litv2_s", f"local-dir:{sources.folder}"):
        loaded = timm.create_model(name, pretrained=True, features_only=features_only)
        if features_only:
            key = "backbone.stages.3.blocks.0.mlp.fc1.weight"
            assert torch.equal(loaded.model.get_parameter(key), sources.model.get_parameter(key))
        else:
            sources.check(loaded)
        assert timm.create_model(name, pretrained=False).num_classes == 3


def test_the_source_that_is_named_is_the_one_that_is_read(sources: Sources, tmp_path: Path) -> None:
    state = sources.model.state_dict()
    torch.save({"model": layouts.to_official(state)}, tmp_path / "official.pth")
    torch.save({"state_dict": state, "arch": "litv2_s"}, tmp_path / "last.pth.tar")
    for named in (
        {"file": str(sources.file)},
        {"file": str(tmp_path / "official.pth")},
        {"file": str(tmp_path / "last.pth.tar")},
        {"url": sources.url},
        {"hf_hub_id": "me/my-litv2_s"},
        {"hf_hub_id": "me/my-litv2_s", "hf_hub_filename": "model.safetensors"},
        {"state_dict": state},
        {"state_dict": layouts.to_official(state)},
    ):
        named = {**named, "num_classes": 3}
        cache = str(tmp_path / "cache")
        for way in ({"pretrained_cfg_overlay": named}, {"pretrained_cfg": named}):
            sources.check(timm.create_model("litv2_s", pretrained=True, cache_dir=cache, **sources.small, **way))
    with pytest.raises(AssertionError, match="published file of litv2_s"):
        create("litv2_s", pretrained=True)
    with pytest.raises(
        AssertionError, match="published file of litv2_s"
    ):  # as timm's scripts hand on what they resolve
        create("litv2_s", pretrained=True, pretrained_cfg=timm.get_pretrained_cfg("litv2_s").to_dict())
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        create("litv2_s", pretrained=True, pretrained_cfg={"num_classes": 3})


def test_a_head_of_another_size_stays_fresh_only_where_timm_says_so(sources: Sources) -> None:
    named = {"file": str(sources.file), "num_classes": 3}
    tuned = create("litv2_s", pretrained=True, num_classes=5, pretrained_cfg_overlay=named)
    assert torch.equal(tuned.norm.weight, sources.model.norm.weight)
    assert tuned.head.weight.shape[0] == 5
    with pytest.raises(ValueError, match="head is for another number of classes"):  # the source is said to have 1000
        create("litv2_s", pretrained=True, pretrained_cfg_overlay={"file": str(sources.file)})
    one_less = create(
        "litv2_s",
        pretrained=True,
        num_classes=2,
        pretrained_cfg_overlay={"file": str(sources.file), "num_classes": 2, "label_offset": 1},
    )
    assert torch.equal(one_less.head.weight, sources.model.head.weight[1:])


def test_weights_of_another_model_are_refused(sources: Sources) -> None:
    for name in ("lit_s", "swin_ti_dtm"):
        for num_classes in (3, 5):
            overlay = {"file": str(sources.file), "num_classes": 3}
            with pytest.raises(ValueError, match="is not a checkpoint of this model"):
                create(name, pretrained=True, num_classes=num_classes, pretrained_cfg_overlay=overlay)


@pytest.mark.filterwarnings("ignore:.*first layer adapted")
def test_first_layers_of_other_channels(sources: Sources) -> None:
    stem = "backbone.embeds.0.proj.weight"
    rgb = sources.model.get_parameter(stem)
    named = {"file": str(sources.file), "num_classes": 3}
    grey = create("litv2_s", pretrained=True, num_classes=3, in_chans=1, pretrained_cfg_overlay=named)
    torch.testing.assert_close(grey.get_parameter(stem), rgb.sum(1, keepdim=True))
    assert (grey.in_chans, sources.model.in_chans) == (1, 3)
    of_grey = {"state_dict": grey.state_dict(), "num_classes": 3, "input_size": (1, 224, 224)}
    again = create("litv2_s", pretrained=True, num_classes=3, in_chans=3, pretrained_cfg_overlay=of_grey)
    torch.testing.assert_close(again.get_parameter(stem), grey.get_parameter(stem).expand(-1, 3, -1, -1) / 3)
    of_rgb = {**of_grey, "state_dict": sources.model.state_dict(), "input_size": (3, 224, 224)}
    five = create("litv2_s", pretrained=True, num_classes=3, in_chans=5, pretrained_cfg_overlay=of_rgb)
    of_five = {**of_grey, "state_dict": five.state_dict(), "input_size": (5, 224, 224)}
    two = create("litv2_s", pretrained=True, num_classes=3, in_chans=2, pretrained_cfg_overlay=of_five)
    torch.testing.assert_close(two.get_parameter(stem), five.get_parameter(stem)[:, :2] * 2.5)


def test_what_is_saved_for_the_hub_names_the_channels(sources: Sources) -> None:
    config = json.loads((sources.folder / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, 224, 224]
    assert config["pretrained_cfg"]["first_conv"] == "backbone.embeds.0.proj"
    assert set(load_file(sources.file)) == set(sources.model.state_dict())


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


@models
@torch.no_grad()
def test_dtype_and_device(name: str) -> None:
    model = create(name, dtype=torch.bfloat16, device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    there = create(name, device="meta")  # without a device context
    assert {t.device.type for t in [*there.parameters(), *there.buffers()]} == {"meta"}
    model = create(name, num_classes=5)
    x = torch.randn(1, 3, 64, 64)
    model(x)
    assert model.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16  # nothing is kept from the first forward


def test_wrong_arguments() -> None:
    for kind in (ValueError, TypeError):  # litevit's, timm's
        with pytest.raises(kind, match=r"option of litv2_s: 'num_headz'\. Did you mean 'num_heads'"):
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
