"""Coverage-guided fuzzing (atheris) of what is parsed in Python: the choices of an attack are bytes, which libFuzzer mutates
towards code of litevit that no input has reached yet.

python -m hostile.guided [KIND ...] [--seconds S]     S of each; a finding is printed with the bytes that make it again
python -m hostile.guided KIND --again FILE            one input again
"""

import argparse
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from hostile.arena import MOST_BYTES, Arena, run_one
from hostile.fuzz import find_kind

KINDS = ("safetensors", "runs", "packed", "shards", "coco", "panoptic", "labels", "checkpoints")


class Choices(random.Random):
    """Choices made by bytes; when they have run out, zeros."""

    def __new__(cls, content: bytes) -> "Choices":
        return super().__new__(cls)

    def __init__(self, content: bytes):
        super().__init__(0)
        self.content, self.at = content, 0

    def getrandbits(self, k: int) -> int:
        count = (k + 7) // 8
        part = self.content[self.at : self.at + count]
        self.at += count
        return int.from_bytes(part, "little") & ((1 << k) - 1)

    def random(self) -> float:
        return self.getrandbits(16) / 2**16


def fuzz(name: str, seconds: int, findings: Path) -> int:
    """Runs until the time is over, or something is found. Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["litevit"], enable_loader_override=False):
        kind = find_kind(name)
    work = Path(tempfile.mkdtemp(prefix="hostile-guided-"))
    (work / "seeds").mkdir()
    kind.prepare(work / "seeds")
    arena = Arena(work / "arena")
    os.environ["TMPDIR"] = tempfile.tempdir = str(arena.inside)
    sys.dont_write_bytecode = True
    count = 0
    started = time.monotonic()

    def once(content: bytes) -> None:
        nonlocal count
        count += 1
        outcome = run_one(kind, Choices(content), arena, work / "seeds")
        if outcome.finding is not None:
            file = findings / f"{name}-{count}"
            file.write_bytes(content)
            print(
                f"FINDING {name}: {outcome.finding}\n{outcome.trace}\nagain: python -m hostile.guided {name} --again {file}",
                flush=True,
            )
        if time.monotonic() - started > seconds:
            print(f"{name}: {count:,} inputs in {seconds} s", flush=True)
            shutil.rmtree(work, ignore_errors=True)
            os._exit(0)

    for index in range(-kind.warm, 0):
        run_one(kind, random.Random(index), arena, work / "seeds", timed=False)
    resource.setrlimit(resource.RLIMIT_AS, (_virtual() + MOST_BYTES, resource.RLIM_INFINITY))
    atheris.Setup([sys.argv[0], "-max_len=2048", "-rss_limit_mb=0", "-timeout=60", "-verbosity=0"], once)
    atheris.Fuzz()
    return 0


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def again(name: str, file: Path) -> int:
    kind = find_kind(name)
    work = Path(tempfile.mkdtemp(prefix="hostile-guided-"))
    (work / "seeds").mkdir()
    kind.prepare(work / "seeds")
    outcome = run_one(kind, Choices(file.read_bytes()), Arena(work / "arena"), work / "seeds")
    print(outcome.trace, f"refused: {outcome.refused}, finding: {outcome.finding}", sep="\n")
    return int(outcome.finding is not None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []])
    parser.add_argument("--seconds", type=int, default=60, help="of each kind")
    parser.add_argument("--again", type=Path, help="these bytes")
    parser.add_argument(
        "--findings", type=Path, default=Path(tempfile.gettempdir()), help="folder for bytes of findings"
    )
    chosen = parser.parse_args()
    if chosen.again is not None:
        return again(chosen.kinds[0], chosen.again)
    for name in chosen.kinds or KINDS:
        pid = os.fork()  # instrumented code of its own, and a process that libFuzzer may end
        if pid == 0:
            fuzz(name, chosen.seconds, chosen.findings)
            os._exit(0)
        if (status := os.waitpid(pid, 0)[1]) != 0:
            print(f"{name}: ended with the wait status {status}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
