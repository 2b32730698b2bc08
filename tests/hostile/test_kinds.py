"""Every kind of hostile input: its share of the fuzz, and in slow tests inputs whose every choice hypothesis makes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings

from hostile import arena
from hostile.fuzz import KINDS, find_kind

NEEDS = {
    "videos": ("av",),
    "exported": ("onnxruntime", "openvino"),
    "parquet": ("pyarrow",),
    "uploads": ("starlette",),
}


def missing(name: str) -> list[str]:
    return [needed for needed in NEEDS.get(name, ()) if not importlib.util.find_spec(needed)]


kinds = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(bool(missing(name)), reason=f"needs {' and '.join(missing(name))}"))
        for name in KINDS
    ],
)


@pytest.fixture(scope="session")
def rows(request, tmp_path_factory):
    """What came of the shares of all kinds that are asked for: one process, with a worker for each."""
    asked = [
        item.callspec.params["name"]
        for item in request.session.items
        if getattr(item, "originalname", None) == "test_the_share_of_the_fuzz"
        and not missing(item.callspec.params["name"])
    ]
    folder = tmp_path_factory.mktemp("hostile")
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "hostile.fuzz", *asked, "--share", "--out", str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert (folder / "rows.json").is_file(), done.stderr[-3000:]
    return {row["kind"]: row for row in json.loads((folder / "rows.json").read_text())["rows"]}


@kinds
def test_the_share_of_the_fuzz(rows, name):
    row, kind = rows[name], find_kind(name)
    assert not row["findings"], json.dumps(row["findings"][0], indent=1).replace("\\n", "\n")
    assert row["refused"] + row["accepted"] == kind.share
    assert row["refused"], "nothing was refused: the inputs are not hostile"
    assert row["accepted"], "nothing was accepted: the seeds are not valid"
    assert row["slowest"] < arena.MOST_SECONDS
    assert row["largest"] * 2**20 < arena.MOST_BYTES


@pytest.mark.slow
@kinds
def test_a_hostile_input_is_refused_or_read(name):
    @settings(max_examples=15, deadline=None)
    @given(arena.draws())
    def examples(draw):
        arena.check(find_kind(name), draw)

    try:
        examples()
    finally:
        arena.forget()
