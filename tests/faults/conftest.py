"""One zygote and its materials for all tests of this folder; counts for the table of `make faults`."""

import hashlib
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.kills import Job, file_server, jobs_of
from faults.zygote import Zygote

FILE = random.Random(3).randbytes(200_000)


@pytest.fixture(scope="session")
def zygote(tmp_path_factory) -> Iterator[Zygote]:
    if sys.platform != "linux":
        pytest.skip("forks processes as Linux does")
    with Zygote(tmp_path_factory.mktemp("cache")) as started:
        yield started


@pytest.fixture(scope="session")
def materials(zygote, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("materials")
    ended = zygote.run("make_materials", place)
    assert ended.code == 0, ended.said
    return place


@pytest.fixture(scope="session")
def jobs(materials) -> Iterator[dict[str, Job]]:
    with file_server(FILE) as address:
        yield jobs_of(materials, address, hashlib.sha256(FILE).hexdigest())


@pytest.fixture
def counted(request):
    """Notes a row of the table: what was done, how often, what came of it."""

    def note(fault: str, tried: int, outcome: str | dict[str, int]) -> None:
        print(f"{fault}: {tried}; {outcome}", file=sys.stderr)
        if file := os.environ.get("LITEVIT_FAULTS_COUNTS"):
            with open(file, "a", encoding="utf-8") as rows:
                rows.write(json.dumps([fault, tried, outcome]) + "\n")

    return note
