"""Killed at any moment and started again, a job ends as if nothing had been: bit for bit, nothing twice or half."""

import pytest

from faults.kills import Killer

SHARE = {
    "train": 8, "train with workers": 1, "download": 2, "conversion": 1, "Parquet": 2, "label maps": 2, "pack": 1,
}  # fmt: skip
ALL = {
    "train": 170, "train with workers": 12, "download": 25, "download without a known checksum": 15, "conversion": 25,
    "export": 12, "Parquet": 35, "label maps": 25, "pack": 20, "litevit eval": 10,
}  # fmt: skip


def killed(zygote, jobs, tmp_path, numbers: dict[str, int], counted) -> Killer:
    killer = Killer(zygote, jobs, tmp_path)
    for name, number in numbers.items():
        killer.kill(name, number)
    for phase, tally in killer.report.phases.items():
        assert tally.same == tally.kills
        counted(
            f"kill: {phase}", tally.kills,
            f"{tally.same} continued exactly, {tally.twice} killed twice; {tally.left} temporaries left, all removed",
        )  # fmt: skip
    return killer


def test_a_share_of_the_kills(zygote, jobs, tmp_path, counted):
    report = killed(zygote, jobs, tmp_path, SHARE, counted).report
    assert report.kills == sum(SHARE.values())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_hundred_kills(zygote, jobs, tmp_path, counted):
    report = killed(zygote, jobs, tmp_path, ALL, counted).report
    assert report.kills >= 300
    wanted = {"training step", "checkpoint write", "evaluation", "best weights", "results", "download", "conversion",
              "export", "Parquet shards", "label maps", "pack", "litevit eval"}  # fmt: skip
    assert wanted <= report.phases.keys()
