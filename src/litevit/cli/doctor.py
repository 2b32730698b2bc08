"""`litevit doctor`."""

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from litevit.cli.terminal import refuse


def doctor(
    path: Annotated[Positional[str], arg(metavar="PATH")],
    *,
    examples: int = 3,
    json: bool = False,
    report: Path | None = None,
    fix: Path | None = None,
    reduce_zero_label: bool | None = None,
    ignore_index: int | None = None,
    reader: Literal["wds", "hfds"] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> int:
    """Checks a data set before hours are spent on it. Exit code 0: clean; 1: training would go wrong; 2: no data set.

    Args:
        path: a folder in any layout that training reads (COCO, Roboflow, CVAT, YOLO, Pascal VOC, masks, class folders),
            a COCO-format JSON, a tar of class folders, WebDataset shards (also a quoted pattern), a Hugging Face
            data set in a folder, or hfds/NAME of the Hub.
        examples: how many places to name per finding.
        json: print the findings as JSON.
        report: write an HTML page with pictures of the findings and statistics of classes and sizes.
        fix: write a mended copy into this new folder, and a table of what was done.
        reduce_zero_label: of masks: 0 is ignored and 1.. are the classes; default: as their layout has it.
        ignore_index: of masks: the value that counts for nothing; -1: none; default: 255.
        reader: what opens the data, as --data.reader of training; default: by what lies there.
        image_column: of a Hugging Face data set; default: the one whose type or name says so.
        label_column: the same.
    """
    from litevit.data.doctor import examine
    from litevit.data.doctor.tables import NAMES, reader_of

    if examples < 0:
        raise ValueError(f"--examples must be 0 or more, got {examples}")
    given = {"reduce_zero_label": None if reduce_zero_label is None else "given", "ignore_index": ignore_index}
    if any(value is not None for value in given.values()):
        _refuse_without_masks(path, given)
    rule = {"reduce_zero_label": reduce_zero_label, "ignore_index": 255 if ignore_index is None else ignore_index}
    columns = {"image_column": image_column, "label_column": label_column}
    kind = reader or reader_of(path)
    if kind != "hfds":
        refuse(columns, f"for Hugging Face data sets; {path} is none")
    if fix is not None and kind:
        raise ValueError(f"--fix writes folders and COCO's files; {path} is {NAMES[kind]}: mend what made it")
    found = examine(path, examples=examples, reader=reader or "", **rule, **columns)  # type: ignore[arg-type]
    print(json_module.dumps(found.to_dict(), indent=2, ensure_ascii=False) if json else found.render())
    if report is not None:
        from litevit.data.doctor.page import write_page

        write_page(found, report)
        print(f"Wrote {report}", file=sys.stderr)
    if fix is not None:
        _fix(path, fix, quiet=json, **rule)  # type: ignore[arg-type]
    return found.exit_code


def _refuse_without_masks(path: str, given: dict[str, Any]) -> None:
    from litevit.data.doctor.tables import NAMES, reader_of
    from litevit.data.layouts import layouts_of

    if reader := reader_of(path):
        refuse(
            {name: value and str(value) for name, value in given.items()},
            f"for masks of classes; {path} is {NAMES[reader]}",
        )
    found = layouts_of(path)
    if found and all(layout.task != "semantic" for layout in found):
        shown = {name: str(value) for name, value in given.items() if value is not None}
        refuse(shown, f"for masks of classes; {path} is {found[0].name}")


def _fix(path: str, out: Path, *, quiet: bool, reduce_zero_label: bool | None, ignore_index: int) -> None:
    from litevit.data.doctor import examine
    from litevit.data.doctor.fix import mend

    mended = mend(path, out, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index)
    for times, what, example in [] if quiet else mended.rows():
        print(f"mended: {what}: {times}\n    {example}")
    left = examine(out)
    said = "nothing that training would trip over is left" if not left.exit_code else f"{left.errors} errors are left"
    print(f"Wrote a mended copy to {out}: {said}", file=sys.stderr)
