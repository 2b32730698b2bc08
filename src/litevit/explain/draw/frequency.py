"""Pictures of the frequencies that attention gives out."""

from pathlib import Path

from torch import Tensor

from litevit.explain.attention import attention_blocks
from litevit.explain.draw.look import Images, Look
from litevit.explain.figures import Style, amplitude_figure, frequency_figure, save
from litevit.explain.frequency import block_amplitudes, frequency_magnitude


def draw_frequency(
    look: Look,
    images: Images,
    out: Path,
    *,
    stage: int | None = None,
    block: int | None = None,
    style: Style | None = None,
) -> list[Path]:
    """Log-magnitude per branch and block, and relative log-amplitude over depth; of several images the mean.

    Args:
        stage, block: None takes all.
    """
    style = style or Style()
    if block is not None and stage is None:
        raise ValueError("--block needs its --stage")
    wanted = [(s, b) for s, b in attention_blocks(look.model) if stage in (None, s) and block in (None, b)]
    if not wanted:
        wanted = [(stage or 4, block or 0)]  # says what is wrong with it
    sums: dict[tuple[int, int], dict[str, Tensor]] = {key: {} for key in wanted}
    curves: dict[str, tuple[Tensor, Tensor]] = {}  # block -> frequencies and the sum of their amplitudes
    names: list[str] = []
    size = None
    for name, path in images:
        seen = look.see(path)
        size = size or seen.picture.shape
        if seen.picture.shape != size:
            raise ValueError(f"The mean over images needs one size; {path} is {seen.picture.shape[:2]}, not {size[:2]}")
        names.append(name)
        for (s, b), maps in sums.items():
            for branch, magnitude in frequency_magnitude(look.model, seen.batch, stage=s, block=b).items():
                maps[branch] = maps[branch] + magnitude if branch in maps else magnitude
        for title, frequencies, values in block_amplitudes(look.model, seen.batch):
            curves[title] = (frequencies, curves[title][1] + values if title in curves else values)
    count = len(names)
    called = names[0] if count == 1 else f"mean-of-{count}"
    shown = [(f"{s}.{b}", {k: (m / count).numpy() for k, m in maps.items()}) for (s, b), maps in sums.items()]
    arrays = {f"{title}_{branch}": m for title, maps in shown for branch, m in maps.items()}
    written = save(frequency_figure(shown, paper=style.paper), out / f"{called}-frequency", arrays, style)
    drawn = [(title, f.numpy(), (v / count).numpy()) for title, (f, v) in curves.items()]
    arrays = {f"{title}_{k}": a for title, f, v in drawn for k, a in (("frequency", f), ("amplitude", v))}
    return written + save(amplitude_figure(drawn, paper=style.paper), out / f"{called}-amplitude", arrays, style)
