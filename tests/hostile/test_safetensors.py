"""Hostile `.safetensors` files: what a run has written into their headers."""

import json

import pytest

from hostile.kinds.safetensors import assemble, header, told
from litevit.checkpoints.files import read_file
from litevit.checkpoints.recorded import recorded_options
from litevit.jobs.runs import Run


def test_the_untouched_file_is_read(tmp_path):
    file = tmp_path / "best.safetensors"
    run = {key: value if isinstance(value, str) else json.dumps(value) for key, value in told().items()}
    file.write_bytes(assemble({"__metadata__": run, **header()}, 80))
    assert set(read_file(file)) == set(header())
    assert Run.open(file).recipe.name == "quickstart"
    assert Run.open(file).classes == ("zero", "one")


@pytest.mark.parametrize(
    "recipe", ["[1]", '"a"', "1", '{"model": 1}', '{"model": {"name": "litv2_s"}}', "[" * 5000, "9" * 5000]
)
def test_a_recipe_in_the_header_that_is_none(tmp_path, recipe):
    file = tmp_path / "best.safetensors"
    file.write_bytes(assemble({"__metadata__": {"recipe": recipe}, **header()}, 80))
    for read in (lambda: Run.open(file).overrides, lambda: recorded_options(file, "litv2_s")):
        with pytest.raises(ValueError, match=r"best\.safetensors"):
            read()
