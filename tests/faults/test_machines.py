"""What a machine does to a run: full and read-only disks, signals, clocks, lost processes, little memory."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults import checks

ONE_LINE = "litevit: "
SLOW = pytest.mark.slow


def said_in_one_line(ended) -> str:
    """The complaint; everything else is what the run says while it is well."""
    assert ended.code == 2, ended.said
    assert "Traceback" not in ended.said, ended.said
    said = (line for line in ended.said.splitlines() if line.startswith(ONE_LINE))
    lines = [line for line in said if not line.startswith((f"{ONE_LINE}warning: ", f"{ONE_LINE}compiling "))]
    assert len(lines) == 1, ended.said
    return lines[0]


@pytest.fixture(scope="module")
def undisturbed(zygote, materials, tmp_path_factory):
    """What the training job leaves."""
    at = tmp_path_factory.mktemp("undisturbed") / "run"
    ended = zygote.run("train", materials / "data", at)
    assert ended.code == 0, ended.said
    return checks.of_run(at)


@contextmanager
def small_disk(folder: Path, size: str):
    """A disk of its own for a folder; it needs the right to mount."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a disk; test_a_file_may_not_grow does without")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "filled").write_bytes(bytes(max(free - leave, 0)))


@pytest.fixture(scope="module")
def size_of_a_run(zygote, materials, tmp_path_factory) -> int:
    at = tmp_path_factory.mktemp("sized") / "run"
    assert zygote.run("train", materials / "data", at).code == 0
    return sum(path.stat().st_size for path in at.rglob("*") if path.is_file())


@pytest.mark.parametrize("share", [0, *(pytest.param(share, marks=SLOW) for share in (0.01, 0.3, 0.5, 0.7)), 0.9])
def test_a_full_disk(zygote, materials, undisturbed, size_of_a_run, tmp_path, share, counted):
    """The run says so and ends; with room again it goes on to the same end."""
    with small_disk(tmp_path / "disk", "64m"):
        run = tmp_path / "disk" / "run"
        fill(tmp_path / "disk", int(share * size_of_a_run))
        line = said_in_one_line(zygote.run("train", materials / "data", run))
        assert "Cannot " in line
        assert "o space left" in line
        checks.assert_whole(run)
        (tmp_path / "disk" / "filled").unlink()
        ended = zygote.run("train", materials / "data", run)
        assert ended.code == 0, ended.said
        checks.assert_equal(checks.of_run(run), undisturbed)
        assert not checks.temporaries(run)
    counted("full disk (tmpfs)", 1, "one line, exit 2; continued exactly")


@pytest.mark.parametrize("most", [20_000, *(pytest.param(most, marks=SLOW) for most in (100, 2000, 100_000))])
def test_a_file_may_not_grow(zygote, materials, undisturbed, tmp_path, most, counted):
    """RLIMIT_FSIZE: every file is cut at a size, as at a quota."""
    run = tmp_path / "run"
    line = said_in_one_line(zygote.run("train", materials / "data", run, limits={"RLIMIT_FSIZE": most}))
    assert "Cannot write" in line
    checks.assert_whole(run)
    ended = zygote.run("train", materials / "data", run)
    assert ended.code == 0, ended.said
    checks.assert_equal(checks.of_run(run), undisturbed)
    assert not checks.temporaries(run)
    counted("files that may not grow (RLIMIT_FSIZE)", 1, "one line, exit 2; continued exactly")


@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=SLOW)])
def test_a_folder_that_may_not_be_written_to(zygote, materials, tmp_path, all_of_them, counted):
    with small_disk(tmp_path / "disk", "1m"):
        (tmp_path / "disk" / "run").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        for place in ("run", "new"):
            line = said_in_one_line(zygote.run("train", materials / "data", tmp_path / "disk" / place))
            assert "Read-only file system" in line
            assert "--run.dir" in line
        commands = {
            "convert": (materials / "official.pth", tmp_path / "disk" / "ours.safetensors"),
            "export": (materials / "run", tmp_path / "disk" / "model.pt2"),
            "pack": (materials / "run", tmp_path / "disk" / "packed"),
            "predict": (materials / "run", materials / "data" / "val", tmp_path / "disk" / "out"),
            "token_labels": (materials / "run", materials / "data", tmp_path / "disk" / "maps"),
        }
        for job, arguments in commands.items() if all_of_them else ():
            assert "Read-only file system" in said_in_one_line(zygote.run(job, *arguments)), job
    counted("read-only folder", 2 + 5 * all_of_them, "one line, exit 2")


def test_a_clock_that_jumps(zygote, materials, undisturbed, tmp_path, counted):
    ended = zygote.run("train_with_a_jumping_clock", materials / "data", tmp_path / "run")
    assert ended.code == 0, ended.said
    checks.assert_equal(checks.of_run(tmp_path / "run"), undisturbed)
    pictures = materials / "data" / "train"
    for name in ("predict", "predict_with_a_jumping_clock"):
        assert zygote.run(name, materials / "run", pictures, tmp_path / name).code == 0
    assert checks.of_parquet(tmp_path / "predict") == checks.of_parquet(tmp_path / "predict_with_a_jumping_clock")
    counted("clock that jumps by days at every look", 2, "the same results")


def test_a_loader_worker_is_killed(zygote, materials, undisturbed, tmp_path, counted):
    ended = zygote.run("train_and_lose_a_loader_worker", materials / "data", tmp_path / "run")
    line = said_in_one_line(ended)
    assert "A process that reads images" in line
    assert "--run.workers" in line
    ended = zygote.run("train", materials / "data", tmp_path / "run", "--run.workers", "2")
    assert ended.code == 0, ended.said
    checks.assert_equal(checks.of_run(tmp_path / "run"), undisturbed)
    counted("loader worker killed", 1, "one line, exit 2; continued exactly")


@pytest.mark.slow
def test_one_of_two_ranks_is_killed(zygote, materials, tmp_path, counted):
    ended = zygote.run("train_on_two_ranks", materials / "data", tmp_path / "whole")
    assert ended.code == 0, ended.said
    ended = zygote.run("train_on_two_ranks", materials / "data", tmp_path / "run", 3)
    assert "Another process of this run has ended" in said_in_one_line(ended)
    ended = zygote.run("train_on_two_ranks", materials / "data", tmp_path / "run")
    assert ended.code == 0, ended.said
    checks.assert_equal(checks.of_run(tmp_path / "run"), checks.of_run(tmp_path / "whole"))
    counted("one of two ranks killed (gloo)", 1, "the other ends in one line, exit 2; continued exactly")


def test_two_runs_in_one_folder(zygote, materials, undisturbed, tmp_path, counted):
    ended = zygote.run("start_a_second_run", materials / "data", tmp_path / "run", 0.2)
    line = said_in_one_line(ended)
    assert "Another run is training in" in line
    assert "--run.dir" in line
    checks.assert_equal(checks.of_run(tmp_path / "run"), undisturbed)  # the first one did not notice
    counted("two runs started in one folder", 1, "the second: one line, exit 2; the first undisturbed")


@pytest.mark.parametrize(
    "phase", ["checkpoint write", *(pytest.param(name, marks=SLOW) for name in ("evaluation", "best weights"))]
)
def test_a_storm_of_sigterms(zygote, materials, undisturbed, tmp_path, phase, counted):
    """Schedulers send several. The run finishes its step, saves and ends."""
    run = tmp_path / "run"
    ended = zygote.run("train", materials / "data", run, storm=phase)
    assert ended.code == 0, ended.said
    assert "a checkpoint is written" in ended.said
    assert len(checks.list_checkpoints(run / "checkpoints")) >= 1
    checks.assert_whole(run)
    ended = zygote.run("train", materials / "data", run)
    assert ended.code == 0, ended.said
    checks.assert_equal(checks.of_run(run), undisturbed)
    counted("storm of SIGTERMs while it saves or evaluates", 1, "a whole checkpoint, exit 0; continued exactly")


@pytest.mark.slow
@pytest.mark.parametrize("first", [0.1, 0.3, 0.6, 1.0])
def test_a_storm_from_outside(zygote, materials, undisturbed, tmp_path, first, counted):
    """500 SIGTERMs, one every millisecond. Before the first step and after the last they end it as they end others."""
    run = tmp_path / "run"
    ended = zygote.run("train", materials / "data", run, signals=(signal.SIGTERM, first, 0.001, 500))
    assert ended.code in (0, -signal.SIGTERM), ended.said
    checks.assert_whole(run)
    ended = zygote.run("train", materials / "data", run)
    assert ended.code == 0, ended.said
    asked = {"kept": None}  # the checkpoint before the last may be the one that a signal asked for
    checks.assert_equal(checks.of_run(run) | asked, undisturbed | asked)
    counted("500 SIGTERMs from outside", 1, "nothing half; continued exactly")


@pytest.mark.skipif(sys.platform != "linux", reason="the size of the process is read from /proc")
@pytest.mark.parametrize("more", [100, *(pytest.param(more, marks=SLOW) for more in (30, 60, 200))])
def test_little_memory(zygote, materials, tmp_path, more, counted):
    """As `ulimit -v` leaves it."""
    line = said_in_one_line(zygote.run("train_with_little_memory", materials / "data", tmp_path / "run", more))
    assert "emory" in line or "refuses another thread" in line
    checks.assert_whole(tmp_path / "run")
    counted("memory limit (RLIMIT_AS, as ulimit -v)", 1, "one line, exit 2")
