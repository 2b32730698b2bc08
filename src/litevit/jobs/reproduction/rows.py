"""Which published figures are measured on what: read off `WEIGHTS` and `ABLATIONS`; no row is written down twice.

A row is one pass of one model over one data set, with all figures that were published for it.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from litevit.checkpoints.published import ABLATIONS, WEIGHTS
from litevit.zoo import unknown

Option = Literal["imagenet", "imagenet_v2", "coco", "ade"]


class Benchmark(NamedTuple):
    """A data set, and how it counts."""

    title: str
    option: Option | None  # of the command line; None: nobody but its makers can measure it
    images: int  # of the whole evaluation part
    needs: str
    ending: str = ""  # of the rows' names: a model may have several
    reason: str = ""  # why it cannot be measured


# fmt: off
BENCHMARKS: dict[str, Benchmark] = {
    "imagenet": Benchmark("ImageNet-1K validation", "imagenet", 50_000, "val/<WordNet id>/<image>, or a tar of that"),
    "real": Benchmark(
        "ImageNet-ReaL", "imagenet", 50_000, "ImageNet-1K's validation images under their own names; the labels come "
        "with timm", ending="/real"),
    "v2": Benchmark(
        "ImageNet-V2 (matched frequency)", "imagenet_v2", 10_000, "folders 0 to 999 of images", ending="/v2"),
    "coco": Benchmark("COCO 2017 val", "coco", 5_000, "val2017/ and annotations/instances_val2017.json"),
    "panoptic": Benchmark(
        "COCO 2017 panoptic val", "coco", 5_000, "val2017/, annotations/panoptic_val2017.json and its folder of PNGs"),
    "ade": Benchmark(
        "ADE20K validation", "ade", 2_000, "images/validation/ and annotations/validation/ (ADEChallengeData2016)"),
    "test-dev": Benchmark(
        "COCO panoptic test-dev", None, 0, "", ending="/test-dev",
        reason="the truth of test-dev is not public: COCO's server measures it"),
}


class Figure(NamedTuple):
    """A published figure."""

    title: str
    benchmark: str
    measured: str  # what the evaluation calls it
    scale: float = 100.0  # from the evaluation's unit to points


# Published key -> how it is measured.
FIGURES: dict[str, Figure] = {
    "top1": Figure("top-1", "imagenet", "top1", 1.0),
    "imagenet_real_top1": Figure("ReaL top-1", "real", "top1", 1.0),
    "imagenet_v2_top1": Figure("V2 top-1", "v2", "top1", 1.0),
    "box_ap": Figure("box AP", "coco", "bbox/AP"),
    "mask_ap": Figure("mask AP", "coco", "segm/AP"),
    "miou": Figure("mIoU", "ade", "miou"),
    "pq": Figure("PQ", "panoptic", "pq"),
    "pq_things": Figure("PQ things", "panoptic", "pq_things"),
    "pq_stuff": Figure("PQ stuff", "panoptic", "pq_stuff"),
    "test_dev_pq": Figure("PQ", "test-dev", "pq"),
    "test_dev_pq_things": Figure("PQ things", "test-dev", "pq_things"),
    "test_dev_pq_stuff": Figure("PQ stuff", "test-dev", "pq_stuff"),
}
# fmt: on
NO_WEIGHTS = "no weights were published, only the figure"


class Row(NamedTuple):
    """One pass of a model over a data set."""

    name: str  # the model's, and the benchmark's ending
    model: str
    benchmark: str
    published: dict[str, float]  # keys of FIGURES, in points
    reason: str = ""  # why it cannot be measured by anybody

    @property
    def option(self) -> Option | None:
        return BENCHMARKS[self.benchmark].option


def all_rows() -> list[Row]:
    """Every published figure that a data set can be asked about, in the order of the tables."""
    rows = []
    for model, published in {**{m: w.published for m, w in WEIGHTS.items()}, **ABLATIONS}.items():
        figures = [key for key in FIGURES if key in published]
        for benchmark in dict.fromkeys(FIGURES[key].benchmark for key in figures):
            about = BENCHMARKS[benchmark]
            mine = {key: float(published[key]) for key in figures if FIGURES[key].benchmark == benchmark}
            reason = about.reason or ("" if model in WEIGHTS else NO_WEIGHTS)
            rows.append(Row(model + about.ending, model, benchmark, mine, reason))
    return rows


def choose(patterns: Sequence[str] = ()) -> list[Row]:
    """The rows that a shell-style pattern names; without patterns all.

    Args:
        patterns: such as `"litv2_*"` or `"lit_ti/real"`.
    """
    rows = all_rows()
    if not patterns:
        return rows
    for pattern in patterns:
        if not any(fnmatchcase(row.name, pattern) for row in rows):
            raise unknown(pattern, [row.name for row in rows], "row")
    return [row for row in rows if any(fnmatchcase(row.name, pattern) for pattern in patterns)]
