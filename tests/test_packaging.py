"""What is built and installed: the wheel holds all that the package reads, and runs away from the checkout."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONSUMER = """
from pathlib import Path

import litevit

names: list[str] = litevit.list_models("litv2*", task="classification")
model = litevit.create_model(names[0], weights=None, num_classes=3)
fast = litevit.optimize_for_inference(model)
info: litevit.ModelInfo = litevit.info("litv2_s")
side: int = info.image_size[0]
report: litevit.LoadReport = litevit.load_weights(model, Path("weights.safetensors"))
"""


def test_classifiers_name_the_python_versions_that_are_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    named = {line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python :: 3." in line}
    assert named == {"3.11", "3.12", "3.13"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, timeout=300)
    (made,) = folder.glob("litevit-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own, its dependencies from here."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(wheel)],
        check=True,
        timeout=300,
    )
    return folder


def outside(installed: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "LITEVIT_CACHE": str(where / "cache")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=where, env=environment, capture_output=True, text=True, timeout=500
    )


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "src/litevit"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "src/litevit/py.typed" in listed
    assert any(name.endswith(".cpp") for name in listed)
    held = set(zipfile.ZipFile(wheel).namelist())
    assert not [name for name in listed if name.removeprefix("src/") not in held]
    assert not [name for name in held if name.startswith("tests")]


@pytest.mark.slow
def test_the_installed_wheel_runs_from_elsewhere(installed: Path, tmp_path: Path) -> None:
    where = outside(installed, tmp_path, "-c", "import litevit; print(litevit.__file__)")
    assert where.stdout.startswith(str(installed)), where.stderr
    training = outside(installed, tmp_path, "-m", "litevit.cli", "train", "quickstart", "--run.max-steps", "2")
    assert training.returncode == 0, training.stderr
    run = tmp_path / "runs" / "quickstart"
    assert (run / "best.safetensors").is_file()
    (picture,) = [*run.glob("predictions*.png")][:1] or [tmp_path / "picture.png"]
    if not picture.exists():
        from PIL import Image

        Image.new("RGB", (32, 32), "red").save(picture)
    predicted = outside(installed, tmp_path, "-m", "litevit.cli", "predict", str(picture), "--weights", str(run))
    assert predicted.returncode == 0, predicted.stderr
    page = outside(installed, tmp_path, "-m", "litevit.cli", "app", "--help")
    assert page.returncode == 0, page.stderr
    assert "usage" in page.stdout.lower()


@pytest.mark.slow
def test_a_consumers_strict_mypy(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is a tool of developers")
    (tmp_path / "consumer.py").write_text(CONSUMER, encoding="utf-8")
    wrong = CONSUMER + "litevit.list_models(3)\n"
    (tmp_path / "wrong.py").write_text(wrong, encoding="utf-8")
    check = ["-m", "mypy", "--strict", "--follow-imports", "silent", "--cache-dir", str(tmp_path / "mypy")]
    good = outside(installed, tmp_path, *check, "consumer.py")
    assert good.returncode == 0, good.stdout + good.stderr
    bad = outside(installed, tmp_path, *check, "wrong.py")
    assert "list_models" in bad.stdout, bad.stdout + bad.stderr
    assert bad.returncode == 1
