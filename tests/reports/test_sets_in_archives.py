"""A set as it was downloaded, `train.tar.gz` and `test.tar.gz`: all that was said is that there is no known layout."""

import pytest


@pytest.mark.parametrize("command", ["doctor", "train finetune --data", "train quickstart-detection --data"])
@pytest.mark.parametrize("place", ["cifar10", "cifar10/train.tar.gz"])
def test_it_is_said(command, place, tmp_path, monkeypatch, litevit):
    if command.startswith("train"):
        pytest.importorskip("accelerate", reason="training needs accelerate")
    (tmp_path / "cifar10").mkdir()
    for split in ("train", "test"):
        (tmp_path / "cifar10" / f"{split}.tar.gz").write_bytes(b"packed")
    monkeypatch.chdir(tmp_path)
    code, _, said = litevit(*command.split(), place)
    assert code == 2
    assert ("It has test.tar.gz, train.tar.gz: unpack first." in said) == (place == "cifar10")
    assert ("It is an archive: unpack it first." in said) == (place != "cifar10")
