"""docs/cpp: compiled and run here, with the answer that Python gives."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from families import classifier

import litevit

CPP = Path(__file__).parents[2] / "docs/cpp"
HEADERS = Path(os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime"))  # of libonnxruntime-dev

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="compiles C++ and there is no g++")


def check(source: Path, include: Path, library: Path, suffix: str, tmp_path: Path) -> None:
    program = tmp_path / source.stem
    command = ["g++", "-std=c++17", source, f"-I{include}", library, f"-Wl,-rpath,{library.parent}", "-o", program]
    subprocess.run(command, check=True)
    torch.manual_seed(0)
    model = classifier("litv2").eval()
    file = tmp_path / f"x{suffix}"
    litevit.export(model, file, format=source.stem.removesuffix("runtime"), image_size=(64, 75), batch_size=1,
                   verify=False)  # fmt: skip
    image = torch.randn(1, 3, 64, 75)
    done = subprocess.run([program, file], input=image.numpy().tobytes(), capture_output=True, check=True)
    task, best, *logits = done.stdout.decode().splitlines()
    with torch.no_grad():
        expected = model(image)[0]
    assert (task, best) == ("task classification", f"class {int(expected.argmax())}")
    torch.testing.assert_close(torch.tensor([float(x) for x in logits]), expected, atol=1e-5, rtol=1e-4)
    short = subprocess.run([program, file], input=image.numpy().tobytes()[:-4], capture_output=True, check=False)
    assert (short.returncode, short.stderr.decode()) == (1, "the image has 57596 of 57600 bytes\n")


def test_openvino_in_cpp(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="compiles against OpenVINO's wheel (the extra 'openvino')")
    wheel = Path(openvino.__file__).parent
    (library,) = (wheel / "libs").glob("libopenvino.so.*")
    check(CPP / "openvino.cpp", wheel / "include", library, ".xml", tmp_path)


@pytest.mark.skipif(
    not (HEADERS / "onnxruntime_cxx_api.h").exists(),
    reason="ONNX Runtime's headers are not here: Debian's libonnxruntime-dev, or their folder in ONNXRUNTIME_INCLUDE",
)
def test_onnxruntime_in_cpp(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="links ONNX Runtime's wheel (the extra 'onnx')")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    named = tmp_path / "libonnxruntime.so.1"  # as the loader looks for it
    named.symlink_to(library)
    check(CPP / "onnxruntime.cpp", HEADERS, named, ".onnx", tmp_path)
