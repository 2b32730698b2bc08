"""Runs commands in forked processes that can be killed anywhere, at a tenth of a second each.

`Zygote` starts one process that imports PyTorch and litevit once and never computes (a process with PyTorch's threads
must not be forked), and asks it for one child after the other. A child does one job of `faults.jobs`, and dies on
request: after a time, before its n-th operation on files, in the middle of its n-th file, or at its n-th function call.
`python -m faults.zygote` is that process.
"""

import contextlib
import dataclasses
import fcntl
import gc
import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
LONGEST = 300.0  # seconds a child may take on a machine that does much else


@dataclass(frozen=True)
class Ended:
    """How a child has ended.

    Attributes:
        code: its exit code, or minus the signal that killed it.
        phase: what it was doing.
        events, files, calls: operations on files, files written and functions called.
        said: its standard output and error.
    """

    code: int
    seconds: float
    phase: str
    events: int
    files: int
    calls: int
    said: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Zygote:
    """Use as a context manager. Args: cache: litevit's cache folder of all children."""

    def __init__(self, cache: Path):
        environment = os.environ | {
            "LITEVIT_CACHE": str(cache), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]), "COLUMNS": "200",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "faults.zygote"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd=cache,
        )  # fmt: skip

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(self, *_: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(LONGEST)

    def run(self, job: str, *arguments: Any, **die: Any) -> Ended:
        """One child.

        Args:
            job: a function of `faults.jobs`.
            die: `after` seconds; before the n-th `event`; in the n-th `file`, with `share` of it written; at the n-th
                `call`. `limits`: of `resource`, by their names. `signals`: number, first, pause, how many. `storm`: the
            phase in which it sends itself SIGTERMs.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"job": job, "arguments": [*map(_plain, arguments)], "die": die}), file=self.process.stdin)
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the zygote has ended"
        return Ended(**json.loads(line))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


# ------------------------------------------------------------- in the children


class Watch:
    """What a child does, in memory that outlives it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 256)
        self.clear()

    def clear(self) -> None:
        self.memory[:] = bytes(256)
        self.phase, self.storm = "start", None

    @property
    def phase(self) -> str:
        return self.memory[64:128].rstrip(b"\0").decode()

    @phase.setter
    def phase(self, name: str) -> None:
        self.memory[64:128] = name.encode().ljust(64, b"\0")

    def count(self, place: int) -> int:
        """Adds one to a counter: 0 events, 1 files, 2 calls."""
        (number,) = struct.unpack_from("Q", self.memory, 8 * place)
        struct.pack_into("Q", self.memory, 8 * place, number + 1)
        return number + 1

    def counts(self) -> tuple[int, int, int]:
        return struct.unpack_from("QQQ", self.memory)

    def maybe_storm(self) -> None:
        if self.storm == self.phase:
            for _ in range(50):
                os.kill(os.getpid(), signal.SIGTERM)

    def die_at_events(self, number: int | None) -> None:
        """Counts what changes the disk, and dies before the operation of this number."""
        import builtins

        def watched(function: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                if self.count(0) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                self.maybe_storm()
                return function(*args, **kwargs)

            return call

        for name in ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "ftruncate"):
            setattr(os, name, watched(getattr(os, name)))
        plain, counted = builtins.open, watched(builtins.open)

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            to_write = any(letter in mode for letter in "wax+") and not str(file).startswith("/dev/")
            return (counted if to_write else plain)(file, mode, *args, **kwargs)

        builtins.open = opened  # type: ignore[assignment]

    def die_in_files(self, number: int | None, share: float) -> None:
        """Counts files that are written, and dies with a share of the one of this number on the disk."""
        import safetensors.torch
        import torch

        import litevit.files
        from litevit import seals

        def written(path: Any) -> None:
            if isinstance(path, str | Path) and self.count(1) == number:
                os.truncate(path, int(os.path.getsize(path) * share))
                os.kill(os.getpid(), signal.SIGKILL)

        def then(function: Any, place: int) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                result = function(*args, **kwargs)
                written(args[place])
                return result

            return call

        torch.save = then(torch.save, 1)
        seals.save_file = then(safetensors.torch.save_file, 1)
        Path.write_text = then(Path.write_text, 0)  # type: ignore[method-assign]
        with contextlib.suppress(ImportError):
            import pyarrow.parquet

            pyarrow.parquet.write_table = then(pyarrow.parquet.write_table, 1)
        assert litevit.files is not None

    def die_at_calls(self, number: int | None) -> None:
        """Counts functions of Python that are called, and dies in the one of this number."""

        def profile(_frame: Any, event: str, _what: Any) -> None:
            if event == "call" and self.count(2) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(profile)


def _child(request: dict[str, Any], watch: Watch, output: int) -> None:
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    from faults import jobs

    die = request["die"]
    watch.storm = die.get("storm")
    watch.die_at_events(die.get("event"))
    watch.die_in_files(die.get("file"), die.get("share", 0.5))
    for name, value in die.get("limits", {}).items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if "call" in die:
        watch.die_at_calls(die["call"])
    code = 70
    try:
        code = getattr(jobs, request["job"])(watch, *request["arguments"]) or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.setprofile(None)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# -------------------------------------------------------------- in the zygote


def _run(request: dict[str, Any], watch: Watch) -> Ended:
    watch.clear()
    die, (reading, output) = request["die"], os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 1 << 20)  # what is said has room until it is read
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        _child(request, watch, output)
    end = start + die.get("after", LONGEST)
    storm = die.get("signals")  # number, seconds until the first, pause, how many
    next_signal, left = (start + storm[1], storm[3]) if storm else (end + 1, 0)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        now = time.monotonic()
        if now >= end:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
        if storm and left and now >= next_signal:
            os.kill(pid, storm[0])
            left, next_signal = left - 1, now + storm[2]
        time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # loader workers that it has left
    os.write(output, b"\n")  # there is something to read
    said = os.read(reading, 1 << 20).decode(errors="replace")
    os.close(reading)
    os.close(output)
    events, files, calls = watch.counts()
    return Ended(
        os.waitstatus_to_exitcode(status), time.monotonic() - start, watch.phase, events, files, calls, said[-20000:]
    )


def main() -> None:
    import torch

    torch.set_num_threads(1)
    from faults import jobs

    jobs.import_all()
    gc.collect()
    gc.freeze()  # what is shared stays shared
    watch = Watch()
    for line in sys.stdin:
        ended = _run(json.loads(line), watch)
        print(json.dumps(dataclasses.asdict(ended)), flush=True)


if __name__ == "__main__":
    main()
