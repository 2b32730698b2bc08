"""A flipped byte anywhere in a file of weights: one line, or what was written; never other weights."""

import random
import re
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

import litevit
from faults import checks
from litevit.checkpoints.files import read_file, read_metadata, read_state_dict, write_state_dict
from litevit.data.token_labels import load_label_map
from litevit.engine.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from litevit.seals import KEY, load_sealed


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"head.weight": torch.randn(7, 9, generator=generator), "head.bias": torch.arange(7, dtype=torch.int64)}


def flips(path, number: int | None = None, among: range | None = None):
    """Yields places at which one byte of the file is another: all of them, or so many drawn by chance."""
    content, luck = path.read_bytes(), random.Random(0)
    places = among or range(len(content))
    if number is not None:
        places = luck.sample(places, min(number, len(places)))
    for place in places:
        changed = bytearray(content)
        changed[place] ^= luck.choice((1, 2, 4, 8, 16, 32, 64, 128, 255))
        path.write_bytes(changed)
        yield place
    path.write_bytes(content)


def attempt(read, path):
    """What is read, or what was said instead."""
    try:
        return read(path), None
    except ValueError as error:
        return None, str(error)


def refused(path, read, wanted, number: int | None = None) -> tuple[int, int]:
    """How many flips were tried and refused; what is read in spite of one is what was written."""
    tried = no = 0
    for place in flips(path, number):
        tried += 1
        got, said = attempt(read, path)
        if said is None:
            checks.assert_equal(got, wanted, f"byte {place}")
        else:
            no += 1
            assert str(path) in said
            assert "\n" not in said
    checks.assert_equal(read(path), wanted)
    return tried, no


def test_training_checkpoints(tmp_path, counted):
    path = save_checkpoint(tmp_path, 3, {"model": state(), "step": 3}, keep=2)
    tried, no = refused(path, load_checkpoint, {"model": state(), "step": 3}, 300)
    assert tried == no
    counted("flipped byte: training checkpoint", tried, f"{no} refused")


@pytest.mark.parametrize("number", [150, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_weights(tmp_path, name, number, counted):
    """In a zip some bytes mean nothing (dates, padding): then the weights are right."""
    path = write_state_dict(state(), tmp_path / name, metadata={"recipe": "{}"} if name.endswith("s") else None)
    tried, no = refused(path, lambda file: dict(read_state_dict(file).tensors), state(), number)
    assert no > (0.7 if name.endswith("s") else 0.2) * tried
    counted(f"flipped byte: {path.suffix}", tried, f"{no} refused, {tried - no} read, with the right weights")


def test_every_byte_of_the_weights_themselves_counts(tmp_path):
    """Of a PyTorch file, whose reader ignores checksums."""
    path = write_state_dict(state(), tmp_path / "weights.pth")
    value = state()["head.weight"].numpy().tobytes()
    start = path.read_bytes().index(value)
    for _ in flips(path, among=range(start, start + len(value), 7)):
        with pytest.raises(ValueError, match="damaged"):
            read_file(path)


def test_every_byte_of_what_a_zip_says_of_its_entries(tmp_path):
    """A flipped attribute makes PyTorch's reader take an entry for a folder, and its weights from free memory."""
    path = write_state_dict(state(), tmp_path / "weights.pth")
    content = path.read_bytes()
    start = content.index(b"PK\1\2")
    assert content.count(b"PK\1\2") > 3
    for entry in (place for place in range(start, len(content)) if content.startswith(b"PK\1\2", place)):
        for place in range(entry, entry + 46, 2 if entry == start else 19):
            for change in (16, 255):
                changed = bytearray(content)
                changed[place] ^= change
                path.write_bytes(changed)
                got, said = attempt(lambda file: dict(read_state_dict(file).tensors), path)
                if said is None:
                    checks.assert_equal(got, state(), f"byte {place}")


def test_label_maps(tmp_path, counted):
    maps = torch.rand(2, 3, 4, 4).half()
    torch.save(maps, tmp_path / "a.pt")
    tried, no = refused(tmp_path / "a.pt", load_label_map, maps.float(), 150)
    counted("flipped byte: label map", tried, f"{no} refused, {tried - no} read, with the right labels")


def test_files_without_a_seal_are_read_as_before(tmp_path):
    save_file(state(), tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert KEY not in read_metadata(tmp_path / "a.safetensors")
    checks.assert_equal(read_file(tmp_path / "a.safetensors"), state())
    checks.assert_equal(load_sealed(tmp_path / "a.safetensors"), state())
    torch.save(state(), tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    checks.assert_equal(read_file(tmp_path / "b.pth"), state())


def test_files_whose_writer_left_the_checksums_out_are_read(tmp_path):
    """`torch.serialization.set_crc32_options(False)`: what stands in their place is no checksum."""
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this PyTorch always writes checksums")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state(), tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    checks.assert_equal(read_file(tmp_path / "a.pth"), state())


def test_a_sealed_file_is_an_ordinary_safetensors_file(tmp_path):
    path = write_state_dict(state(), tmp_path / "a.safetensors", metadata={"recipe": '{"a": "b"}'})
    checks.assert_equal(load_file(path), state())
    assert re.fullmatch(f"[0-9a-f]{{64}}:{path.stat().st_size:015d}", read_metadata(path)[KEY])
    assert read_metadata(path)["recipe"] == '{"a": "b"}'


def test_the_newest_checkpoint_of_a_run_is_damaged(zygote, materials, tmp_path, counted):
    """The one before it is used, with a line, and the end is the same."""
    run = tmp_path / "run"
    assert zygote.run("train", materials / "data", run).code == 0
    wanted = checks.of_run(run)
    newest, before = list_checkpoints(run / "checkpoints")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    ended = zygote.run("train", materials / "data", run)
    assert ended.code == 0, ended.said
    assert f"{newest} is damaged" in ended.said
    assert "The checkpoint before it is used" in ended.said
    assert f"after step {int(before.name[5:13])} of 6" in ended.said
    checks.assert_equal(checks.of_run(run), wanted)
    assert not newest.exists()  # a damaged one takes no place among those that are kept
    counted("newest checkpoint of a run damaged", 1, "said, the one before used, the same end")


def test_damaged_best_weights_are_not_used(zygote, materials, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    path = run / "best.safetensors"
    content = bytearray((materials / "run" / path.name).read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    for job, arguments in {"evaluate": (run, materials / "data"), "pack": (run, tmp_path / "packed")}.items():
        ended = zygote.run(job, *arguments)
        assert ended.code == 2, ended.said
        assert f"{path} is damaged" in ended.said
        assert "Traceback" not in ended.said
    assert not (tmp_path / "packed").exists()


def test_exported_programs(tmp_path, counted):
    from litevit.deploy.pt2_safety import check_archive

    path = tmp_path / "a.pt2"
    program = torch.export.export(torch.nn.Linear(3, 2), (torch.ones(1, 3),))
    torch.export.save(program, path)
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        inside = next(entry for entry in archive.infolist() if "weight" in entry.filename and entry.file_size > 8)
        content = archive.read(inside)
    start = path.read_bytes().index(content)
    for place in flips(path, 60):
        if start <= place < start + len(content):
            with pytest.raises(ValueError, match="damaged"):
                check_archive(path)
    assert litevit.__version__
