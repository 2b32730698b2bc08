"""Checkpoints from the official layout to litevit's and back, bit for bit."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from litevit.checkpoints import layouts
from litevit.checkpoints.files import Pathlike, read_state_dict, write_state_dict
from litevit.checkpoints.published import ADOBE, ADOBE_NOTICE


@dataclass(frozen=True)
class Conversion:
    """What `convert` did."""

    source: str
    target: Path
    layout_from: str
    layout_to: str
    tensors: int
    dropped: tuple[str, ...]  # official entries that are made again on the way back
    kept: tuple[str, ...]  # official entries that litevit has no place for; carried along for the way back
    notice: str | None  # what the licence of the weights asks for


def convert(source: Pathlike, target: Pathlike, *, ema: bool = False) -> Conversion:
    """Writes an official checkpoint in litevit's layout, or a litevit checkpoint in the official one.

    The direction follows from the source. The result is converted back and compared before it is written.

    Args:
        source: `.pth` or `.safetensors`.
        target: `.safetensors`, or another suffix for a PyTorch file.
        ema: take the moving average where the checkpoint holds both.

    Raises:
        ValueError: the source is no checkpoint of a known layout, has no moving average for `ema`, or is the target;
            nothing is written.
        OSError: the source cannot be read or the target not written.
    """
    read = read_state_dict(source, ema=ema)
    if ema and not any("ema" in name for name in (*read.wrapping, *read.dropped)) and "n_averaged" not in read.dropped:
        raise ValueError(f"{source} holds no moving average: leave out --ema (ema=True)")
    if Path(target).exists() and Path(target).samefile(source):
        raise ValueError(f"{target} is the source itself; give another name for the result")
    if layouts.is_ours(read.tensors):
        official = layouts.to_official(read.tensors)
        again = layouts.to_ours(official)
        for key, value in layouts.to_ours(read.tensors).state.items():
            if not _same(value, again.state.get(key)):
                raise ValueError(f"{source}: {key} does not survive the way there and back. Nothing was written.")
        layout = again.layout
        container = layouts.official_container(official)
        write_state_dict(official, target, container=container, metadata={"layout": layout})
        notice = _notice(layout)
        return Conversion(str(source), Path(target), "litevit", layout, len(official), (), (), notice)

    found = layouts.to_ours(read.tensors)
    if found.unexpected:
        raise ValueError(
            f"{source} ({found.layout}) has {len(found.unexpected)} entries no key map knows: "
            f"{', '.join(found.unexpected[:4])}. Nothing was written."
        )
    back = layouts.to_official(found.state)
    if found.prefix:  # wrapping, like "module."
        back = {found.prefix + key: value for key, value in back.items()}
    kept = {}
    for key, value in read.tensors.items():
        if _same(value, back.get(key)):
            continue
        if key not in found.dropped:
            raise ValueError(f"{source}: {key} does not survive the way there and back. Nothing was written.")
        kept[key] = value
    notice = _notice(found.layout)
    metadata = {"layout": "litevit", "source": Path(source).name, "source_layout": found.layout}
    if notice:
        metadata["licence"] = ADOBE
    state = {**found.state, **{layouts.KEPT + key: value for key, value in kept.items()}}
    write_state_dict(state, target, container="model", metadata=metadata)
    dropped = tuple(key for key in found.dropped if key not in kept)
    return Conversion(
        str(source), Path(target), found.layout, "litevit", len(found.state), dropped, tuple(kept), notice
    )


def _same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.dtype == other.dtype and torch.equal(one, other)


def _notice(layout: str) -> str | None:
    return ADOBE_NOTICE if "LVT" in layout else None
