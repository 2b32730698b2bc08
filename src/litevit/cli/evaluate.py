"""`litevit eval`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from litevit.cli.predict import dense_task, exported_file
from litevit.cli.terminal import Device, at_least_one, plain_word, progress_bar, refuse, show, show_rows


def eval_(
    model: Positional[str | None] = None,
    *,
    data: str | None = None,
    weights: str = "official",
    run: Path | None = None,
    split: str | None = None,
    labels: Literal["own", "imagenet", "real", "v2"] | None = None,
    reader: str | None = None,
    annotations: Path | None = None,
    names: Path | None = None,
    num_classes: int | None = None,
    size: int | Literal["own"] | None = None,
    crop_pct: float | None = None,
    limit: int = 0,
    window: tuple[int, ...] = (),
    stride: tuple[int, ...] = (),
    ratios: tuple[float, ...] = (),
    flip: bool = False,
    reduce_zero_label: bool | None = None,
    ignore_index: int | None = None,
    per_class: bool = False,
    json: bool = False,
    out: Path | None = None,
    batch_size: int | None = None,
    workers: int = 4,
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    device: Device = "auto",
) -> None:
    """Measures a model on a data set, as its task is measured: top-1, COCO's AP, mIoU or panoptic quality.

    Exact over several processes: `torchrun --nproc-per-node 8 -m litevit.cli eval ...`, where a training run is given
    as --weights FOLDER (torchrun takes --run for its own).

    Args:
        model: name, see `litevit list`; default: what the checkpoint of a training run says.
        data: class folders, tar or shards; objects or masks in any layout of docs/data.md; with --annotations the
            folder of the images;
            default with --run: the data of the run, whose held-out part is measured unless --split says otherwise.
            Other data than the run's are measured whole; they may have some of its classes, matched by name.
        weights: 'official' (downloaded once; of a classifier also 'imagenet'), a checkpoint file, the folder of a
            training run, or an exported file.
        run: the folder of a training run: its best weights, with its own settings.
        split: part of the data; default: the held-out one ('validation'; COCO's and ADE20K's layout: 'val').
        labels: classifiers: 'own', the default: the data's; 'imagenet': the same, of 1,000 classes; 'real':
            ImageNet-ReaL; 'v2': ImageNet-V2's folders 0..999.
        reader: classifiers: what reads the data: '' (folder or tar), 'wds', 'hfds/NAME'; default: '', or the run's.
        annotations: COCO-format JSON, or folder of index masks, of data in no layout that is known.
        names: class names of a detector or segmenter, as for `litevit predict`.
        num_classes: of the checkpoint, where it is not the published one's.
        size: side of a classifier's input, of detectors and segmenters the short side, or 'own' for images as they are;
            default: the published one.
        crop_pct: classifiers: crop side / resized shorter side; default: the published one, or the run's; 1.0: without
            a crop.
        limit: detectors and segmenters: only the first images.
        window: segmenters: height and width of sliding windows; default: whole images.
        stride: segmenters: of the windows; default: two thirds of the window.
        ratios: segmenters: several scales, such as 0.5 1.0 1.5, averaged.
        flip: segmenters: average with the mirror image.
        reduce_zero_label: segmenters: 0 in masks is ignored and 1.. are the classes; default: as the model has learned.
        ignore_index: segmenters: value in masks that counts for nothing; -1: none; default: 255, or the run's.
        per_class: show the table per class.
        json: print JSON, the table per class included.
        out: detectors and segmenters: folder for results in COCO's and ADE20K's formats.
        batch_size: classifiers: images at a time; default: 128.
        workers: processes that read images.
        precision: classifiers; default: fp32.
        device: where to run.
    """
    weights = plain_word(weights)
    at_least_one(num_classes=num_classes, batch_size=batch_size)
    if workers < 0:
        raise ValueError(f"--workers must be 0 or more, got {workers}")
    source = str(run) if run is not None else weights
    if source == "none":
        raise ValueError("Random weights have nothing to measure: give --weights official, a file or --run FOLDER")
    if run is not None and not run.is_dir():
        raise FileNotFoundError(f"{run} is not the folder of a training run")
    if run is not None and weights != "official":
        raise ValueError(f"--run {run} and --weights {weights} both say which weights: give one of them")
    from litevit.devices import find_device

    accelerator = _several_processes(device)
    where = accelerator.device if accelerator is not None else find_device(device)
    quiet = accelerator is not None and not accelerator.is_main_process
    masks = {"reduce_zero_label": None if reduce_zero_label is None else "given", "ignore_index": ignore_index}
    file = exported_file(source, model)
    if file is not None:
        refuse({"num_classes": num_classes, "size": size}, f"for checkpoints; {source} knows its model and size")
        if model is not None:
            raise ValueError(f"{source} knows its model: leave out {model}")
    task = dense_task(model, source) if file is None else None if file.task == "classification" else file.task
    if task is None:
        refuse(
            {"annotations": annotations, "names": names, "limit": limit, "window": window, "stride": stride,
             "ratios": ratios, "flip": flip, "out": out, **masks},
            f"for detectors and segmenters; {model or source} is a classifier",
        )  # fmt: skip
        refuse(
            {"size": size if size == "own" else None}, "a number for classifiers; own is for detectors and segmenters"
        )
        given = {
            "split": split, "reader": reader, "num_classes": num_classes, "image_size": size, "crop_pct": crop_pct,
            "labels": labels, "batch_size": batch_size, "precision": precision,
        }  # fmt: skip
        if file is not None:
            refuse({"precision": precision}, f"for models; {source} computes in its own")
            if batch_size is not None and file.shape.batch not in (None, batch_size):
                raise ValueError(f"--batch-size cannot be changed: {source} takes {file.shape.describe()}")
        result = _evaluate_classifier(
            model if file is None else file,
            data,
            source if file is None else "",
            quiet=quiet,
            device=where,
            accelerator=accelerator,
            workers=workers,
            **{name: value for name, value in given.items() if value is not None},
        )
    else:
        refuse(
            {"labels": labels, "reader": reader, "crop_pct": crop_pct, "batch_size": batch_size,
             "precision": precision},
            f"for classifiers; {model or source} does {task}",
        )  # fmt: skip
        from litevit.jobs import evaluate_dense as tool
        from litevit.jobs.dense_models import load_dense
        from litevit.jobs.inference import for_inference

        looks = tool.Looks(window=_pair(window), stride=_pair(stride), ratios=tuple(ratios) or None, flip=flip)
        if task != "semantic segmentation":
            refuse(masks, f"for segmenters; {model or source} does {task}")
        rule = tool.Masks(
            reduce_zero_label=reduce_zero_label, ignore_index=255 if ignore_index is None else ignore_index
        )
        place = data or (tool.data_of_run(source, task) if file is None else _needed(data))
        tool.find_data(task, place, annotations)
        if file is not None:
            dense = file.as_dense(names, getattr(getattr(file, "config", None), "score_threshold", None))
        else:
            dense = load_dense(model, source, num_classes=num_classes, names=names, size=size)
        dense = dense._replace(model=for_inference(dense.model, where))
        with progress_bar("images", quiet=quiet) as advance:
            result = tool.evaluate(
                dense,
                place,
                annotations=annotations,
                split=split or "val",
                limit=limit,
                looks=looks,
                workers=workers,
                folder=out,
                accelerator=accelerator,
                on_progress=advance,
                rule=tool.rule_of_run(source if file is None else None, data, given=rule),
            )
    if quiet:
        return
    if file is None and where.type == "cpu":
        from litevit.jobs.inference import OPTIMIZED

        print(OPTIMIZED, file=sys.stderr)
    if json:
        print(result.to_json())
    else:
        _show_evaluation(result, per_class=per_class)
    if out is not None:
        print(f"Wrote results to {out}", file=sys.stderr)


def _needed(data: str | None) -> str:
    if data is None:
        raise ValueError("What to evaluate on is missing: litevit eval --weights FILE --data PATH")
    return data


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


def _evaluate_classifier(model: Any, data: str | None, source: str, *, quiet: bool, **options: Any) -> Any:
    """Args: model: a name, or an opened exported file with `source` ""."""
    from litevit.jobs import evaluate as tool
    from litevit.jobs.runs import Run

    with progress_bar("images", quiet=quiet) as advance:
        if source == "":
            return tool.evaluate(model, _needed(data), on_progress=advance, **options)
        if Path(source).is_dir():  # a run knows its model and protocol
            refuse({"num_classes": options.get("num_classes")}, f"for a checkpoint file; {source} knows its classes")
            if model is not None and model != (theirs := Run.open(source).model_name):
                raise ValueError(f"{source} is a run of {theirs}, not of {model}: leave the name out")
            return tool.evaluate_run(source, data=data, on_progress=advance, **options)
        if model is None or data is None:
            raise ValueError(
                "What to evaluate is missing: litevit eval MODEL --data PATH, or litevit eval --run FOLDER"
            )
        return tool.evaluate(model, data, weights=source, on_progress=advance, **options)


LABELS = {"own": "the data's own", "imagenet": "ImageNet-1K", "real": "ImageNet-ReaL", "v2": "ImageNet-V2"}


def _show_evaluation(result: Any, *, per_class: bool) -> None:
    from dataclasses import asdict

    facts = asdict(result)
    table = facts.pop("per_class")
    class_names = facts.pop("class_names", ())
    metrics = facts.pop("metrics", {})
    if "labels" in facts:
        facts["labels"] = LABELS[facts["labels"]]
    for name, value in (facts | metrics).items():
        if value is not None:
            show(f"  {name:14} {value:.4f}" if isinstance(value, float) else f"  {name:14} {value}", highlight=False)
    if per_class and table:
        if isinstance(table, dict):
            rows = [{"class": name, **row} for name, row in table.items()]
        else:
            rows = [{"class": class_names[row["index"]]} | row if class_names else row for row in table]
        cells = [[f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
        show_rows(list(rows[0]), cells)
