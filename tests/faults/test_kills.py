"""Killed at any moment and started again, a job ends as if nothing had been: bit for bit, nothing twice or half."""

import pytest

from faults.kills import Killer

SHARE = {"train": 5, "download": 1, "Parquet": 1, "label maps": 1}
# Name of the job, seed, number of kills.
ALL = [
    *(("train", seed, 45) for seed in (1, 2, 3, 4)), ("train with workers", 1, 10), ("train with pictures", 1, 10),
    ("download", 1, 25), ("download without a known checksum", 1, 15), ("conversion", 1, 25), ("export", 1, 12),
    ("Parquet", 1, 35), ("label maps", 1, 25), ("pack", 1, 20), ("litevit eval", 1, 10),
]  # fmt: skip


def killed(zygote, jobs, scratch, counted, name: str, number: int, seed: int = 0) -> Killer:
    killer = Killer(zygote, jobs, scratch, seed)
    killer.kill(name, number)
    for phase, tally in killer.report.phases.items():
        assert tally.same == tally.kills
        counted(
            f"kill: {phase}", tally.kills,
            {"continued exactly": tally.same, "killed again meanwhile": tally.twice,
             "temporaries left, removed by the restart": tally.left, "files read after the kill": tally.files},
        )  # fmt: skip
    assert killer.report.kills == number
    return killer


@pytest.mark.parametrize("name", SHARE)
def test_a_share_of_the_kills(zygote, jobs, tmp_path, counted, name):
    killed(zygote, jobs, tmp_path, counted, name, SHARE[name])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "seed", "number"), ALL)
def test_all_kills(zygote, jobs, tmp_path, counted, name, seed, number):
    killed(zygote, jobs, tmp_path, counted, name, number, seed)


def test_they_are_three_hundred():
    assert sum(number for *_, number in ALL) >= 300
