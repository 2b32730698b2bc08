"""What is timed, and how a case that cannot run is left out while the others go on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from litevit.bench import timing as timing

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Case:
    """One thing to be timed, at its own batch."""

    name: str
    run: Callable[[], object]
    batch: int
    facts: dict[str, Any] = field(default_factory=dict)


def prepare(make: Callable[[int], Callable[[], object]], batch: int, name: str, notes: list[str]) -> Case | None:
    """Builds a case and warms it up. Memory that runs out halves the batch; a missing compiler leaves the case out.

    Args:
        make: batch -> function to time.
        batch: first batch to try.
        name: of the case, for the notes.
        notes: what happened is added here.
    """
    while True:
        try:
            run = make(batch)
            run()
            run()
            return Case(name, run, batch)
        except Exception as error:
            if timing.is_out_of_memory(error):
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                if batch == 1:
                    notes.append(f"{name}: out of memory at batch 1, left out.")
                    return None
                notes.append(f"{name}: out of memory at batch {batch}, halved to {batch // 2}.")
                batch //= 2
                continue
            if timing.no_compiler(error):
                notes.append(f"{name}: torch.compile found no working compiler (CXX, else g++), left out.")
                return None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            notes.append(f"{name}: left out, {type(error).__name__}: {reason}")
            return None


def inference(model: Callable, images: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def training_step(model: Callable, images: Tensor) -> Callable[[], object]:
    def run() -> None:
        model.zero_grad(set_to_none=True)  # type: ignore[attr-defined]
        out = model(images)
        maps = out if isinstance(out, tuple | list) else [out]
        sum(m.float().square().mean() for m in maps).backward()  # type: ignore[union-attr]

    return run
