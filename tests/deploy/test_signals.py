"""What a runtime leaves behind in the process when its files are closed."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from families import classifier

import litevit

SCRIPT = """
    import os, signal, sys, litevit
    first, second = (litevit.load_exported(sys.argv[1]) for _ in range(2))
    del first
    del second
    signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
    os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="sends a signal that this system has not")
def test_openvino_files_may_be_closed_in_any_order(tmp_path: Path) -> None:
    """OpenVINO left its thread a stack for signals that was freed, and the next signal ended the process."""
    pytest.importorskip("openvino", reason="opens OpenVINO's files")
    path = tmp_path / "x.xml"
    litevit.export(classifier("litv2").eval(), path, format="openvino", image_size=64, batch_size=1, verify=False)
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
