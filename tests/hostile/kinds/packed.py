"""Hostile packed models (`litevit pack`): a configuration of other types, options that ask for more memory than there is, lying weights."""

import json
import random
from pathlib import Path
from typing import Any

import litevit
from hostile.arena import Kind
from hostile.mutations import NUMBERS, corrupt, json_bytes
from litevit.adapters.hugging_face import pack
from litevit.checkpoints.packed import open_packed
from litevit.jobs.dense_models import load_dense, task_of
from litevit.jobs.predict import load_classifier, recorded_classes

SMALL = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
GREEDY = (
    0,
    -1,
    3,
    2.5,
    True,
    "8",
    None,
    [],
    [1],
    [10**9] * 4,
    10**6,
    10**9,
    2**62,
    10**30,
    [10**5] * 4,
    [1, 1, 1, 10**7],
    {"a": 1},
)


def prepare(seeds: Path) -> None:
    """A classifier and a segmenter, as `litevit pack` writes them, and a configuration as timm does."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    models = {
        "classifier": ("litv2_s", {**SMALL, "num_classes": 3}),
        "segmenter": ("semantic_fpn_litv2_s", {"num_classes": 3, "fpn_channels": 8, "channels": 8}),
    }
    for kind, (name, options) in models.items():
        pack(name, seeds / kind, weights=None, num_classes=3)
        config = json.loads((seeds / kind / "config.json").read_text())
        if kind == "classifier":
            model = litevit.create_model(name, **options)
            save_file(dict(model.state_dict()), seeds / kind / "model.safetensors")
            config["litevit"]["options"] = json.loads(json.dumps(options))
            config["litevit"]["classes"] = ["a", "b", "c"]
        (seeds / kind / "config.json").write_text(json.dumps(config))
    timm = {
        "architecture": "litv2_s", "num_classes": 3, "label_names": ["a", "b", "c"], "model_args": {**SMALL, "global_pool": "avg"},
        "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
    }  # fmt: skip
    (seeds / "timm").mkdir()
    (seeds / "timm" / "config.json").write_text(json.dumps(timm))
    (seeds / "timm" / "model.safetensors").write_bytes((seeds / "classifier" / "model.safetensors").read_bytes())


def build(draw: random.Random, told: dict[str, Any], folder: Path) -> bytes:
    ours = told.get("litevit", told)
    deed = draw.randrange(6)
    options = ours.get("options") or ours.get("model_args") or {}
    if deed == 0 and options:
        options[draw.choice(sorted(options))] = draw.choice(GREEDY)
    elif deed == 1:
        options[
            draw.choice(
                ("depths", "embed_dim", "num_classes", "drop_path_rate", "backbone", "test", "alpha", "", "weights")
            )
        ] = draw.choice(GREEDY)
    elif deed == 2:
        how = ours.get("preprocessing") or ours.get("pretrained_cfg") or {}
        how[draw.choice(("size", "crop_pct", "crop_mode", "interpolation", "mean", "std", "input_size", "a"))] = (
            draw.choice((*GREEDY, *NUMBERS, "lanczos", [0.5] * 3))
        )
    elif deed == 3:
        told["architecture"] = draw.choice(
            ("litv2_s", "mask_rcnn", "retinanet_litv2_s", "resnet50", "", None, [], {}, 7, "timm/resnet18", "../evil")
        )
    elif deed == 4:
        ours[draw.choice(("classes", "class_ids", "num_things", "task", "label_names", "licence", "options"))] = (
            draw.choice((*GREEDY, ["a", "b"], ["a", "b", "c"], "abc", "classification"))
        )
    return json_bytes(draw, told, folder) if draw.random() < 0.4 else json.dumps(told).encode()


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    kind = draw.choice(("classifier", "classifier", "timm", "segmenter"))
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_bytes(build(draw, json.loads((seeds / kind / "config.json").read_text()), folder))
    if kind == "segmenter":  # megabytes: as they are
        (model / "model.safetensors").symlink_to(seeds / kind / "model.safetensors")
    else:
        content = (seeds / kind / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(corrupt(draw, content, end=3000) if draw.random() < 0.2 else content)
    source = f"local-dir:{model}"
    way = draw.randrange(6)
    if way == 0:
        packed = open_packed(source)
        for part in (packed.task, packed.classes, packed.preprocessing):
            repr(part)
    elif way == 1:
        task_of(source), recorded_classes(source)
    elif way == 2:
        litevit.create_model(source, draw.choice((None, "none")))
    elif kind == "segmenter" or way == 3:
        load_dense(source, "official")
    else:
        load_classifier(source, "official")


KIND = Kind("packed", attack, prepare, inputs=8000, share=80, warm=8)
