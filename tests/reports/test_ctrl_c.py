"""Ctrl-C once: the run saves, and its exit code is a shell's for it; SIGTERM, of a scheduler, is no mistake."""

import signal
from pathlib import Path

import pytest

from litevit.cli import main
from litevit.jobs.classification import ClassificationTask


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, number: int, code: int
) -> None:
    plain = ClassificationTask.loss

    def loss(*args: object) -> object:
        signal.raise_signal(number)
        monkeypatch.setattr(ClassificationTask, "loss", plain)
        return plain(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ClassificationTask, "loss", loss)
    run = tmp_path / "run"
    assert main(["train", "quickstart", "--run.dir", str(run), "--run.workers", "0", "--run.batch_size", "8"]) == code
    assert "Stopped after step 1; a checkpoint is written." in capsys.readouterr().err
    assert len(list((run / "checkpoints").glob("step-*.pt"))) == 1
