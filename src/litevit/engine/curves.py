"""The picture of a run: its losses, learning rate and evaluation metrics over the steps."""

from pathlib import Path

from litevit.engine.logging import read_metrics
from litevit.files import whole_file


def draw_curves(folder: Path) -> Path | None:
    """Writes `curves.png` from `metrics.jsonl`; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    rows = read_metrics(folder / "metrics.jsonl")
    train = [row for row in rows if row["kind"] == "train"]
    evaluated = [row for row in rows if row["kind"] == "eval"]
    skipped = {"kind", "step", "epoch", "images", "loss"}  # the loss has its panel
    names = [name for name in (evaluated[0] if evaluated else {}) if name not in skipped]
    panels = ["loss", "lr", *names[:4]]
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        if name in ("loss", "lr"):
            axis.plot([row["step"] for row in train], [row[name] for row in train], label="training")
        if evaluated and name in evaluated[0]:
            steps, values = [row["step"] for row in evaluated], [row[name] for row in evaluated]
            axis.plot(steps, values, marker=".", color="C1", label="held out")
        axis.set(title=name, xlabel="optimizer step")
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if name == "loss":
            axis.legend()
    path = folder / "curves.png"
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    return path
