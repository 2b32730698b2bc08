"""`litevit reproduce`: its rows, what it measures, what it keeps, what it says when something is missing."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import litevit
import tiny_benchmarks as tiny
from litevit.checkpoints import download
from litevit.checkpoints.published import ABLATIONS, WEIGHTS
from litevit.cli import main
from litevit.jobs.reproduction import plan, run
from litevit.jobs.reproduction.found import PER_CLASS, look
from litevit.jobs.reproduction.rows import BENCHMARKS, FIGURES, all_rows, choose
from litevit.optimize.native import build
from litevit.zoo import MODELS

# Published facts that are no quality on a data set.
OTHER = {"params_M", "params_are", "macs_G", "macs_at", "schedule", "iterations", "window_size", "lo_fi_heads"}
OTHER |= {"hi_fi_heads", "fps", "fps_rtx3090", "fps_v100", "throughput_img_s_rtx3090_b64"}
OTHER |= {f"{what}_mem_{unit}_b64" for what in ("train", "test") for unit in ("MB", "GB")}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Weights of the LVT models, and data sets of what they see."""
    build.make()  # compiled into the usual cache, not into each test's
    root = tmp_path_factory.mktemp("benchmarks")
    lvt = tiny.write_weights("lvt", root / "weights")
    assert tiny.imagenet(root / "imagenet", lvt) == 75.0
    tiny.coco(root / "coco", None, None)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def call(made, tmp_path, capsys):
    """Runs the command on the tiny sets; the exit code, the table by row, and what was printed."""

    def call(*arguments, out=tmp_path / "out", weights=made / "weights"):
        given = ["--out", out, "--weights-dir", weights, "--workers", 0, "--device", "cpu", *arguments]
        code = main(["reproduce", *map(str, given)])
        text = "".join(capsys.readouterr())
        file = out / "table.json"
        table = {line["row"]: line for line in json.loads(file.read_text())} if file.exists() else {}
        return code, table, text

    return call


# ---------------------------------------------------------------------- rows


def test_every_published_figure_has_a_row():
    measured = {(row.model, key) for row in all_rows() for key in row.published}
    for name, published_of in {**{n: w.published for n, w in WEIGHTS.items()}, **ABLATIONS}.items():
        assert set(published_of) - OTHER == {key for model, key in measured if model == name}, name
    assert {row.model for row in all_rows()} == {*WEIGHTS, *ABLATIONS} - {"lvt_backbone"} <= set(MODELS)
    assert len({row.name for row in all_rows()}) == len(all_rows())
    reasons = {row.model for row in all_rows() if row.reason}
    assert reasons == {*ABLATIONS, "panoptic_fpn_lvt"}


def test_the_benchmark_of_a_row_is_that_of_its_task():
    of_task = {
        "classification": {"imagenet", "real", "v2"},
        "detection": {"coco"},
        "instance segmentation": {"coco"},
        "semantic segmentation": {"ade"},
        "panoptic segmentation": {"panoptic", "test-dev"},
    }
    for row in all_rows():
        assert row.benchmark in of_task[MODELS[row.model].task.name], row.name
        assert all(FIGURES[key].benchmark == row.benchmark for key in row.published)


def test_rows_are_chosen_by_patterns():
    assert [row.name for row in choose(["lit_s", "lit_s/*"])] == ["lit_s", "lit_s/real", "lit_s/v2"]
    assert {row.benchmark for row in choose(["mask_rcnn_*"])} == {"coco"}
    with pytest.raises(ValueError, match=r"Unknown row 'litv2_x'\. Did you mean 'litv2_"):
        choose(["lit_s", "litv2_x"])


# --------------------------------------------------------------- measurement


def test_measured_beside_published(call, made, tmp_path):
    code, table, text = call("--imagenet", made / "imagenet", "--rows", "lvt", "lit_ti/v2", "pvt_s")
    assert code == 1  # a subset does not pass
    line = table["lvt"]
    assert (line["published"], line["measured"], line["difference"]) == (74.8, 75.0, 0.2)
    assert (line["verdict"], line["images"], line["note"]) == ("subset", 8, "8 of 50,000 images")
    assert line["torch"] == torch.__version__
    assert line["seconds"] > 0
    assert line["record"]["protocol"].startswith("shorter side 233, centre crop 224, bicubic")
    assert (table["lit_ti/v2"]["verdict"], table["lit_ti/v2"]["note"]) == ("not asked", "--imagenet-v2 was not given")
    assert table["pvt_s"]["note"] == "no weights were published, only the figure"
    assert "non-commercial" in text
    with (tmp_path / "out" / "table.csv").open() as file:
        assert [(row["row"], row["measured"]) for row in csv.DictReader(file)] == [
            ("lit_ti/v2", ""), ("lvt", "75.0"), ("pvt_s", ""),
        ]  # fmt: skip
    page = (tmp_path / "out" / "table.md").read_text()
    assert "| lvt | top-1 | 74.80 | 75.00 | +0.20 | subset | 8 |" in page
    assert "- ImageNet-1K validation, shorter side 233" in page


def test_segmentation_is_measured_at_the_published_scale(call, tmp_path):
    weights = tiny.write_weights("segformer_lvt", tmp_path / "weights")
    expected = tiny.ade(tmp_path / "ade", weights, images=2)
    _, table, _ = call("--ade", tmp_path / "ade", "--rows", "segformer_lvt", weights=tmp_path / "weights")
    line = table["segformer_lvt"]
    assert line["measured"] == pytest.approx(expected, abs=0.006)
    assert line["record"]["protocol"] == "whole images, resized to fit 2048 x 512"


def whole(monkeypatch, top1: float) -> None:
    """The tiny set is all of ImageNet."""
    monkeypatch.setitem(BENCHMARKS, "imagenet", BENCHMARKS["imagenet"]._replace(images=8))
    monkeypatch.setitem(WEIGHTS, "lvt", replace(WEIGHTS["lvt"], published={"top1": top1}))


@pytest.mark.parametrize(
    ("top1", "verdict", "code"), [(74.9, "pass", 0), (75.1, "pass", 0), (74.89, "off", 1), (75.11, "off", 1)]
)
def test_a_whole_set_passes_within_a_tenth_of_a_point(call, made, monkeypatch, top1, verdict, code):
    whole(monkeypatch, top1)
    monkeypatch.setitem(PER_CLASS, "imagenet", 1)
    found, table, _ = call("--imagenet", made / "imagenet", "--rows", "lvt")
    assert (found, table["lvt"]["verdict"]) == (code, verdict)


def test_as_many_images_of_other_classes_are_no_whole_set(call, made, monkeypatch):
    whole(monkeypatch, 75.0)
    code, table, _ = call("--imagenet", made / "imagenet", "--rows", "lvt")
    assert (code, table["lvt"]["verdict"]) == (1, "subset")
    assert table["lvt"]["note"] == "not 50 images of each class"


def test_coco_is_whole_with_all_its_objects(made, monkeypatch):
    assert look("coco", made / "coco").short == "2 of 5,000 images"
    monkeypatch.setitem(BENCHMARKS, "coco", BENCHMARKS["coco"]._replace(images=2))
    assert look("coco", made / "coco").short == "4 of 36,335 objects"


# -------------------------------------------------------------------- resume


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Names of the rows that are measured, which costs nothing here."""
    names: list[str] = []

    def measure(row, found, weights, settings, on_progress=None):
        names.append(row.name)
        return {
            "row": row.name, "model": row.model, "benchmark": row.benchmark, "published": row.published,
            "measured": dict.fromkeys(row.published, 70.0), "images": found.images, "short": found.short,
            "protocol": "none", "seconds": 1.0, "hardware": "this", "device": settings.device.type,
            "torch": torch.__version__, "litevit": litevit.__version__, "data": found.digest,
            "weights": {"file": weights.name, "sha256": download.sha256_of(weights)},
        }  # fmt: skip

    monkeypatch.setattr(run, "measure", measure)
    return names


@pytest.fixture
def weights(tmp_path) -> Path:
    """Files of three classifiers that nobody opens."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("lvt", "litv2_s", "litv2_m"):
        (folder / WEIGHTS[name].filename).write_bytes(name.encode())
    return folder


def test_what_is_finished_is_not_measured_again(call, made, tmp_path, weights, measured, monkeypatch):
    def again(*arguments):
        measured.clear()
        call("--imagenet", made / "imagenet", "--rows", "lvt", "litv2_[sm]", *arguments, weights=weights)
        return list(measured)

    assert again() == ["litv2_s", "litv2_m", "lvt"]
    assert again() == []
    (weights / "litv2_m.pth").write_bytes(b"another file")
    assert again() == ["litv2_m"]
    (tmp_path / "out" / "rows" / "lvt.json").write_text("{broken")
    assert again() == ["lvt"]
    (weights / "litv2_s.pth").unlink()  # nothing to compare with, nothing to fetch
    assert again() == []
    monkeypatch.setattr(torch, "__version__", "9.9")
    (weights / "litv2_s.pth").write_bytes(b"litv2_s")
    assert again() == ["litv2_s", "litv2_m", "lvt"]


def test_changed_data_are_measured_again_and_moved_ones_are_not(call, made, tmp_path, weights, measured):
    data = tmp_path / "moved"
    shutil.copytree(made / "imagenet", data)

    def again(path):
        measured.clear()
        call("--imagenet", path, "--rows", "lvt", weights=weights)
        return list(measured)

    assert again(data) == ["lvt"]
    assert again(data.rename(tmp_path / "elsewhere")) == []
    data = tmp_path / "elsewhere"
    picture = next(data.rglob("*.png"))
    os.utime(picture, ns=(0, 0))
    assert again(data) == ["lvt"]
    shutil.rmtree(picture.parent)
    assert again(data) == ["lvt"]


def test_a_run_that_is_stopped_goes_on_with_the_next_row(call, made, tmp_path, weights, measured, monkeypatch):
    whole_measure = run.measure

    def stop(row, *rest):
        if row.name == "litv2_m":
            raise KeyboardInterrupt
        return whole_measure(row, *rest)

    monkeypatch.setattr(run, "measure", stop)
    code, table, _ = call("--imagenet", made / "imagenet", "--rows", "lvt", "litv2_[sm]", weights=weights)
    assert code == 130
    assert {name: line["verdict"] for name, line in table.items()} == {
        "litv2_s": "subset", "litv2_m": "not asked", "lvt": "not asked",
    }  # fmt: skip
    measured.clear()
    monkeypatch.setattr(run, "measure", whole_measure)
    left = [tmp_path / "out" / name for name in (".table.md.1-ab.tmp", "rows/.lvt.json.1-ab.tmp")]
    for file in left:  # as SIGKILL leaves them
        file.write_text("half")
    code, table, _ = call("--imagenet", made / "imagenet", "--rows", "lvt", "litv2_[sm]", weights=weights)
    assert (code, measured) == (1, ["litv2_m", "lvt"])
    assert not any(file.exists() for file in left)


@pytest.mark.parametrize(
    "edit",
    [{"measured": {}}, {"measured": {"top1": "70"}}, {"seconds": "1"}, {"images": None}, {"weights": []}, {"short": 0}],
)
def test_a_record_that_somebody_has_edited_is_measured_again(call, made, tmp_path, weights, measured, edit):
    given = ("--imagenet", made / "imagenet", "--rows", "litv2_s")
    call(*given, weights=weights)
    file = tmp_path / "out" / "rows" / "litv2_s.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | edit))
    code, table, text = call(*given, weights=weights)
    assert measured == ["litv2_s", "litv2_s"]
    assert "Traceback" not in text
    assert (code, table["litv2_s"]["measured"]) == (1, 70.0)


def test_records_of_other_data_sets_stay_in_the_table(call, made, weights, measured):
    call("--imagenet", made / "imagenet", "--rows", "lvt", weights=weights)
    _, table, _ = call("--ade", made / "nothing", "--rows", "lvt", "segformer_lvt", weights=weights)
    assert measured == ["lvt"]
    assert (table["lvt"]["verdict"], table["lvt"]["measured"]) == ("subset", 70.0)


def test_two_runs_do_not_write_one_folder(call, made, tmp_path, weights, measured):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        code, _, text = call("--imagenet", made / "imagenet", "--rows", "lvt", weights=weights)
    assert (code, measured) == (2, [])
    assert "is being written by another run: wait for it, or give another --out" in text


# --------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("coco", "is COCO 2017"),
        ("coco/val2017", "images lie directly in"),
        ("renamed", "must have folders called by ImageNet's 1,000 WordNet ids (n01440764, ...); it has 'cats'"),
        ("broken", "is not an image that can be read"),
    ],
)
def test_a_data_set_that_cannot_be_used_fails_its_rows_alone(call, made, tmp_path, data, said):
    root = made / data
    if data in ("renamed", "broken"):
        root = tmp_path / data
        shutil.copytree(made / "imagenet", root)
        folder = next((root / "val").iterdir())
        if data == "renamed":
            folder.rename(folder.with_name("cats"))
        else:
            next(folder.iterdir()).write_bytes(b"no image")
    v2 = tmp_path / "v2"
    tiny.picture(0, 40, 40).save(_made(v2 / "7") / "a.png")
    code, table, text = call("--imagenet", root, "--imagenet-v2", v2, "--rows", "lvt", "lit_ti/v2")
    assert (code, table["lvt"]["verdict"]) == (3, "failed")
    assert said in table["lvt"]["note"]
    assert "\n" not in table["lvt"]["note"]
    assert "Traceback" not in text
    assert "lit_ti.pth" in table["lit_ti/v2"]["note"]  # it was tried
    if data != "broken":  # which is seen when it is read
        assert text.index("Note: nothing can be measured on ImageNet-1K validation") < text.index("lvt top-1: failed")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_other_classes_and_missing_files_of_coco_and_ade(call, made, tmp_path):
    content = json.loads((made / "coco" / "annotations" / "instances_val2017.json").read_text())
    content["categories"][0]["name"] = "somebody"
    folder = _made(tmp_path / "coco" / "annotations")
    (folder / "instances_val2017.json").write_text(json.dumps(content))
    shutil.copytree(made / "coco" / "val2017", tmp_path / "coco" / "val2017")
    given = ("--coco", tmp_path / "coco", "--ade", made / "imagenet", "--rows")
    code, table, _ = call(*given, "retinanet_lit_ti", "panoptic_fpn_lvt", "segformer_lvt")
    assert code == 3
    assert (
        "class 0 is 'person' for the model of COCO 2017 val and 'somebody' in the data"
        in (table["retinanet_lit_ti"]["note"])
    )
    assert "has no panoptic annotations" in table["panoptic_fpn_lvt"]["note"]
    assert "has no masks of classes" in table["segformer_lvt"]["note"]
    (tmp_path / "coco" / "val2017" / "000000000139.png").unlink()
    assert "1 of 2 images" in call(*given, "retinanet_lit_ti")[1]["retinanet_lit_ti"]["note"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Silence."""


@contextmanager
def served(folder: Path):
    """The address of a local server of a folder's files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_weights_are_downloaded_checked_and_named_where_they_cannot_be(call, made, tmp_path, cache, monkeypatch):
    empty = _made(tmp_path / "empty")
    given = ("--imagenet", made / "imagenet", "--rows", "lvt", "litv2_s", "litv2_m")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        offline = f"http://127.0.0.1:{free.getsockname()[1]}/litv2_m.pth"
    with served(made / "weights") as url:
        here = replace(WEIGHTS["lvt"], page=None, url=url + WEIGHTS["lvt"].filename)
        monkeypatch.setitem(WEIGHTS, "litv2_s", replace(WEIGHTS["litv2_s"], url=url + "litv2_s.pth"))
        monkeypatch.setitem(WEIGHTS, "litv2_m", replace(WEIGHTS["litv2_m"], url=offline))
        _, table, _ = call(*given, weights=empty)
        assert "sit behind a share page" in table["lvt"]["note"]
        assert "the server answered 404" in table["litv2_s"]["note"]
        assert "cannot be reached" in table["litv2_m"]["note"]
        monkeypatch.setitem(WEIGHTS, "lvt", replace(here, sha256="0" * 64))
        assert "sha256 should be 0000" in call(*given, weights=empty)[1]["lvt"]["note"]
        monkeypatch.setitem(WEIGHTS, "lvt", here)
        code, table, _ = call(*given, weights=empty)
        assert (code, table["lvt"]["measured"]) == (3, 75.0)
    assert (cache / WEIGHTS["lvt"].filename).is_file()


def test_a_file_with_another_hash_than_beside_it_is_refused(call, made, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(made / "weights", folder)
    name = WEIGHTS["lvt"].filename
    (folder / f"{name}.sha256").write_text(f"{'0' * 64}  {name}\n")
    code, table, _ = call("--imagenet", made / "imagenet", "--rows", "lvt", weights=folder)
    assert code == 3
    assert f"{folder / name} is not the published file: its sha256 should be 0000" in table["lvt"]["note"]


def test_a_checkpoint_of_another_model_fails_its_row(call, made, weights):
    shutil.copy(made / "weights" / WEIGHTS["lvt"].filename, weights / "litv2_s.pth")
    code, table, text = call("--imagenet", made / "imagenet", "--rows", "litv2_s", weights=weights)
    assert (code, table["litv2_s"]["verdict"]) == (3, "failed")
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Nothing to measure on: give --ade or --coco or --imagenet or --imagenet-v2"),
        (("--rows", "pvt_s"), "Nothing to measure: no weights were published, only the figure"),
        (("--rows", "litv2_q"), "Unknown row 'litv2_q'"),
        (("--imagenet", "x", "--batch-size", "0"), "--batch-size must be at least 1"),
        (("--imagenet", "x", "--rows", "retinanet_*"), "give --coco"),
        (("--imagenet", "nowhere", "--rows", "lvt"), "--imagenet: there is nothing at nowhere"),
        (("--imagenet-v2", "nowhere", "--dry-run"), "--imagenet-v2: there is nothing at nowhere"),
    ],
)
def test_wrong_arguments_are_one_line(call, tmp_path, arguments, said):
    code, table, text = call(*arguments)
    assert (code, table) == (2, {})
    assert said in text
    assert text.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_wrong_folders_of_weights_and_results(call, made, tmp_path):
    (tmp_path / "file").write_text("")
    given = ("--imagenet", made / "imagenet", "--rows", "lvt")
    assert "--weights-dir" in call(*given, weights=tmp_path / "none")[2]
    code, _, text = call(*given, out=tmp_path / "file" / "out")
    assert code == 2
    assert "Cannot write to" in text


# ------------------------------------------------------------------- dry run


def test_a_dry_run_lists_what_is_needed_and_does_nothing(call, made, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(plan, "_probe", lambda device: 10.0)
    monkeypatch.setenv("COLUMNS", "250")
    shutil.copytree(made / "weights", tmp_path / "server")
    (tmp_path / "server" / WEIGHTS["lvt"].filename).rename(tmp_path / "server" / "litv2_s.pth")
    with served(tmp_path / "server") as url:
        monkeypatch.setitem(WEIGHTS, "litv2_s", replace(WEIGHTS["litv2_s"], url=url + "litv2_s.pth"))
        given = ("--dry-run", "--imagenet", made / "imagenet", "--rows", "lvt", "litv2_s", "litv2_m", "segformer_lvt")
        code, table, text = call(*given, "pvt_s")
    assert (code, table) == (0, {})
    size = (made / "weights" / WEIGHTS["lvt"].filename).stat().st_size / 1e6
    lines = [line.split() for line in text.replace("│", " ").splitlines()]
    assert [WEIGHTS["lvt"].filename, f"{size:.0f}", "MB", "there", "Adobe"] in [line[:5] for line in lines]
    assert ["litv2_s.pth", f"{size:.0f}", "MB", "download", "Apache-2.0"] in [line[:5] for line in lines]
    assert ["litv2_m.pth", "about", "195", "MB", "download", "Apache-2.0"] in [line[:6] for line in lines]
    assert f"litv2_s.pth: {url}litv2_s.pth" in text.splitlines()
    assert "ImageNet-1K validation: 8 images in" in text
    assert "a subset (8 of 50,000 images): measured, never a pass" in text
    assert "Left out: segformer_lvt: --ade was not given" in text
    assert "Left out: pvt_s: no weights were published" in text
    assert "lvt: the LVT weights are Adobe's, for non-commercial research" in text
    assert "at 37 G multiply-adds a second (by litv2_s" in text
    assert not (tmp_path / "out").exists()
    assert not cache.exists()


def test_a_dry_run_without_data_says_where_to_put_what(call, monkeypatch):
    monkeypatch.setattr(plan, "_probe", lambda device: 10.0)
    monkeypatch.setattr(plan, "_ask", lambda url: (None, False))
    code, _, text = call("--dry-run", "--rows", "panoptic_fpn_lvt", "lit_ti/*")
    assert code == 0
    assert "COCO 2017 panoptic val: needs --coco: 5,000 images; val2017/, annotations/panoptic_val2017.json" in text
    assert "panoptic_fpn_lvt_fpn_coco.pth: to be saved by hand from https://" in text


def test_a_dry_run_cuts_no_name_and_no_address_off(call, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(plan, "_probe", lambda device: 10.0)
    monkeypatch.setattr(plan, "_ask", lambda url: (None, False))
    monkeypatch.setenv("COLUMNS", "80")
    _, _, text = call("--dry-run", weights=tmp_path)
    assert "…" not in text
    for model, entry in WEIGHTS.items():
        if entry.published:
            assert f" {entry.filename} " in text
            assert any(line.endswith(str(entry.url or entry.page)) for line in text.splitlines()), model
    assert all(f" {row.name} " in text for row in all_rows() if not row.reason)


def test_a_dry_run_sees_what_cannot_be_measured_and_a_full_disk(call, made, monkeypatch):
    monkeypatch.setattr(plan, "_probe", lambda device: 10.0)
    monkeypatch.setattr(plan, "_ask", lambda url: (None, False))
    monkeypatch.setattr(plan, "_free", lambda: 10**6)
    code, _, text = call(
        "--dry-run", "--coco", made / "imagenet", "--imagenet", made / "imagenet", "--rows", "lit*_s", "mask*_s"
    )
    assert code == 3
    assert "To download: 0.22 GB; 0.0 GB are free in the cache" in text
    assert "That is too little" in text


def test_the_estimate_takes_the_speed_of_rows_measured_here(call, made, weights, measured, monkeypatch):
    monkeypatch.setattr(plan, "hardware", lambda device: "this")
    call("--imagenet", made / "imagenet", "--rows", "litv2_s", weights=weights)
    _, _, text = call("--dry-run", "--imagenet", made / "imagenet", "--rows", "litv2_[sm]", weights=weights)
    assert "Finished already: litv2_s" in text
    assert "at 30 G multiply-adds a second (by 1 rows measured here)" in text  # 8 images of 3.7 G in a second


# ---------------------------------------------------------------------- slow


@pytest.mark.slow
def test_every_task_by_the_real_command_killed_on_the_way(tmp_path):
    """One row per task, from a server and a folder; SIGKILL after every finished row. Figures as `litevit eval`'s."""
    files = {name: tiny.write_weights(name, tmp_path / "weights") for name in tiny.OFFICIAL}
    tiny.imagenet(tmp_path / "imagenet", files["lvt"])
    tiny.ade(tmp_path / "ade", files["segformer_lvt"])
    tiny.coco(tmp_path / "coco", files["mask_rcnn_lit_ti"], files["panoptic_fpn_lvt"])
    downloaded = tmp_path / "server"
    downloaded.mkdir()
    files["lit_ti"].rename(downloaded / "lit_ti.pth")
    environment = os.environ | {"LITEVIT_CACHE": str(tmp_path / "cache")}
    names = [
        "lit_ti",
        "lit_ti/real",
        "retinanet_lit_ti",
        "mask_rcnn_lit_ti",
        "lvt",
        "segformer_lvt",
        "panoptic_fpn_lvt",
    ]
    data = ["--imagenet", "imagenet", "--ade", "ade", "--coco", "coco", "--weights-dir", "weights", "--out", "out"]
    with served(downloaded) as url:
        patched = (
            "from dataclasses import replace; from litevit.checkpoints.published import WEIGHTS; import sys\n"
            f"WEIGHTS['lit_ti'] = replace(WEIGHTS['lit_ti'], url='{url}lit_ti.pth')\n"
            "from litevit.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", patched, "reproduce", *data, "--device", "cpu", "--rows", *names]
        done: set[str] = set()
        for _ in names:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
            while process.poll() is None and _finished(tmp_path) <= done:
                time.sleep(0.02)
            process.kill()
            process.wait()
            assert done < _finished(tmp_path) or len(done) == len(names)
            done = _finished(tmp_path)
        last = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert last.returncode == 1, last.stderr
    assert last.stderr.count("from an earlier run") == 10  # figures
    lines = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [line["row"] for line in lines] == [
        name for name in names for _ in range({"mask_rcnn_lit_ti": 2, "panoptic_fpn_lvt": 3}.get(name, 1))
    ]
    assert {line["verdict"] for line in lines} == {"subset"}
    assert not list((tmp_path / "out").rglob("*.tmp"))
    measured = {(line["row"], line["figure"]): line["measured"] for line in lines}
    for model, folder in {"mask_rcnn_lit_ti": "coco", "panoptic_fpn_lvt": "coco", "segformer_lvt": "ade"}.items():
        command = ["eval", model, "--data", folder, "--weights", str(files[model]), "--json", "--device", "cpu"]
        found = subprocess.run(
            [sys.executable, "-m", "litevit.cli", *command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        metrics = json.loads(found.stdout)["metrics"]
        for figure in (f for f in FIGURES.values() if (model, f.title) in measured):
            assert measured[model, figure.title] == pytest.approx(100 * metrics[figure.measured], abs=0.006)
    assert measured["lvt", "top-1"] == 75.0
    assert measured["mask_rcnn_lit_ti", "box AP"] > 0
    assert measured["panoptic_fpn_lvt", "PQ"] > 50


def _finished(root: Path) -> set[str]:
    return {path.name for path in root.glob("out/rows/*.json") if not path.name.startswith(".")}
