"""The fuzz's share of the default tests: one process for all kinds that are asked for, with a worker for each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostile import arena


@pytest.fixture(scope="session")
def shares(request, tmp_path_factory):
    """Called with a kind: raises what its share of the fuzz has found."""
    kinds = []
    for item in request.session.items:
        module = getattr(item, "module", None)
        kind = getattr(module, "KIND", None)
        if isinstance(kind, arena.Kind) and kind.name not in kinds:
            kinds.append(kind.name)
    file = tmp_path_factory.mktemp("hostile") / "rows.json"
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "hostile.fuzz", *kinds, "--share", "--json", str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert file.is_file(), done.stderr[-3000:]
    rows = {row["kind"]: row for row in json.loads(file.read_text())}

    def judge(kind):
        row = rows[kind.name]
        assert not row["findings"], json.dumps(row["findings"][0], indent=1).replace("\\n", "\n")
        assert row["refused"] + row["accepted"] == kind.share
        assert row["refused"], "nothing was refused: the inputs are not hostile"
        assert row["accepted"], "nothing was accepted: the seeds are not valid"
        assert row["slowest"] < arena.MOST_SECONDS
        assert row["largest"] * 2**20 < arena.MOST_BYTES

    yield judge
    arena.forget()
