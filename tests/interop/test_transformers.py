"""transformers' `device_map` with a part on the disk: `from_pretrained` of classifiers that are saved for the hub."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn

import litevit.adapters.timm  # noqa: F401  (makes the names known to timm, and so to transformers)
from optimize.models import MODELS, stirred

transformers = pytest.importorskip("transformers", reason="device_map is transformers' (the extra 'dev')")
pytest.importorskip("accelerate", reason="device_map needs accelerate (the extra 'train')")

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def saved(name: str, folder: Path) -> nn.Module:
    """Writes a small model for the hub."""
    options = {key: value for key, value in MODELS[name].items() if key != "num_classes"}
    model: Any = timm.create_model(name, num_classes=10, **options)
    model.load_state_dict(stirred(name).state_dict())
    save_for_hf(model, str(folder), model_args=options, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    config["model_args"].pop("num_classes", None)  # timm 1.0.31 keeps it, transformers 5.24 gives it a second time
    (folder / "config.json").write_text(json.dumps(config))
    return model.eval()


def places(model: nn.Module, *, disk: int = 1) -> dict[str, str]:
    """Of stages and what stands beside them, every second on the disk: the first (0), or the second (1) and so on.

    What is in a list has a place of its own: accelerate moves modules that are called, and a list is not.

    A parameter outside of its own module stays: accelerate moves modules.
    """
    parts: list[str] = []
    for name, module in model.named_children():
        for part, child in module.named_children() if name == "backbone" else [("", module)]:
            inside = [f".{key}" for key, _ in child.named_children()] if isinstance(child, nn.ModuleList) else [""]
            parts += [f"{name}.{part}".rstrip(".") + key for key in inside if child.state_dict()]
    where = {f"timm_model.{key}": "disk" if i % 2 == disk else "cpu" for i, key in enumerate(parts)}
    first = next(key for key in where if key.startswith("timm_model.backbone.embeds."))
    where[first] = "cpu"  # transformers sends the images to where the first parameter is, also to "meta"
    for name, module in (("", model), ("backbone.", model.backbone)):
        where |= {f"timm_model.{name}{key}": "cpu" for key, _ in module.named_parameters(recurse=False)}  # type: ignore[union-attr]
    return where


@pytest.mark.parametrize("disk", [pytest.param(0, marks=pytest.mark.slow), 1])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_device_map_with_a_disk_part(name: str, disk: int, tmp_path: Path) -> None:
    ours = saved(name, tmp_path / "model")
    where = places(ours, disk=disk)
    load = transformers.AutoModelForImageClassification.from_pretrained
    model = load(tmp_path / "model", device_map=where, offload_folder=tmp_path / "disk").eval()
    away = {key for key, p in model.named_parameters() if p.device.type == "meta"}
    assert away == {key for key, _ in model.named_parameters() if on_disk(key, where)}
    assert away
    for images in (IMAGES, IMAGES[:1, :, :48]):
        torch.testing.assert_close(model(images).logits, ours(images))
    assert {key for key, p in model.named_parameters() if p.device.type == "meta"} == away  # given back after use


def on_disk(key: str, where: dict[str, str]) -> bool:
    return where[max((part for part in where if key == part or key.startswith(f"{part}.")), key=len)] == "disk"


@pytest.mark.parametrize("name", ["lit_s", "litv2_s", "lvt"])
@torch.no_grad()
def test_auto_leaves_to_the_disk_what_memory_does_not_hold(name: str, tmp_path: Path) -> None:
    """The map that accelerate makes of a limit; what it may not split it keeps whole."""
    ours = saved(name, tmp_path / "model")
    size = sum(p.numel() * 4 for p in ours.parameters())
    load = transformers.AutoModelForImageClassification.from_pretrained
    limited = {"max_memory": {"cpu": size // 2}, "offload_folder": tmp_path / "disk"}
    model = load(tmp_path / "model", device_map="auto", **limited).eval()
    kinds = set(model.hf_device_map.values())
    assert "disk" in kinds, model.hf_device_map
    torch.testing.assert_close(model(IMAGES).logits, ours(IMAGES))


@pytest.mark.parametrize("name", ["lit_s", "litv2_s", "lvt"])
@torch.no_grad()
def test_features_without_a_head(name: str, tmp_path: Path) -> None:
    ours: Any = saved(name, tmp_path / "model")
    where = {
        key: place
        for key, place in places(ours).items()
        if not key.startswith(("timm_model.head", "timm_model.aux_head"))  # AutoModel has none
    }
    load = transformers.AutoModel.from_pretrained
    model = load(tmp_path / "model", device_map=where, offload_folder=tmp_path / "disk").eval()
    found: Tensor = model(IMAGES).last_hidden_state
    torch.testing.assert_close(found, ours.forward_features(IMAGES))
