"""The command line: `litevit VERB ...`. Parses arguments and prints; the work is done by the library.

A verb is a function below; its arguments and docstring are its help. Libraries are imported when a verb runs.
"""

import difflib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro
from tyro.conf import FlagCreatePairsOff, Positional

Device = Literal["auto", "cpu", "cuda", "mps"]


def _print(*items: Any, **options: Any) -> None:
    from rich.console import Console

    Console(soft_wrap=True).print(*items, **options)


def _device(name: Device) -> Any:
    import torch

    if name != "auto":
        available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not available[name]:
            raise ValueError(f"Device '{name}' is not available here. Use --device cpu or auto.")
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _size(size: Sequence[int] | None) -> tuple[int, int] | None:
    if not size:
        return None
    if len(size) > 2 or min(size) < 32:
        raise ValueError(f"--size takes one side or H W, each at least 32, got {' '.join(map(str, size))}")
    return (size[0], size[-1])


# ----------------------------------------------------------------- models


def list_(
    pattern: Positional[str] = "*",
    *,
    task: str | None = None,
    size: tuple[int, ...] = (),
    names: bool = False,
    compare: bool = False,
    out: Path | None = None,
) -> None:
    """Shows the models: parameters, multiply-adds, published figures, licence and source.

    Args:
        pattern: shell-style pattern, such as 'litv2*'.
        task: only this task: 'classification', 'detection', 'instance segmentation', 'semantic segmentation',
            'panoptic segmentation'.
        size: side, or H W, to count multiply-adds at; default: the size of the published figure.
        names: print nothing but names, one per line.
        compare: a Markdown table of ours beside the published classification figures, with the reason for each
            difference.
        out: with --compare: write the table to this file.
    """
    from litevit.zoo import list_models

    found = list_models(pattern, task=task)
    if not found:
        raise ValueError(f"No model matches '{pattern}'. `litevit list --names` shows all.")
    if names:
        print("\n".join(found))
        return
    if compare:
        from litevit.tools.info import figures, markdown
        from litevit.weights import ABLATIONS, WEIGHTS

        classifiers = set(list_models(pattern, task="classification"))
        text = markdown(figures([name for name in (*WEIGHTS, *ABLATIONS) if name in classifiers]))
        if out is None:
            print(text, end="")
        else:
            out.write_text(PREFACE + text)
            print(f"Wrote {out}")
        return
    _table(found, _size(size))


PREFACE = """# Figures beside the published ones

Written by `litevit list --compare --out docs/figures.md`. Parameters and multiply-adds (convolutions, linear layers,
matrix products; one addition and one multiplication count once) are counted on the models of this package; bold is what
does not round to the published figure, and the last column says why.

"""


def _table(names: list[str], size: tuple[int, int] | None) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from litevit.zoo import info

    console = Console() if sys.stdout.isatty() else Console(width=160)
    table = Table(box=None, header_style="bold")
    for header, right in (("model", False), ("parameters", True), ("multiply-adds", True), ("at", True)):
        table.add_column(header, justify="right" if right else "left", no_wrap=True)
    for header in ("task", "published", "weights"):
        table.add_column(header)
    shown = Live(table, console=console, vertical_overflow="visible") if console.is_terminal else nullcontext()
    with shown:  # row by row, as they are counted
        for name in names:
            facts = info(name, size)
            published = [f"{short} {facts.published[key]}" for key, short in METRICS.items() if key in facts.published]
            source = (facts.source or "").partition(" ")[0]
            table.add_row(
                name,
                f"{facts.params / 1e6:.2f} M",
                f"{facts.macs / 1e9:.2f} G",
                "x".join(map(str, facts.image_size)),
                facts.task,
                ", ".join(published),
                f"{source}, {(facts.licence or '').partition(':')[0]}" if source else "",
            )
    if not console.is_terminal:
        console.print(table)


METRICS = {"top1": "top-1", "box_ap": "box AP", "mask_ap": "mask AP", "miou": "mIoU", "pq": "PQ"}


def info(model: Positional[str], *, size: tuple[int, ...] = (), json: bool = False) -> None:
    """Shows everything known about one model.

    Args:
        model: name, see `litevit list`.
        size: side, or H W, to count multiply-adds at; default: the size of the published figure.
        json: print JSON.
    """
    from dataclasses import asdict

    from litevit import zoo
    from litevit.tools.info import REASONS
    from litevit.weights import WEIGHTS

    facts = zoo.info(model, _size(size))
    if json:
        from json import dumps

        print(dumps(asdict(facts), indent=1))
        return
    rows = {
        "task": facts.task,
        "parameters": f"{facts.params:,}",
        "multiply-adds": f"{facts.macs:,} at {facts.image_size[0]} x {facts.image_size[1]}",
        "published": ", ".join(f"{key} {value}" for key, value in facts.published.items()) or "nothing",
        "differs": REASONS.get(model, ""),
        "weights": facts.weights or "none published",
        "preprocessing": str(WEIGHTS[model].preprocessing) if model in WEIGHTS else "",
        "licence": facts.licence or "",
        "source": facts.source or "",
    }
    _print(f"[bold]{model}[/bold]")
    for key, value in rows.items():
        if value:
            _print(f"  {key:14} {value}", highlight=False, markup=False)


# ---------------------------------------------------------------- predict


def predict(
    images: Positional[tuple[Path, ...]],
    *,
    model: str | None = None,
    weights: str = "official",
    top: int = 5,
    json: bool = False,
    out: Path | None = None,
    size: int | None = None,
    num_classes: int | None = None,
    names: Path | None = None,
    score_threshold: float | None = None,
    device: Device = "auto",
    batch_size: int = 16,
) -> None:
    """Predicts on images, folders and videos: what the model's task is, with the preprocessing of its weights.

    Args:
        images: image files, or folders to search; detectors and segmenters take videos too.
        model: name of a model; default: litv2_s, or what the checkpoint of a training run says.
        weights: 'official' (downloaded once), a checkpoint file, the folder of a training run, or 'none' (random).
        top: how many classes to show.
        json: print JSON instead of a table.
        out: folder for pictures with the predictions, and for the result files of COCO's and ADE20K's formats.
        size: side of the square input, of detectors and segmenters the short side; default: the published one.
        num_classes: of the checkpoint, where it is not the published one's.
        names: text file with one class name per line; for detectors and segmenters also COCO's annotation file.
        score_threshold: least score of objects; default: 0.3, panoptic models: their own.
        device: where to run.
        batch_size: images at a time, of classifiers.
    """
    from dataclasses import replace

    from litevit.tools import predict as tool

    dense = _dense_task(model, weights)
    if dense is not None:
        options = {"num_classes": num_classes, "names": names, "score_threshold": score_threshold, "size": size}
        _predict_dense(images, model, weights, options, json=json, out=out, device=device)
        return
    if score_threshold is not None:
        raise ValueError("--score-threshold is for detectors; a classifier shows its --top classes")
    paths = tool.find_images(images)
    labels = names.read_text().splitlines() if names else None
    classes = num_classes or (len(labels) if labels else None)
    if weights in ("none", "official"):
        model = model or "litv2_s"
    network, how = tool.load_classifier(model, None if weights == "none" else weights, num_classes=classes)
    if labels is not None and len(labels) != classes:
        raise ValueError(f"{names} has {len(labels)} names, the model {classes} classes")
    if size is not None:
        if size < 32:
            raise ValueError(f"--size must be at least 32, got {size}")
        how = replace(how, size=size)
    network = network.to(_device(device))
    if weights == "none":
        print("Random weights: these predictions mean nothing.", file=sys.stderr)
    stream = tool.predict(network, paths, how, names=labels, top=top, batch_size=batch_size)
    results = list(_progress(stream, len(paths), "images"))
    if json:
        print(tool.to_json(results))
    else:
        _show_predictions(results)
    if out is not None:
        written = tool.draw_all(results, out)
        print(f"Wrote {len(written)} pictures to {out}", file=sys.stderr)
    failed = [result for result in results if result.error]
    if failed:
        more = f" ({len(failed)} of {len(results)} files failed)" if len(results) > 1 else ""
        raise ValueError(f"{failed[0].error}{more}")


def _dense_task(model: str | None, weights: str) -> str | None:
    """The task of a detector, segmenter or panoptic model; None: a classifier."""
    from litevit.tools.predict_dense import task_of

    task = task_of(model, None if weights == "none" else weights)
    return None if task == "classification" else task


def _predict_dense(
    images: Sequence[Path],
    model: str | None,
    weights: str,
    options: dict[str, Any],
    *,
    json: bool,
    out: Path | None,
    device: Device,
) -> None:
    from json import dumps

    from litevit.tools import predict_dense as tool

    files = tool.find_files(images)
    total = tool.count_pictures(files)
    if options["score_threshold"] is None and _dense_task(model, weights) in (tool.DETECTION, tool.INSTANCES):
        options["score_threshold"] = tool.SHOWN
    dense = tool.load_dense(model, None if weights == "none" else weights, **options)
    dense.model.to(_device(device))
    if weights == "none":
        print("Random weights: these predictions mean nothing.", file=sys.stderr)
    results = tool.create_results(dense, out, keep=json or out is not None)
    found = list(_progress(tool.predict(dense, files, results), total, "pictures"))
    results.save()
    if json:
        print(dumps(results.content(), indent=1, ensure_ascii=False))
    else:
        _show_rows(("file", "found", "score", ""), tool.table(found))
    if out is not None:
        print(f"Wrote pictures and results to {out}", file=sys.stderr)
    failed = [one for one in found if one.error]
    if failed:
        more = f" ({len(failed)} of {len(files)} files failed)" if len(files) > 1 else ""
        raise ValueError(f"{failed[0].error}{more}")


def _show_rows(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    used = [k for k in range(len(headers)) if any(row[k] for row in rows)]
    table = Table(*(headers[k] for k in used))
    for row in rows:
        table.add_row(*(Text(row[k]) for k in used))
    _print(table)


def _progress(stream: Any, total: int, what: str) -> Any:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = total < 3 or not console.is_terminal
    return track(stream, description=what, total=total, console=console, transient=True, disable=hidden)


def _show_predictions(results: Sequence[Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class", "probability")
    for result in results:
        for i, guess in enumerate(result.guesses):
            table.add_row(
                Text(result.path if i == 0 else ""),
                Text(guess.name),
                f"{100 * guess.probability:.1f} %",
                end_section=i + 1 == len(result.guesses),
            )
        if result.error:
            table.add_row(Text(result.path), Text(result.error, style="red"), "", end_section=True)
    _print(table)


# ------------------------------------------------------------------- eval


def eval_(
    model: Positional[str | None] = None,
    *,
    data: str | None = None,
    weights: str = "official",
    run: Path | None = None,
    split: str | None = None,
    labels: Literal["imagenet", "real", "v2"] = "imagenet",
    reader: str = "",
    annotations: Path | None = None,
    names: Path | None = None,
    num_classes: int | None = None,
    size: int | None = None,
    crop_pct: float | None = None,
    limit: int = 0,
    window: tuple[int, ...] = (),
    stride: tuple[int, ...] = (),
    ratios: tuple[float, ...] = (),
    flip: bool = False,
    per_class: bool = False,
    json: bool = False,
    out: Path | None = None,
    batch_size: int = 128,
    workers: int = 4,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    device: Device = "auto",
) -> None:
    """Measures a model on a data set, as its task is measured: top-1, COCO's AP, mIoU or panoptic quality.

    Exact over several processes: `torchrun --nproc-per-node 8 -m litevit.cli eval ...`, where a training run is given
    as --weights FOLDER (torchrun takes --run for its own).

    Args:
        model: name, see `litevit list`; default: what the checkpoint of a training run says.
        data: class folders, tar or shards; COCO's or ADE20K's layout; with --annotations the folder of the images;
            default with --run: what the run was evaluated on.
        weights: 'official' (downloaded once), a checkpoint file, or the folder of a training run.
        run: the folder of a training run: its best weights, with its own settings.
        split: part of the data; default: the held-out one ('validation'; COCO's and ADE20K's layout: 'val').
        labels: 'imagenet': the data's own; 'real': ImageNet-ReaL; 'v2': ImageNet-V2's folders 0..999.
        reader: how timm reads the data of a classifier: '' (folder or tar), 'wds', 'hfds/NAME'.
        annotations: COCO-format JSON, or folder of index masks, of data in no published layout.
        names: class names of a detector or segmenter, as for `litevit predict`.
        num_classes: of the checkpoint, where it is not the published one's.
        size: side of a classifier's input, of detectors and segmenters the short side; default: the published one.
        crop_pct: classifiers: crop side / resized shorter side; default: the published one; 1.0: without a crop.
        limit: detectors and segmenters: only the first images.
        window: segmenters: height and width of sliding windows; default: whole images.
        stride: segmenters: of the windows; default: two thirds of the window.
        ratios: segmenters: several scales, such as 0.5 1.0 1.5, averaged.
        flip: segmenters: average with the mirror image.
        per_class: show the table per class.
        json: print JSON, the table per class included.
        out: detectors and segmenters: folder for results in COCO's and ADE20K's formats.
        batch_size: images at a time, of classifiers.
        workers: processes that read images.
        precision: of classifiers.
        device: where to run.
    """
    source = str(run) if run is not None else weights
    if source == "none":
        raise ValueError("Random weights have nothing to measure: give --weights official, a file or --run FOLDER")
    if run is not None and not run.is_dir():
        raise FileNotFoundError(f"{run} is not the folder of a training run")
    accelerator = _several_processes(device)
    where = accelerator.device if accelerator is not None else _device(device)
    quiet = accelerator is not None and not accelerator.is_main_process
    if _dense_task(model, source) is None:
        common = {"labels": labels, "batch_size": batch_size, "workers": workers, "precision": precision}
        protocol = {"reader": reader, "crop_pct": crop_pct, "image_size": size}
        if split is not None:
            protocol["split"] = split
        if num_classes is not None:
            protocol["num_classes"] = num_classes
        result = _evaluate_classifier(
            model, data, source, protocol, quiet=quiet, device=where, accelerator=accelerator, **common
        )
    else:
        from litevit.tools import evaluate_dense as tool
        from litevit.tools.predict_dense import load_dense

        looks = tool.Looks(window=_pair(window), stride=_pair(stride), ratios=tuple(ratios) or None, flip=flip)
        dense = load_dense(model, source, num_classes=num_classes, names=names, size=size)
        dense.model.to(where)
        with _bar("images", quiet=quiet) as advance:
            result = tool.evaluate(
                dense,
                data or tool.data_of_run(source, dense.task),
                annotations=annotations,
                split=split or "val",
                limit=limit,
                looks=looks,
                workers=workers,
                folder=out,
                accelerator=accelerator,
                on_progress=advance,
            )
    if quiet:
        return
    if json:
        print(result.to_json())
    else:
        _show_evaluation(result, per_class=per_class)
    if out is not None:
        print(f"Wrote results to {out}", file=sys.stderr)


def _pair(values: Sequence[int]) -> tuple[int, int] | None:
    if len(values) > 2:
        raise ValueError(f"one side, or height and width, got {' '.join(map(str, values))}")
    return (values[0], values[-1]) if values else None


def _several_processes(device: Device) -> Any:
    """accelerate's Accelerator where torchrun has started more than one process, else None."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ImportError("Evaluation by several processes needs accelerate: pip install 'litevit[train]'") from error
    return Accelerator(cpu=device == "cpu")


def _evaluate_classifier(
    model: str | None, data: str | None, source: str, protocol: dict[str, Any], *, quiet: bool, **options: Any
) -> Any:
    from litevit.recipes import evaluation as tool

    with _bar("images", quiet=quiet) as advance:
        if Path(source).is_dir():  # a run has its own protocol
            return tool.evaluate_run(source, data=data, on_progress=advance, **options)
        if model is None or data is None:
            raise ValueError(
                "What to evaluate is missing: litevit eval MODEL --data PATH, or litevit eval --run FOLDER"
            )
        return tool.evaluate(model, data, weights=source, on_progress=advance, **protocol, **options)


@contextmanager
def _bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Yields `advance(done, total)`, drawn on stderr."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _show_evaluation(result: Any, *, per_class: bool) -> None:
    from dataclasses import asdict

    facts = asdict(result)
    table = facts.pop("per_class")
    class_names = facts.pop("class_names", ())
    metrics = facts.pop("metrics", {})
    for name, value in (facts | metrics).items():
        if value is not None:
            _print(f"  {name:14} {value:.4f}" if isinstance(value, float) else f"  {name:14} {value}", highlight=False)
    if per_class and table:
        if isinstance(table, dict):
            rows = [{"class": name, **row} for name, row in table.items()]
        else:
            rows = [{**row, "label": class_names[row["label"]]} if class_names else row for row in table]
        cells = [[f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
        _show_rows(list(rows[0]), cells)


# ---------------------------------------------------------------- convert


def convert(source: Positional[Path], target: Positional[Path], *, ema: bool = False) -> None:
    """Converts an official checkpoint to litevit's layout, or a litevit checkpoint back, bit for bit.

    Args:
        source: checkpoint; its layout decides the direction.
        target: file to write: .safetensors, or .pth for a PyTorch file.
        ema: take the moving average where the checkpoint holds both.
    """
    from litevit.tools.convert import convert as run

    done = run(source, target, ema=ema)
    print(f"{source} ({done.layout_from}) -> {target} ({done.layout_to}): {done.tensors} tensors, checked both ways")
    for what, keys in (("made again on the way back", done.dropped), ("carried along", done.kept)):
        if keys:
            print(f"  {what}: {len(keys)} ({keys[0]}, ...)" if len(keys) > 1 else f"  {what}: {keys[0]}")
    if done.notice:
        print(f"Note: {done.notice}.", file=sys.stderr)


# ------------------------------------------------------------------ train


def train(arguments: Sequence[str]) -> None:
    """Runs a recipe: litevit train RECIPE [--field.name value ...].

    The fields of the recipe are its options: `litevit train quickstart --help` lists them.
    """
    from litevit import recipes

    usage = f"usage: litevit train RECIPE [OPTIONS]\n\nRecipes: {', '.join(recipes.RECIPES)}, or a run's recipe.json"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{usage}\n`litevit train RECIPE --help` lists the options of one.")
        if not arguments:
            sys.exit(2)
        return
    name, *rest = arguments
    recipe = recipes.get_recipe(name)
    recipe, rest = _model_overrides(recipe, rest)
    kind: Any = recipes.Recipe[recipes.TASKS[recipe.task][0]]  # type: ignore[misc, valid-type]
    recipe = tyro.cli(kind, default=recipe, args=rest, prog=f"litevit train {name}")
    recipes.train(recipe)


def _model_overrides(recipe: Any, arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """Takes `--model.overrides.FIELD VALUE` out of the arguments: any field of the model's config may be set."""
    from litevit.engine.config import override

    rest = list(arguments)
    prefix = "--model.overrides."
    while (i := next((i for i, word in enumerate(rest) if word.startswith(prefix)), None)) is not None:
        word, equals, value = rest.pop(i).partition("=")
        values = [value] if equals else []
        while not equals and i < len(rest) and not rest[i].startswith("--"):
            values.append(rest.pop(i))
        if not values:
            raise ValueError(f"{word} needs a value")
        text = values[0] if len(values) == 1 else f"[{', '.join(values)}]"
        recipe = override(recipe, word.removeprefix("--").replace("-", "_"), text)
    return recipe, rest


def token_labels(
    model: Positional[str],
    data: Positional[str],
    out: Positional[Path],
    *,
    weights: str | None = None,
    reader: str = "",
    split: str = "train",
    size: int = 576,
    grid: int = 18,
    k: int = 5,
    batch_size: int = 16,
    workers: int = 4,
    device: Device = "auto",
) -> None:
    """Writes label maps for token labelling, made by any classifier; an interrupted run is continued.

    Args:
        model: name of ours, or timm's as timm/NAME.
        data: images to label: folder, tar or shards, as for training.
        out: folder for the maps.
        weights: of our model: 'official' or a checkpoint file; timm's models bring their own.
        reader: how timm reads the data: '' (folder or tar), 'wds', 'hfds/NAME'.
        split: of the data.
        size: side the images are resized to; 576 gives 18 x 18 positions at stride 32.
        grid: cells per side of a map.
        k: classes kept per cell.
        batch_size: images at a time.
        workers: processes that read images.
        device: where to run.
    """
    from rich.console import Console
    from rich.progress import Progress

    from litevit.tools.token_labels import make_token_labels

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("images", total=None)
        written = make_token_labels(
            model,
            data,
            out,
            weights=weights,
            reader=reader,
            split=split,
            image_size=size,
            grid=grid,
            k=k,
            batch_size=batch_size,
            workers=workers,
            device=_device(device),
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"Wrote {written} label maps to {out}")


def bench(arguments: Sequence[str]) -> None:
    """Measures speed beside today's models: litevit bench {models,attention,ops,scaling} [OPTIONS].

    `litevit bench models --help` lists the options of one.
    """
    from litevit.tools.benchmark import COMMANDS

    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:10} {(run.__doc__ or '').splitlines()[0]}" for name, run in COMMANDS.items()]
        print(
            "\n".join(["usage: litevit bench WHAT [OPTIONS]", "", *lines, "", "`litevit bench WHAT --help` says more."])
        )
        if not arguments:
            sys.exit(2)
        return
    what, *rest = arguments
    if what not in COMMANDS:
        raise ValueError(f"Unknown benchmark '{what}'. Known: {', '.join(COMMANDS)}.")
    tyro.cli(COMMANDS[what], args=rest, prog=f"litevit bench {what}", config=(FlagCreatePairsOff,))


def doctor(path: Positional[Path], *, examples: int = 3) -> int:
    """Checks a data set before hours are spent on it; exit code 1 when something would break training.

    Args:
        path: COCO or ADE20K folder, a COCO-format JSON, or class folders.
        examples: how many places to name per finding.
    """
    from litevit.data.doctor import examine

    report = examine(path, examples=examples)
    print(report.render())
    return report.exit_code


# ------------------------------------------------------------------- main


class Verb(NamedTuple):
    """A command: its function, and the module without which it is not offered."""

    run: Callable[..., int | None]  # None: 0
    needs: str
    raw: bool = False  # takes the list of arguments and parses it itself


VERBS: dict[str, Verb] = {
    "list": Verb(list_, "litevit.zoo"),
    "info": Verb(info, "litevit.zoo"),
    "predict": Verb(predict, "litevit.tools.predict"),
    "eval": Verb(eval_, "litevit.tools.evaluate_dense"),
    "train": Verb(train, "litevit.recipes", raw=True),
    "convert": Verb(convert, "litevit.tools.convert"),
    "bench": Verb(bench, "litevit.tools.benchmark", raw=True),
    "token-labels": Verb(token_labels, "litevit.tools.token_labels"),
    "doctor": Verb(doctor, "litevit.data.doctor"),
}


def verbs() -> dict[str, Verb]:
    """The verbs whose library is here."""
    return {name: verb for name, verb in VERBS.items() if importlib.util.find_spec(verb.needs) is not None}


def _usage() -> str:
    lines = ["usage: litevit VERB [OPTIONS]", "", "LIT, LITv2 and LVT: vision Transformers on today's PyTorch.", ""]
    for name, verb in verbs().items():
        lines.append(f"  {name:13} {(verb.run.__doc__ or '').splitlines()[0]}")
    return "\n".join([*lines, "", "`litevit VERB --help` says more. `litevit --version` prints the version."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0, or 2 after one line on stderr about what the user can mend."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name in ("-V", "--version"):
        import litevit

        print(litevit.__version__)
        return 0
    known = verbs()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(known)}."
        return _fail(f"Unknown command '{name}'. {hint}")
    verb = known[name]
    try:
        if verb.raw:
            return verb.run(rest) or 0
        code = tyro.cli(verb.run, args=rest, prog=f"litevit {name}", config=(FlagCreatePairsOff,))
        return code or 0
    except BrokenPipeError:  # `litevit list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    print("litevit: " + " ".join(message.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
