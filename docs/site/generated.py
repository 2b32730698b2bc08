"""Pages made from the tables of the source: recipes, a card per model, the options of every config.

python docs/site/generated.py       writes them into docs/generated, as `make docs` does
"""

import dataclasses
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litevit import recipes
from litevit.cli.models import FACTS, METRICS

UNITS = {
    "params_M": "parameters, M",
    "macs_G": "multiply-adds, G",
    "top1": "top-1, %",
    "imagenet_real_top1": "ImageNet-ReaL top-1, %",
    "imagenet_v2_top1": "ImageNet-V2 top-1, %",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "miou": "mIoU, %",
    "pq": "PQ",
    "pq_things": "PQ of things",
    "pq_stuff": "PQ of stuff",
    "throughput_img_s_rtx3090_b64": "images/s, RTX 3090, batch 64",
    "train_mem_MB_b64": "training memory, MB, batch 64",
    "test_mem_MB_b64": "inference memory, MB, batch 64",
    "train_mem_GB_b64": "training memory, GB, batch 64",
    "test_mem_GB_b64": "inference memory, GB, batch 64",
    "fps_rtx3090": "images/s, RTX 3090",
    "fps": "images/s",
    "fps_v100": "images/s, V100",
    "schedule": "schedule",
    "iterations": "iterations",
    "window_size": "HiLo window",
    "lo_fi_heads": "Lo-Fi heads",
    "hi_fi_heads": "Hi-Fi heads",
    "params_are": "parameters are",
    "macs_at": "multiply-adds at",
}

PAGES = {  # page of cards -> title, what belongs on it
    "litv2": ("LITv2", "litv2"),
    "lit": ("LIT", "lit_"),
    "lvt": ("LVT", "lvt"),
    "ablations": ("PVT and Swin: the papers' ablations", ""),
}

# What was measured with a recipe, where, and the folder with the command. Recipes that are not here have not been run
# to their end.
_DENSE = "../../benchmarks/results/2026-11-21_dense_training/README.md"
_H200 = "../../benchmarks/results/2026-11-26_h200/README.md"
MEASURED = {
    "quickstart": ("99.72 top-1", "two cores, 1 min 20 s", "../../README.md"),
    "quickstart-detection": ("box AP50 95.3, mask AP50 94.2", "two cores of a Zen 5, 3 min 49 s", _DENSE),
    "quickstart-panoptic": ("PQ 76.0", "two cores of a Zen 5, 6 min 21 s", _DENSE),
    "quickstart-segmentation": ("mIoU 88.1", "two cores of a Zen 5, 2 min 26 s", _DENSE),
    "cifar10": ("82.85 top-1 after 52 of 60 epochs, stopped", "one H200, 330 s", _H200),
    "cifar10_smoke": ("43.6 top-1 after its 200 steps", "one CPU thread", "../training.md"),
}
# Total batch of the published run, and what it ran on, by the module of the recipe.
HARDWARE = {"imagenet1k": "8 GPUs x 128 images", "coco": "8 GPUs x 2 images", "ade20k": "8 GPUs x 2 images"}
DATA = {
    "imagenet1k": "ImageNet-1K",
    "coco": "COCO 2017",
    "ade20k": "ADE20K",
    "cifar10": "CIFAR-10",
    "quickstart": "digits (embedded)",
    "quickstart_dense": "drawn scenes",
    "finetune": "yours",
    "finetune_dense": "yours",
}


def write(docs: Path) -> None:
    """Writes every page into docs/generated; files that are the same stay untouched, so that Sphinx keeps its own."""
    for name, text in pages().items():
        path = docs / "generated" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Name below docs/generated -> its text."""
    facts = json.loads(FACTS.read_text())
    cards = {f"models_{page}": text for page, text in _cards(facts).items()}
    return {"recipes": _recipes(facts), "models": _overview(facts), **cards, "options": _options()}


# --------------------------------------------------------------------------------------------------------------- models


def _page_of(name: str) -> str:
    backbone = re.sub(r"^(retinanet|mask_rcnn|semantic_fpn|segformer|panoptic_fpn)_", "", name)
    return next(page for page, (_, prefix) in PAGES.items() if backbone.startswith(prefix))


def _published(facts: dict[str, Any]) -> str:
    known = facts["published"]
    return ", ".join(f"{short} {known[key]}" for key, short in METRICS.items() if key in known)


def _overview(facts: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# Models",
        "",
        f"{len(facts)} models have a name; `litevit list` shows the same table in a terminal. Parameters and "
        "multiply-adds are counted on the models of this package (`python -m litevit.cli.models`); the last column is "
        "what the papers and their repositories publish. What we measured ourselves stands in "
        "[recipes](recipes.md) and [figures](../figures.md).",
        "",
        '`create_model(name, weights="official")` downloads the published file, hashes and caches it (in '
        "`$LITEVIT_CACHE`, else the platform's cache folder) and converts it; `litevit.load_weights(model, path)` "
        "takes any official file or ours and returns what was used, converted, resized, dropped and missing. LVT's "
        "files lie behind a share page and are licensed for non-commercial research only: download them yourself and "
        "pass the path.",
        "",
        'Besides these, every dense task takes any backbone: `litevit.create_model("mask_rcnn", backbone="lvt", '
        "num_classes=5)`, or any model of timm with maps at strides 4 to 32.",
        "",
        "| model | task | parameters, M | multiply-adds, G | at | published |",
        "|---|---|---:|---:|---|---|",
    ]
    for name, row in facts.items():
        lines.append(
            f"| [`{name}`](models_{_page_of(name)}.md#{name}) | {row['task']} | "
            f"{row['params'] / 1e6:.2f} | {row['macs'] / 1e9:.2f} | {'x'.join(map(str, row['image_size']))} | "
            f"{_published(row)} |"
        )
    lines += ["", "```{toctree}", ":hidden:", "", *(f"models_{page}" for page in PAGES), "```", ""]
    return "\n".join(lines)


def _cards(facts: dict[str, dict[str, Any]]) -> dict[str, str]:
    found = {page: [f"# Model cards: {title}", ""] for page, (title, _) in PAGES.items()}
    for name, row in facts.items():
        found[_page_of(name)] += _card(name, row)
    return {page: "\n".join(lines) for page, lines in found.items()}


def _card(name: str, row: dict[str, Any]) -> Iterator[str]:
    height, width = row["image_size"]
    regions = ", with {} boxes and {} masks".format(*row["regions"]) if row["regions"] else ""
    yield from (f"## {name}", "")
    rows = {
        "task": row["task"],
        "parameters": f"{row['params']:,}",
        "multiply-adds": f"{row['macs']:,} at {height} x {width}{regions}",
        "differs from the paper": row["differs"],
        "preprocessing": _preprocessing(row["preprocessing"], row["task"]),
        "weights": _weights(row["weights"]),
        "licence of the weights": row["licence"] or "",
        "source": row["source"] or "",
        "recipe": f"`litevit train {name} --data PATH`" if name in recipes.RECIPES else "",
    }
    for key, value in row["published"].items():
        rows[f"published: {UNITS.get(key, key)}"] = str(value)
    yield from ("| | |", "|---|---|")
    yield from (f"| {key} | {value} |" for key, value in rows.items() if value)
    weights = (
        "official" if row["weights"] and "releases/download" in row["weights"] else "FILE" if row["weights"] else ""
    )
    yield ""
    if weights:
        yield from ("```", f"litevit predict IMAGE --model {name} --weights {weights}", "```", "")


def _weights(address: str | None) -> str:
    if address is None:
        return "none published: it starts from random weights"
    if "releases/download" in address:
        return f"[{address.rsplit('/', 1)[-1]}]({address}), downloaded by `--weights official`"
    return f"[a share page]({address}): download it yourself and give its path"


def _preprocessing(text: str, task: str) -> str:
    if not text:
        return ""
    values = dict(re.findall(r"(\w+)=(\([^)]*\)|[^,)]+)", text))
    if task in ("classification", "pre-training weights"):
        if values["crop_mode"] == "'squash'":
            return f"resized to {values['size']} x {values['size']} without a crop, {values['interpolation'][1:-1]}"
        return (
            f"shorter side to {int(int(values['size']) / float(values['crop_pct']))}, centre crop of {values['size']}, "
            f"{values['interpolation'][1:-1]}"
        )
    short, long = re.findall(r"\d+", values["size"])
    return f"short side {short}, long side at most {long}, {values['interpolation'][1:-1]}; the model does it itself"


# -------------------------------------------------------------------------------------------------------------- recipes


def _recipes(facts: dict[str, dict[str, Any]]) -> str:
    from litevit.checkpoints.published import ABLATIONS

    lines = [
        "# Recipes",
        "",
        "A recipe is a function that returns the whole run: `litevit train NAME`; `litevit train NAME --show-recipe` "
        'prints it, `litevit train NAME --help` lists its options. "Published" is what paper or repository report. '
        '"Ours" is what a run here reached, with its hardware and a link to the command. A dash means that the recipe '
        "has not been run to its end here: its numbers are held to their source by tests, and two steps on toy data "
        "run, no more.",
        "",
        "| recipe | what | data | published, on | ours, on |",
        "|---|---|---|---|---|",
    ]
    for name, make in recipes.RECIPES.items():
        module = make.__module__.rsplit(".", 1)[-1]
        what = (make.__doc__ or "").strip().splitlines()[0].partition(" Published")[0].rstrip(".")
        known = facts.get(name, {"published": ABLATIONS.get(name, {})})
        result = _published(known)
        hardware = HARDWARE.get(module, "") if result else ""
        if name == "panoptic_fpn_lvt":
            hardware = "8 GPUs x 8 images"
        ours, where, link = MEASURED.get(name, ("-", "", ""))
        what = what.replace("docs/data.md", "[your own data](../data.md)")
        published = "; ".join(filter(None, (result, hardware)))
        data = DATA.get(module) or make().data.path or "given with `--data`"
        measured = f"{ours}; [{where}]({link})" if link else ours
        lines.append(f"| `{name}` | {what} | {data} | {published} | {measured} |")
    lines += [
        "",
        "Where fewer GPUs are at hand, `--run.accumulate N` keeps the batch: [batch and processes]"
        "(../training.md#batch-and-processes). The published repositories state no training times.",
        "",
    ]
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- options

CONFIGS = {
    "Backbones": [
        "backbones.litv2.LITv2Config",
        "backbones.lit.LITConfig",
        "backbones.lvt.LVTConfig",
        "backbones.swin.SwinConfig",
    ],
    "Tasks": [
        "tasks.classification.ClassifierConfig",
        "tasks.lvt_classifier.LVTClassifierConfig",
        "tasks.retinanet.RetinaNetConfig",
        "tasks.mask_rcnn.MaskRCNNConfig",
        "tasks.panoptic_fpn.PanopticFPNConfig",
        "tasks.semantic_fpn.SemanticFPNConfig",
        "tasks.segformer.SegFormerConfig",
    ],
    "Recipes": [
        "engine.config.ModelConfig",
        "engine.config.OptimConfig",
        "engine.config.ScheduleConfig",
        "engine.config.RunConfig",
        "data.classification.ClassificationData",
        "data.classification.Augment",
        "data.dense.DetectionData",
        "data.dense.SegmentationData",
        "data.dense.ScenesData",
        "data.scenes.ScenesConfig",
    ],
}


def _options() -> str:
    lines = [
        "# Every option",
        "",
        "A model takes the fields of its backbone's and its task's config: `litevit.create_model(\"litv2_s\", "
        "alpha=0.5)`, `--model.overrides.alpha 0.5`. A training run takes the fields of its recipe: `--optim.lr 1e-3`, "
        "`--run.batch_size 64`, `--data.hold_out 0.1`. This page is made of the source: name, default, and the comment "
        "on its line.",
        "",
    ]
    for title, names in CONFIGS.items():
        lines += [f"## {title}", ""]
        for name in names:
            module, _, cls = name.rpartition(".")
            config = getattr(importlib.import_module(f"litevit.{module}"), cls)
            lines += [f"### {cls}", "", *_table(config), ""]
    return "\n".join(lines)


def _table(config: type) -> Iterator[str]:
    said = comments(config)
    yield from ("| field | default | |", "|---|---|---|")
    for field in dataclasses.fields(config):
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        shown = "needed" if default is dataclasses.MISSING else f"`{default!r}`"
        if dataclasses.is_dataclass(default):
            shown = f"`{type(default).__name__}()`"
        cells = (f"`{field.name}`", shown, said.get(field.name, ""))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def comments(config: type) -> dict[str, str]:
    """What stands behind each field of a dataclass, or above it; bases included."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        above: list[str] = []
        for line in inspect.getsource(cls).splitlines():
            code, _, said = line.partition("  # ") if not line.lstrip().startswith("# ") else ("", "", line.strip(" #"))
            field = re.match(r"    (\w+)\s*:", code)
            if field:
                found[field[1]] = " ".join([*above, said]).strip()
            above = [*above, said] if said and not field else []
    return found


if __name__ == "__main__":
    write(Path(__file__).parents[1])
