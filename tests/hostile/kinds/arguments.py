"""Hostile command lines: the real verbs and options, read off the functions, with values that nobody meant.

What takes long or listens is cut off behind the arguments: training, tracing, measuring, serving, downloads.
"""

import contextlib
import inspect
import io
import json
import os
import random
import shutil
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from PIL import Image

from hostile.arena import MOST_MESSAGE, Kind
from hostile.kinds import runs
from hostile.mutations import NUMBERS, TEXTS
from litevit.cli import VERBS, main
from litevit.zoo import MODELS

LEFT_OUT = ("--open",)
MEASURING = (
    "models.measure_models",
    "models.measure_scaling",
    "layers.measure_attention",
    "layers.measure_ops",
    "twins.measure_twins",
)
WORDS = ("none", "NONE", "auto", "cpu", "cuda", "own", "run", "run/best.safetensors", "litv2_s", "semantic_fpn_litv2_s", "lvt", "quickstart", "local-dir:run", "local-dir:", "hf-hub:", "timm/",
         "a.png", "data", "data/cat", "missing", "missing/a.png", "out", "a*.png", "[", "data/**", "a.png/b", "names.txt", "list.txt", "broken.onnx", "x.pt2", "recipe.json", "broken.json",
         "", " ", "-", "--", "---", "-x", "--help=1", "=", "--=", "/dev/null", "/dev/zero", "nan", "inf", "1e3", "0x10", "1_000", "-0", "0/0", "1/0", "0/4", "4/4", "٣/٤", "True", "false", "None",
         "[1,2]", "{}", "wds", "hfds/", "embedded:digits", "embedded:scenes", "pipe:", "{0..99999999999}", "{5..1}.tar", "~nobody/x", "x" * 5000, "a\x00b", "é\u202e", "\ud800")  # fmt: skip
GOOD = (
    ("list",), ("list", "lit*"), ("info", "litv2_s"), ("doctor", "data"), ("doctor", "data", "--json"), ("predict", "a.png", "--weights", "run"), ("predict", "data", "--weights", "run", "--json"),
    ("predict", "list.txt", "--weights", "run", "--format", "parquet", "--out", "out"), ("train", "quickstart", "--show-recipe"), ("train", "segformer_lvt", "--show-recipe"),
    ("explain", "features", "a.png", "--weights", "run"), ("convert", "run/best.safetensors", "b.safetensors"), ("eval", "--run", "run", "--data", "data"), ("pack", "run", "packed"),
)  # fmt: skip
BOUNDED = tuple(value for value in NUMBERS if not 1000 < value < 2**24)  # what lies between is a wish that takes long


def prepare(seeds: Path) -> None:
    """A folder to stand in: a run, pictures, class folders, lists, broken files."""
    (seeds / "run").mkdir()
    runs.prepare(seeds / "run")
    recipe = runs.recipe_of()
    recipe["data"] |= {"image_size": 32, "crop_pct": 1.0}
    (seeds / "run" / "recipe.json").write_text(json.dumps(recipe))
    (seeds / "recipe.json").write_text(json.dumps(recipe))
    for name in ("a.png", "data/cat/1.png", "data/dog/2.png"):
        (seeds / name).parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((40, 33)).convert("RGB").save(seeds / name)
    for name, content in {
        "names.txt": "a\nb\n",
        "list.txt": "a.png\nmissing.png\n",
        "broken.onnx": "x",
        "x.pt2": "PK\x03\x04",
        "broken.json": "{",
    }.items():
        (seeds / name).write_text(content)


def offline(*_: Any, **__: Any) -> Any:
    raise OSError("There is no network here")


def cut_off(*_: Any, **__: Any) -> Any:
    raise ValueError("Cut off: the arguments were taken")


@contextlib.contextmanager
def without_work() -> Iterator[None]:
    """The command line without what takes long, listens or downloads."""
    with contextlib.ExitStack() as stack:
        for target, instead in {
            "litevit.checkpoints.published.fetch": offline, "litevit.checkpoints.packed._of_hub": offline, "litevit.jobs.train.fit": cut_off, "torch.export.export": cut_off, "litevit.app.server.serve": cut_off,
            "litevit.data.hugging_face.library": offline,
            **{f"litevit.bench.{name}": cut_off for name in MEASURING},
            "litevit.jobs.token_labels.make_token_labels": cut_off, "litevit.jobs.reproduction.run.reproduce": cut_off,
            "litevit.jobs.reproduction.plan.plan": cut_off, "litevit.optimize.native.build.build": offline, "subprocess.Popen": offline, "webbrowser.open": offline,
        }.items():  # fmt: skip
            stack.enter_context(mock.patch(target, instead))
        yield


@cache
def grammar() -> dict[tuple[str, ...], tuple[list[tuple[str, Any]], list[Any]]]:
    """Words of a command -> its options with their types, and the types of what it takes without a name."""
    from litevit.bench.commands import COMMANDS
    from litevit.engine.config import flat, to_dict
    from litevit.recipes import RECIPES

    functions = {(name,): verb.load() for name, verb in VERBS.items() if not verb.raw}
    functions |= {("bench", name): function for name, function in COMMANDS.items()}
    found = {}
    for words, function in functions.items():
        hints = typing.get_type_hints(function)
        parameters = inspect.signature(function).parameters.values()
        named = [("--" + p.name.replace("_", "-"), hints[p.name]) for p in parameters if p.kind is p.KEYWORD_ONLY]
        plain = [hints[p.name] for p in parameters if p.kind is not p.KEYWORD_ONLY]
        found[words] = ([option for option in named if option[0] not in LEFT_OUT], plain)
    for name in ("quickstart", "quickstart_segmentation", "mask_rcnn_litv2_s", "segformer_lvt"):
        if name in RECIPES:
            fields = [(f"--{field}", type(value)) for field, value in flat(to_dict(RECIPES[name]())).items()]
            found["train", name] = (
                [*fields, ("--data", str), ("--without", str), ("--model.overrides.alpha", float)],
                [],
            )
    return found


def value(draw: random.Random, kind: Any) -> list[str]:
    """What stands behind an option: mostly of its type."""
    deed = draw.randrange(10)
    if deed == 0:
        return []
    if deed == 1:
        return [draw.choice(TEXTS)]
    if deed == 2:
        return [draw.choice(WORDS) for _ in range(draw.choice((1, 2, 3, 9)))]
    text = str(kind)
    if "Literal" in text and draw.random() < 0.7:
        choices = [
            one
            for part in (kind, *typing.get_args(kind))
            if typing.get_origin(part) is typing.Literal
            for one in typing.get_args(part)
        ]
        if choices:
            return [str(draw.choice(choices))]
    if "int" in text or "float" in text:
        number = draw.choice((*BOUNDED, *(-n for n in BOUNDED), 1, 2, 3, 32, 64, 0.5, 1e-3, "1"))
        return [str(number)] * draw.choice((1, 1, 1, 2))
    return [draw.choice(WORDS)]


def line(draw: random.Random) -> list[str]:
    """A command line."""
    if draw.random() < 0.05:
        return [draw.choice((*VERBS, *WORDS, *TEXTS, "-h", "--version", "-V")) for _ in range(draw.randrange(4))]
    if draw.random() < 0.4:
        good, more = list(draw.choice(GOOD)), []
        if draw.random() < 0.5:
            name, kind = draw.choice(
                next(grammar()[key] for key in sorted(grammar(), reverse=True) if key == tuple(good[: len(key)]))[0]
            )
            more = [name, *value(draw, kind)]
        return [*good, *more]
    words = draw.choice(sorted(grammar()))
    options, plain = grammar()[words]
    arguments = list(words)
    for kind in plain:
        if draw.random() < 0.9:
            good = ("a.png", "data", "run", draw.choice(sorted(MODELS)), "attention", "out")
            arguments += [draw.choice(good)] if draw.random() < 0.7 else value(draw, kind)
    if draw.random() < 0.7 and any(name == "--weights" for name, _ in options):
        arguments += ["--weights", draw.choice(("none", "run", "run/best.safetensors", "run/plain.safetensors"))]
    for name, kind in draw.sample(options, min(len(options), draw.randrange(5))):
        given = value(draw, kind)
        if draw.random() < 0.05:
            name = draw.choice((name[1:], name[:-1], name.upper(), name.replace("-", "_"), name + "="))
        arguments += [f"{name}={given[0]}"] if given and draw.random() < 0.2 else [name, *given]
    return arguments


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    shutil.copytree(seeds, folder, dirs_exist_ok=True)
    arguments = line(draw)
    if arguments[:1] == ["eval"]:
        arguments += ["--workers", "0"]  # no processes of their own
    before, said = os.getcwd(), io.StringIO()
    os.chdir(folder)
    try:
        with without_work(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main(arguments)
    except SystemExit as stop:  # tyro's: --help, or a box with what is wrong
        code = stop.code
    finally:
        os.chdir(before)
        torch.set_grad_enabled(True)
    told = said.getvalue()
    assert code in (0, 1, 2, None), f"exit code {code!r} of {arguments!r:.300}"
    assert "Traceback" not in told, f"{arguments!r:.300}: {told[-500:]}"
    if code == 2:
        raise ValueError(f"{arguments!r:.400}: {told[: MOST_MESSAGE // 2]}")


KIND = Kind("arguments", attack, prepare, inputs=2000, share=40, warm=20)
