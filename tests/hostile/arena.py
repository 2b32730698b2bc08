"""Where litevit meets hostile input: what an input may do, how one is run, and how a worker with limits runs many.

An attack builds one input from a `random.Random` and hands it to litevit as a user would. It may end well or with a
documented exception of one message; everything else is a finding. The same attack is driven by seeds (`fuzz.py`) and by
hypothesis (`draws()`): both are a `random.Random` to it.
"""

import contextlib
import faulthandler
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_SECONDS = 10.0  # of processor time, for one input
MOST_BYTES = 2 * 2**30  # of address space, beyond what the worker has before its first input
MOST_MESSAGE = 2000  # characters of an error: whoever quotes a hostile value cuts it
SILENCE = 120.0  # seconds of the clock without a finished input after which a worker counts as hung
ALLOWED = (ValueError, OSError, ImportError)  # what the command line turns into one line
RAW = (UnicodeError, json.JSONDecodeError)  # name neither the file nor what to do


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        attack: (draw, seeds, folder): builds one input, in `folder` where it is a file, and hands it to litevit.
        prepare: writes valid seeds into a folder, once.
        inputs: of `make fuzz`.
        share: of the default tests.
        warm: inputs that a worker runs before memory and time count, so that what is imported late is there.
    """

    name: str
    attack: Callable[[random.Random, Path, Path], None]
    prepare: Callable[[Path], None]
    inputs: int
    share: int
    warm: int = 1


class Breach(BaseException):
    """Something was run, or written outside; no `except Exception` hides it."""


class TooLong(BaseException):
    """The processor time of one input is over."""


# ------------------------------------------------------------------ sentinels

RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn", "os.startfile",
        "subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo", "webbrowser.open", "os.kill",
        "pickle.find_class")  # fmt: skip
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod",
          "os.chown", "shutil.rmtree", "shutil.copyfile", "shutil.move")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Arena:
    """A folder with the input's own folder in it, and sentinels around.

    `inside` is the only place that may be written; `canary` is what payloads touch; `outside` is where paths that climb
    out end.
    """

    def __init__(self, root: Path, also: Path | None = None):
        """Args: also: a folder outside that may be written: where hypothesis keeps what it finds in between."""
        self.also = None if also is None else os.path.realpath(also)
        self.root = Path(os.path.realpath(root))
        self.inside, self.outside = self.root / "inside", self.root / "outside"
        self.canary = self.root / "canary"
        self.watching = False
        self.breaches: list[str] = []
        for folder in (self.inside, self.outside):
            folder.mkdir(parents=True, exist_ok=True)
        self._before = self._around()
        sys.addaudithook(self._heard)

    def _around(self) -> set[str]:
        return {entry.name for entry in os.scandir(self.root)} | {entry.name for entry in os.scandir(self.outside)}

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event in RUNS and not (event == "os.kill" and args[1] == 0):  # signal 0 asks whether a process is there
            self._breach(f"{event}{args!r:.200}")
        elif event == "ctypes.dlopen":
            if isinstance(args[0], str | bytes) and os.fsdecode(args[0]).startswith(str(self.root)):
                self._breach(f"ctypes.dlopen({args[0]!r:.200})")
        elif event == "open":
            path, mode, flags = args
            writing = any(sign in mode for sign in "wax+") if isinstance(mode, str) else (flags or 0) & _WRITING
            if writing and not self._allowed(path):
                self._breach(f"open({path!r:.200}, {mode!r})")
        elif event in WRITES:
            made = slice(1, 2) if event in ("os.symlink", "os.link", "shutil.copyfile") else slice(0, 1)
            for path in args[:2] if event in ("os.rename", "shutil.move") else args[made]:
                if not self._allowed(path):
                    self._breach(f"{event}{args!r:.200}")

    def _allowed(self, path: Any) -> bool:
        if isinstance(path, int) or path is None:  # a descriptor was opened before, under its name
            return True
        real = os.path.realpath(os.fsdecode(path))
        if self.also is not None and real.startswith(self.also):
            return True
        return real.startswith(f"{self.inside}{os.sep}") or real in (str(self.inside), os.devnull)

    def _breach(self, what: str) -> None:
        self.breaches.append(what)
        raise Breach(what)

    @contextlib.contextmanager
    def watched(self) -> Iterator[Path]:
        """Yields the empty folder of one input. Raises Breach where something around it has changed."""
        self.breaches.clear()
        self.watching = True
        try:
            yield self.inside
        finally:
            self.watching = False
        if self.breaches:
            raise Breach(self.breaches[0])
        if changed := self._around() ^ self._before:
            for name in changed:
                for place in (self.root / name, self.outside / name):
                    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
            raise Breach(f"around the input's folder changed: {sorted(changed)}")

    def clear(self) -> None:
        for entry in os.scandir(self.inside):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


# ------------------------------------------------------------------ one input


@dataclass
class Outcome:
    refused: bool
    seconds: float
    finding: str | None = None  # one line: what must not happen
    trace: str = ""


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def over(*_: Any) -> None:
        raise TooLong(f"more than {MOST_SECONDS:.0f} s of processor time")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run_one(kind: Kind, draw: random.Random, arena: Arena, seeds: Path, *, timed: bool = True) -> Outcome:
    """Runs one input, and says what came of it."""
    arena.clear()
    refused, finding, trace = False, None, ""
    started = time.process_time()
    try:
        with arena.watched() as folder, _time_limit() if timed else contextlib.nullcontext(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.attack(draw, seeds, folder)
    except ALLOWED as error:
        refused = True
        finding = _bad_refusal(error)
        trace = traceback.format_exc() if finding else ""
    except (Breach, TooLong) as error:
        finding, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, RecursionError, panics of Rust, ...
        if type(error).__module__.startswith("hypothesis."):  # its way to end an example that draws too much
            raise
        finding, trace = f"{type(error).__name__}: {error!s:.300}", traceback.format_exc()
    return Outcome(refused, time.process_time() - started, finding, trace)


def _bad_refusal(error: BaseException) -> str | None:
    """Why an allowed exception is no good answer all the same."""
    message = str(error)
    if isinstance(error, RAW):
        return f"raw {type(error).__name__}: {message[:200]}"
    if not message.strip():
        return f"{type(error).__name__} without a message"
    if len(message) > MOST_MESSAGE:
        return f"{type(error).__name__} with a message of {len(message):,} characters: {message[:200]}"
    cause: BaseException | None = error
    while (
        cause is not None
    ):  # what was hidden behind the message: an allocation that another machine would have granted
        if isinstance(cause, MemoryError) or "bad_alloc" in str(cause) or "allocate memory" in str(cause):
            return f"memory: {type(cause).__name__}: {str(cause)[:200]}"
        cause = cause.__cause__ or cause.__context__
    return None


def check(kind: Kind, draw: random.Random) -> None:
    """One input in this process, for hypothesis: raises AssertionError with the finding."""
    arena, seeds = _of_this_process(kind)
    outcome = run_one(kind, draw, arena, seeds, timed=False)
    assert outcome.finding is None, f"{kind.name}: {outcome.finding}\n{outcome.trace}"


_arena: list[Arena] = []
_prepared: dict[str, Path] = {}


def _of_this_process(kind: Kind) -> tuple[Arena, Path]:
    if not _arena:
        from hypothesis.configuration import storage_directory

        _arena.append(
            Arena(Path(tempfile.mkdtemp(prefix="hostile-")), also=storage_directory(intent_to_write=False).path)
        )
    if kind.name not in _prepared:
        _prepared[kind.name] = seeds = Path(tempfile.mkdtemp(prefix=f"seeds-{kind.name}-"))
        kind.prepare(seeds)
    return _arena[0], _prepared[kind.name]


def forget() -> None:
    """Removes the folders that `check` has made."""
    for folder in [*_prepared.values(), *(arena.root for arena in _arena)]:
        shutil.rmtree(folder, ignore_errors=True)
    _prepared.clear()


def draws() -> Any:
    """A strategy of hypothesis: `random.Random` objects whose every choice hypothesis makes, and shrinks."""
    from hypothesis import strategies as st

    return st.randoms(use_true_random=False, note_method_calls=False)


# ----------------------------------------------------------------- a worker

_STATE = struct.Struct("6q2d")  # next index, refused, accepted, index of the slowest, of the largest, peak KiB; seconds


@dataclass
class Row:
    """What came of the inputs of a kind."""

    kind: str
    refused: int = 0
    accepted: int = 0
    slowest: float = 0.0
    slowest_at: int = -1
    largest: float = 0.0  # MiB of resident memory beyond the start
    largest_at: int = -1
    seconds: float = 0.0
    crashes: int = 0  # of its workers
    findings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return self.refused + self.accepted + len(self.findings)


def seeded(kind: Kind, seed: int, index: int) -> random.Random:
    return random.Random(f"{kind.name}:{seed}:{index}")


def _virtual_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _work(
    kind: Kind, seed: int, indices: range, root: Path, seeds: Path, shared: mmap.mmap, log: Path, until: float
) -> None:
    """The inputs of a slice, in a process of its own."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(root / "inside")
    os.environ["MPLCONFIGDIR"] = str(root / "inside")  # matplotlib's own
    sys.dont_write_bytecode = True  # of what is imported late
    faulthandler.disable()
    arena = Arena(root)
    for index in range(-kind.warm, 0):
        run_one(kind, seeded(kind, 0, index), arena, seeds, timed=False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start = _peak_kib()
    resource.setrlimit(resource.RLIMIT_AS, (_virtual_bytes() + MOST_BYTES, resource.RLIM_INFINITY))
    refused = accepted = 0
    slowest, slowest_at, largest, largest_at = 0.0, -1, 0, -1
    shared[: _STATE.size] = _STATE.pack(indices.start, 0, 0, -1, -1, 0, 0.0, 0.0)
    for index in indices:
        if time.monotonic() > until:
            return
        outcome = run_one(kind, seeded(kind, seed, index), arena, seeds)
        if outcome.finding is not None:
            with log.open("a") as file:
                found = {"kind": kind.name, "seed": seed, "at": index, "what": outcome.finding, "trace": outcome.trace}
                file.write(json.dumps(found) + "\n")
        elif outcome.refused:
            refused += 1
        else:
            accepted += 1
        if outcome.seconds > slowest:
            slowest, slowest_at = outcome.seconds, index
        if (peak := _peak_kib() - start) > largest:
            largest, largest_at = peak, index
        shared[: _STATE.size] = _STATE.pack(
            index + 1, refused, accepted, slowest_at, largest_at, largest, slowest, time.monotonic()
        )


def run_slice(kind: Kind, seed: int, indices: range, root: Path, seeds: Path, row: Row, until: float) -> None:
    """Forks a worker with limits for these inputs; a crash ends the slice, and so does the clock at `until`."""
    shared = mmap.mmap(-1, _STATE.size)
    shared[: _STATE.size] = _STATE.pack(indices.start, 0, 0, -1, -1, 0, 0.0, 0.0)
    root.mkdir(parents=True, exist_ok=True)
    log = root.parent / f"{root.name}-findings.jsonl"
    log.unlink(missing_ok=True)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            errors = os.open(root.parent / f"{root.name}-stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(errors, 2)
            _work(kind, seed, indices, root, seeds, shared, log, until)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status, seen, since = 0, indices.start, time.monotonic()
    hung = False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        at = _STATE.unpack(shared[: _STATE.size])[0]
        if at != seen:
            seen, since = at, time.monotonic()
        elif time.monotonic() - since > SILENCE:
            hung = True
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    at, refused, accepted, slowest_at, largest_at, largest, slowest, _ = _STATE.unpack(shared[: _STATE.size])
    if log.exists():
        row.findings += [json.loads(line) for line in log.read_text().splitlines()]
    row.refused, row.accepted = row.refused + refused, row.accepted + accepted
    if slowest > row.slowest:
        row.slowest, row.slowest_at = slowest, slowest_at
    if largest / 1024 > row.largest:
        row.largest, row.largest_at = largest / 1024, largest_at
    row.seconds += time.monotonic() - started
    shutil.rmtree(root, ignore_errors=True)
    if status == 0:
        return
    said = (root.parent / f"{root.name}-stderr").read_text(errors="replace")[-1500:]
    what = "hung" if hung else f"the process died (wait status {status})"
    row.findings.append({"kind": kind.name, "seed": seed, "at": at, "what": what, "trace": said})
    row.crashes += 1
