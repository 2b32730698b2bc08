"""Tar files that lie: refused by name, before anything is read or turned in circles."""

import gzip
import io
import tarfile
import time

import pytest

from hostile.kinds.shards import header, member, nested, summed
from litevit.data.class_tars import ClassTars
from litevit.data.shards import WebDatasetReader, count_images, expand_shards
from litevit.data.streaming import TarShards
from litevit.data.tars import MOST_HEADER, MOST_LABEL, members

END = bytes(1024)
PAIR = member(b"0.jpg", b"x" * 600) + member(b"0.cls", b"1")


def sized(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    block = header(name, 0, kind=kind)
    block[124:136] = size
    return summed(block)


def pax(record: bytes) -> bytes:
    return member(b"pax", record, kind=b"x") + member(b"1.jpg", b"x")


def holes() -> bytes:
    block = header(b"1.jpg", 0, kind=b"S")
    block[483:495] = b"%011o\0" % 2**40
    return summed(block)


LIES = {
    "a size below zero": sized(b"1.jpg", b"\xff" * 11 + b"\xfe"),
    "a size below zero in a record": pax(b"13 size=-5120\n"),
    "a size beyond the end": sized(b"1.jpg", b"77777777777\0"),
    "a header without end": sized(b"a", b"77777777777\0", b"L"),
    "a long header": member(b"a", b"x" * (MOST_HEADER + 1), kind=b"x"),
    "headers of headers": member(b"a", b"16 path=x/1.jpg\n", kind=b"x") * 2000,
    "a damaged header": b"\x01" * 512,
    "a header cut off": PAIR[:300],
    "holes": holes(),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_tar_that_lies(tmp_path, lie):
    file = tmp_path / "train-0.tar"
    file.write_bytes(PAIR + LIES[lie] + (END if "cut off" not in lie else b""))
    for read in (
        lambda: WebDatasetReader(str(file), "train"),
        lambda: count_images(str(file)),
        lambda: ClassTars(file),
        lambda: list(TarShards(str(file), "train").read(0)),
    ):
        with pytest.raises(ValueError, match=r"train-0\.tar is not a readable tar file"):
            read()


def test_links_devices_and_names_that_climb_are_no_images(tmp_path):
    file = tmp_path / "train-0.tar"
    strange = b"".join(
        member(b"../../9.jpg", b"", kind=kind, link=b"/etc/passwd") for kind in (b"1", b"2", b"3", b"4", b"6")
    )
    file.write_bytes(strange + PAIR + END)
    assert [one.name for one in members(file)] == ["0.jpg", "0.cls"]
    assert [label for _, _, label in TarShards(str(file), "train").read(0)] == [1]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_label_of_megabytes(tmp_path, streamed):
    file = tmp_path / "train-0.tar"
    file.write_bytes(member(b"0.jpg", b"x") + member(b"0.cls", b"1" * (MOST_LABEL + 1)) + END)
    with pytest.raises(ValueError, match=r"0\.cls.*bytes"):
        list(TarShards(str(file), "train").read(0)) if streamed else WebDatasetReader(str(file), "train")


@pytest.mark.parametrize("name", [b"1.jpg", b"1.txt"])
def test_a_squeezed_flood_is_refused_before_it_is_in_memory(tmp_path, name):
    file = tmp_path / "train-0.tar"
    file.write_bytes(gzip.compress(sized(name, b"77777777777\0")) + gzip.compress(bytes(10**7)))
    with pytest.raises(ValueError, match=r"train-0\.tar is not a readable tar file.* 8,589,934,591 bytes"):
        list(TarShards(str(file), "train").read(0))
    many = member(b"a.txt", bytes(2**24)) * 10
    file.write_bytes(gzip.compress(many + END))
    with pytest.raises(ValueError, match="bytes have become"):
        list(TarShards(str(file), "train").read(0))


def test_a_squeezed_tar_is_read_as_ever(tmp_path):
    file = tmp_path / "train-0.tar"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:bz2") as archive:
        for name, part in (("a/" * 90 + "0.jpg", b"x" * 10), ("a/" * 90 + "0.cls", b"3")):
            entry = tarfile.TarInfo(name)
            entry.size = len(part)
            archive.addfile(entry, io.BytesIO(part))
    file.write_bytes(content.getvalue())
    assert [(found, label) for _, found, label in TarShards(str(file), "train").read(0)] == [(b"x" * 10, 3)]


def test_tars_in_tars_in_tars(tmp_path):
    (tmp_path / "deep.tar").write_bytes(nested(50))
    with pytest.raises(ValueError, match=r"deep\.tar: tars lie in it in tars"):
        ClassTars(tmp_path / "deep.tar")


@pytest.mark.parametrize("pattern", ["s-{0..99999999999}.tar", "s-{000..999999999999999999999999}.tar"])
def test_a_pattern_of_too_many_shards(pattern):
    with pytest.raises(ValueError, match="more than 1,000,000 shards"):
        expand_shards(f"pipe:cat {pattern}", "train")


def test_a_member_of_gigabytes_in_a_file_of_one_kilobyte(tmp_path):
    """Passing over it took ten seconds: tarfile goes on in steps of ten kilobytes where the file has ended."""
    file = tmp_path / "train-0.tar"
    file.write_bytes(sized(b"1.txt", b"77777777777\0") + bytes(600))
    started = time.process_time()
    with pytest.raises(ValueError, match=r"train-0\.tar is not a readable tar file.*unexpected end of data"):
        list(TarShards(str(file), "train").read(0))
    assert time.process_time() - started < 1
