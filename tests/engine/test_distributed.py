"""Several processes: gloo on the CPU, started by torchrun. Slow because every process imports PyTorch."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from toy import Model, Points

from litevit.engine.checkpoint import list_checkpoints, load_checkpoint
from litevit.engine.logging import read_metrics

pytestmark = pytest.mark.slow
TOY = str(Path(__file__).parent / "toy.py")


def torchrun(*arguments, processes=2, restarts=0, wait=True):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--max-restarts={restarts}",
        f"--master-port={port}", TOY, *map(str, arguments),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if not wait:
        return process
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def one_process(*arguments):
    command = [sys.executable, TOY, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def test_accelerate_launch_starts_a_run(tmp_path):
    """On the CPU it starts one process; on GPUs it starts what torchrun does."""
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "1",
        "--num_machines",
        "1",
    ]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", TOY, str(tmp_path / "launched"), "dropout=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one_process(tmp_path / "one", "dropout=0")
    assert losses(tmp_path / "launched") == losses(tmp_path / "one")


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == "train"]


def final_state(folder: Path) -> dict:
    return load_checkpoint(list_checkpoints(folder / "checkpoints")[0])


def assert_close_runs(first: Path, second: Path) -> None:
    torch.testing.assert_close(torch.tensor(losses(first)), torch.tensor(losses(second)), rtol=1e-4, atol=1e-5)
    a, b = final_state(first)["model"], final_state(second)["model"]
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5, msg=name)


def test_two_processes_give_what_one_gives(tmp_path):
    """The same total batch: 16 in one process, 2 x 8, and 2 x 2 x 4 with accumulation."""
    one_process(tmp_path / "one", "dropout=0")
    code, output = torchrun(tmp_path / "two", "dropout=0")
    assert code == 0, output
    code, output = torchrun(tmp_path / "four", "dropout=0", "accumulate=2")
    assert code == 0, output
    assert_close_runs(tmp_path / "one", tmp_path / "two")
    assert_close_runs(tmp_path / "one", tmp_path / "four")


@pytest.mark.parametrize("ema", [(), ("ema_decay=0",)], ids=["with average", "without"])
def test_fsdp_gives_what_one_process_gives_and_resumes(tmp_path, ema):
    one_process(tmp_path / "one", "dropout=0", *ema)
    arguments = ("dropout=0", "fsdp=1", *ema)
    code, output = torchrun(tmp_path / "two", *arguments, "die_at=11")
    assert code != 0
    code, output = torchrun(tmp_path / "two", *arguments)
    assert code == 0, output
    assert "Continuing" in output
    assert_close_runs(tmp_path / "one", tmp_path / "two")
    if not ema:  # the checkpoint holds the average whole, and it is the one of one process
        a, b = (final_state(tmp_path / name)["ema"] for name in ("one", "two"))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    a, b = (load_file(tmp_path / name / "best.safetensors") for name in ("one", "two"))
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}


@pytest.mark.parametrize("best_at", ["the last step", "an earlier step"])
def test_fsdp_ends_with_the_model_it_trained(tmp_path, best_at):
    """The best weights go into the sharded modules, and process 0 alone reports with them."""
    slope = "slope=1" if best_at == "the last step" else "slope=-1"
    one = one_process(tmp_path / "one", "dropout=0", slope).stdout
    code, output = torchrun(tmp_path / "two", "dropout=0", "fsdp=1", slope)
    assert code == 0, output
    evaluations = 3 if best_at == "the last step" else 4  # every epoch, and the best once more where it is not the last
    assert f"built 1, evaluated {evaluations}" in one
    assert output.count(f"built 1, evaluated {evaluations}") == 2, output
    a, b = (torch.load(tmp_path / name / "said.pt") for name in ("one", "two"))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    best = load_file(tmp_path / "two" / "best.safetensors")
    model = Model(0.0)
    model.load_state_dict(best)
    torch.testing.assert_close(model.eval()(Points().centres), b, rtol=1e-3, atol=1e-5)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    assert results[0] == pytest.approx(results[1], rel=1e-3)


@pytest.mark.parametrize("new_folder", [0, 1])
def test_torchrun_restarts_a_worker_that_dies(tmp_path, new_folder):
    """The restarted run finds its own folder, continues, and ends as one that never died."""
    code, output = torchrun(tmp_path / "whole")
    assert code == 0, output
    code, output = torchrun(
        tmp_path / "died", "die_at=11", "die_rank=1", "first_try=1", f"new_folder={new_folder}", restarts=2
    )
    assert code == 0, output
    assert "Continuing" in output
    folder = tmp_path / "died" / "toy" if new_folder else tmp_path / "died"
    if new_folder:
        assert [entry.name for entry in (tmp_path / "died").iterdir()] == ["toy"]
    whole, died = final_state(tmp_path / "whole"), final_state(folder)
    for name, value in whole["model"].items():
        assert torch.equal(value, died["model"][name]), name
    assert losses(tmp_path / "whole") == losses(folder)


def test_sigterm_to_torchrun_saves_and_the_next_start_continues(tmp_path):
    process = torchrun(tmp_path, "sleep=0.2", "log_every=1", wait=False)
    while not (tmp_path / "metrics.jsonl").exists() or not losses(tmp_path):
        time.sleep(0.2)
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    steps = [int(path.name[5:13]) for path in list_checkpoints(tmp_path / "checkpoints")]
    assert steps, output
    assert 0 < steps[0] < 18, output
    assert len(re.findall("stopped=True", output)) == 2, output
    code, output = torchrun(tmp_path, "log_every=1")
    assert code == 0, output
    assert final_state(tmp_path)["step"] == 18
