"""`litevit convert`."""

import sys
from pathlib import Path

from tyro.conf import Positional


def convert(source: Positional[Path], target: Positional[Path], *, ema: bool = False) -> None:
    """Converts an official checkpoint to litevit's layout, or a litevit checkpoint back, bit for bit.

    Args:
        source: checkpoint; its layout decides the direction.
        target: file to write: .safetensors, or .pth for a PyTorch file.
        ema: take the moving average, where the checkpoint holds one.
    """
    from litevit.checkpoints.convert import convert as run

    done = run(source, target, ema=ema)
    print(f"{source} ({done.layout_from}) -> {target} ({done.layout_to}): {done.tensors} tensors, checked both ways")
    for what, keys in (("made again on the way back", done.dropped), ("carried along", done.kept)):
        if keys:
            print(f"  {what}: {len(keys)} ({keys[0]}, ...)" if len(keys) > 1 else f"  {what}: {keys[0]}")
    if done.notice:
        print(f"Note: {done.notice}.", file=sys.stderr)
