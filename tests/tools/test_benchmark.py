"""litevit bench: what it measures with, and that a case which cannot run leaves the table standing."""

import json

import pytest
import torch

from litevit.cli import main
from litevit.tools import bench_timing as timing
from litevit.tools import benchmark
from litevit.tools.bench_timing import Timing
from litevit.zoo import create_backbone, create_model


@pytest.fixture
def small(monkeypatch):
    """LITv2-S with little in it: what is measured does not matter here."""
    build = benchmark._build

    def build_small(name, size, features):
        if name != "litv2_s":
            return build(name, size, features)
        make = create_backbone if features else create_model
        return make(name, embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))

    monkeypatch.setattr(benchmark, "_build", build_small)
    monkeypatch.setattr(timing, "product_rate", lambda *arguments: 1e9)


def test_turns_are_interleaved():
    order = []
    cases = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    timed = timing.interleave(cases, rounds=3, min_seconds=0)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]  # one call to see how long it takes, then there and back
    assert [len(t.wall) for t in timed.values()] == [3, 3]


def test_ratio_is_within_a_turn():
    fast, slow = Timing(wall=[1.0, 10.0, 1.0]), Timing(wall=[2.0, 20.0, 2.0])  # the second turn was disturbed
    assert timing.speedup(fast, slow) == 2
    assert fast.median() == 1


def test_peak_memory_counts_what_lives():
    def run():
        a = torch.zeros(1000)
        b = a + 1
        del a
        return b.view(10, 100) * 2

    assert timing.peak_bytes(run) == 8000


def test_out_of_memory_halves_the_batch():
    def make(batch):
        def run():
            if batch > 3:
                raise torch.OutOfMemoryError("out of memory")

        return run

    notes = []
    case = benchmark.prepare(make, 8, "model", notes)
    assert case.batch == 2
    assert notes == [
        "model: out of memory at batch 8, halved to 4.",
        "model: out of memory at batch 4, halved to 2.",
    ]


def test_no_compiler_leaves_the_case_out():
    def make(batch):
        def run():
            raise RuntimeError("No working C++ compiler found in config")

        return run

    notes = []
    assert benchmark.prepare(make, 8, "model", notes) is None
    assert "no compiler" in notes[0]


def test_peers():
    notes = []
    assert benchmark.resolve_peers("convnext_tiny,convnext_tinny,none", notes) == ["convnext_tiny"]
    assert "convnext_tinny" in notes[0]
    assert "convnext_tiny" in notes[0].split("Did you mean")[1]


@pytest.mark.parametrize("name", [name for name in benchmark.PEERS if name != "none"])
def test_every_named_peer_is_in_timm(name):
    notes = []
    assert len(benchmark.resolve_peers(name, notes)) == len(benchmark.PEERS[name])
    assert not notes


def test_models_from_the_command_line(small, tmp_path, capsys):
    options = "--models litv2_s --peers resnet10t,no_such_model --size 64 --batch 1 --rounds 1 --no-compile"
    assert main(["bench", "models", *options.split(), "--device", "cpu", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "litv2_s" in shown
    assert "Unknown peer 'no_such_model'" in shown
    content = json.loads((tmp_path / "models.json").read_text())
    assert [row["model"] for row in content["rows"]] == ["litv2_s", "resnet10t"]
    ours, peer = content["rows"]
    assert ours["x resnet10t"] == pytest.approx(1 / peer["x litv2_s"])
    assert ours["peak_mb"] > 0
    assert content["environment"]["torch"] == torch.__version__
    assert (tmp_path / "models.csv").read_text().count("\n") == 3


def test_training_step_runs(small):
    report = benchmark.measure_models(
        ["litv2_s"],
        "none",
        size=(64, 64),
        batch=2,
        modes=("eager",),
        training=True,
        device="cpu",
        rounds=1,
        min_seconds=0,
    )
    assert report.rows[0]["images_per_s"] > 0


def test_attention_measures_every_kind():
    report = benchmark.measure_attention(dim=64, num_heads=2, sides=(14,), rounds=1, min_seconds=0, device="cpu")
    assert not report.notes
    assert {row["layer"].split()[0] for row in report.rows} == {
        "full",
        "windows",
        "shifted",
        "spatial",
        "HiLo",
        "CSA",
        "RASA",
    }


def test_scaling(small):
    report = benchmark.measure_scaling(["litv2_s"], "none", sizes=(64, 96), rounds=1, device="cpu")
    assert [row["size"] for row in report.rows] == [64, 96]
    assert report.title == "scaling_size"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "--models", "litv2_z"], "Unknown model 'litv2_z'"),
        (["models", "--device", "tpu"], "device 'tpu' is not here"),
        (["models", "--batch", "0", "--device", "cpu"], "batch must be at least 1"),
        (["models", "--no-eager", "--no-compile"], "leave nothing to measure"),
        (["speed"], "Unknown benchmark 'speed'"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
