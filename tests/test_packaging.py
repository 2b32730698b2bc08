"""What is built and installed: the wheel holds all that the package reads, and runs away from the checkout."""

import importlib.util
import os
import subprocess
import sys
import tarfile
import tomllib
import types
import venv
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
    assert named == {"3.11", "3.12", "3.13", "3.14"}


def test_what_git_ignores_is_no_part_of_the_package() -> None:
    """A build leaves out what .gitignore names, also where git keeps it: results of `litevit reproduce` lie in
    `reproduction`, and `jobs/reproduction` was in no wheel."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    ignored = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(ignored, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""


def licences() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "docs/site/licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_licence_of_everything_that_is_asked_for_is_listed() -> None:
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    for name, groups in licences().asked().items():
        assert f"\n| {name} | {', '.join(sorted(groups))} |" in page, "python docs/site/licences.py writes the page"


def test_what_users_install_asks_for_no_more_than_its_notice() -> None:
    """The core and the extras, but for wheels with video encoders; what these bring in turn is listed on the page."""
    made = licences()
    here = made.brought(set(made.asked()))
    asking = {
        name: made.licence_of(here[name])
        for name, groups in made.asked().items()
        if groups - {"dev", "docs"} and name in here and made.ASKS_MORE.search(made.licence_of(here[name]))
    }
    assert set(asking) <= set(made.WHEELS)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MIT License\n\nCopyright", "MIT"),
        ("Apache License\n                    Version 2.0, January 2004", "Apache-2.0"),
        ("Redistribution and use in source and binary forms ...", "BSD-3-Clause"),
        ("GNU Lesser General Public License v3", "LGPL"),
        ("do what you like", None),
    ],
)
def test_a_licence_in_words(text: str, name: str | None) -> None:
    assert licences().named(text) == name


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


@pytest.mark.slow
def test_the_sdist_builds_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """With what stands in the archive alone; the two wheels hold the same files."""
    pytest.importorskip("build", reason="pip install build")
    command = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]  # the wheel from the sdist
    subprocess.run(command, check=True, timeout=300, cwd=tmp_path)
    (archive,) = tmp_path.glob("litevit-*.tar.gz")
    (again,) = tmp_path.glob("litevit-*.whl")
    with tarfile.open(archive) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/litevit/py.typed"} <= held
    assert not [name for name in held if name.startswith((".venv", "runs", "docs/_build"))]
    contents = [{name: zipfile.ZipFile(path).read(name) for name in names_of(path)} for path in (wheel, again)]
    assert contents[0] == contents[1]


def names_of(path: Path) -> list[str]:
    return [name for name in zipfile.ZipFile(path).namelist() if not name.endswith("RECORD")]


@pytest.mark.slow
def test_a_clean_environment_predicts(wheel: Path, tmp_path: Path) -> None:
    """Nothing but the wheel and its core dependencies; those are linked from here, for the disk's sake."""
    from PIL import Image

    where = tmp_path / "clean"
    venv.create(where, with_pip=False)
    (packages,) = where.glob("lib/python3*/site-packages")
    made = licences()
    core = made.brought({name for name, groups in made.asked().items() if "core" in groups})
    for package in core.values():
        for top in {path.parts[0] for path in package.files or () if path.parts[0] not in ("..", "__pycache__")}:
            source = Path(package.locate_file(top))
            if source.exists() and not (packages / top).exists():
                (packages / top).symlink_to(source)
    install = [sys.executable, "-m", "pip", "--python", str(where / "bin/python"), "install", "--quiet", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, timeout=300)  # fails where a dependency is missing
    Image.new("RGB", (64, 48), "red").save(tmp_path / "picture.png")
    environment = {**os.environ, "LITEVIT_CACHE": str(tmp_path / "cache")}
    environment.pop("PYTHONPATH", None)

    def run(*arguments: str) -> str:
        command = [str(where / "bin/python"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(where) in run("-c", "import litevit; print(litevit.__file__)")
    assert "absent" in run("-c", "try: import pytest\nexcept ImportError: print('absent')")
    said = run("-m", "litevit.cli", "predict", "picture.png", "--model", "lvt", "--weights", "none")
    assert "picture.png" in said
