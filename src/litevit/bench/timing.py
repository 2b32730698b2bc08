"""Side-by-side timing: what `litevit bench` measures with, what it writes.

Cases run in turns, so that whatever else the machine does falls on all of them; what is compared is the ratio of two
cases within one turn. Absolute times are only good for the machine and the hour.
"""

import csv
import os
import platform
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from litevit.bench.words import Clock
from litevit.devices import multiplies_bfloat16, processor_name
from litevit.files import whole_file, write_json
from litevit.optimize.linear import product
from litevit.optimize.native import build, kernels
from litevit.optimize.native.build import runs_here


@dataclass
class Timing:
    """Seconds per call, one entry per turn."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # processor time of the whole process: unmoved by other processes

    def seconds(self, clock: Clock = "wall") -> list[float]:
        """The turns by one clock."""
        return self.wall if clock == "wall" else self.cpu

    def median(self, clock: Clock = "wall") -> float:
        """Median of the turns."""
        return statistics.median(self.seconds(clock))

    def spread(self, clock: Clock = "wall") -> float | None:
        """Half the distance between the quartiles, as a share of the median; None of a single turn."""
        turns = self.seconds(clock)
        if len(turns) < 2:
            return None
        low, _, high = statistics.quantiles(turns, n=4, method="inclusive")
        return (high - low) / 2 / self.median(clock)


def speedup(case: Timing, over: Timing, clock: Clock = "wall") -> float:
    """How many times faster `case` is: the median over turns of the ratio within a turn."""
    return statistics.median(b / a for a, b in zip(case.seconds(clock), over.seconds(clock)))


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def interleave(
    cases: dict[str, Callable[[], object]],
    *,
    rounds: int = 7,
    min_seconds: float = 0.2,
    device: torch.device | str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> dict[str, Timing]:
    """Times functions in turns.

    Args:
        cases: name -> function without arguments, already warmed up.
        rounds: turns; in each every case runs once, or as often as it takes to fill `min_seconds`.
        min_seconds: least time of a case in one turn.
        device: where they run; it is waited for around every measurement.
        progress: told about each turn.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    device = torch.device(device)
    repeats = {}
    for name, run in cases.items():
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        repeats[name] = max(1, round(min_seconds / max(time.perf_counter() - start, 1e-7)))
    timings = {name: Timing() for name in cases}
    order = list(cases)
    for turn in range(rounds):
        if progress:
            progress(f"turn {turn + 1} of {rounds}")
        for name in order if turn % 2 == 0 else reversed(order):
            run, n = cases[name], repeats[name]
            synchronize(device)
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(n):
                run()
            synchronize(device)
            timings[name].wall.append((time.perf_counter() - wall) / n)
            timings[name].cpu.append((time.process_time() - cpu) / n)
    return timings


def _has_storage(leaf: object) -> TypeGuard[Tensor]:
    """Whether a leaf is a tensor with memory that can be seen; weights in oneDNN's own order hide theirs."""
    return isinstance(leaf, Tensor) and not leaf.is_mkldnn


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages made inside and still alive; not what an operator takes for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        known = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if _has_storage(t)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if _has_storage(leaf):
                storage = leaf.untyped_storage()
                key = storage._cdata
                if key not in self.seen and key not in known:
                    self.seen.add(key)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out


def peak_bytes(run: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Most memory that tensors made by `run` take at one time. On CUDA the allocator's peak, above what was there."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveBytes() as live:
        run()
    return live.peak


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(w in str(error).lower() for w in words)


def no_compiler(error: BaseException) -> bool:
    """Whether torch.compile failed for want of a compiler."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {type(e).__name__ for e in chain}
    return bool(names & {"InvalidCxxCompiler", "TritonMissing", "GPUTooOldForTriton"}) or any(
        "No working C++ compiler" in str(e) for e in chain
    )


@contextmanager
def threads(count: int | None):  # type: ignore[no-untyped-def]
    """Runs with that many CPU threads; None leaves them."""
    before = torch.get_num_threads()
    if count is not None:
        if count < 1:
            raise ValueError(f"threads must be at least 1, got {count}")
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def product_rate(device: torch.device, dtype: torch.dtype, clock: Clock = "wall", *, seconds: float = 0.5) -> float:
    """FLOP/s of a large matrix product in a dtype, the best of several and of every library at hand.

    What this machine gives at most: on some processors PyTorch's own product (MKL) is half as fast as oneDNN's.
    """
    n = 8192 if device.type == "cuda" else 1024
    x, weight = torch.randn(2, n, n, device=device).to(dtype).unbind(0)
    now = time.perf_counter if clock == "wall" else time.process_time
    best = float("inf")
    for run in (F.linear, product):
        with torch.no_grad():
            run(x, weight, None)
            until = time.perf_counter() + seconds / 2
            while time.perf_counter() < until:
                synchronize(device)
                start = now()
                run(x, weight, None)
                synchronize(device)
                best = min(best, now() - start)
    return 2 * n**3 / best


def environment(device: torch.device) -> dict[str, Any]:
    """What a reader needs to judge a figure."""
    import timm
    import torchvision

    build.make()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    out: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["litevit", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_units": multiplies_bfloat16(device) if device.type == "cpu" else None,
        "cpp_kernels": kernels.available(),
        "cores": os.cpu_count(),
        "load_average": load,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "commit": _commit(),
    }
    warnings = []
    if load is not None and load > 0.7 * (os.cpu_count() or 1):
        warnings.append(f"the machine was busy (load average {load:.1f}); only ratios within a turn mean something")
    if device.type == "cpu" and runs_here() and not kernels.available():
        warnings.append(
            "litevit's C++ kernels did not run, for want of a working compiler (CXX, else g++) or cache folder"
        )
    if warnings:
        out["warning"] = "; ".join(warnings)
    return out


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def write_results(
    rows: Sequence[dict[str, Any]], environment: dict[str, Any], folder: Path, name: str, notes: Iterable[str] = ()
) -> list[Path]:
    """Writes `name`.json (rows, environment, notes) and `name`.csv (rows). Returns the files."""
    json_path, csv_path = folder / f"{name}.json", folder / f"{name}.csv"
    content = {"environment": environment, "notes": list(notes), "rows": list(rows)}
    write_json(json_path, content, indent=1)
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("wall", "cpu")))
    with whole_file(csv_path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return [json_path, csv_path]
