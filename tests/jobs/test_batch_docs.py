"""docs/batch.md: its Python runs, its job files are what they claim to be, and their commands do what they say."""

import functools
import inspect
import re
import shlex
import types
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tyro
import yaml
from PIL import Image

from litevit.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "batch.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_python_runs():
    (code,) = blocks("python")
    exec(compile(code, "docs/batch.md", "exec"), {})


def array_commands() -> dict[str, tuple[str, int, str]]:
    """The command, how many processes there are, and the variable that counts them."""
    (script,) = blocks("bash")
    size = int(re.search(r"#SBATCH --array=0-(\d+)", script)[1]) + 1
    slurm = script[script.index("litevit predict") :].replace("\\\n", " ")
    job = yaml.safe_load(blocks("yaml")[0])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["completionMode"] == "Indexed"
    kubernetes = container["args"][0]
    return {
        "slurm": (slurm, size, "SLURM_ARRAY_TASK_ID"),
        "kubernetes": (kubernetes, job["spec"]["completions"], "JOB_COMPLETION_INDEX"),
    }


@pytest.mark.parametrize("kind", ["slurm", "kubernetes"])
def test_the_arrays_take_every_image_once(kind, tmp_path):
    command, size, variable = array_commands()[kind]
    assert f'--shard "${variable}/{size}"' in command  # the shards are as many as the processes
    images, out = tmp_path / "images", tmp_path / "rows"
    images.mkdir()
    for i in range(5):
        Image.effect_noise((40, 30), 10 * i + 1).convert("RGB").save(images / f"{i}.png")
    here = command.replace("/data/shards", str(images)).replace("/data/rows", str(out))
    here = here.replace("$SLURM_CPUS_PER_TASK", "2").replace(f"/{size}", "/3").replace("litv2_s", "lvt")
    for index in range(3):
        words = shlex.split(here.replace(f"${variable}", str(index)))
        assert words[0] == "litevit"
        assert main([*words[1:], "--weights", "none", "--size", "32", "--device", "cpu"]) == 0
    rows = pq.read_table(out).column("path").to_pylist()
    assert sorted(rows) == sorted(map(str, images.iterdir()))


def test_the_ray_commands_are_understood():
    from litevit.adapters.ray import predict

    job = yaml.safe_load(blocks("yaml")[1])
    assert job["kind"] == "RayJob"
    commands = [
        job["spec"]["entrypoint"],
        *re.findall(r"^python -m litevit.adapters.ray /.*$", PAGE, flags=re.MULTILINE),
    ]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "litevit.adapters.ray"]
        asked = tyro.cli(dataclass_of(predict), args=words[3:])
        assert (asked.images, asked.out, asked.actors, asked.gpus) == ("/data/shards", Path("/data/rows"), 8, 1)


def dataclass_of(function):
    """A function that gives its arguments back, with the signature of another."""

    @functools.wraps(function)
    def arguments(*given, **named):
        return types.SimpleNamespace(**inspect.signature(function).bind(*given, **named).arguments)

    return arguments
