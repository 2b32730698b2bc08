"""Builds the pages about the mechanisms: `python docs/mechanisms/build.py`.

Trains three small models on the embedded scenes (once, into `runs/docs`: minutes on a CPU), draws a scene that they
have not seen, runs the commands that the pages show, and writes the quoted code anew from the source.

    python docs/mechanisms/build.py --code      the quoted code alone
"""

import argparse
import ast
import re
import shlex
import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

from PIL import Image

from litevit.cli import main as litevit
from litevit.data.scenes import ScenesConfig, draw_scene
from litevit.engine.config import Recipe
from litevit.jobs.train import train
from litevit.recipes.quickstart_dense import SMALL_LITV2, SMALL_LVT, quickstart_detection, quickstart_segmentation

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUNS = "runs/docs"
SCENE = (11, 4)  # seed, index: one that the models have not seen

# Page's picture -> the command that draws it, and which of its files it is.
PICTURES = {
    "hilo-attention": ("attention SCENE --weights LITV2 --stage 3 --block 1 --pixel 160 90", "attention"),
    "hilo-frequency": ("frequency SCENE --weights LITV2 --stage 3 --block 1", "frequency"),
    "dtm-cells": ("offsets SCENE --weights RETINANET --cells 1 5 4 5", "offsets"),
    "dtm-overview": ("offsets SCENE --weights RETINANET", "overview"),
    "csa-attention": ("attention SCENE --weights LVT --stage 1 --block 0 --pixel 142 80", "attention"),
    "rasa-attention": ("attention SCENE --weights LVT --stage 2 --block 0 --pixel 112 150", "attention"),
}
LARGEST = 150_000  # bytes of a picture


def with_weights(words: str, runs: Path | str) -> str:
    return re.sub("LITV2|LVT|RETINANET", lambda m: f"{runs}/{m[0].lower()}", words)


def command(name: str) -> str:
    """What a page shows below its picture."""
    words = with_weights(PICTURES[name][0], RUNS)
    return f"litevit explain {words.replace('SCENE', 'docs/mechanisms/scene.jpg')}"


def recipes(*, images: int, epochs: int, size: int) -> dict[str, Recipe]:
    """SegFormer on a small LITv2 and on a small LVT, RetinaNet on the LITv2."""
    base = quickstart_segmentation()
    look = replace(base.data.scenes.look, height=size, width=size)
    scenes = replace(base.data.scenes, train=images, val=max(images // 20, 2), look=look)
    data = replace(base.data, scenes=scenes, long_side=size, short_side=size, crop=size)
    schedule = replace(base.schedule, epochs=epochs, warmup_steps=min(50, images // 8))
    # At the full rate a segmenter's offsets run out of the map within 600 steps, where nothing calls them back.
    optim = replace(base.optim, offset_lr_ratio=0.05)
    litv2 = replace(base, data=data, optim=optim, schedule=schedule, run=replace(base.run, eval_every=epochs))
    head = {key: value for key, value in base.model.overrides.items() if key not in SMALL_LITV2}
    lvt = replace(litv2, name=f"{base.name}-lvt", model=replace(base.model, overrides={**head, **SMALL_LVT}))

    detection = quickstart_detection()
    kept = {k: v for k, v in detection.model.overrides.items() if k in (*SMALL_LITV2, "channels", "resize")}
    fewer = replace(scenes, train=images * 3 // 4)
    retinanet = replace(
        detection,
        name="quickstart-retinanet",
        model=replace(detection.model, name="retinanet", overrides=kept),
        data=replace(detection.data, scenes=fewer, masks=False),
        schedule=replace(detection.schedule, epochs=max(epochs - 1, 1), warmup_steps=min(100, images // 8)),
        run=replace(detection.run, eval_every=max(epochs - 1, 1)),
    )
    return {"litv2": litv2, "lvt": lvt, "retinanet": retinanet}


def train_models(runs: Path, *, images: int, epochs: int, size: int) -> None:
    for name, recipe in recipes(images=images, epochs=epochs, size=size).items():
        folder = runs / name
        if not (folder / "result.json").exists():
            train(replace(recipe, run=replace(recipe.run, dir=str(folder))))


def draw_pictures(runs: Path, out: Path, *, size: int) -> None:
    """The scene, and every picture of `PICTURES`, into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    things = quickstart_segmentation().data.scenes.look.things
    scene = draw_scene(SCENE[1], ScenesConfig(height=size, width=size, things=things), seed=SCENE[0])
    Image.fromarray(scene.image).save(out / "scene.jpg", quality=92)
    for name, (words, kind) in PICTURES.items():
        words = with_weights(words, runs)
        with tempfile.TemporaryDirectory() as folder:
            arguments = shlex.split(words.replace("SCENE", str(out / "scene.jpg")))
            if code := litevit(["explain", *arguments, "--out", folder]):
                sys.exit(code)
            files = sorted(Path(folder).glob("*.png"))
            (drawn,) = [
                file for file in files if kind == file.stem.split("-")[-1] or f"scene-{kind}-stage" in file.stem
            ]
            shrink(drawn, out / f"{name}.png")


def shrink(source: Path, target: Path) -> None:
    """As wide as stays below `LARGEST`, in all colours or else in 256: small enough to be committed."""
    image = Image.open(source).convert("RGB")
    for width in (900, 700, 500):
        small = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
        # An octree keeps colours of few pixels, such as the query's frame.
        for picture in (small, small.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)):
            picture.save(target, optimize=True)
            if target.stat().st_size < LARGEST:
                return
    raise ValueError(f"{target} has {target.stat().st_size} bytes, more than {LARGEST}")


def quote(path: str, names: str) -> str:
    """Functions of a source file without their docstrings, methods out of their class.

    Args:
        path: below `src/litevit`.
        names: of functions, or CLASS.METHOD, separated by blanks.
    """
    text = (ROOT / "src/litevit" / path).read_text(encoding="utf-8")
    lines, tree = text.splitlines(), ast.parse(text)
    found = []
    for name in names.split():
        scope: ast.AST = tree
        for part in name.split("."):
            scope = next(node for node in ast.iter_child_nodes(scope) if getattr(node, "name", None) == part)
        assert isinstance(scope, ast.FunctionDef)
        body = scope.body[1:] if ast.get_docstring(scope) is not None else scope.body
        head = lines[scope.lineno - 1 : scope.body[0].lineno - 1]
        start = body[0].lineno - 1
        while lines[start - 1].lstrip().startswith("#"):  # what is said about its first line
            start -= 1
        if body is scope.body:
            head = lines[scope.lineno - 1 : start]
        found.append(textwrap.dedent("\n".join([*head, *lines[start : scope.end_lineno]])))
    return "\n\n".join(found)


QUOTED = re.compile(r"(<!-- code: (\S+) ([^>]+?) -->\n```python\n).*?(^```$)", flags=re.DOTALL | re.MULTILINE)


def with_code(page: str) -> str:
    """A page whose code is the source's. Blocks follow `<!-- code: FILE NAMES -->`."""
    return QUOTED.sub(lambda m: f"{m[1]}{quote(m[2], m[3])}\n{m[4]}", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", action="store_true", help="the quoted code alone")
    parser.add_argument("--runs", type=Path, default=ROOT / RUNS, help="where the models are, or will be trained")
    parser.add_argument("--out", type=Path, default=HERE, help="where the pictures go")
    parser.add_argument("--images", type=int, default=800, help="scenes to train on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--train-size", type=int, default=128, help="sides of their scenes")
    parser.add_argument("--size", type=int, default=224, help="side of the scene that is drawn")
    options = parser.parse_args()
    if not options.code:
        train_models(options.runs, images=options.images, epochs=options.epochs, size=options.train_size)
        draw_pictures(options.runs, options.out, size=options.size)
    for path in sorted(HERE.glob("*.md")):
        path.write_text(with_code(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
