"""A run that is killed anywhere and started again is the run that was not: bit for bit on the CPU."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from toy import ToyTask, fit_digits_to_the_death, fit_quietly, quiet, toy_recipe

from litevit.engine import fit
from litevit.engine.checkpoint import list_checkpoints, load_checkpoint
from litevit.engine.config import override
from litevit.engine.logging import read_metrics

TIMING = {"images_per_s", "memory_mb"}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums over threads depend on how many there are, so the same number is part of "the same run"."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Forked from a server that has only imported: a process in which a backward pass has used several threads, as other
# tests do, cannot be forked to train (PyTorch refuses).
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["accelerate", "litevit.engine.train", "litevit.jobs.classification"])


def run_to_its_death(target, *args) -> None:
    """In a process of its own, so that SIGKILL is real."""
    process = SERVER.Process(target=target, args=args)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def assert_same(a, b, where="state") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_same_run(first: Path, second: Path) -> None:
    """Parameters, EMA, optimizer, schedule, losses, evaluations and best weights."""
    states = [load_checkpoint(list_checkpoints(folder / "checkpoints")[0]) for folder in (first, second)]
    for state in states:
        state.pop("recipe")
    assert_same(*states)
    rows = [
        [{k: v for k, v in row.items() if k not in TIMING} for row in read_metrics(folder / "metrics.jsonl")]
        for folder in (first, second)
    ]
    assert rows[0] == rows[1]
    assert_same(load_file(first / "best.safetensors"), load_file(second / "best.safetensors"))
    assert json.loads((first / "result.json").read_text()) == json.loads((second / "result.json").read_text())


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    recipe = toy_recipe(folder)
    fit(recipe, ToyTask(recipe), console=quiet())
    return folder


@pytest.mark.parametrize("die_at", [1, 6, 7, 18])
def test_killed_and_restarted_is_the_same_run(reference, tmp_path, die_at):
    recipe = toy_recipe(tmp_path)
    run_to_its_death(fit_quietly, recipe, ToyTask(recipe, die_at=die_at))
    fit(recipe, ToyTask(recipe), console=quiet())
    assert_same_run(reference, tmp_path)


def test_killed_twice_with_another_number_of_workers_each_time(reference, tmp_path):
    recipe = toy_recipe(tmp_path, workers=2)
    run_to_its_death(fit_quietly, recipe, ToyTask(recipe, die_at=6))
    recipe = toy_recipe(tmp_path, workers=0)
    run_to_its_death(fit_quietly, recipe, ToyTask(recipe, die_at=7))
    recipe = toy_recipe(tmp_path, workers=1)
    fit(recipe, ToyTask(recipe), console=quiet())
    assert_same_run(reference, tmp_path)


def test_killed_between_micro_batches_of_an_accumulated_step(tmp_path):
    for name in ("whole", "killed"):
        recipe = toy_recipe(tmp_path / name, accumulate=2)
        if name == "killed":
            run_to_its_death(fit_quietly, recipe, ToyTask(recipe, die_at=16))
        fit(recipe, ToyTask(recipe), console=quiet())
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_damaged_last_checkpoint_is_skipped_with_a_message(reference, tmp_path, capsys):
    recipe = toy_recipe(tmp_path)
    run_to_its_death(fit_quietly, recipe, ToyTask(recipe, die_at=11))
    last, before = list_checkpoints(tmp_path / "checkpoints")
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    fit(recipe, ToyTask(recipe))
    shown = " ".join(capsys.readouterr().err.split())
    assert str(last) in shown
    assert "damaged" in shown
    assert f"after step {int(before.name[5:13])}" in shown
    assert_same_run(reference, tmp_path)


def test_half_written_files_of_a_killed_process_are_ignored(reference, tmp_path):
    recipe = toy_recipe(tmp_path)
    run_to_its_death(fit_quietly, recipe, ToyTask(recipe, die_at=6))
    (tmp_path / "checkpoints" / ".step-00000008.pt.1.tmp").write_bytes(b"half")
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "ep')
    fit(recipe, ToyTask(recipe), console=quiet())
    assert_same_run(reference, tmp_path)
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_sigterm_saves_and_returns(reference, tmp_path):
    recipe = toy_recipe(tmp_path, checkpoint_every=None)
    before = signal.getsignal(signal.SIGTERM)
    result = fit(recipe, ToyTask(recipe, die_at=4, signal_number=signal.SIGTERM), console=quiet())
    assert result.stopped
    assert result.step == 4
    assert signal.getsignal(signal.SIGTERM) is before
    recipe = toy_recipe(tmp_path)
    assert not fit(recipe, ToyTask(recipe), console=quiet()).stopped
    assert_same_run(reference, tmp_path)


def test_sigterm_to_the_whole_group_reaches_no_worker(tmp_path):
    """As `timeout` and schedulers send it: the loader's workers go on until the checkpoint is written."""
    script = Path(__file__).parent / "toy.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), "epochs=100000", "sleep=0.02", "workers=2"], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    metrics = tmp_path / "metrics.jsonl"
    for _ in range(600):
        if metrics.exists() and metrics.read_text().count("train") > 3:
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert "a checkpoint is written" in " ".join(said.split())
    assert list_checkpoints(tmp_path / "checkpoints")


def test_a_finished_run_is_left_as_it_is(reference, tmp_path):
    recipe = toy_recipe(tmp_path)
    fit(recipe, ToyTask(recipe), console=quiet())
    task = ToyTask(recipe)
    fit(recipe, task, console=quiet())
    assert task.calls == 0
    assert_same_run(reference, tmp_path)


def test_killed_between_the_last_checkpoint_and_removing_an_older_one(tmp_path):
    recipe = toy_recipe(tmp_path)
    fit(recipe, ToyTask(recipe), console=quiet())
    folder = tmp_path / "checkpoints"
    kept = list_checkpoints(folder)
    assert len(kept) == recipe.run.keep
    (folder / "step-00000001-0123abcd.pt").write_bytes(b"older")
    assert len(list_checkpoints(folder)) == recipe.run.keep + 1
    fit(recipe, ToyTask(recipe), console=quiet())
    assert list_checkpoints(folder) == kept


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_litv2_on_digits_continues_bit_for_bit(tmp_path, workers):
    """The real model, data, augmentation, DTM's BatchNorm and drop path; killed in the middle of an epoch."""
    from litevit.jobs.classification import ClassificationTask
    from litevit.recipes import get_recipe

    recipe = get_recipe("quickstart")
    for path, value in {
        "model.overrides.embed_dim": 16,
        "model.overrides.num_heads": (1, 2, 2, 4),
        "model.overrides.drop_path_rate": 0.3,
        "data.augment.auto_augment": "rand-m9-mstd0.5-inc1",
        "data.augment.erase_prob": 0.25,
        "data.augment.mixup": 0.8,
        "run.batch_size": 16,
        "run.max_steps": 5,
        "run.checkpoint_every": 2,
        "run.log_every": 1,
        "run.device": "cpu",
    }.items():
        recipe = override(recipe, path, value)
    whole = override(recipe, "run.dir", str(tmp_path / "whole"))
    fit(whole, ClassificationTask(whole), console=quiet())
    killed = override(recipe, "run.dir", str(tmp_path / "killed"))
    run_to_its_death(fit_digits_to_the_death, killed, 4)
    killed = replace(killed, run=replace(killed.run, workers=workers))
    fit(killed, ClassificationTask(killed), console=quiet())
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
