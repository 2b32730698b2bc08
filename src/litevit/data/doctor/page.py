"""The doctor's findings as one HTML page that needs nothing beside it: pictures of the findings, classes and sizes."""

import base64
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import ImageDraw

from litevit.data.doctor.report import Finding, Report
from litevit.data.images import ImageError, read_image
from litevit.files import write_text

DOT = 5  # around a box that is too small to be seen
THUMB = 260  # longer side of a picture on the page
BARS = 40  # classes shown; of more, the largest and the smallest
COLOURS = ("#2563eb", "#ea580c", "#16a34a", "#9333ea", "#dc2626", "#0891b2")
SIZES = ((0, "small, below 32 x 32"), (32**2, "medium"), (96**2, "large, from 96 x 96"))  # COCO's

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 1060px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.15em; margin: 2em 0 .5em; }
p.sub { color: #6b7280; margin-top: .2em; overflow-wrap: anywhere; }
.verdict { padding: .6em 1em; border-radius: 6px; font-weight: 600; }
.clean { background: #dcfce7; } .ill { background: #fee2e2; }
.finding { border-left: 4px solid; padding: .1em 1em .6em; margin: 1em 0; background: #f9fafb; }
.error { border-color: #dc2626; } .warning { border-color: #f59e0b; }
.finding h3 { font-size: 1em; margin: .5em 0; } .finding h3 span { color: #6b7280; font-weight: 400; }
ul { margin: .3em 0; padding-left: 1.2em; color: #4b5563; font-size: .88em; overflow-wrap: anywhere; }
.pictures { display: flex; flex-wrap: wrap; gap: 10px; margin-top: .6em; }
figure { margin: 0; } figcaption { font-size: .78em; color: #6b7280; max-width: 260px; overflow-wrap: anywhere; }
img { border: 1px solid #e5e7eb; background: #fff; display: block; }
table { border-collapse: collapse; } td, th { padding: .15em .9em .15em 0; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
svg text { font: 12px system-ui, sans-serif; fill: #374151; } svg text.count { font-size: 10.5px; }
"""


def write_page(report: Report, path: str | Path) -> None:
    """Args: path: of the `.html` file."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"--report takes the name of an HTML file, {path} is a folder")
    write_text(path, _page(report))


def _page(report: Report) -> str:
    ill = report.exit_code
    verdict = f"Training would go wrong: {report.errors:,} errors" if ill else "Nothing that training would trip over"
    warnings = sum(f.severity == "warning" for f in report.findings)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(str(report.path))}: litevit doctor</title>",
        f"<style>{STYLE}</style>",
        f"<h1>{escape(report.path.name)}</h1><p class=sub>{escape(str(report.path))}: {escape(report.layout)}</p>",
        f"<p class='verdict {'ill' if ill else 'clean'}'>{verdict}; {warnings} kinds of warnings</p>",
        _counts(report.counts),
    ]
    if report.findings:
        parts.append("<h2>Findings</h2>")
        parts += [_finding(finding) for finding in sorted(report.findings, key=lambda f: f.severity)]
    if any(report.classes.values()):
        parts.append(f"<h2>Classes ({report.counted})</h2>{_class_bars(report.classes)}")
    if report.sizes:
        parts.append(f"<h2>Sizes of the pictures</h2>{_size_chart(report.sizes)}")
    if report.areas:
        parts.append(f"<h2>Sizes of the objects</h2>{_area_bars(report.areas)}")
    if report.shown:
        figures = "".join(_figure(picture, boxes) for picture, boxes in report.shown)
        parts.append(f"<h2>As training sees them</h2><div class=pictures>{figures}</div>")
    return "\n".join(part for part in parts if part) + "\n</html>\n"


def _counts(counts: Mapping[str, int]) -> str:
    rows = "".join(f"<tr><td class=n>{count:,}</td><td>{escape(what)}</td></tr>" for what, count in counts.items())
    return f"<table>{rows}</table>"


def _finding(finding: Finding) -> str:
    examples = "".join(f"<li>{escape(text)}</li>" for text in finding.examples)
    more = finding.count - len(finding.examples)
    examples += f"<li>and {more:,} more</li>" if more > 0 else ""
    figures = "".join(_figure(picture, [("", box)] if _is_box(box) else []) for picture, box in finding.pictures)
    gallery = f"<div class=pictures>{figures}</div>" if figures else ""
    head = f"{escape(finding.problem)} <span>{finding.severity}, {finding.count:,}</span>"
    return f"<div class='finding {finding.severity}'><h3>{head}</h3><ul>{examples}</ul>{gallery}</div>"


def _is_box(box: Any) -> bool:
    return isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(v, int | float) for v in box)


def _figure(path: Path, boxes: Sequence[tuple[str, Any]]) -> str:
    """A small picture, upright, with its boxes; nothing where it cannot be read."""
    try:
        image = read_image(path)
    except (ImageError, OSError):
        return ""
    scale = min(1.0, THUMB / max(image.size))
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(small)
    names = list(dict.fromkeys(name for name, _ in boxes))
    for name, box in boxes:
        x, y, w, h = box
        colour = "#dc2626" if not name else COLOURS[names.index(name) % len(COLOURS)]
        corners = [max(0.0, min(v * scale, s - 1)) for v, s in zip((x, y, x + w, y + h), (*small.size, *small.size))]
        if corners[0] > corners[2] or corners[1] > corners[3]:
            continue
        if min(corners[2] - corners[0], corners[3] - corners[1]) < 3:  # too small to be seen
            corners = [v - DOT if k < 2 else v + DOT for k, v in enumerate(corners)]
            draw.ellipse(corners, outline=colour, width=2)
        else:
            draw.rectangle(corners, outline=colour, width=2)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=82)
    data = base64.b64encode(file.getvalue()).decode()
    legend = ", ".join(
        f"<b style='color:{COLOURS[k % len(COLOURS)]}'>{escape(name)}</b>" for k, name in enumerate(names) if name
    )
    caption = escape(path.name) + (f": {legend}" if legend else "")
    image_tag = f"<img width={small.width} height={small.height} src='data:image/jpeg;base64,{data}' alt=''>"
    return f"<figure>{image_tag}<figcaption>{caption}</figcaption></figure>"


# -------------------------------------------------------------------- charts


def _class_bars(classes: Mapping[str, Mapping[str, int]]) -> str:
    """A row per class, a bar per split."""
    total: Counter[str] = Counter()
    for counts in classes.values():
        total.update({name: 0 for name in counts})
        for name, count in counts.items():
            total[name] += count
    names = [name for name, _ in total.most_common()]
    hidden = len(names) - BARS
    if hidden > 0:
        names = names[: BARS // 2] + names[-BARS // 2 :]
    splits = [split for split in classes if classes[split]]
    largest = max((count for counts in classes.values() for count in counts.values()), default=1) or 1
    bar, gap, left, width = 13, 7, 190, 620
    row = bar * len(splits) + gap
    parts = []
    for k, name in enumerate(names):
        y = k * row + 3
        parts.append(f"<text x={left - 8} y={y + row / 2 + 2} text-anchor=end>{escape(_short(name))}</text>")
        for j, split in enumerate(splits):
            count = classes[split].get(name, 0)
            length = width * count / largest
            colour = COLOURS[j % len(COLOURS)]
            place = f"x={left} y={y + j * bar} width={max(length, 0.5):.1f} height={bar - 3}"
            parts.append(f"<rect {place} fill='{colour}'/>")
            parts.append(f"<text class=count x={left + length + 5:.1f} y={y + j * bar + bar - 4}>{count:,}</text>")
    legend = " &nbsp; ".join(
        f"<b style='color:{COLOURS[j % len(COLOURS)]}'>&#9632; {escape(split)}</b>" for j, split in enumerate(splits)
    )
    note = f" (the {BARS // 2} largest and smallest of {hidden + BARS:,})" if hidden > 0 else ""
    return f"<p>{legend}{note}</p>{_svg(left + width + 90, len(names) * row + 6, parts)}"


def _size_chart(sizes: Counter[tuple[int, int]]) -> str:
    """Pictures by width and height; the area of a dot is how many there are."""
    side, left = 300, 52
    most = max(max(size) for size in sizes)
    top = max(sizes.values())
    parts = [
        f"<rect x={left} y=4 width={side} height={side} fill='#f9fafb' stroke='#d1d5db'/>",
        f"<text x={left + side / 2} y={side + 34} text-anchor=middle>width, 0 to {most:,} pixels</text>",
        f"<text x=0 y=0 transform='translate(40 {side / 2}) rotate(-90)' text-anchor=middle>height</text>",
    ]
    for (width, height), count in sizes.most_common(2000):
        radius = 2 + 10 * math.sqrt(count / top)
        x, y = left + side * width / most, 4 + side * (1 - height / most)
        parts.append(
            f"<circle cx={x:.1f} cy={y:.1f} r={radius:.1f} fill='{COLOURS[0]}' fill-opacity=.35>"
            f"<title>{width} x {height}: {count:,}</title></circle>"
        )
    common = [f"<tr><td class=n>{count:,}</td><td>{w} x {h}</td></tr>" for (w, h), count in sizes.most_common(8)]
    rows = "".join(common)
    (w1, h1), (w2, h2) = (end(sizes, key=lambda size: size[0] * size[1]) for end in (min, max))
    facts = f"<p>{len(sizes):,} sizes, the smallest {w1} x {h1}, the largest {w2} x {h2}.</p>"
    chart = _svg(left + side + 20, side + 44, parts)
    return f"{facts}<div class=pictures>{chart}<table>{rows}</table></div>"


def _area_bars(areas: Sequence[float]) -> str:
    counts = [0] * len(SIZES)
    for area in areas:
        counts[sum(area >= least for least, _ in SIZES[1:])] += 1
    parts = []
    for k, ((_, name), count) in enumerate(zip(SIZES, counts)):
        length = 520 * count / max(1, len(areas))
        parts.append(f"<text x=182 y={k * 22 + 14} text-anchor=end>{name}</text>")
        parts.append(f"<rect x=190 y={k * 22 + 3} width={max(length, 0.5):.1f} height=14 fill='{COLOURS[0]}'/>")
        share = 100 * count / max(1, len(areas))
        parts.append(f"<text x={195 + length:.1f} y={k * 22 + 14}>{count:,} ({share:.0f} %)</text>")
    return _svg(830, 22 * len(SIZES) + 4, parts)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return f"<svg width={width:.0f} height={height:.0f} xmlns='http://www.w3.org/2000/svg'>{''.join(parts)}</svg>"


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
