"""What a user can get wrong in training: one clear message, nothing lost."""

import errno
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import SafetensorError
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from toy import Points, ToyTask, quiet, toy_recipe

from litevit import devices, seals
from litevit.devices import multiplies_bfloat16
from litevit.engine import OptimConfig, fit, parallel
from litevit.engine import checkpoint as checkpoints
from litevit.engine.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint, save_weights
from litevit.engine.config import override
from litevit.engine.logging import read_metrics


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_loss_that_is_not_finite_stops_and_names_step_rate_and_checkpoint(tmp_path):
    recipe = toy_recipe(tmp_path)
    with pytest.raises(ValueError, match="loss is nan at step 6, learning rate") as error:
        fit(recipe, ToyTask(recipe, nan_at=6), console=quiet())
    (good,) = list_checkpoints(tmp_path / "checkpoints")
    assert str(good) in str(error.value)
    assert good.name.startswith("step-00000004")
    assert all(value.isfinite().all() for value in load_checkpoint(good)["model"].values())


def test_before_the_first_checkpoint_it_says_so(tmp_path):
    recipe = toy_recipe(tmp_path)
    with pytest.raises(ValueError, match=r"at step 2.*No checkpoint was written yet"):
        fit(recipe, ToyTask(recipe, nan_at=2), console=quiet())


def test_broken_weights_are_never_saved_over_good_ones(tmp_path):
    """A gradient that is not finite with a loss that is: the step before a save."""

    class Poisoned(ToyTask):
        def loss(self, model, batch):
            losses = super().loss(model, batch)
            if self.calls == 4:
                model.head.bias.register_hook(lambda grad: grad * float("inf"))
            return losses

    recipe = toy_recipe(tmp_path)
    recipe = replace(recipe, optim=replace(recipe.optim, clip_grad=None))
    with pytest.raises(ValueError, match="weights are not finite at step 4"):
        fit(recipe, Poisoned(recipe), console=quiet())
    assert list_checkpoints(tmp_path / "checkpoints") == []


def test_a_checkpoint_of_another_recipe_is_refused_and_kept(tmp_path):
    recipe = toy_recipe(tmp_path, max_steps=4)
    fit(recipe, ToyTask(recipe), console=quiet())
    before = names(tmp_path)
    other = replace(recipe, optim=OptimConfig(lr=2e-2, clip_grad=1.0))
    with pytest.raises(ValueError, match=r"another recipe.*optim\.lr: 0\.02, checkpoint 0\.01"):
        fit(other, ToyTask(other), console=quiet())
    assert names(tmp_path) == before
    assert json.loads((tmp_path / "recipe.json").read_text())["optim"]["lr"] == 1e-2


def test_what_does_not_change_the_result_may_change(tmp_path):
    recipe = toy_recipe(tmp_path, max_steps=4)
    fit(recipe, ToyTask(recipe), console=quiet())
    longer = toy_recipe(tmp_path, max_steps=8, workers=1, log_every=2, keep=1)
    assert fit(longer, ToyTask(longer), console=quiet()).step == 8


def test_a_batch_larger_than_the_data_leaves_no_folder(tmp_path):
    recipe = toy_recipe(tmp_path / "run", batch_size=97)
    with pytest.raises(ValueError, match=r"must not exceed.*97 for 96.*--run.batch_size"):
        fit(recipe, ToyTask(recipe), console=quiet())
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_divided_says_what_could(tmp_path):
    recipe = toy_recipe(tmp_path / "run", batch_size=15, accumulate=4)
    with pytest.raises(ValueError, match=r"multiple of processes x run.accumulate.*Choose 16"):
        fit(recipe, ToyTask(recipe), console=quiet())


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")])
def test_a_full_disk_keeps_the_checkpoints_that_are_there(tmp_path, monkeypatch, failure):
    good = save_checkpoint(tmp_path, 1, {"a": torch.ones(3)}, keep=2)

    def full(state, path, metadata=None):
        Path(path).write_bytes(b"half")
        raise failure if metadata is None or isinstance(failure, OSError) else SafetensorError("write failed")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(OSError, match="Cannot write"):
        save_checkpoint(tmp_path, 2, {"a": torch.zeros(3)}, keep=2)
    assert names(tmp_path) == [good.name]
    assert torch.equal(load_checkpoint(good)["a"], torch.ones(3))

    monkeypatch.setattr(seals, "save_file", full)
    (tmp_path / "best.safetensors").write_bytes(b"good")
    with pytest.raises(OSError, match="Cannot write"):
        save_weights(tmp_path / "best.safetensors", {"a": torch.ones(2)}, {})
    assert (tmp_path / "best.safetensors").read_bytes() == b"good"
    assert names(tmp_path) == ["best.safetensors", good.name]


def test_a_really_full_disk(tmp_path, monkeypatch):
    """/dev/full refuses every byte, as a full disk does; PyTorch reports it in its own way."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    really = torch.save
    monkeypatch.setattr(checkpoints.torch, "save", lambda state, path: really(state, "/dev/full"))
    with pytest.raises(OSError, match=r"Cannot write .*step-00000001\.pt.*untouched"):
        save_checkpoint(tmp_path, 1, {"a": torch.zeros(3)}, keep=2)
    assert names(tmp_path) == []


@pytest.mark.slow
def test_a_run_goes_on_after_its_disk_was_full(tmp_path):
    """A file system of its own, too small for two checkpoints."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    try:
        recipe = toy_recipe(folder, checkpoint_every=2, ema_decay=None)
        with pytest.raises(OSError, match=r"Cannot write .*MB are free in .*untouched"):
            fit(recipe, ToyTask(recipe), console=quiet())
        (good,) = list_checkpoints(folder / "checkpoints")
        assert load_checkpoint(good)["step"] == 2
        subprocess.run(["mount", "-o", "remount,size=10m", str(folder)], check=True)
        assert fit(recipe, ToyTask(recipe), console=quiet()).step == 18
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_old_checkpoints_go_when_new_ones_are_whole(tmp_path):
    for step in range(1, 5):
        save_checkpoint(tmp_path, step, {"step": step}, keep=2)
    assert [load_checkpoint(path)["step"] for path in list_checkpoints(tmp_path)] == [4, 3]


def test_a_checkpoint_never_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "step-00000001-00000000.pt"
    torch.save({"model": Evil()}, path)
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(path)
    unnamed = path.rename(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(unnamed)
    assert not (tmp_path / "ran").exists()


def test_unreadable_samples_are_named_counted_and_capped(tmp_path, capsys):
    class Holes(ToyTask):
        max_unreadable = 2

        def train_dataset(self):
            return Points(unreadable=(3, 50))

    recipe = toy_recipe(tmp_path / "two", epochs=1)
    fit(recipe, Holes(recipe))
    shown = capsys.readouterr().err
    assert "point 3: it is a hole" in shown
    assert "point 50: it is a hole (2 so far)" in shown or "point 3: it is a hole (2 so far)" in shown
    recipe = toy_recipe(tmp_path / "again", epochs=3)  # the same two in every epoch
    assert fit(recipe, Holes(recipe), console=quiet()).step == 18
    Holes.max_unreadable = 1
    recipe = toy_recipe(tmp_path / "fewer", epochs=2)
    with pytest.raises(ValueError, match=r"2 unreadable images, more than data.max_unreadable = 1"):
        fit(recipe, Holes(recipe), console=quiet())


def test_when_no_checkpoint_is_whole_nothing_begins_anew(tmp_path):
    recipe = toy_recipe(tmp_path)
    fit(recipe, ToyTask(recipe), console=quiet())
    for path in list_checkpoints(tmp_path / "checkpoints"):
        path.write_bytes(path.read_bytes()[:100])
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=r"is damaged.*Nothing was changed.*--run.dir"):
        fit(recipe, ToyTask(recipe), console=quiet())
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_broken_weights_are_never_evaluated(tmp_path):
    class Breaks(ToyTask):
        def loss(self, model, batch):
            losses = super().loss(model, batch)
            if self.calls == 6:  # the first evaluation follows
                with torch.no_grad():
                    model.head.bias[0] = float("nan")
            return losses

    recipe = toy_recipe(tmp_path, checkpoint_every=None)
    with pytest.raises(ValueError, match="weights are not finite at step 6"):
        fit(recipe, Breaks(recipe), console=quiet())
    assert not (tmp_path / "best.safetensors").exists()


def test_settings_that_cannot_work_say_what_to_do(tmp_path):
    def try_it(path, value):
        recipe = override(toy_recipe(tmp_path), path, value)
        fit(recipe, ToyTask(recipe), console=quiet())

    for path, value, words in [
        ("run.precision", "fp16", "CUDA"),
        ("run.sync_batchnorm", True, "CUDA"),
        ("run.grad_checkpointing", True, "set_grad_checkpointing"),
        ("run.ema_decay", 1.5, "ema_decay must be less than 1, got 1.5"),
        ("run.fsdp", True, "torchrun"),
        *([] if torch.cuda.is_available() else [("run.device", "cuda", "Device 'cuda' is not available here")]),
    ]:
        with pytest.raises(ValueError, match=words):
            try_it(path, value)


def test_compiling_without_a_compiler_makes_no_folder(tmp_path, monkeypatch):
    def no_compiler(*_, **__):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(torch, "compile", no_compiler)
    recipe = toy_recipe(tmp_path / "run", compile=True)
    with pytest.raises(ValueError, match=r"run\.compile: .*No working C\+\+ compiler found\)\. Install"):
        fit(recipe, ToyTask(recipe), console=quiet())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_compiled_in_bfloat16_is_the_same_run(tmp_path):
    """The switch compiles what the step calls; what is saved has the plain names and continues uncompiled."""
    recipe = toy_recipe(tmp_path, compile=True, precision="bf16", max_steps=2)
    fit(recipe, ToyTask(recipe), console=quiet())
    plain = toy_recipe(tmp_path / "plain", precision="bf16", max_steps=2)
    fit(plain, ToyTask(plain), console=quiet())
    a, b = (load_checkpoint(list_checkpoints(folder / "checkpoints")[0]) for folder in (tmp_path, tmp_path / "plain"))
    assert a["model"].keys() == b["model"].keys()
    torch.testing.assert_close(a["model"], b["model"], rtol=0.1, atol=5e-3)


@pytest.mark.parametrize(("has_units", "taken"), [(True, "bf16"), (False, "fp32")])
def test_precision_auto_is_what_is_faster(tmp_path, monkeypatch, has_units, taken):
    """Said, and kept with the run: a checkpoint goes on in the same precision or says that it cannot."""
    monkeypatch.setattr(parallel, "gains_from_bfloat16", lambda device: has_units)
    recipe = toy_recipe(tmp_path, precision="auto", max_steps=2)
    said = io.StringIO()
    fit(recipe, ToyTask(recipe), console=Console(file=said, width=500))
    assert f"Training on cpu in {taken} (run.precision auto)." in said.getvalue()
    assert json.loads((tmp_path / "recipe.json").read_text())["run"]["precision"] == taken
    assert json.loads((tmp_path / "launch.json").read_text())["precision"] == taken
    monkeypatch.setattr(parallel, "gains_from_bfloat16", lambda device: not has_units)
    with pytest.raises(ValueError, match=f"run.precision: .*, checkpoint '{taken}'"):
        fit(recipe, ToyTask(recipe), console=quiet())


def test_modules_that_were_replaced_are_said_and_kept(tmp_path):
    recipe = toy_recipe(tmp_path, max_steps=2)
    task = ToyTask(recipe)
    task.optimized = {"Linear": 5}
    said = io.StringIO()
    fit(recipe, task, console=Console(file=said, width=500))
    assert "Training on cpu in fp32; faster modules of the same function (run.optimize auto): 5 Linear." in (
        said.getvalue()
    )
    assert json.loads((tmp_path / "launch.json").read_text())["optimized"] == {"Linear": 5}


def test_units_for_bfloat16(monkeypatch):
    """oneDNN also says yes to AVX-512 without such units, where a product takes several times as long as in float32."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for units, answer in [({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"bf16": True}, True)]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: units, raising=False)
        oned = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        assert multiplies_bfloat16("cpu") is (answer and oned)
    assert not multiplies_bfloat16("mps")
    assert not multiplies_bfloat16("meta")


@pytest.mark.parametrize("slower", ["bfloat16", "float32"])
def test_bfloat16_is_timed_on_a_cpu(monkeypatch, slower):
    monkeypatch.setattr(devices, "multiplies_bfloat16", lambda device: True)
    product = torch.nn.functional.linear

    def timed(x, weight):
        return [product(x, weight) for _ in range(20 if str(x.dtype).endswith(slower) else 1)]

    monkeypatch.setattr(torch.nn.functional, "linear", timed)
    devices.gains_from_bfloat16.cache_clear()
    try:
        assert devices.gains_from_bfloat16("cpu") is (slower == "float32")
    finally:
        devices.gains_from_bfloat16.cache_clear()


def test_a_second_run_makes_a_new_folder(tmp_path):
    recipe = toy_recipe(tmp_path, epochs=1)
    recipe = replace(recipe, run=replace(recipe.run, dir=None, root=str(tmp_path)))
    folders = [fit(recipe, ToyTask(recipe), console=quiet()).folder for _ in range(3)]
    assert [folder.name for folder in folders] == ["toy", "toy-2", "toy-3"]


def test_what_a_run_leaves_behind(tmp_path):
    recipe = toy_recipe(tmp_path, trackers=("tensorboard",), accumulate=2, precision="bf16", channels_last=False)
    result = fit(recipe, ToyTask(recipe), console=quiet())
    assert result.weights.exists()
    found = set(names(tmp_path))
    assert {"recipe.json", "metrics.jsonl", "result.json", "curves.png", "best.safetensors", "tensorboard"} <= found
    rows = read_metrics(tmp_path / "metrics.jsonl")
    train = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in train] == [3, 6, 9, 12, 15, 18]
    assert {"loss", "metric/accuracy", "lr", "images_per_s", "memory_mb", "epoch"} <= train[0].keys()
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [6, 12, 18]
    assert train[-1]["loss"] < train[0]["loss"]


def test_the_missing_tracker_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    recipe = toy_recipe(tmp_path, trackers=("wandb",))
    with pytest.raises(ImportError, match=r"litevit\[wandb\]"):
        fit(recipe, ToyTask(recipe), console=quiet())


def test_batch_norm_statistics_are_in_the_weights_that_are_kept(tmp_path):
    recipe = toy_recipe(tmp_path, epochs=1, ema_decay=None)
    fit(recipe, ToyTask(recipe, norm=nn.BatchNorm1d), console=quiet())
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "best.safetensors")
    assert weights["blocks.0.1.running_mean"].abs().sum() > 0
