"""Downloads against a local server; checkpoints that are safe, wrapped, damaged and malicious."""

import argparse
import hashlib
import os
import pickle
import re
import socket
import sys
import threading
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from litevit import seals
from litevit.checkpoints import download
from litevit.checkpoints import files as checkpoints
from litevit.checkpoints import published as weights
from litevit.checkpoints.files import read_file, read_state_dict, write_state_dict
from litevit.checkpoints.preprocessing import ADE20K, COCO, IMAGENET_224, checked_preprocessing
from litevit.checkpoints.published import WEIGHTS, Weights
from litevit.zoo import MODELS

BODY = bytes(range(256)) * 4096  # 1 MiB


class Server(ThreadingHTTPServer):
    """Serves BODY under /file; its attributes say what goes wrong."""

    breaks: int = 0  # how many replies stop half way
    busy: int = 0  # how many replies are 503 first
    ranges: bool = True
    etag: str = '"one"'
    requests: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        if self.server.busy:
            self.server.busy -= 1
            return self.send_error(503)
        if self.path == "/page":
            return self.reply(200, b"<html>sign in</html>", kind="text/html")
        if self.path != "/file":
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start and self.headers.get("If-Range") not in (None, self.server.etag):
            start = 0
        if start > len(BODY):
            return self.send_error(416)
        return self.reply(206 if start else 200, BODY[start:])

    def reply(self, code: int, body: bytes, kind: str = "application/octet-stream"):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        if self.server.breaks and kind != "text/html":
            self.server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *args):
        """Silence."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LITEVIT_CACHE", str(folder))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return folder


def publish(monkeypatch, url: str, sha256: str | None = None) -> None:
    entry = Weights(task="classification", source="a test", url=url, file="model.pth", sha256=sha256)
    monkeypatch.setitem(WEIGHTS, "toy", entry)


# ------------------------------------------------------------------ table


def test_every_row_says_where_whose_and_how():
    for name, row in WEIGHTS.items():
        assert (row.url is None) != (row.page is None), name
        assert row.filename.endswith((".pth", ".pth.tar")), name
        assert row.licence in ("Apache-2.0", weights.ADOBE), name
        assert (row.page is None) == (row.licence == "Apache-2.0"), name
        if row.task == "classification":
            assert {"params_M", "macs_G", "top1"} <= set(row.published), name
    assert len({row.filename for row in WEIGHTS.values()}) == len(WEIGHTS) == 41


def test_unpublished_name_is_told_with_near_ones():
    with pytest.raises(ValueError, match=r"Near names that have one: .*litv2_s"):
        weights.find("litv2_s2")


def test_preprocessing_of_the_family():
    assert weights.preprocessing("litv2_b_384").crop_mode == "squash"
    assert int(224 / weights.preprocessing("lvt_plain").crop_pct) == 233
    assert weights.preprocessing("pvt_s") == weights.preprocessing("somebody_elses") == IMAGENET_224


def test_preprocessing_of_dense_models_without_published_weights():
    assert weights.preprocessing("mask_rcnn_litv2_s") == weights.preprocessing("panoptic_fpn_lvt") == COCO
    assert {weights.preprocessing(n) for n, m in MODELS.items() if m.task.name == "semantic segmentation"} == {ADE20K}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([1], "preprocessing must be an object, got [1]"),
        (
            {"colour": 1},
            "preprocessing has the fields size, crop_pct, crop_mode, interpolation, mean, std, got 'colour'",
        ),
        ({"size": True}, "preprocessing.size cannot be True"),
        ({"size": 10**9}, "preprocessing.size cannot be 1000000000"),
        ({"std": [0, 1, 1]}, "preprocessing.std cannot be (0, 1, 1)"),
        ({"interpolation": "magic"}, "preprocessing.interpolation cannot be 'magic'"),
    ],
)
def test_preprocessing_of_a_strangers_file_is_checked(told, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        checked_preprocessing(told, "a file")


def test_published_multiply_adds_are_counted_at_the_size_of_the_task():
    sizes = {name: WEIGHTS[name].figure_size for name in ("litv2_b_384", "mask_rcnn_lit_s", "segformer_lvt")}
    assert sizes == {"litv2_b_384": (384, 384), "mask_rcnn_lit_s": (800, 1280), "segformer_lvt": (512, 512)}
    assert WEIGHTS["panoptic_fpn_lvt"].figure_size == (800, 1344)


# ---------------------------------------------------------------- download


def test_fetch_downloads_once_and_records_the_hash(server, cache, monkeypatch):
    publish(monkeypatch, server.url)
    path = weights.fetch("toy", progress=False)
    assert path == cache / "model.pth"
    assert path.read_bytes() == BODY
    digest = hashlib.sha256(BODY).hexdigest()
    assert (cache / "model.pth.sha256").read_text() == f"{digest}  model.pth\n"
    weights.fetch("toy", progress=False)
    assert len(server.requests) == 1
    assert not list(cache.glob("*.part*"))


def test_a_cached_file_that_changed_is_refused(server, cache, monkeypatch):
    publish(monkeypatch, server.url)
    path = weights.fetch("toy", progress=False)
    path.write_bytes(BODY[:-1] + b"x")
    with pytest.raises(ValueError, match=r"model\.pth has changed: its sha256 should be"):
        weights.fetch("toy", progress=False)


def test_wrong_hash_is_discarded(server, cache, monkeypatch):
    publish(monkeypatch, server.url, sha256="0" * 64)
    with pytest.raises(ValueError, match="sha256 should be 0000"):
        weights.fetch("toy", progress=False)
    assert not list(cache.glob("model.pth*[!k]"))  # nothing but the lock


def test_a_broken_transfer_is_resumed_where_it_stopped(server, cache, monkeypatch):
    server.breaks = 2
    publish(monkeypatch, server.url)
    assert weights.fetch("toy", progress=False).read_bytes() == BODY
    half, quarter = len(BODY) // 2, len(BODY) * 3 // 4
    assert server.requests == [None, f"bytes={half}-", f"bytes={quarter}-"]


def test_a_later_run_resumes_an_earlier_one(server, cache, monkeypatch):
    publish(monkeypatch, server.url)
    server.breaks = 99
    monkeypatch.setattr(download, "RETRIES", 0)
    with pytest.raises(OSError, match=r"broke off after 524288 bytes\. Run again to resume"):
        weights.fetch("toy", progress=False)
    assert not (cache / "model.pth").exists()
    server.breaks = 0
    assert weights.fetch("toy", progress=False).read_bytes() == BODY
    assert server.requests[-1] == "bytes=524288-"


@pytest.mark.parametrize("change", ["no ranges", "new version", "part too long"])
def test_a_part_that_does_not_fit_is_begun_anew(server, cache, monkeypatch, change):
    publish(monkeypatch, server.url)
    cache.mkdir()
    stale = b"x" * (len(BODY) + 9 if change == "part too long" else 100)
    (cache / "model.pth.part").write_bytes(stale)
    if change == "no ranges":
        server.ranges = False
    if change == "new version":
        (cache / "model.pth.part.etag").write_text('"zero"')
    assert weights.fetch("toy", progress=False).read_bytes() == BODY


def test_a_busy_server_is_asked_again_and_not_for_ever(server, cache, monkeypatch):
    publish(monkeypatch, server.url)
    server.busy = download.RETRIES
    assert weights.fetch("toy", progress=False).read_bytes() == BODY
    (cache / "model.pth").unlink()
    server.busy = download.RETRIES + 1
    with pytest.raises(OSError, match="the server answered 503 Service Unavailable"):
        weights.fetch("toy", progress=False)


def test_no_space_keeps_nothing_and_no_folder_says_what_to_set(server, cache, monkeypatch):
    publish(monkeypatch, server.url)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=10))
    with pytest.raises(OSError, match=r"No space left in .*Free some, or set LITEVIT_CACHE"):
        weights.fetch("toy", progress=False)
    assert [path.name for path in cache.iterdir()] == ["model.pth.lock"]
    monkeypatch.setenv("LITEVIT_CACHE", str(cache / "model.pth.lock" / "inside"))
    with pytest.raises(OSError, match=r"Cannot write to the cache .*Set LITEVIT_CACHE to a folder"):
        weights.fetch("toy", progress=False)


def test_missing_file_web_page_and_refused_connection(server, cache, monkeypatch):
    publish(monkeypatch, server.url.replace("/file", "/gone"))
    with pytest.raises(OSError, match=r"gone: the server answered 404 .* save it as .*model\.pth"):
        weights.fetch("toy", progress=False)
    publish(monkeypatch, server.url.replace("/file", "/page"))
    with pytest.raises(OSError, match="a web page came instead of the file"):
        weights.fetch("toy", progress=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    publish(monkeypatch, f"http://127.0.0.1:{port}/file")
    with pytest.raises(OSError, match=r"cannot be reached .* Check the network"):
        weights.fetch("toy", progress=False)
    assert not (cache / "model.pth").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full to stand for a full disk")
def test_full_disk_while_writing(server, cache, monkeypatch):
    publish(monkeypatch, server.url)
    cache.mkdir()
    (cache / "model.pth.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left in .* nothing was kept"):
        weights.fetch("toy", progress=False)
    assert [p.name for p in cache.iterdir()] == ["model.pth.lock"]


def test_full_disk_is_seen_before_the_transfer(server, cache, monkeypatch):
    publish(monkeypatch, server.url)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="No space left"):
        weights.fetch("toy", progress=False)
    assert not (cache / "model.pth.part").exists()


def test_share_page_files_are_asked_for_and_accepted(cache, caplog):
    with pytest.raises(
        FileNotFoundError, match=r"sharepoint.* save the file as .*lvt_imagenet.pth.tar .*non-commercial"
    ):
        weights.fetch("lvt")
    cache.mkdir()
    (cache / "lvt_imagenet.pth.tar").write_bytes(b"by hand")
    assert weights.fetch("lvt").read_bytes() == b"by hand"
    assert "non-commercial" in caplog.text


# -------------------------------------------------------------- checkpoints

STATE = {"head.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(2)}


def same(tensors) -> bool:
    return tensors.keys() == STATE.keys() and all(torch.equal(tensors[k], STATE[k]) for k in STATE)


def foreign_class(name: str, base: type, **members) -> type:
    """A class of a package that is not installed, importable while a checkpoint is written."""
    module, _, last = name.rpartition(".")
    made = type(last, (base,), {"__module__": module, "__qualname__": last, **members})
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    setattr(sys.modules[module], last, made)
    return made


@pytest.fixture
def forget_modules():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("yacs", "mmengine", "mmcv", "addict"):
            del sys.modules[name]


def training_checkpoint(kind: str) -> dict:
    if kind == "yacs":
        node = foreign_class("yacs.config.CfgNode", dict)
        config = node({"MODEL": node({"NAME": "litv2"})})
        config.__dict__["__immutable__"] = True
        return {"model": STATE, "config": config, "max_accuracy": np.float64(82.0), "epoch": 299}
    if kind == "argparse":
        args = argparse.Namespace(lr=1e-3, output_dir=Path("out"))
        return {"model": STATE, "args": args, "epoch": 1, "scaler": {}, "global_step": 3}
    if kind == "timm":
        ema = {k: v + 1 for k, v in STATE.items()}
        return {"state_dict": STATE, "state_dict_ema": ema, "args": argparse.Namespace(model="lvt"), "metric": 74.8}
    if kind == "mmcv":
        config = foreign_class("mmcv.utils.config.ConfigDict", foreign_class("addict.addict.Dict", dict))
        return {"meta": {"CLASSES": ("a", "b"), "config": config(a=1)}, "state_dict": STATE, "optimizer": {"state": {}}}
    history = foreign_class("mmengine.logging.history_buffer.HistoryBuffer", object, mean=lambda self: 0)
    buffer = history()
    buffer.log = np.array([1.0, 2.0])
    buffer.methods = {"mean": history.mean}
    return {"message_hub": {"loss": buffer}, "meta": {}, "state_dict": STATE}


@pytest.mark.parametrize("kind", ["yacs", "argparse", "timm", "mmcv", "mmengine"])
def test_training_checkpoints_are_read_without_their_packages(kind, tmp_path, forget_modules):
    path = tmp_path / "ckpt.pth"
    if kind == "mmengine":
        sys.modules.pop("mmengine", None)
    content = training_checkpoint(kind)
    if kind == "mmengine":
        history = type(content["message_hub"]["loss"])
        history.mean.__module__ = history.__module__
        history.mean.__qualname__ = "HistoryBuffer.mean"
    torch.save(content, path)
    for name in [m for m in sys.modules if m.split(".")[0] in ("yacs", "mmcv", "mmengine", "addict")]:
        del sys.modules[name]
    assert same(read_state_dict(path).tensors)


def test_moving_average_on_request(tmp_path):
    content = training_checkpoint("timm")
    torch.save(content, tmp_path / "a.pth")
    assert same(read_state_dict(tmp_path / "a.pth").tensors)
    assert torch.equal(read_state_dict(tmp_path / "a.pth", ema=True).tensors["head.bias"], STATE["head.bias"] + 1)


@pytest.mark.parametrize(
    ("content", "wrapping"),
    [
        (STATE, ()),
        ({"model": STATE}, ("model",)),
        ({"state_dict": STATE, "epoch": 3}, ("state_dict",)),
        ({"module." + k: v for k, v in STATE.items()}, ("module.",)),
        ({"model": {"module._orig_mod." + k: v for k, v in STATE.items()}}, ("model", "module.", "_orig_mod.")),
        ({"encoder." + k: v for k, v in STATE.items()} | {"decoder.x": torch.ones(1)}, ("encoder.",)),
    ],
)
def test_wrappings(content, wrapping, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    for source in (tmp_path / "a.pth", content):
        found = read_state_dict(source)
        assert same(found.tensors)
        assert found.wrapping == wrapping
    assert found.dropped == (("decoder.x",) if "encoder." in wrapping else ())


class Bomb:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_something_is_refused(tmp_path, legacy):
    mark = tmp_path / "it ran"
    bombs = [
        Bomb(os.mkdir, str(mark)),
        Bomb(eval, f"__import__('os').mkdir({str(mark)!r})"),
        Bomb(Path.touch, mark),
        Bomb(getattr, torch.Tensor, "tolist"),
    ]
    for bomb in bombs[:3]:
        path = tmp_path / "evil.pth"
        torch.save({"model": STATE, "x": bomb}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match=r"evil.pth was refused: it asks for .*(mkdir|eval|touch|getattr|Path)"):
            read_file(path)
        assert not mark.exists()
    # A name on the list stands for nothing: getattr is needed to read mmengine files, and returns no attribute.
    torch.save({"model": STATE, "x": bombs[3]}, path)
    assert read_file(path)["x"] is not torch.Tensor.tolist


@pytest.mark.parametrize(
    ("protocol", "message"),
    [(2, "was refused: it asks for .*mkdir"), (4, r"was refused: it is a pickle that torch\.save did not write")],
)
def test_a_plain_pickle_runs_nothing_either(tmp_path, protocol, message):
    mark = tmp_path / "it ran"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"a": Bomb(os.mkdir, str(mark))}, protocol=protocol))
    with pytest.raises(ValueError, match=message):
        read_file(path)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.98])
def test_truncated_files_are_named(tmp_path, suffix, keep):
    path = write_state_dict({"x": torch.randn(100, 100)}, tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ValueError, match=rf"a{suffix} \(\d+ bytes\) cannot be read: it is truncated"):
        read_file(path)


def test_things_that_are_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth does not exist"):
        read_file(tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match=r'imagenet does not exist.*or "official"'):
        read_file("imagenet")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_file(tmp_path)
    page = tmp_path / "share.pth"
    page.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(ValueError, match="is a web page"):
        read_file(page)
    text = tmp_path / "notes.txt"
    text.write_text("hello there")
    with pytest.raises(ValueError, match="cannot be read"):
        read_file(text)
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="holds no model"):
        read_state_dict(tmp_path / "empty.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no model"):
        read_state_dict(tmp_path / "list.pth")


# ----------------------------------------------------------------- writing


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_write_and_read_back(tmp_path, name):
    path = write_state_dict(STATE, tmp_path / name, metadata={"licence": "Apache-2.0"})
    assert same(read_state_dict(path).tensors)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [name]


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_a_failed_write_keeps_the_old_file(tmp_path, name, monkeypatch):
    path = write_state_dict(STATE, tmp_path / name)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(seals, "save_file", full)
    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(OSError, match=r"Cannot write .*No space left.*untouched"):
        write_state_dict({"x": torch.ones(3)}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [name]


def test_devices_and_folders_are_not_written_over(tmp_path):
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(OSError, match="it is a folder"):
        write_state_dict(STATE, tmp_path / "folder.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(OSError, match="it is no ordinary file"):
        write_state_dict(STATE, tmp_path / "pipe.pth")
    assert (tmp_path / "pipe.pth").is_fifo()


def test_write_into_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write_state_dict(STATE, tmp_path / "no" / "a.pth")


def test_a_sealed_file_that_another_program_wrote_anew(tmp_path):
    """Half precision, with the metadata kept as converters keep it, was called damaged; a changed byte still is."""
    tensors = {"weight": torch.randn(8, 8)}
    path, half = tmp_path / "x.safetensors", tmp_path / "half.safetensors"
    seals.save_sealed(tensors, path, {"format": "pt"})
    with safe_open(path, framework="pt") as file:
        kept = file.metadata()
    save_file({"weight": tensors["weight"].half()}, half, metadata=kept)
    with pytest.warns(UserWarning, match=r"half.safetensors has been written anew by another program .* bytes then"):
        assert seals.load_sealed(half)["weight"].dtype == torch.float16
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"x.safetensors is damaged: .* leave litevit_sha256 out"):
        seals.load_sealed(path)


def test_a_seal_without_a_length(tmp_path):
    """As 0.2's first files have it."""
    path = tmp_path / "x.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={seals.KEY: "0" * 64})
    _, _, seal = seals._read(path)
    path.write_bytes(path.read_bytes().replace(b"0" * 64, seal[:64].encode()))
    assert seals.load_sealed(path)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match="is damaged"):
        seals.load_sealed(path)
