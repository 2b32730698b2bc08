"""`.pt2` files that would run code in `torch.export.load`, and exported files that lie about themselves."""

import io
import json
import os
import subprocess
import sys
import zipfile

import pytest
import torch

import litevit
from hostile.kinds import exported
from litevit.deploy.metadata import Metadata
from litevit.deploy.pt2_safety import _is_arithmetic, check_archive

LISTENS = """
import os
import sys

home = os.environ["HOME"]

def heard(event, arguments):
    if event.startswith("socket.") or (event == "open" and str(arguments[0]).startswith(home)):
        print(event, arguments)

sys.addaudithook(heard)
from litevit.deploy.openvino import runtime

runtime().Core().available_devices
"""


def test_openvino_reports_to_nobody(tmp_path):
    pytest.importorskip("openvino", reason="the extra `openvino`")
    done = subprocess.run(
        [sys.executable, "-c", LISTENS],
        env={**os.environ, "HOME": str(tmp_path), "CI": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_onnx_runtime_reports_to_nobody(tmp_path):
    """Its telemetry keeps a file in the temporary folder as soon as a file is opened."""
    pytest.importorskip("onnxruntime", reason="the extra `onnx`")
    exported.prepare(tmp_path, ["onnx"])
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", f"import litevit; litevit.load_exported({str(tmp_path / 'a.onnx')!r})"],
        env={**environment, "TMPDIR": str(folder), "HOME": str(folder), "CI": ""},
        check=True,
    )
    assert not [file for file in folder.rglob("*") if not file.is_dir()]


class Small(torch.nn.Module):
    def forward(self, images):
        return (torch.relu(images).flatten(2).mean(2),)


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """A valid file: entry -> content."""
    path = tmp_path_factory.mktemp("pt2") / "small.pt2"
    sizes = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(Small(), (torch.ones(2, 3, 64, 64),), dynamic_shapes=sizes)
    told = {"model": "Small", "task": "module", "outputs": '["out"]'}
    torch.export.save(program, path, extra_files={"litevit.json": json.dumps(told)})
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def find(entries, ending):
    return next(name for name in entries if name.endswith(ending))


class Runs:
    def __reduce__(self):
        return os.system, ("touch canary",)


def test_an_untouched_file_runs(tmp_path, entries):
    run = litevit.load_exported(write(tmp_path / "small.pt2", entries))
    assert run.named(torch.ones(3, 3, 64, 64))["out"].shape == (3, 3)


def pickled():
    file = io.BytesIO()
    torch.save(Runs(), file)
    return file.getvalue()


def spoilt(entries, what):
    model, inputs = find(entries, "models/model.json"), find(entries, "sample_inputs/model.pt")
    root = model.partition("/")[0]
    told = json.loads(entries[model])
    node = told["graph_module"]["graph"]["nodes"][0]
    if what == "target":
        node["target"] = "torch.os.system"
    elif what == "file":
        node["target"] = "torch.ops.aten.from_file.default"
    elif what == "size":
        text = "__import__('os').system('touch canary')"
        told["graph_module"]["graph"]["tensor_values"]["images"]["sizes"][0]["as_expr"]["expr_str"] = text
    elif what == "guards":
        told["guards_code"] = ["__import__('os').system('touch canary')"]
    changed = {**entries, model: json.dumps(told).encode()}
    if what == "inputs":
        changed[inputs] = pickled()
    if what == "weights":
        config = {"config": {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None}}}
        changed[find(entries, "model_weights_config.json")] = json.dumps(config).encode()
        changed[f"{root}/data/weights/weight_0"] = pickled()
    if what == "library":
        changed[f"{root}/data/aotinductor/model/a.so"] = b"\x7fELF"
    return changed


@pytest.mark.parametrize("what", ["target", "file", "size", "guards", "inputs", "weights", "library"])
def test_a_file_that_runs_code_is_refused(tmp_path, entries, what, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "small.pt2", spoilt(entries, what))
    with pytest.raises(ValueError, match="was refused"):
        litevit.load_exported(path)
    assert not (tmp_path / "canary").exists()


def test_a_small_entry_that_becomes_large(tmp_path, entries):
    path = write(tmp_path / "small.pt2", entries)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{find(entries, 'byteorder').partition('/')[0]}/data/weights/weight_9", bytes(10**7))
    with pytest.raises(ValueError, match="claims"):
        check_archive(path)


def test_sizes():
    good = (
        "s77",
        "Mul(Integer(4), Max(Integer(1), FloorDiv(Add(Symbol('s14', positive=True, integer=True), Integer(3)), Integer(8))))",
        "Pow(Symbol('s1', integer=True), Integer(2))",
    )
    bad = (
        "open('a', 'w')",
        "Symbol.__class__",
        "S('1')",
        "Symbol('__import__(1)')",
        "9**9**9",
        "Pow(Integer(9), Integer(999999999))",
        "[1 for x in 2]",
        "(" * 5000,
        "lambda: 1",
    )
    assert all(map(_is_arithmetic, good))
    assert not any(map(_is_arithmetic, bad))


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": "1"},
        {"size": "[1]"},
        {"batch": '"a"'},
        {"preprocessing": '{"size": "x"}'},
        {"classes": "{"},
        {"smallest": "0"},
        {"outputs": "[" * 5000},
    ],
)
def test_metadata_that_lies(change):
    told = {"model": "litv2_s", "task": "classification", "outputs": '["logits"]'}
    assert Metadata.read(told, "a.onnx").outputs == ("logits",)
    with pytest.raises(ValueError, match=r"a\.onnx"):
        Metadata.read(told | change, "a.onnx")


def test_a_graph_that_is_not_what_the_file_says(tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra `onnx`")
    exported.prepare(tmp_path, ["onnx"])
    model = onnx.load(tmp_path / "a.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64
    onnx.save(model, tmp_path / "b.onnx")
    with pytest.raises(ValueError, match=r"b\.onnx cannot be run: its graph is damaged"):
        litevit.load_exported(tmp_path / "b.onnx").named(torch.zeros(1, 3, 32, 32))
    told = {entry.key: entry.value for entry in model.metadata_props} | {"outputs": '["logits", "more"]'}
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 32
    onnx.helper.set_model_props(model, told)
    onnx.save(model, tmp_path / "b.onnx")
    with pytest.raises(ValueError, match=r"b\.onnx gives 1 outputs and says 2"):
        litevit.load_exported(tmp_path / "b.onnx").named(torch.zeros(1, 3, 32, 32))
