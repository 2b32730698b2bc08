"""`litevit predict`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from litevit.cli.terminal import NO_FILES, Device, at_least_one, plain_word, progress, refuse, show, show_rows


def predict(
    images: Positional[tuple[Path, ...]],
    *,
    model: str | None = None,
    weights: str = "official",
    top: int | None = None,
    json: bool = False,
    out: Path | None = None,
    size: int | Literal["own"] | None = None,
    num_classes: int | None = None,
    names: Path | None = None,
    score_threshold: float | None = None,
    device: Device = "auto",
    batch_size: int | None = None,
    format: Literal["pictures", "parquet"] = "pictures",
    embeddings: bool = False,
    shard: str | None = None,
    max_failures: int | None = None,
    rows_per_file: int | None = None,
    workers: int | None = None,
) -> int | None:
    """Predicts on images, folders and videos: what the model's task is, with the preprocessing of its weights.

    Args:
        images: image files, quoted patterns ('photos/*.jpg'), or folders to search; detectors and segmenters take
            videos too.
        model: name of a model, or a packed one: local-dir:FOLDER, hf-hub:OWNER/NAME; default: litv2_s, or what the
            checkpoint of a training run says.
        weights: 'official' (downloaded once; of a classifier also 'imagenet'), 'none' (random), a checkpoint file, the
            folder of a training run, or an exported file.
        top: classifiers: how many classes to show; default: 5.
        json: print JSON instead of a table: an object per image with path, error and, under the names of the Parquet
            columns (docs/batch.md), what was found.
        out: folder for pictures with the predictions, and for the result files of COCO's and ADE20K's formats.
        size: side of the square input, of detectors and segmenters the short side, or 'own' for images as they are;
            default: the published one.
        num_classes: of the checkpoint, where it is not the published one's.
        names: text file with one class name per line; for detectors and segmenters also COCO's annotation file.
        score_threshold: least score of objects; default: 0.3, panoptic models: their own.
        device: where to run.
        batch_size: classifiers: images at a time; default: 16.
        format: what --out gets. 'parquet' is for many images: tables of rows, continued where they were interrupted;
            images are also lists (.txt), tar shards and Parquet files then. See docs/batch.md.
        embeddings: parquet: what a classifier's head sees, instead of classes.
        shard: parquet: i/n, the share of one process of n, counted from 0.
        max_failures: parquet: how many images may be unreadable; default: 1000.
        rows_per_file: parquet: images of a file; default: 1024.
        workers: parquet: threads that decode; default: one per core, 8 at most.
    """
    from dataclasses import replace

    weights = plain_word(weights)
    at_least_one(top=top, num_classes=num_classes, batch_size=batch_size)
    many: dict[str, Any] = {
        "shard": shard,
        "max_failures": max_failures,
        "rows_per_file": rows_per_file,
        "workers": workers,
    }
    file = exported_file(weights, model, *images[:1])  # "predict FILE IMAGE"; a pattern may match anything
    if file is not None:
        refuse({"device": device if device not in ("auto", "cpu") else None}, f"for models; {weights} runs on the CPU")
    if format == "parquet":
        from litevit.cli.predict_many import predict_many

        refuse({"json": json}, "for tables; --format parquet writes files")
        options: dict[str, Any] = {"embeddings": embeddings, "top": top, "size": size, "num_classes": num_classes}
        options |= {"names": names, "score_threshold": score_threshold, "device": device, "batch_size": batch_size}
        return predict_many(images, out, model, weights, options, many, exported=file)
    refuse({"embeddings": embeddings, **many}, "for --format parquet")
    from litevit.checkpoints.packed import is_packed
    from litevit.data.class_names import read_class_list
    from litevit.devices import find_device
    from litevit.jobs import predict as tool
    from litevit.jobs.inference import OPTIMIZED, for_inference
    from litevit.jobs.preprocessing import side_of

    if file is not None:
        refuse({"model": model, "num_classes": num_classes}, f"for checkpoints; {weights} knows its model")
        if file.task in ("classification", "features", "module"):
            refuse({"score_threshold": score_threshold}, "for detectors; a classifier shows its --top classes")
            _predict_exported(file, images, names, side_of(size), top, batch_size, json=json, out=out)
        else:
            refuse({"top": top, "batch_size": batch_size, "size": size}, f"for others; {weights} does {file.task}")
            _predict_with(file.as_dense(names, score_threshold), images, json=json, out=out)
        return None
    dense = dense_task(model, weights)
    if dense is not None:
        refuse({"top": top, "batch_size": batch_size}, f"for classifiers; {model or weights} does {dense}")
        options = {"num_classes": num_classes, "names": names, "score_threshold": score_threshold, "size": size}
        _predict_dense(images, model, weights, options, json=json, out=out, device=device)
        return None
    if score_threshold is not None:
        raise ValueError("--score-threshold is for detectors; a classifier shows its --top classes")
    side = side_of(size)
    paths = tool.find_images(images)
    if reasons := tool.why_none(paths):  # nothing to load a model for
        _finish([tool.Prediction(str(path), error=why) for path, why in zip(paths, reasons)], json=json, out=None)
    labels = list(read_class_list(names).names) if names else None
    classes = num_classes or (len(labels) if labels else None)
    known = model if model is not None and is_packed(model) else weights
    if labels is None and known not in NO_FILES:
        labels = tool.recorded_classes(known)
    if weights in NO_FILES:
        model = model or "litv2_s"
    network, how = tool.load_classifier(model, None if weights == "none" else weights, num_classes=classes)
    if names is not None and labels is not None and len(labels) != classes:
        raise ValueError(f"{names} has {len(labels)} names, the model {classes} classes")
    if side is not None:
        how = replace(how, size=side)
    where = find_device(device)
    network = for_inference(network, where)
    if weights == "none":
        print("Random weights: these predictions mean nothing.", file=sys.stderr)
    stream = tool.predict(
        network,
        paths,
        how,
        names=labels,
        top=5 if top is None else top,
        batch_size=16 if batch_size is None else batch_size,
    )
    found = list(progress(stream, len(paths), "images"))
    if where.type == "cpu":
        print(OPTIMIZED, file=sys.stderr)
    _finish(found, json=json, out=out)
    return None


def exported_file(weights: str, *others: str | Path | None) -> Any:
    """The exported file (`litevit export`) that is given as weights; None: they are something else.

    Args:
        others: what is given elsewhere, where such a file is out of place.
    """
    from litevit.checkpoints.files import is_exported_file

    for other in others:
        if other is not None and is_exported_file(other):
            raise ValueError(f"{other} is an exported file: give it as --weights {other}")
    if weights in NO_FILES or not Path(weights).suffix:
        return None
    from litevit.deploy.exported import is_exported, load_exported

    return load_exported(weights) if is_exported(weights) else None


def _predict_exported(
    file: Any,
    images: Sequence[Path],
    names: Path | None,
    size: int | None,
    top: int | None,
    batch_size: int | None,
    *,
    json: bool,
    out: Path | None,
) -> None:
    from dataclasses import replace

    from litevit.data.class_names import read_class_list
    from litevit.jobs import predict as tool

    paths = tool.find_images(images)
    how = file.preprocessing
    if file.task != "classification" or how is None:
        raise ValueError(f"{file.path} gives {', '.join(file.metadata.outputs)}; predict needs a classifier's file")
    labels = list(file.classes) if names is None else list(read_class_list(names).names)
    if len(labels) != len(file.classes):
        raise ValueError(f"{names} has {len(labels)} names, the model {len(file.classes)} classes")
    if size is not None:
        if file.shape.uint8 or file.shape.size not in (None, (size, size)):
            raise ValueError(f"--size cannot be changed: {file.path} takes {file.shape.describe()}")
        how = replace(how, size=size)
    at_once = file.shape.batch or (1 if file.shape.uint8 else batch_size or 16)  # bytes come in any size
    stream = tool.predict(file, paths, how, names=labels, top=5 if top is None else top, batch_size=at_once)
    _finish(list(progress(stream, len(paths), "images")), json=json, out=out)


def _finish(results: Sequence[Any], *, json: bool, out: Path | None) -> None:
    from litevit.jobs import predict as tool

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


def dense_task(model: str | None, weights: str) -> str | None:
    """The task of a detector, segmenter or panoptic model; None: a classifier."""
    from litevit.jobs.dense_models import task_of

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
    from litevit.devices import find_device
    from litevit.jobs import predict_dense as tool
    from litevit.jobs.dense_models import DETECTION, INSTANCES, load_dense
    from litevit.jobs.dense_results import Found
    from litevit.jobs.inference import OPTIMIZED, for_inference

    files = tool.find_files(images)
    if reasons := tool.why_nothing(files):  # nothing to load a model for
        _finish_dense([Found(str(path), error=why) for path, why in zip(files, reasons)], json=json)
    if options["score_threshold"] is None and dense_task(model, weights) in (DETECTION, INSTANCES):
        options["score_threshold"] = tool.SHOWN
    dense = load_dense(model, None if weights == "none" else weights, **options)
    where = find_device(device)
    dense = dense._replace(model=for_inference(dense.model, where))
    if weights == "none":
        print("Random weights: these predictions mean nothing.", file=sys.stderr)
    _predict_with(dense, images, json=json, out=out)
    if where.type == "cpu":
        print(OPTIMIZED, file=sys.stderr)


def _predict_with(dense: Any, images: Sequence[Path], *, json: bool, out: Path | None) -> None:
    from litevit.jobs import predict_dense as tool
    from litevit.jobs.dense_models import SEMANTIC
    from litevit.jobs.dense_results import create_results

    files = tool.find_files(images)
    total = tool.count_pictures(files)
    results = create_results(dense, out, keep=out is not None)
    found = list(progress(tool.predict(dense, files, results, columns=json), total, "pictures"))
    results.save()
    _finish_dense(found, json=json, score="share of pixels" if dense.task == SEMANTIC else "score", out=out)


def _finish_dense(found: Sequence[Any], *, json: bool, score: str = "score", out: Path | None = None) -> None:
    from json import dumps

    from litevit.jobs.predict_dense import table

    if json:
        print(dumps([one.to_dict() for one in found], indent=1, ensure_ascii=False))
    else:
        show_rows(("file", "found", score, ""), table(found))
    if out is not None:
        print(f"Wrote pictures and results to {out}", file=sys.stderr)
    failed = [one for one in found if one.error]
    if failed:
        files = len({one.path for one in found})
        more = f" ({len(failed)} of {files} files failed)" if files > 1 else ""
        raise ValueError(f"{failed[0].error}{more}")


def _show_predictions(results: Sequence[Any]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(header, overflow="fold") for header in ("image", "class", "probability")))
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
    show(table)
