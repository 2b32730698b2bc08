"""Hostile run folders and recipe files: what a folder of somebody else's training says, read by `--run`, `train` and the page."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import litevit
from hostile.arena import Kind
from hostile.mutations import corrupt, dumps, json_bytes, nasty, spoil
from litevit.app import runs as page
from litevit.app.choices import Choices
from litevit.engine.checkpoint import load_checkpoint
from litevit.engine.config import to_dict
from litevit.engine.logging import read_metrics
from litevit.jobs import train as job
from litevit.jobs.dense_models import task_of
from litevit.jobs.recipe_files import load_recipe
from litevit.jobs.runs import Run
from litevit.recipes import RECIPES, get_recipe

SMALL = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
TEXTS = {
    "data.json": {"training": {"classes": {"cat": 10, "dog": 12}}},
    "per_class.json": {"cat": {"top1": 50.0}},
    "result.json": {"top1": 50.0, "step": 7},
}
RESUMED = "checkpoints/step-00000001"


def recipe_of(name: str = "quickstart") -> dict[str, Any]:
    recipe = to_dict(RECIPES[name]())
    if name == "quickstart":
        recipe["model"] = {**recipe["model"], "name": "litv2_s", "overrides": dict(SMALL)}
    return recipe


def prepare(seeds: Path) -> None:
    torch.manual_seed(0)
    recipe = recipe_of()
    model = litevit.create_model("litv2_s", num_classes=recipe["data"]["num_classes"], **SMALL)
    header = {
        "recipe": json.dumps(recipe),
        "classes": json.dumps([str(n) for n in range(10)]),
        "step": "7",
        "metrics": '{"top1": 50.0}',
    }
    save_file(dict(model.state_dict()), seeds / "best.safetensors", header)
    save_file(dict(model.state_dict()), seeds / "plain.safetensors")
    lines = [{"step": n, "loss": 1 / (n + 1), "lr": 0.1, "split": "train"} for n in range(5)]
    (seeds / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def weights(draw: random.Random, seeds: Path, folder: Path) -> bytes:
    content = (seeds / draw.choice(("best.safetensors", "plain.safetensors"))).read_bytes()
    if draw.random() < 0.4:
        return content
    length = int.from_bytes(content[:8], "little")
    told = json.loads(content[8 : 8 + length])
    run = told.setdefault("__metadata__", {})
    key = draw.choice(("recipe", "classes", "class_ids", "metrics", "step"))
    if key == "recipe":
        run[key] = dumps(spoil(draw, spoiled_model(draw, recipe_of(draw.choice(sorted(RECIPES)))), folder, most=2))
    else:
        run[key] = draw.choice((dumps(nasty(draw, folder)), "", "7", "[]", "[1, 2]", '["a"]', "²", "٣"))
    text = dumps(told).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def spoiled_model(draw: random.Random, recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe whose model may ask for more than its weights hold."""
    if draw.random() < 0.3:
        key = draw.choice(
            ("depths", "embed_dim", "num_heads", "backbone", "test", "drop_path_rate", "num_classes", "alpha")
        )
        value = draw.choice(
            (
                0,
                -1,
                [],
                [10**6] * 4,
                10**5,
                10**9,
                2**62,
                "litv2_s",
                "timm/resnet18",
                {"scale": [10**9, 1]},
                True,
                None,
                1.5,
                [1, 1, 1],
            )
        )
        recipe["model"]["overrides"][key] = value
    if draw.random() < 0.15:
        recipe["model"]["name"] = draw.choice(
            (
                "litv2_s",
                "mask_rcnn",
                "timm/resnet18",
                "timm/../evil",
                "semantic_fpn_litv2_s",
                "",
                "a" * 3000,
                "hf-hub:a/b",
                "local-dir:/",
            )
        )
    if draw.random() < 0.15:
        recipe["data"]["num_classes"] = draw.choice((0, -1, 1, 10, 10**7, 10**9, 2**40))
    return recipe


def build(draw: random.Random, seeds: Path, run: Path, folder: Path) -> None:
    recipe = spoiled_model(draw, recipe_of(draw.choice(("quickstart", "quickstart", *sorted(RECIPES)))))
    content = json_bytes(draw, recipe, folder) if draw.random() < 0.7 else json.dumps(recipe).encode()
    (run / "recipe.json").write_bytes(content)
    if draw.random() < 0.8:
        (run / "best.safetensors").write_bytes(weights(draw, seeds, folder))
    for name, told in TEXTS.items():
        if draw.random() < 0.4:
            (run / name).write_bytes(json_bytes(draw, told, folder))
    lines = (seeds / "metrics.jsonl").read_bytes()
    if draw.random() < 0.5:
        lines += dumps(nasty(draw, folder)).encode() + draw.choice((b"\n", b""))
    (run / "metrics.jsonl").write_bytes(corrupt(draw, lines) if draw.random() < 0.5 else lines)


def take(run: Path, draw: random.Random) -> None:
    way = draw.randrange(8)
    if way == 0:
        load_recipe(run / "recipe.json")
    elif way == 1:
        job.resolve(get_recipe(str(run / "recipe.json")))
    elif way == 2:
        page.follow(run, draw.choice((0, 3, 10**9)))
    elif way == 3:
        Choices(runs=[run.parent]).listed()
    elif way == 4:
        read_metrics(run / "metrics.jsonl")
        task_of(None, run)
    elif way == 5:
        opened = Run.open(run)
        for name in (
            "model_name",
            "backbone",
            "task",
            "overrides",
            "classes",
            "class_ids",
            "metrics",
            "preprocessing",
            "recipe",
        ):
            repr(getattr(opened, name))
    elif way == 6:
        (run / "checkpoints").mkdir()
        file = run / f"{RESUMED}.pt"
        file.write_bytes((run / "recipe.json").read_bytes())
        load_checkpoint(file)
    else:
        litevit.run(run).model()


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    run = folder / "runs" / "a"
    run.mkdir(parents=True)
    build(draw, seeds, run, folder)
    take(run, draw)


KIND = Kind("runs", attack, prepare, inputs=10_000, share=100, warm=16)
