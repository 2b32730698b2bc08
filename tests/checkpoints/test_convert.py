"""Files in the official layout to ours and back."""

import pytest
import torch
from safetensors.torch import load_file

import litevit
from golden import official_state
from litevit.checkpoints import layouts
from litevit.checkpoints.convert import convert
from litevit.checkpoints.files import (
    EXPORTED,
    is_exported_file,
    read_file,
    read_metadata,
    read_state_dict,
    write_state_dict,
)
from litevit.checkpoints.load import resize_pos_embed, resize_relative_table
from litevit.cli import main
from litevit.deploy.formats import formats


def official_file(tmp_path, manifest: str, container: str | None):
    state = official_state(manifest)
    path = tmp_path / "official.pth"
    torch.save(state if container is None else {container: state, "epoch": 3}, path)
    return state, path


@pytest.mark.parametrize(
    ("manifest", "container", "suffix"),
    [("lvt/lvt_cls", "state_dict", ".pth"), ("lvt/lvt_backbone", None, ".safetensors")],
)
def test_there_and_back_is_bit_for_bit(tmp_path, manifest, container, suffix):
    state, path = official_file(tmp_path, manifest, container)
    done = convert(path, tmp_path / "ours.safetensors")
    assert (done.layout_from, done.layout_to, done.tensors) == ("official LVT", "litevit", len(state))
    assert "non-commercial" in done.notice
    assert "non-commercial" in read_metadata(tmp_path / "ours.safetensors")["licence"]
    done = convert(tmp_path / "ours.safetensors", tmp_path / f"back{suffix}")
    assert (done.layout_from, done.layout_to) == ("litevit", "official LVT")
    content = read_file(tmp_path / f"back{suffix}")
    back = content if container is None or suffix == ".safetensors" else content[container]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) and back[key].dtype == state[key].dtype for key in state)


def test_what_litevit_has_no_place_for_is_carried_along(tmp_path):
    state, path = official_file(tmp_path, "lvt/segformer_lvt", "state_dict")
    done = convert(path, tmp_path / "ours.safetensors")
    assert set(done.kept) == {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"}
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth")
    back = read_state_dict(tmp_path / "back.pth").tensors
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    with torch.device("meta"):
        model = litevit.create_model("segformer_lvt")
    report = litevit.load_weights(model.to_empty(device="cpu"), tmp_path / "ours.safetensors")
    assert not report.missing
    assert all(key.startswith("official.decode_head.conv_seg") for key in report.dropped)


def test_prefix_of_a_backbone_is_wrapping(tmp_path):
    state, path = official_file(tmp_path, "lvt/lvt_backbone", None)
    torch.save({"meta": {}, "state_dict": {f"backbone.{key}": value for key, value in state.items()}}, path)
    assert convert(path, tmp_path / "ours.safetensors").tensors == len(state)
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth")
    back = read_state_dict(tmp_path / "back.pth").tensors
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_the_way_back_is_checked_too(tmp_path, monkeypatch):
    write_state_dict(litevit.create_backbone("lvt").state_dict(), tmp_path / "ours.safetensors")
    there = layouts.to_official
    monkeypatch.setattr(layouts, "to_official", lambda state: {k: v + 1 for k, v in there(state).items()})
    with pytest.raises(ValueError, match=r"does not survive the way there and back\. Nothing was written"):
        convert(tmp_path / "ours.safetensors", tmp_path / "back.pth")
    assert not (tmp_path / "back.pth").exists()


def test_the_source_is_not_overwritten(tmp_path):
    _, path = official_file(tmp_path, "lvt/lvt_backbone", None)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is the source itself"):
        convert(path, path)
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("manifest", ["lit/lit_ti", "lit/lit_s", "lit/litv2_s"])
def test_lit_files(tmp_path, manifest):
    state, path = official_file(tmp_path, manifest, "model")
    done = convert(path, tmp_path / "ours.safetensors")
    assert not done.kept
    assert done.notice is None
    assert all("relative_position_index" in key for key in done.dropped)
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth")
    back = read_state_dict(tmp_path / "back.pth").tensors
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_nothing_is_written_for_what_is_not_understood(tmp_path):
    state, path = official_file(tmp_path, "lvt/lvt_backbone", None)
    torch.save(state | {"backbone.what.is.this": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"1 entries no key map knows: backbone\.what\.is\.this\. Nothing was written"):
        convert(path, tmp_path / "ours.safetensors")
    small = litevit.create_backbone("lvt")
    torch.save({f"wrapped.{k}": v for k, v in small.state_dict().items()}, path)
    with pytest.raises(ValueError, match="No known layout has these keys"):
        convert(path, tmp_path / "ours.safetensors")
    assert not (tmp_path / "ours.safetensors").exists()


def test_our_files_are_plain_safetensors(tmp_path):
    _, path = official_file(tmp_path, "lvt/lvt_backbone", None)
    convert(path, tmp_path / "ours.safetensors")
    tensors = load_file(tmp_path / "ours.safetensors")
    assert set(tensors) == {f"backbone.{key}" for key in litevit.create_backbone("lvt").state_dict()}


def test_what_has_no_way_back():
    with pytest.raises(ValueError, match="only a litevit checkpoint has a way back"):
        layouts.to_official({"encoder.weight": torch.zeros(1)})
    with torch.device("meta"):
        swin, lit = litevit.create_model("swin_ti").state_dict(), litevit.create_model("lit_ti").state_dict()
    with pytest.raises(ValueError, match="this model has another backbone"):
        layouts.to_official(swin)
    with pytest.raises(ValueError, match=r"No official layout has a place for .*adapter\.weight"):
        layouts.to_official(lit | {"adapter.weight": torch.zeros(1)})


def test_position_tables_that_are_no_square():
    with pytest.raises(ValueError, match="needs a square number of rows, got 8 and 9"):
        resize_relative_table(torch.zeros(8, 2), 9)
    with pytest.raises(ValueError, match="needs a square grid, got 6 and 10 rows"):
        resize_pos_embed(torch.zeros(1, 6, 4), 10, class_row=True)


@pytest.mark.parametrize("suffix", EXPORTED)
def test_exported_files_are_told_from_damaged_ones(tmp_path, capsys, suffix):
    """Programs, from which no weights can be taken; whoever wants weights says so and what to give."""
    path = tmp_path / f"x{suffix}"
    if suffix == ".mlpackage":
        path.mkdir()
    else:
        path.write_bytes({".xml": b"<?xml version='1.0'?><net/>"}.get(suffix, b"\x08\x0a" + bytes(600)))
    for arguments in (
        ("convert", path, tmp_path / "x.safetensors"),
        ("pack", path, tmp_path / "packed"),
        ("pack", "lvt", tmp_path / "packed", "--weights", path),
        ("export", path, "--format", "pt2", "--out", tmp_path / "y.pt2"),
        ("predict", path, tmp_path / "x.jpg"),
        ("predict", tmp_path / "x.jpg", "--model", path),
        ("eval", path, "--data", tmp_path),
        ("bench", "models", "--models", path),
    ):
        assert main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr().err
        assert f"x{suffix} is an exported file" in said
        if arguments[0] in ("predict", "eval"):
            assert f"give it as --weights {path}" in said
        elif arguments[0] != "bench":
            assert f"a program for {EXPORTED[suffix]}, from which weights cannot be taken" in said
        assert said.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_every_format_is_known_as_exported(tmp_path):
    (tmp_path / "1.xml").write_text("<annotation><folder>pets</folder></annotation>")
    assert not is_exported_file(tmp_path / "1.xml")
    assert not is_exported_file(tmp_path / "2.xml")
    assert EXPORTED == {kind.suffix: kind.runtime for kind in formats().values()}
