"""Kills jobs at every kind of moment, starts them again, and holds what comes out to an undisturbed run.

Three kinds of moments: before the n-th operation on files (rename, flush, unlink, open to write, ...), which covers
every write; in the n-th file, with a share of its content on the disk; and at the n-th call of a Python function, drawn
evenly over the job, or after a time, drawn evenly too, which also falls into PyTorch's own code.
"""

import hashlib
import http.server
import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import checks
from faults.zygote import Ended, Zygote


@dataclass
class Job:
    """One command, its arguments for a folder of its own, and what it leaves there."""

    name: str
    arguments: Callable[[Path], tuple[Any, ...]]
    result: Callable[[Path], Any]
    options: tuple[str, ...] = ()
    says: bool = False  # the result is what it prints


@dataclass
class Tally:
    """What became of the kills of a phase."""

    kills: int = 0
    same: int = 0  # continued to the same end
    twice: int = 0  # killed again while it was continued
    left: int = 0  # temporary files that kills have left
    files: int = 0  # files under final names that were read after the kill


@dataclass
class Report:
    phases: dict[str, Tally] = field(default_factory=dict)
    missed: int = 0  # ended before the kill
    kinds: Counter[str] = field(default_factory=Counter)

    def of(self, phase: str) -> Tally:
        return self.phases.setdefault(phase, Tally())

    @property
    def kills(self) -> int:
        return sum(tally.kills for tally in self.phases.values())


def jobs_of(place: Path, server: str, digest: str) -> dict[str, Job]:
    data, run = place / "data", place / "run"
    pictures = data / "train"
    return {
        "train": Job("train", lambda at: (data, at / "run"), lambda at: checks.of_run(at / "run")),
        "train with workers": Job(
            "train", lambda at: (data, at / "run"), lambda at: checks.of_run(at / "run"), ("--run.workers", "2")
        ),
        "train with pictures": Job(
            "train", lambda at: (data, at / "run"), lambda at: checks.of_run(at / "run"), ("pictures",)
        ),
        "download": Job("download", lambda at: (at, server, digest), _of_download),
        "download without a known checksum": Job("download", lambda at: (at, server, None), _of_download),
        "conversion": Job(
            "convert",
            lambda at: (place / "official.pth", at / "ours.safetensors"),
            lambda at: checks.of_weights(at / "ours.safetensors"),
        ),
        "export": Job("export", lambda at: (run, at / "model.pt2"), lambda at: checks.of_export(at / "model.pt2")),
        "Parquet": Job("predict", lambda at: (run, pictures, at / "out"), lambda at: checks.of_parquet(at / "out")),
        "label maps": Job(
            "token_labels", lambda at: (run, data, at / "maps"), lambda at: checks.of_label_maps(at / "maps")
        ),
        "pack": Job("pack", lambda at: (run, at / "packed"), lambda at: checks.of_pack(at / "packed")),
        "litevit eval": Job("evaluate", lambda at: (run, data), lambda at: None, says=True),
    }


def _of_download(at: Path) -> Any:
    return {path.name: path.read_bytes() for path in at.iterdir() if path.suffix != ".lock"}


class Killer:
    """Args: scratch: an empty folder; what was done is deleted again."""

    def __init__(self, zygote: Zygote, jobs: dict[str, Job], scratch: Path, seed: int = 0):
        self.zygote, self.jobs, self.scratch = zygote, jobs, scratch
        self.luck, self.report = random.Random(seed), Report()
        self.wanted: dict[str, tuple[Ended, Any]] = {}

    def undisturbed(self, name: str) -> tuple[Ended, Any]:
        """How long the job takes, how much it does, and what comes out."""
        if name not in self.wanted:
            if name == "litevit eval":  # compiles kernels, the first time
                self._run(name, self._folder())
            at = self._folder()
            ended = self._run(name, at)
            assert ended.code == 0, ended.said
            counted = self._run(name, self._folder(), call=-1)
            assert counted.code == 0, counted.said
            measured = Ended(**{**ended.__dict__, "calls": counted.calls})
            self.wanted[name] = measured, self._result(name, at, ended)
        return self.wanted[name]

    def moments(self, name: str, number: int) -> Iterator[dict[str, Any]]:
        """So many of them: operations and files in an order drawn by chance, then calls and times."""
        ended, _ = self.undisturbed(name)
        files = [{"file": n, "share": self.luck.choice((0, 0.3, 0.9, 1))} for n in range(1, ended.files + 1)]
        certain = [{"event": n} for n in range(1, ended.events + 1)] + files
        self.luck.shuffle(certain)
        yield from certain[: -(-number // 2)]
        for _ in range(number - min(len(certain), -(-number // 2))):
            if self.luck.random() < 0.5:
                yield {"call": self.luck.randint(1, ended.calls)}
            else:
                yield {"after": self.luck.uniform(0, ended.seconds)}

    def kill(self, name: str, number: int) -> None:
        """`number` kills that have landed, each followed by a restart."""
        landed = tries = 0
        while landed < number:
            for moment in self.moments(name, number - landed):
                landed += self._kill(name, moment)
                tries += 1
            assert tries <= 5 * number + 20, f"{landed} of {tries} kills landed: {self.undisturbed(name)[0]}"

    def _kill(self, name: str, moment: dict[str, Any]) -> bool:
        _, wanted = self.undisturbed(name)
        at = self._folder()
        ended = self._run(name, at, **moment)
        if not ended.killed:
            assert ended.code == 0, f"{moment}: {ended.said}"
            self.report.missed += 1
            shutil.rmtree(at)
            return False
        tally = self.report.of(ended.phase)
        tally.kills += 1
        self.report.kinds[next(iter(moment))] += 1
        told = f"{name}, killed in {ended.phase} at {moment}"
        try:
            tally.files += checks.assert_whole(at)
            tally.left += len(checks.temporaries(at))
            if self.luck.random() < 0.2:
                again = self._run(name, at, after=self.luck.uniform(0, ended.seconds))
                assert again.killed or again.code == 0, again.said
                tally.twice += again.killed
                checks.assert_whole(at)
            done = self._run(name, at)
            assert done.code == 0, done.said
            checks.assert_equal(self._result(name, at, done), wanted)
            assert not (left := checks.temporaries(at)), left
        except AssertionError as error:
            raise AssertionError(f"{told}: {error}") from error
        tally.same += 1
        shutil.rmtree(at)
        return True

    def _run(self, name: str, at: Path, **die: Any) -> Ended:
        job = self.jobs[name]
        return self.zygote.run(job.name, *job.arguments(at), *job.options, **die)

    def _result(self, name: str, at: Path, ended: Ended) -> Any:
        return json.loads(ended.said[ended.said.index("{") :]) if self.jobs[name].says else self.jobs[name].result(at)

    def _folder(self) -> Path:
        at = self.scratch / f"{time.monotonic_ns()}"
        at.mkdir()
        return at


@contextmanager
def file_server(content: bytes) -> Iterator[str]:
    """The address of a file that comes slowly, in parts if asked for, with an ETag."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = 0
            tag = hashlib.sha256(content).hexdigest()[:16]
            asked, known = self.headers.get("Range", ""), self.headers.get("If-Range")
            if asked and known in (None, f'"{tag}"'):
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content) and asked:
                self.send_response(416)
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{tag}"')
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            try:
                for first in range(start, len(content), 4096):
                    self.wfile.write(content[first : first + 4096])
                    time.sleep(0.001)
            except OSError:  # who asked is dead
                return

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/weights.pth"
    finally:
        server.shutdown()
        server.server_close()
