"""litevit's predictor as a stage of Ray Data, and `python -m litevit.adapters.ray INPUT OUT`.

In a pipeline of one's own, `Predict` is the class for `map_batches`; the model is loaded once per actor:

    import ray
    from litevit.adapters.ray import Predict

    images = ray.data.read_binary_files("s3://bucket/images", include_paths=True)      # columns bytes and path
    rows = images.map_batches(
        Predict, fn_constructor_kwargs={"model": "litv2_s"}, batch_size=64,
        compute=ray.data.ActorPoolStrategy(size=4), num_gpus=1,
    )
    rows.write_parquet("s3://bucket/rows")

The command writes the same folder as `litevit predict --format parquet`, by as many actors as asked for, and goes on
where it or that was interrupted: a row of its data set is a piece, which an actor writes whole. Actors take half a
processor each unless told otherwise: where they take all, nothing is left for Ray's own stages, and it waits forever.
"""

import logging
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from litevit.deploy.exported import is_exported, load_exported
from litevit.jobs.predict_parquet import (
    MAX_FAILURES,
    TooManyFailuresError,
    part,
    plan,
    predict_pieces,
    write_part,
)
from litevit.jobs.predict_rows import RowPredictor, open_predictor


def open_model(model: str | None, weights: str | None, **options: Any) -> RowPredictor:
    """`open_predictor`, with exported files among the weights."""
    if weights is not None and Path(weights).suffix and is_exported(weights):
        return open_predictor(model, None, exported=load_exported(weights), **options)
    return open_predictor(model, weights, **options)


class Predict:
    """Batches of images to batches of rows, as `litevit.jobs.predict_rows` describes them.

    Args:
        model: name; None: litv2_s, or what the checkpoint of a training run says.
        weights: "official", None or "none" (random), a checkpoint, a training run's folder, or an exported file.
        options: of `litevit.jobs.predict_rows.open_predictor`, such as `embeddings=True`.
    """

    def __init__(self, model: str | None = None, weights: str | None = "official", **options: Any):
        self.predictor = open_model(model, weights, **options)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Any:
        """
        Args:
            batch: `path`, and where the files' contents are there already `bytes`.

        Returns:
            An Arrow table with a row for every image.
        """
        import pyarrow as pa

        paths = [str(path) for path in batch["path"]]
        contents = [bytes(content) for content in batch["bytes"]] if "bytes" in batch else paths
        rows = self.predictor.rows(list(zip(paths, contents)))
        return pa.Table.from_pylist(rows, schema=self.predictor.schema())


class WritePieces:
    """Pieces to files of a folder; what comes back is an account of each."""

    def __init__(
        self, out: str, max_failures: int, workers: int, model: str | None, weights: str | None, **options: Any
    ):
        self.out, self.max_failures, self.workers = Path(out), max_failures, workers
        self.predictor = open_model(model, weights, **options)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
        account: dict[str, list[Any]] = {"images": [], "errors": [], "stopped": []}
        for packed in batch["piece"]:
            piece = pickle.loads(packed)
            images, errors, stopped = 0, 0, ""
            try:
                ((_, rows),) = predict_pieces(self.predictor, [piece], workers=self.workers, allowed=self.max_failures)
                images, errors = len(rows), write_part(self.predictor, self.out, piece, rows)
            except TooManyFailuresError as error:
                stopped = str(error)
            for name, value in (("images", images), ("errors", errors), ("stopped", stopped)):
                account[name].append(value)
        return account


def predict(
    images: Positional[str],
    out: Positional[Path],
    *,
    model: str | None = None,
    weights: str = "official",
    embeddings: bool = False,
    top: int | None = None,
    size: int | None = None,
    score_threshold: float | None = None,
    num_classes: int | None = None,
    names: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int | None = None,
    max_failures: int = MAX_FAILURES,
    rows_per_file: int | None = None,
    workers: int = 2,
    actors: int = 1,
    cpus: float = 0.5,
    gpus: float = 0.0,
) -> int:
    """Predicts many images on a Ray cluster, to the folder that `litevit predict --format parquet` writes.

    Args:
        images: folder, pattern, list (.txt), tar or Parquet file that every node can read.
        out: folder of the results, which every node can write.
        model: name of a model; default: litv2_s, or what the checkpoint of a training run says.
        weights: 'official', 'none' (random), a checkpoint file, a training run's folder, or an exported file.
        embeddings: what a classifier's head sees, instead of classes.
        top: classifiers: how many classes; default: 5.
        size: side of the square input, of detectors and segmenters the short side.
        score_threshold: least score of objects.
        num_classes: of the checkpoint, where it is not the published one's.
        names: file of class names.
        device: where the actors run the model.
        batch_size: classifiers: images at a time; default: 16.
        max_failures: how many images may be unreadable.
        rows_per_file: images of a file; default: 1024.
        workers: threads of an actor that decode.
        actors: processes that hold the model.
        cpus: processors of an actor, as Ray counts them; all actors together must leave one.
        gpus: GPUs of an actor.

    Returns:
        Exit code: 0, or 1 where more images than `max_failures` could not be read.

    Raises:
        ImportError: Ray is not installed.
        ValueError: an option that does not fit the model, a folder of other results, or actors for which the cluster
            has too few processors.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("This needs Ray: pip install 'litevit[ray]'") from error
    options: dict[str, Any] = {"embeddings": embeddings, "top": top, "size": size, "score_threshold": score_threshold}
    options |= {"num_classes": num_classes, "names": None if names is None else str(names), "batch_size": batch_size}
    given = None if weights.lower() == "none" else weights
    checked = open_model(model, given, device="cpu", **options)
    pieces = plan(checked, [images], out, rows_per_file=rows_per_file)
    missing = [piece for piece in pieces if not part(out, piece).exists()]
    written = errors = 0
    if missing:
        started = not ray.is_initialized()
        if started:
            local: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
            ray.init(logging_level=logging.WARNING, **local)
        try:
            there = ray.cluster_resources().get("CPU", 0)
            if actors * cpus >= there:
                raise ValueError(
                    f"{actors} actors of {cpus} processors leave Ray none of {there:.0f}: take fewer, or a smaller "
                    "share each (--cpus)"
                )
            progress = ray.data.DataContext.get_current()
            progress.enable_progress_bars = sys.stderr.isatty()
            stage = ray.data.from_items([{"piece": pickle.dumps(piece)} for piece in missing]).map_batches(
                WritePieces,
                fn_constructor_args=(str(out.absolute()), max_failures, workers, model, given),
                fn_constructor_kwargs={**options, "device": device},
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=cpus,
                num_gpus=gpus,
            )
            for row in stage.iter_rows():
                written, errors = written + row["images"], errors + row["errors"]
                if row["stopped"] or errors > max_failures:
                    said = row["stopped"] or f"{errors} images could not be read (see --max-failures)"
                    print(f"litevit: {said}", file=sys.stderr)
                    return 1
        finally:
            if started:
                ray.shutdown()
    if errors:
        print(f"{errors} images could not be read: see the column error", file=sys.stderr)
    print(f"Wrote {written} rows in {len(missing)} files to {out}; {len(pieces) - len(missing)} were there")
    return 0


def main() -> None:
    """Runs `predict` with the command line's arguments."""
    import tyro

    try:
        sys.exit(tyro.cli(predict, prog="python -m litevit.adapters.ray", config=(tyro.conf.FlagCreatePairsOff,)))
    except (ValueError, OSError, ImportError) as error:
        print("litevit: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    from litevit.adapters.ray import main as run  # the actors know the classes by this module's name, not by __main__

    run()
