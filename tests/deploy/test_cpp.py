"""docs/cpp: compiled and run here, with the answer that Python gives."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from families import classifier

import litevit

SOURCE = Path(__file__).parents[2] / "docs/cpp/openvino.cpp"


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles C++ and there is no g++")
def test_openvino_in_cpp(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="compiles against OpenVINO's wheel (the extra 'openvino')")
    wheel = Path(openvino.__file__).parent
    (library,) = (wheel / "libs").glob("libopenvino.so.*")
    program = tmp_path / "openvino"
    subprocess.run(
        ["g++", "-std=c++17", SOURCE, f"-I{wheel / 'include'}", library, f"-Wl,-rpath,{library.parent}", "-o", program],
        check=True,
    )
    torch.manual_seed(0)
    model = classifier("litv2").eval()
    litevit.export(model, tmp_path / "x.xml", format="openvino", image_size=(64, 75), batch_size=1, verify=False)
    image = torch.randn(1, 3, 64, 75)
    run = [program, tmp_path / "x.xml"]
    done = subprocess.run(run, input=image.numpy().tobytes(), capture_output=True, check=True)
    task, best, *logits = done.stdout.decode().splitlines()
    with torch.no_grad():
        expected = model(image)[0]
    assert (task, best) == ("task classification", f"class {int(expected.argmax())}")
    torch.testing.assert_close(torch.tensor([float(x) for x in logits]), expected, atol=1e-5, rtol=1e-4)
    short = subprocess.run(run, input=image.numpy().tobytes()[:-4], capture_output=True, check=False)
    assert (short.returncode, short.stderr.decode()) == (1, "the image has 57596 of 57600 bytes\n")
