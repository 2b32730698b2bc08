"""Whole models with the Triton operators in the place of the plain ones, on a GPU: does any of them pay?

    python benchmarks/triton_in_models.py --batch 256 --dtype bf16 --out FOLDER

Images/s of inference and of a training step (forward and backward), eager and compiled, plain and with each operator
alone, in turns in one process. Median of the rounds; CUDA events around each.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

import litevit
from litevit.ops import deformable_sampling
from litevit.ops.triton.dilated import dilated_sum
from litevit.ops.triton.merging import deformable_sample


def dilated(x: Tensor, weight: Tensor, rates: tuple[int, ...]) -> Tensor:
    return dilated_sum(x, weight, list(rates))


def taps(x: Tensor, offset: Tensor) -> Tensor:
    """Not Triton: the exporter's form of the plain function, for comparison."""
    return deformable_sampling._sample_taps(x, offset)


OPERATORS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "merging": ("litevit.layers.deformable_merging.deformable_sample", deformable_sample),
    "taps": ("litevit.layers.deformable_merging.deformable_sample", taps),
    "dilated": ("litevit.layers.rasa.dilated_silu_sum", dilated),
}
MODELS = {"litv2_s": ("merging", "taps"), "lit_s": ("merging",), "lvt": ("dilated",)}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def runner(model: nn.Module, images: Tensor, train: bool) -> Callable[[], object]:
    def infer() -> object:
        with torch.inference_mode():
            return model(images)

    def step() -> None:
        model(images).float().square().mean().backward()
        model.zero_grad(set_to_none=True)

    return step if train else infer


def milliseconds(run: Callable[[], object]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--dtype", nargs="+", default=["bf16"], choices=list(DTYPES))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="compiled as well (a minute or more per model)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("triton_in_models: needs a CUDA device, there is none")
    rows: list[dict] = []
    for name in arguments.models:
        for dtype in arguments.dtype:
            for train in (False, True):
                batch = arguments.batch // 2 if train else arguments.batch
                for compiled in (False, True) if arguments.compile else (False,):
                    rows += compare(name, dtype, train, compiled, batch, arguments.rounds)
                    facts = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "command": sys.argv}
                    if arguments.out is not None:
                        arguments.out.mkdir(parents=True, exist_ok=True)
                        text = json.dumps({"environment": facts, "rows": rows}, indent=1)
                        (arguments.out / "triton_in_models.json").write_text(text + "\n")


def in_place(way: str) -> AbstractContextManager:
    """A block in which the layers call the Triton operator."""
    return nullcontext() if way == "plain" else mock.patch(*OPERATORS[way])


def compare(name: str, dtype: str, train: bool, compiled: bool, batch: int, rounds: int) -> list[dict]:
    runs: dict[str, Callable[[], object]] = {}
    times: dict[str, list[float]] = {}
    for way in ("plain", *MODELS[name]):
        torch.manual_seed(0)
        model: nn.Module = litevit.create_model(name).train(train).to("cuda", DTYPES[dtype])
        images = torch.randn(batch, 3, 224, 224, device="cuda", dtype=DTYPES[dtype])
        with in_place(way):
            torch.compiler.reset()
            runs[way] = runner(torch.compile(model) if compiled else model, images, train)
            for _ in range(3):
                runs[way]()
            # A compiled model guards on the functions it was traced with, so it is measured at once, not in turns.
            times[way] = [milliseconds(runs[way]) for _ in range(rounds if compiled else 0)]
    for _ in range(0 if compiled else rounds):
        for way, run in runs.items():
            with in_place(way):
                times[way].append(milliseconds(run))
    base = statistics.median(times["plain"])
    rows = []
    for way, found in times.items():
        median = statistics.median(found)
        row = {
            "model": name,
            "dtype": dtype,
            "what": "step" if train else "inference",
            "mode": "compiled" if compiled else "eager",
            "way": way,
            "images_per_s": round(1000 * batch / median, 1),
            "x plain": round(base / median, 3),
        }
        rows.append(row)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    torch.cuda.empty_cache()
    return rows


if __name__ == "__main__":
    main()
