"""litevit bench: what it measures with, and that a case which cannot run leaves the table standing."""

import importlib.util
import json

import pytest
import timm
import torch
from families import classifier
from torch._inductor.exc import InvalidCxxCompiler

from litevit.bench import cases as bench_cases
from litevit.bench import engines
from litevit.bench import layers as bench_layers
from litevit.bench import models as bench_models
from litevit.bench import report as bench_report
from litevit.bench import timing as timing
from litevit.bench.accuracy import TOP1, published_top1
from litevit.bench.commands import main_models
from litevit.bench.plots import pareto_front, plot_ops, plot_pareto
from litevit.bench.report import Report
from litevit.bench.timing import Timing
from litevit.cli import main
from litevit.deploy.openvino import core, open_file
from litevit.models import create_backbone, create_model


@pytest.fixture
def small(monkeypatch):
    """LITv2-S with little in it: what is measured does not matter here."""
    build = bench_models.build_model

    def build_small(name, size, features):
        if name != "litv2_s":
            return build(name, size, features)
        make = create_backbone if features else create_model
        return make(name, embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))

    monkeypatch.setattr(bench_models, "build_model", build_small)
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
    case = bench_cases.prepare(make, 8, "model", notes)
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
    assert bench_cases.prepare(make, 8, "model", notes) is None
    assert "no working compiler" in notes[0]


def test_peers():
    notes = []
    assert bench_models.resolve_peers("convnext_tiny,convnext_tinny,none", notes) == ["convnext_tiny"]
    assert bench_models.resolve_peers(("resnet18,convnext_tiny", "none"), []) == ["resnet18", "convnext_tiny"]
    assert "convnext_tinny" in notes[0]
    assert "convnext_tiny" in notes[0].split("Did you mean")[1]


@pytest.mark.parametrize("name", [name for name in bench_models.PEERS if name != "none"])
def test_every_named_peer_is_in_timm(name):
    notes = []
    assert len(bench_models.resolve_peers(name, notes)) == len(bench_models.PEERS[name])
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
    report = bench_models.measure_models(
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
    report = bench_layers.measure_attention(dim=64, num_heads=2, sides=(14,), rounds=1, min_seconds=0, device="cpu")
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


@pytest.mark.slow
def test_ops_measures_every_operator(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: no plots")
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # half a minute for nothing here
    report = bench_layers.measure_ops(batch=1, rounds=1, min_seconds=0, device="cpu")
    assert not report.notes
    rows = {(row["op"].split()[0], row["backend"], row["direction"]) for row in report.rows}
    for op, backend in (
        ("deformable", "ours"),
        ("Conv-FFN", "optimized (inference)"),
        ("MLP", "optimized (inference)"),
        ("HiLo", "plain"),
        ("CSA", "optimized (inference)"),
        ("RASA", "plain"),
        ("segmentation", "strips"),
    ):
        assert (op, backend, "forward") in rows
        assert ((op, backend, "forward + backward") in rows) != ("inference" in backend)
    assert all(row["x reference"] > 0 for row in report.rows)
    plot_ops(report, tmp_path / "ops.png")
    assert (tmp_path / "ops.png").stat().st_size > 10_000


def test_no_memory_halves_the_batch_in_the_table(small, monkeypatch):
    build = bench_models.build_model

    def build_hungry(name, size, features):
        model = build(name, size, features)
        forward = model.forward

        def hungry(images):
            if len(images) > 2:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
            return forward(images)

        model.forward = hungry
        return model

    monkeypatch.setattr(bench_models, "build_model", build_hungry)
    report = bench_models.measure_models(
        ["litv2_s"], "resnet10t", size=(64, 64), modes=("eager",), device="cpu", rounds=1, min_seconds=0
    )
    assert [row["batch"] for row in report.rows] == [2, 2]
    assert "litv2_s fp32 eager: out of memory at batch 4, halved to 2." in report.notes


def test_no_compiler_leaves_the_eager_rows(small, monkeypatch):
    def compile_without_compiler(model, **options):
        def run(images):
            raise InvalidCxxCompiler

        return run

    monkeypatch.setattr(torch, "compile", compile_without_compiler)
    report = bench_models.measure_models(
        ["litv2_s"], "none", size=(64, 64), batch=1, device="cpu", rounds=1, min_seconds=0
    )
    assert [row["mode"] for row in report.rows] == ["eager"]
    assert report.notes == ["litv2_s fp32 compiled: torch.compile found no working compiler (CXX, else g++), left out."]


def test_windows_of_four(small):
    assert bench_models.build_model("litv2_s_ws4", (64, 64), True).config.window_sizes == (0, 0, 4, 1)
    report = bench_models.measure_models(
        ["litv2_s_ws4"], "none", size=(64, 96), batch=1, modes=("eager",), features=True, device="cpu", rounds=1
    )
    assert report.rows[0]["model"] == "litv2_s_ws4"


def test_scaling(small):
    report = bench_models.measure_scaling(["litv2_s"], "none", sizes=(64, 96), rounds=1, device="cpu")
    assert [row["size"] for row in report.rows] == [64, 96]
    assert report.title == "scaling_size"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "--models", "litv2_z"], "Unknown model 'litv2_z'"),
        (["models", "--models", "lit_s_ws4"], "Unknown model 'lit_s_ws4'"),
        (["models", "--device", "tpu"], "Device 'tpu' is not available here"),
        (["attention", "--device", "tpu:1"], "Device 'tpu:1' is not available here"),
        (["models", "--batch", "0", "--device", "cpu"], "batch must be at least 1"),
        (["models", "--no-eager", "--no-compile"], "leave nothing to measure"),
        (["speed"], "Unknown benchmark 'speed'"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "--rounds", "0"], "rounds must be at least 1, got 0"),
        (["models", "--models"], "models needs at least one value"),
        (["models", "--models", "nosuch"], "litevit list"),
        (["attention", "--batch", "0"], "batch must be at least 1, got 0"),
        (["attention", "--sides", "14", "0"], "sides must be at least 1, got 0"),
        (["attention", "--heads", "5"], "dim must be a multiple of heads"),
        (["ops", "--batch", "-1"], "batch must be at least 1, got -1"),
        (["scaling", "--sizes", "64", "16"], "sizes must be at least 32, got 16"),
        (["scaling", "--over", "batch", "--batches", "0"], "batches must be at least 1, got 0"),
        (["scaling", "--rounds", "-2"], "rounds must be at least 1, got -2"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_measured(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(timing, "interleave", lambda *args, **options: pytest.fail("measured"))
    monkeypatch.setattr(timing, "product_rate", lambda *args, **options: pytest.fail("measured"))
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(timing, "product_rate", lambda *args, **options: pytest.fail("measured"))
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["bench", "models", "--out", str(out)]) == 2
        assert "--out must be a folder that can be written to" in capsys.readouterr().err


def test_one_turn_has_no_spread():
    assert Timing([1.0], [1.0]).spread() is None
    assert bench_report._cell("spread", None) == "-"


def test_without_kernels_the_table_says_so(monkeypatch):
    monkeypatch.setattr(timing, "runs_here", lambda: True)
    monkeypatch.setattr(timing.kernels, "available", lambda: False)
    assert "C++ kernels did not run" in timing.environment(torch.device("cpu"))["warning"]


def test_engines_beside_each_other(tmp_path):
    """Ours and a peer, through one exporter; what an engine cannot compute is noted and left out."""
    pytest.importorskip("onnxruntime", reason="measures ONNX Runtime")
    report = main_models(
        models=("lvt",), peers="none", engines=("torch", "onnxruntime"), dtype=("fp32", "bf16"), size=(64,), batch=1,
        rounds=1, memory=False, out=tmp_path,
    )  # fmt: skip
    assert [(row["mode"], row["dtype"]) for row in report.rows] == [
        ("eager", "fp32"), ("onnxruntime", "fp32"), ("eager", "bf16")
    ]  # fmt: skip
    assert any("ONNX Runtime computes in float32 or int8 here, not in bf16" in note for note in report.notes)
    with pytest.raises(ValueError, match="measured in inference on the CPU"):
        main_models(models=("lvt",), engines=("openvino",), train=True)


@pytest.mark.parametrize(
    ("gone", "arguments", "extra"),
    [
        ("openvino", ["--engines", "torch", "openvino"], "openvino"),
        ("onnxruntime", ["--engines", "onnxruntime"], "onnx"),
        ("nncf", ["--engines", "openvino", "--dtype", "int8"], "int8"),
    ],
)
def test_an_engine_that_was_asked_for_and_is_not_there(monkeypatch, capsys, gone, arguments, extra):
    """Wrong input, and said before anything is measured."""
    there = importlib.util.find_spec
    rest = {"openvino", "onnxruntime", "onnx", "onnxscript", "nncf"} - {gone}
    found = lambda name, *a: None if name == gone else object() if name in rest else there(name, *a)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", found)
    monkeypatch.setattr(bench_models, "measure_models", lambda *_, **__: pytest.fail("something was measured"))
    assert main(["bench", "models", "--models", "lvt", *arguments]) == 2
    said = capsys.readouterr().err
    assert f"{gone}: pip install 'litevit[{extra}]'" in said
    assert said.count("\n") == 1


@pytest.mark.slow  # two files are calibrated
def test_engines_in_int8(tmp_path):
    """Products in 8 bits, where an engine has them; what is timed is the int8 file, with whole batches."""
    pytest.importorskip("nncf", reason="int8 of OpenVINO (the extra 'int8')")
    pytest.importorskip("onnxruntime", reason="measures ONNX Runtime")
    report = main_models(
        models=("lvt",), peers="none", engines=("torch", "onnxruntime", "openvino"), dtype=("int8", "int8-bf16"),
        size=(64,), batch=3, rounds=1, memory=False, out=tmp_path,
    )  # fmt: skip
    rows = [(row["mode"], row["dtype"], row["batch"]) for row in report.rows]
    assert rows[:2] == [("onnxruntime", "int8", 3), ("openvino", "int8", 3)]
    if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert rows[2:] == [("openvino", "int8-bf16", 3)]
    else:
        assert not rows[2:]
        assert any("OpenVINO computes int8-bf16 with f32 on this processor" in note for note in report.notes)
    assert report.notes[0] == "int8 is measured in engines alone."


def test_an_engine_that_takes_another_arithmetic_is_not_measured(monkeypatch):
    """OpenVINO computes in float32 without a word where the processor has no units for bfloat16."""
    pytest.importorskip("openvino", reason="measures OpenVINO")
    monkeypatch.setattr(
        engines, "open_file", lambda path, threads, precision: open_file(path, threads, precision="f32")
    )
    torch.manual_seed(0)
    runner = engines.engine_runner(classifier("litv2").eval(), "openvino", "bf16", (64, 64))
    with pytest.raises(ValueError, match="OpenVINO computes bf16 with f32 on this processor"):
        runner(1)


def test_accuracy_beside_speed(tmp_path):
    """Whom nobody beats in both is on the line; two models of known accuracy are needed."""
    pytest.importorskip("matplotlib", reason="draws")
    assert published_top1("lvt", (224, 224)) == (74.8, "paper")
    assert published_top1("convnext_tiny", (224, 224)) == (82.066, "timm fb_in1k")
    assert all(timm.is_model_pretrained(f"{name}.{tag}") for name, (_, tag) in TOP1.items())
    assert published_top1("convnext_tiny", (64, 64)) is published_top1("lvt", (64, 64)) is None
    assert published_top1("efficientvit_b0", (224, 224)) is None
    facts = {"processor": "a processor", "device": "cpu", "threads": 1, "torch": "2", "date": "today"}
    speeds = {"litv2_s": 16.0, "convnext_tiny": 13.0, "swin_tiny_patch4_window7_224": 12.0, "lvt": 41.0}
    rows = [
        {"model": name, "dtype": "fp32", "mode": "openvino", "best": True, "images_per_s": speed,
         "top1": published_top1(name, (224, 224)).percent} for name, speed in speeds.items()
    ]  # fmt: skip
    assert [row["model"] for row in pareto_front(rows)] == ["lvt", "litv2_s", "convnext_tiny"]
    report = Report("models", rows, facts)
    for kind, start in {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}.items():
        assert plot_pareto(report, tmp_path / f"pareto.{kind}")
        assert (tmp_path / f"pareto.{kind}").read_bytes().startswith(start)
    assert "litv2_s (openvino)" in (tmp_path / "pareto.svg").read_text()
    assert not plot_pareto(Report("models", rows[:1], facts), tmp_path / "one.png")
    assert not (tmp_path / "one.png").exists()
