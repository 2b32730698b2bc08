"""Hostile PyTorch files: what would run is refused by its name."""

import pickle

import pytest
import torch

from litevit.checkpoints.files import read_file


class Runs:
    def __reduce__(self):
        import os

        return os.system, ("touch canary",)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_would_run_is_refused_by_name(tmp_path, zipped, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Runs()}, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="system"):
        read_file(tmp_path / "model.pth")
    (tmp_path / "model.pth").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(ValueError, match="refused"):
        read_file(tmp_path / "model.pth")
    assert not (tmp_path / "canary").exists()
