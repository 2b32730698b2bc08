"""`litevit reproduce`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litevit.cli.terminal import Device, progress_bar, show, show_rows

if TYPE_CHECKING:
    from litevit.jobs.reproduction.plan import Plan

SHOWN = ("row", "figure", "published", "measured", "difference", "verdict", "images", "seconds", "note")


def reproduce(
    *,
    imagenet: Path | None = None,
    imagenet_v2: Path | None = None,
    coco: Path | None = None,
    ade: Path | None = None,
    rows: tuple[str, ...] = (),
    out: Path = Path("reproduction"),
    dry_run: bool = False,
    weights_dir: Path | None = None,
    batch_size: int = 64,
    workers: int = 4,
    device: Device = "auto",
) -> int:
    """Measures every published figure on your own data sets, with the official weights, beside what was published.

    A run that was stopped goes on where it was. Exit code 0: all that was asked for passes (the whole data set, within
    0.1 points); 1: something is off, or was measured on a part of its data set; 2: wrong arguments; 3: a row could not
    be measured.

    Args:
        imagenet: ImageNet-1K: its validation folder (class folders called by WordNet ids), or the folder it is in.
        imagenet_v2: ImageNet-V2 (matched frequency): folders 0 to 999.
        coco: COCO 2017: val2017/ and annotations/, with panoptic_val2017/ for panoptic rows.
        ade: ADE20K: ADEChallengeData2016.
        rows: only these, by shell-style patterns, such as 'litv2_*' or 'mask_rcnn_*'; default: all.
        out: folder of the results: table.md, table.csv, table.json, and a file per finished row.
        dry_run: list rows, files to download with sizes and licences, data, disk and time, and do nothing else.
        weights_dir: folder of published files under their own names, for machines without internet; what it lacks is
            looked for in the cache, then downloaded.
        batch_size: of classifiers.
        workers: processes that read images.
        device: where to run.
    """
    if batch_size < 1 or workers < 0:
        raise ValueError(f"--batch-size must be at least 1 and --workers 0, got {batch_size} and {workers}")
    if weights_dir is not None and not weights_dir.is_dir():
        raise FileNotFoundError(f"--weights-dir {weights_dir} is not a folder")
    from litevit.devices import find_device
    from litevit.jobs.reproduction.rows import choose
    from litevit.jobs.reproduction.run import Settings

    chosen = choose(rows)
    given = {"imagenet": imagenet, "imagenet_v2": imagenet_v2, "coco": coco, "ade": ade}
    paths: dict[Any, Path] = {name: path for name, path in given.items() if path is not None}
    settings = Settings(out, weights_dir, find_device(device), batch_size, workers)
    if not dry_run and not any(row.option in paths for row in chosen):
        needed = sorted({f"--{row.option.replace('_', '-')}" for row in chosen if row.option and not row.reason})
        if not needed:
            raise ValueError(f"Nothing to measure: {', '.join(sorted({row.reason for row in chosen}))}")
        raise ValueError(f"Nothing to measure on: give {' or '.join(needed)} (--dry-run lists what each row needs)")
    for name, path in paths.items():
        if not path.exists():
            raise FileNotFoundError(f"--{name.replace('_', '-')}: there is nothing at {path}")
    if dry_run:
        return _show_plan(chosen, paths, settings)
    return _measure(chosen, paths, settings)


def _measure(chosen: list, paths: dict, settings: Any) -> int:
    from litevit.checkpoints.published import ADOBE, ADOBE_NOTICE, WEIGHTS
    from litevit.jobs.reproduction import report
    from litevit.jobs.reproduction.rows import BENCHMARKS
    from litevit.jobs.reproduction.run import reproduce

    if any(row.option in paths and row.model in WEIGHTS and WEIGHTS[row.model].licence == ADOBE for row in chosen):
        print(f"Note: {ADOBE_NOTICE}.", file=sys.stderr)

    def done(result: Any, so_far: list) -> None:
        report.write([*so_far, *(_waiting(row) for row in chosen[len(so_far) :])], settings.out)
        if result.verdict not in ("not asked", "not possible"):
            for line in report.lines([result]):
                shown = dict(zip(report.COLUMNS, report.cells(line)))
                value = f"{shown['published']} published, {shown['measured']} measured ({shown['difference']}), "
                again = "" if result.fresh or result.record is None else ", from an earlier run"
                said = f"{value if result.record else ''}{shown['verdict']}{': ' * bool(shown['note'])}{shown['note']}"
                print(f"{shown['row']} {shown['figure']}: {said}{again}", file=sys.stderr)

    def trouble(benchmark: str, reason: str) -> None:
        print(f"Note: nothing can be measured on {BENCHMARKS[benchmark].title}: {reason}", file=sys.stderr)

    def start(row: Any, found: Any) -> None:
        print(f"{row.name}: {found.images:,} images of {found.path}", file=sys.stderr)

    with progress_bar("images", quiet=False) as advance:
        results = reproduce(
            chosen, paths, settings, on_trouble=trouble, on_row=done, on_start=start, on_progress=advance
        )
    lines = [dict(zip(report.COLUMNS, report.cells(line))) for line in report.lines(results)]
    show_rows(SHOWN, [[line[name] for name in SHOWN] for line in lines])
    show(report.MEANING, highlight=False)
    print(f"Wrote {settings.out / 'table.md'}, table.csv and table.json", file=sys.stderr)
    verdicts = {result.verdict for result in results}
    return 3 if "failed" in verdicts else 1 if verdicts & {"off", "subset"} else 0


def _waiting(row: Any) -> Any:
    from litevit.jobs.reproduction.run import Result

    return Result(row, "not possible", reason=row.reason) if row.reason else Result(row, "not asked", reason="not yet")


def _show_plan(chosen: list, paths: dict, settings: Any) -> int:
    from litevit.cli.models import facts
    from litevit.jobs.reproduction.plan import PROBE, plan

    about = {name: facts(name) for name in {PROBE, *(row.model for row in chosen)}}
    planned = plan(
        chosen, paths, settings,
        params={name: row["params"] for name, row in about.items()},
        macs={name: row["macs"] for name, row in about.items()},
    )  # fmt: skip
    _show_rows_of(planned)
    _show_files(planned)
    _show_data(planned)
    failed = [found for found in planned.data.values() if isinstance(found, str)]
    return 3 if failed else 0


def _show_rows_of(planned: "Plan") -> None:
    from litevit.jobs.reproduction.rows import BENCHMARKS, FIGURES

    estimate = planned.estimate
    show_rows(
        ("row", "measured on", "published", "estimated time"),
        [
            [row.name, BENCHMARKS[row.benchmark].title,
             ", ".join(f"{FIGURES[key].title} {value:g}" for key, value in row.published.items()),
             _time(estimate.seconds[row.name]) if estimate else ""]
            for row in planned.rows
        ],
    )  # fmt: skip
    if estimate is not None:
        show(
            f"{len(planned.rows)} rows, roughly {_time(sum(estimate.seconds.values()))} at "
            f"{estimate.rate / 1e9:.0f} G multiply-adds a second (by {estimate.by})",
            highlight=False,
        )
    if planned.finished:
        show(f"Finished already: {', '.join(row.name for row in planned.finished)}", highlight=False)
    for reason, rows in planned.left_out.items():
        show(f"Left out: {', '.join(row.name for row in rows)}: {reason}", highlight=False, markup=False)


def _show_files(planned: "Plan") -> None:
    from litevit.checkpoints.published import ADOBE_NOTICE

    show_rows(
        ("weights", "size", "state", "licence"),
        [
            [file.name, f"{'' if file.exact else 'about '}{file.size / 1e6:.0f} MB", file.state,
             file.licence.partition(":")[0]]
            for file in planned.files
        ],
    )  # fmt: skip
    for file in planned.files:  # whole lines, which can be copied on a machine that has a network
        how = "to be saved by hand from " if file.state == "by hand" else ""
        show(f"{file.name}: {how}{file.where}", highlight=False, markup=False)
    if any(not file.exact for file in planned.files):
        show("Sizes with 'about' are those of the parameters: the server did not say.", highlight=False)
    free = "" if planned.free is None else f"; {planned.free / 1e9:.1f} GB are free in the cache"
    show(f"To download: {planned.to_download / 1e9:.2f} GB{free}", highlight=False)
    if planned.free is not None and planned.free < planned.to_download:
        show("That is too little: free some, or set LITEVIT_CACHE to a folder on a larger disk.", highlight=False)
    if planned.non_commercial:
        show(f"{', '.join(planned.non_commercial)}: {ADOBE_NOTICE}.", highlight=False)


def _show_data(planned: "Plan") -> None:
    from litevit.jobs.reproduction.rows import BENCHMARKS

    for name, found in planned.data.items():
        about = BENCHMARKS[name]
        option = f"--{str(about.option).replace('_', '-')}"
        if found is None:
            said = f"needs {option}: {about.images:,} images; {about.needs}"
        elif isinstance(found, str):
            said = found
        else:
            part = f"a subset ({found.short}): measured, never a pass" if found.short else "the whole"
            said = f"{found.images:,} images in {found.path}, {part}"
        show(f"{about.title}: {said}", highlight=False, markup=False)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
