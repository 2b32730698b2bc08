"""`litevit predict --format parquet`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litevit.cli.terminal import progress_bar, refuse


def predict_many(
    images: Sequence[Path],
    out: Path | None,
    model: str | None,
    weights: str,
    options: dict[str, Any],
    many: dict[str, Any],
    *,
    exported: Any,
) -> int:
    """Predicts to Parquet.

    Args:
        options: of `open_predictor`.
        many: shard, max_failures, rows_per_file and workers, as the command line gives them.
        exported: the opened file, if weights are one.

    Returns:
        The exit code.
    """
    from litevit.jobs.inference import OPTIMIZED
    from litevit.jobs.predict_parquet import MAX_FAILURES, TooManyFailuresError, parse_shard, predict_parquet
    from litevit.jobs.predict_rows import open_predictor

    if out is None:
        raise ValueError("--format parquet needs the folder of the results: --out DIR")
    if exported is not None:
        given = {"model": model, "num_classes": options["num_classes"]}
        refuse(given, f"for checkpoints; {weights} knows its model")
    own = parse_shard(many["shard"])
    if weights == "none":
        print("Random weights: these predictions mean nothing.", file=sys.stderr)
    _look_at(images)
    predictor = open_predictor(model, None if weights == "none" else weights, exported=exported, **options)
    try:
        with progress_bar("images", quiet=False) as advance:
            done = predict_parquet(
                predictor,
                images,
                out,
                shard=own,
                max_failures=MAX_FAILURES if many["max_failures"] is None else many["max_failures"],
                rows_per_file=many["rows_per_file"],
                workers=min(8, os.cpu_count() or 1) if many["workers"] is None else many["workers"],
                on_progress=advance,
            )
    except TooManyFailuresError as error:
        print(f"litevit: {error}", file=sys.stderr)
        return 1
    if exported is None and options["device"] in ("auto", "cpu"):
        from litevit.devices import find_device

        if find_device(options["device"]).type == "cpu":
            print(OPTIMIZED, file=sys.stderr)
    if done.errors:
        print(f"{done.errors} images could not be read: see the column error", file=sys.stderr)
    of = f" (shard {many['shard']})" if many["shard"] else ""
    print(f"Wrote {done.images} rows in {done.pieces - done.skipped} files to {out}{of}; {done.skipped} were there")
    return 0


def _look_at(images: Sequence[Path]) -> None:
    """Raises for inputs that give no picture, before a model is loaded. What folders and lists name is seen later."""
    from litevit.data.many_images import CONTAINERS, LISTS, expand, find_inputs
    from litevit.jobs.predict import why_none

    there = expand(images)
    files = [path for path in there if not os.path.isdir(path)]
    found = find_inputs(files) if files else []
    if len(files) < len(there) or any(path.lower().endswith((*LISTS, *CONTAINERS)) for path in files):
        return
    if reasons := why_none(Path(one.path) for one in found):
        raise ValueError(reasons[0])
