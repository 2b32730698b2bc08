"""The predictor as a stage of Ray Data, on a Ray of one machine with one actor."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from PIL import Image

import litevit
from litevit.adapters.ray import Predict
from litevit.cli import main

SMALL = ["--model", "lvt", "--weights", "none", "--size", "32", "--device", "cpu"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(6):
        Image.effect_noise((40, 30), 10 * i + 1).convert("RGB").save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images" / "3.png").write_bytes(b"no picture")
    return tmp_path / "images"


def start(*arguments):
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "litevit.adapters.ray", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, check=False)


def test_a_batch_becomes_a_table(folder):
    stage = Predict("lvt", "none", size=32, device="cpu", top=2)
    paths = sorted(map(str, folder.iterdir()))
    table = stage({"path": paths})
    assert table.column("path").to_pylist() == paths
    assert [len(guesses) if guesses else 0 for guesses in table.column("guesses").to_pylist()] == [2, 2, 2, 0, 2, 2]
    assert "is not an image" in table.column("error")[3].as_py()
    contents = [(folder / path).read_bytes() for path in paths]
    assert stage({"path": paths, "bytes": contents}).column("guesses") == table.column("guesses")


def test_wrong_input_before_ray_is_started(folder, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="the adapter needs Ray (the extra `ray`)")
    from litevit.adapters.ray import predict

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        predict(str(tmp_path / "gone"), tmp_path / "out", model="lvt", weights="none", size=32)
    with pytest.raises(ValueError, match="Did you mean"):
        predict(str(folder), tmp_path / "out", model="lvt_plan", weights="none")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_actor_writes_what_litevit_predict_writes(folder, tmp_path):
    pytest.importorskip("ray", reason="the adapter needs Ray (the extra `ray`)")
    wanted, out = tmp_path / "wanted", tmp_path / "out"
    assert (
        main(["predict", str(folder), "--out", str(wanted), "--format", "parquet", "--rows-per-file", "2", *SMALL]) == 0
    )
    begun = main(
        [
            "predict",
            str(folder),
            "--out",
            str(out),
            "--format",
            "parquet",
            "--rows-per-file",
            "2",
            "--shard",
            "0/3",
            *SMALL,
        ]
    )
    assert begun == 0
    run = start(folder, out, *SMALL, "--cpus", "0.5")  # goes on with what the other command has begun
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Wrote 4 rows in 2 files" in run.stdout
    assert pq.read_table(out) == pq.read_table(wanted)
    again = start(folder, out, *SMALL)
    assert (again.returncode, "Wrote 0 rows in 0 files" in again.stdout) == (0, True)
    other = start(folder, out, *SMALL, "--top", "2")
    assert other.returncode == 2
    assert other.stderr.splitlines()[-1].startswith("litevit:")
    stopped = start(folder, tmp_path / "limited", *SMALL, "--max-failures", "0")
    assert stopped.returncode == 1, stopped.stderr[-2000:]
    greedy = start(folder, tmp_path / "greedy", *SMALL, "--actors", "100")
    assert greedy.returncode == 2
    assert "leave Ray none" in greedy.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_exported_file_is_a_stage_too(folder, tmp_path):
    pytest.importorskip("ray", reason="the adapter needs Ray (the extra `ray`)")
    file = tmp_path / "small.pt2"
    litevit.export(litevit.create_model("lvt", num_classes=3).eval(), file, format="pt2", verify=False, image_size=64)
    run = start(folder, tmp_path / "out", "--weights", file, "--size", "64")
    assert run.returncode == 0, run.stderr[-3000:]
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [len(row["guesses"] or ()) for row in rows] == [3, 3, 3, 0, 3, 3]
