"""Plots of `litevit bench`: one question each. Needs matplotlib."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litevit.bench.models import is_ours
from litevit.files import whole_file

if TYPE_CHECKING:
    from litevit.bench.report import Report

OURS, PEER = "#c8452f", "#8a94a6"
COLOURS = ("#c8452f", "#2f6db5", "#3d9a5f", "#8d5fb0", "#c99a2e", "#4aa3a8", "#7a7a7a", "#d678a3")
HILO = {"s=2": ("#f0b3a6", "#e07f6b", "#c8452f", "#8a2413"), "s=4": ("#a9c6e8", "#6b9bd1", "#2f6db5", "#173f70")}


def _axes(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _caption(report: "Report") -> str:
    e = report.environment
    machine = e["processor"] if e["device"] == "cpu" else e["device"]
    return f"{machine}, {e['threads']} thread(s), torch {e['torch']}, {e['date']}"


def _log_milliseconds(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:])
    plt.close(figure)


def plot_models(report: "Report", path: Path) -> None:
    """Images per second of every model at its best mode, fastest on top; ours in colour."""
    dtypes = list(dict.fromkeys(row["dtype"] for row in report.rows))
    rows = [row for row in report.rows if row["best"]]
    rows.sort(key=lambda r: (dtypes.index(r["dtype"]) * -1, r["images_per_s"]))
    figure, axes = _axes(8, 0.8 + 0.36 * len(rows))
    labels = [row["model"] + (f"  {row['dtype']}" if len(dtypes) > 1 else "") for row in rows]
    bars = axes.barh(
        range(len(rows)),
        [row["images_per_s"] for row in rows],
        xerr=[row["images_per_s"] * (row["spread"] or 0) for row in rows],
        color=[OURS if is_ours(row["model"]) else PEER for row in rows],
        error_kw={"ecolor": "#444", "elinewidth": 0.8},
    )
    axes.bar_label(
        bars, [f" {r['images_per_s']:.3g}  ({r['mode']}, {r['macs'] / 1e9:.2g} G MACs)" for r in rows], fontsize=8
    )
    axes.set_yticks(range(len(rows)), labels)
    axes.set_xlim(0, 1.5 * max(row["images_per_s"] for row in rows))
    axes.set_xlabel(f"images per second (median, bars: half the interquartile range)\n{_caption(report)}", fontsize=9)
    _save(figure, path)


def plot_pareto(report: "Report", path: Path) -> bool:
    """Accuracy over speed, a field per dtype, every model at its best mode; the line joins those nobody beats in both.

    Returns:
        Whether there was anything to draw: two models whose accuracy is known.
    """
    rows = [row for row in report.rows if row["best"] and row.get("top1") is not None]
    dtypes = [d for d in dict.fromkeys(row["dtype"] for row in rows) if sum(r["dtype"] == d for r in rows) > 1]
    if not dtypes:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    # Letters, not outlines, in files for a paper.
    with matplotlib.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "font.size": 8}):
        figure, fields = plt.subplots(
            1,
            len(dtypes),
            figsize=(max(3.4 * len(dtypes), 4.2) + 0.4, 3.8),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axes, dtype in zip(fields[0], dtypes):
            mine = sorted((r for r in rows if r["dtype"] == dtype), key=lambda r: -r["images_per_s"])
            front = pareto_front(mine)
            axes.step(
                [r["images_per_s"] for r in front],
                [r["top1"] for r in front],
                where="post",
                color="#bbb",
                lw=1,
                zorder=0,
            )
            for row in mine:
                ours = is_ours(row["model"])
                axes.plot(row["images_per_s"], row["top1"], "o" if ours else "s", ms=5, color=OURS if ours else PEER)
            _label_points(axes, mine)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.margins(y=0.16)
            axes.set_xlim(0.8 * mine[-1]["images_per_s"], 3.5 * mine[0]["images_per_s"])  # room for names
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.2)
            axes.set_title(dtype, fontsize=9)
            axes.set_xlabel("images per second")
        fields[0][0].set_ylabel("ImageNet-1k top-1, %")
        told = "top-1 of round points: published; of squares: measured by timm"
        figure.supxlabel(_caption(report).replace(", torch", "\ntorch") + "\n" + told, fontsize=6.5)
        _save(figure, path)
    return True


def pareto_front(rows: list[dict]) -> list[dict]:
    """Whom no other beats in speed and accuracy, fastest first."""
    front: list[dict] = []
    for row in sorted(rows, key=lambda r: (-r["images_per_s"], -r["top1"])):
        if not front or row["top1"] > front[-1]["top1"]:
            front.append(row)
    return front


def _is_free(x: float, y: float, names: list[tuple[float, float]], points: list[tuple[float, float]]) -> bool:
    """Whether a name can begin at (x, y), in log2 of the speed and points of the paper."""
    beside_names = all(abs(y - there) >= 8 or abs(x - left) >= 2.2 for left, there in names)
    return beside_names and all(abs(y - there) >= 6 or not x < right < x + 2.2 for right, there in points)


def _label_points(axes: Any, rows: list[dict]) -> None:
    """Names beside points, moved up or down, to the nearest place where they cover neither a name nor a point."""
    names: list[tuple[float, float]] = []  # log2 of the speed; height in points of the paper
    span = max(r["top1"] for r in rows) - min(r["top1"] for r in rows) or 1.0
    points = {r["model"]: (math.log2(r["images_per_s"]), 190 * r["top1"] / span) for r in rows}
    for row in sorted(rows, key=lambda r: -r["images_per_s"]):  # those on the right have the least to go round
        x, y = points[row["model"]]
        others = [point for name, point in points.items() if name != row["model"]]
        steps = (step for n in range(200) for step in (n, -n))
        place = next(y + step for step in steps if _is_free(x, y + step, names, others))
        names.append((x, place))
        name = row["model"].removesuffix("_224").split("_patch")[0]
        ours = is_ours(row["model"])
        axes.annotate(
            f"{name} ({row['mode']})",
            (row["images_per_s"], row["top1"]),
            xytext=(6, place - y - 2.5),
            textcoords="offset points",
            fontsize=6.5,
            color=OURS if ours else "#444",
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "#999"} if abs(place - y) > 6 else None,
        )


def plot_attention(report: "Report", path: Path) -> None:
    """Milliseconds of one layer over the side of the map."""
    figure, axes = _axes(8, 5)
    first = report.rows[0]["mode"]
    others = iter(("#333333", *COLOURS[2:]))
    shades = {key: iter(colours) for key, colours in HILO.items()}  # darker with alpha
    for name in dict.fromkeys(row["layer"] for row in report.rows):
        points = [(r["side"], r["ms"]) for r in report.rows if r["layer"] == name and r["mode"] == first]
        hilo = name.startswith("HiLo")
        colour = next(shades[name.split()[1]] if hilo else others)
        axes.plot(*zip(*points), "-" if hilo else "--", marker="o", ms=3, label=name, color=colour, lw=1.4)
    axes.set_xscale("log", base=2)
    _log_milliseconds(axes)
    sides = sorted({row["side"] for row in report.rows})
    axes.set_xticks(sides, [str(s) for s in sides])
    axes.set_xlabel(f"side of the map, tokens\n{_caption(report)}", fontsize=9)
    axes.set_ylabel("ms per layer")
    axes.grid(True, which="major", alpha=0.25)
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")
    _save(figure, path)


def plot_ops(report: "Report", path: Path) -> None:
    """How many times as fast as its reference every back end is; forward full, with the backward pass pale."""
    rows = [row for row in report.rows if "x reference" in row]
    figure, axes = _axes(8.5, 1.2 + 0.24 * len(rows))
    ticks, labels, y = [], [], 0.0
    for op in dict.fromkeys(row["op"] for row in rows):
        axes.text(0, y, op, fontsize=9, fontweight="bold", va="center", transform=axes.get_yaxis_transform())
        y += 1
        for backend in dict.fromkeys(row["backend"] for row in rows if row["op"] == op):
            mine = [row for row in rows if (row["op"], row["backend"]) == (op, backend)]
            ticks.append(y + 0.5 * (len(mine) - 1) / 2)
            labels.append(backend)
            for row in mine:
                forward = row["direction"] == "forward"
                colour = PEER if row["x reference"] == 1 else OURS
                bar = axes.barh(y, row["x reference"], 0.46, color=colour, alpha=1.0 if forward else 0.45)
                axes.bar_label(bar, [f" {row['x reference']:.2f}x   {_three_digits(row['ms'])} ms"], fontsize=7)
                y += 0.5
            y += 0.4
        y += 0.4
    axes.axvline(1, color="#bbb", lw=0.8, zorder=0)
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_ylim(y, -1)
    axes.set_xlim(0, 1.3 * max(row["x reference"] for row in rows))
    axes.set_xlabel(
        f"times as fast as the reference (full: forward, pale: forward + backward)\n{_caption(report)}", fontsize=9
    )
    _save(figure, path)


def plot_scaling(report: "Report", path: Path) -> None:
    """Milliseconds per image over what was varied."""
    over = next(key for key in ("size", "threads", "batch") if report.title.endswith(key))
    figure, axes = _axes(7, 4.5)
    for i, name in enumerate(dict.fromkeys(row["model"] for row in report.rows)):
        points = [(r[over], r["ms_per_image"]) for r in report.rows if r["model"] == name]
        axes.plot(
            *zip(*points), "-" if is_ours(name) else "--", marker="o", ms=4, label=name, color=COLOURS[i % len(COLOURS)]
        )
    axes.set_xscale("log", base=2)
    _log_milliseconds(axes)
    values = sorted({row[over] for row in report.rows})
    axes.set_xticks(values, [str(v) for v in values])
    axes.set_xlabel(
        f"{ {'size': 'side of the image, pixels', 'threads': 'threads', 'batch': 'batch'}[over] }\n{_caption(report)}",
        fontsize=9,
    )
    axes.set_ylabel("ms per image")
    axes.grid(True, which="major", alpha=0.25)
    axes.legend(frameon=False)
    _save(figure, path)
