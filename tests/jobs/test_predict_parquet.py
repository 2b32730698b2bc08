"""Many images to Parquet: every image exactly once, whatever happens in between."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import litevit
from litevit.cli import main
from litevit.data.coco_masks import decode_masks
from litevit.data.many_images import find_inputs
from litevit.jobs import predict_dense
from litevit.jobs.dense_models import load_dense
from litevit.jobs.inference import for_inference
from litevit.jobs.predict import load_classifier, predict
from litevit.jobs.predict_parquet import TooManyFailuresError, parse_shard, predict_parquet
from litevit.jobs.predict_rows import RowPredictor, open_predictor
from litevit.jobs.preprocessing import Preprocessing

SMALL = {"size": 32, "batch_size": 4, "device": "cpu"}


class Brightness(RowPredictor):
    """The mean of an image, after a while."""

    batch_size = 3
    columns = ("mean",)

    def __init__(self, seconds=0.0, name="brightness"):
        self.seconds = seconds
        self.about = {"model": name, "options": {}}

    def prepare(self, source, name=None):
        from litevit.data.images import read_image

        return np.asarray(read_image(source, name=name))

    def answer(self, images):
        time.sleep(self.seconds)
        return [{"mean": float(image.mean())} for image in images]

    def types(self):
        return {"mean": pa.float32()}


def jpeg(value: int, size=(40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images" / "b").mkdir(parents=True)
    for i in range(10):
        (tmp_path / "images" / ("b" if i > 6 else "") / f"{i}.jpg").write_bytes(jpeg(20 * i))
    return tmp_path / "images"


def table(out: Path) -> list[dict]:
    return sorted(pq.read_table(out).to_pylist(), key=lambda row: row["path"])


def tar_of(path: Path, images: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


# ---------------------------------------------------------------------- inputs


def test_folders_patterns_lists_tars_and_parquet_files_give_the_same_images(folder, tmp_path, monkeypatch):
    files = sorted(folder.rglob("*.jpg"))
    wanted = [float(np.asarray(Image.open(file)).mean()) for file in files]
    listing = tmp_path / "list.txt"
    listing.write_text("# ours\n" + "\n".join(str(file.relative_to(tmp_path)) for file in files) + "\n\n")
    tar = tar_of(tmp_path / "a.tar", {**{f.name: f.read_bytes() for f in files}, "0.cls": b"3"})
    contents = [file.read_bytes() for file in files]
    made = {
        "paths": pa.table({"label": [1] * 10, "path": [str(file.relative_to(tmp_path)) for file in files]}),
        "bytes": pa.table({"image": pa.array(contents, pa.binary())}),
        "struct": pa.table({"image": [{"bytes": content, "path": "x.jpg"} for content in contents]}),
    }
    for name, content in made.items():
        pq.write_table(content, tmp_path / f"{name}.parquet", row_group_size=4)
    inputs = {
        "folder": [folder],
        "pattern": [f"{tmp_path}/images/*.jpg", f"{tmp_path}/images/**/*.jpg"],  # every file once
        "list": [listing],  # relative to the list
        "tar": [tar],
        **{name: [tmp_path / f"{name}.parquet"] for name in made},
    }
    for name, given in inputs.items():
        out = tmp_path / "out" / name
        done = predict_parquet(Brightness(), given, out, rows_per_file=3, workers=2)
        rows = pq.read_table(out).to_pylist()
        assert (done.images, done.errors, len(rows)) == (10, 0, 10), name
        by_name = name in ("folder", "pattern", "list", "paths")
        assert [row["mean"] for row in rows] == pytest.approx(wanted), name
        assert len({row["path"] for row in rows}) == 10
        if by_name:
            assert all(Path(row["path"]).is_file() for row in rows)
    assert table(tmp_path / "out" / "tar")[0]["path"] == f"{tar}:0.jpg"
    assert table(tmp_path / "out" / "bytes")[0]["path"].endswith("bytes.parquet:0")
    monkeypatch.chdir(tmp_path)
    predict_parquet(Brightness(), ["list.txt"], "here")
    assert table(Path("here"))[0]["path"] == "images/0.jpg"


def test_a_folder_without_images_is_looked_through_for_tars(folder, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for k in range(2):
        tar_of(shards / f"{k}.tar", {f"{i}.jpg": jpeg(i) for i in range(3 + k)})
    predict_parquet(Brightness(), [shards], shards / "out", rows_per_file=2)
    assert [len(pq.read_table(file)) for file in sorted((shards / "out").glob("part-*"))] == [2, 1, 2, 2]
    again = predict_parquet(Brightness(), [shards], shards / "out")  # what it has written is no input
    assert (again.images, again.skipped) == (0, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "nothing", "does not exist"),
        (lambda d: f"{d}/*.webp", "Nothing matches"),
        (lambda d: (d / "empty.txt").write_text("\n") and d / "empty.txt", "lists no images"),
        (lambda d: (d / "a.tar").write_bytes(b"no tar" * 200) and d / "a.tar", "not a readable tar"),
        (lambda d: (d / "a.parquet").write_bytes(b"none") and d / "a.parquet", "not a readable Parquet file"),
        (lambda d: tar_of(d / "b.tar", {"x.txt": b"1"}), "No images in"),
        (lambda d: pq.write_table(pa.table({"x": [1]}), d / "n.parquet") or d / "n.parquet", "no column of images"),
    ],
)
def test_wrong_inputs(tmp_path, make, message):
    with pytest.raises((ValueError, OSError), match=message):
        predict_parquet(Brightness(), [make(tmp_path)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------- exactly once


def test_shards_take_every_image_once_and_another_number_of_them_later_too(folder, tmp_path):
    for i in range(3):
        done = predict_parquet(Brightness(), [folder], tmp_path / "out", shard=(i, 4))
        assert 2 <= done.images <= 3
    assert predict_parquet(Brightness(), [folder], tmp_path / "out", shard=(0, 2)).images == 0  # 0 and 2 of 4
    assert predict_parquet(Brightness(), [folder], tmp_path / "out", shard=(1, 2)).images > 0
    assert [row["path"] for row in table(tmp_path / "out")] == [str(p) for p in sorted(folder.rglob("*.jpg"))]


def test_images_that_come_later_are_added(folder, tmp_path):
    predict_parquet(Brightness(), [folder], tmp_path / "out", rows_per_file=4)
    (folder / "00.jpg").write_bytes(jpeg(7))
    (folder / "3.jpg").unlink()
    done = predict_parquet(Brightness(), [folder], tmp_path / "out")
    assert (done.images, done.skipped) == (1, 3)
    assert len({row["path"] for row in table(tmp_path / "out")}) == len(table(tmp_path / "out")) == 11


def test_a_tar_that_has_grown_is_refused(tmp_path):
    tar = tar_of(tmp_path / "a.tar", {f"{i}.jpg": jpeg(i) for i in range(3)})
    predict_parquet(Brightness(), [tar], tmp_path / "out")
    tar_of(tar, {f"{i}.jpg": jpeg(i) for i in range(4)})
    with pytest.raises(ValueError, match="has 4 images, and had 3 at the first start"):
        predict_parquet(Brightness(), [tar], tmp_path / "out")


def test_an_interrupted_start_has_left_whole_files_alone(folder, tmp_path):
    class Stops(Brightness):
        asked = 0

        def answer(self, images):
            Stops.asked += 1
            if Stops.asked == 3:
                raise KeyboardInterrupt
            return super().answer(images)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict_parquet(Stops(), [folder], out, rows_per_file=2)
    first = len(table(out))
    assert first == 4
    (out / ".part-000004.parquet.1-2.tmp").write_text("of a killed process")
    done = predict_parquet(Brightness(), [folder], out)
    assert (done.images, done.skipped, len(table(out))) == (6, 2, 10)
    assert not list(out.glob(".*.tmp"))


def start_in_a_fork(folder: Path, out: Path) -> int:
    if pid := os.fork():
        return pid
    try:
        predict_parquet(Brightness(0.02), [folder], out, rows_per_file=5, workers=2)
    finally:
        os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_and_started_again(folder, tmp_path, kills):
    for i in range(10, 60):
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    out, luck, killed = tmp_path / "out", random.Random(1), 0
    while killed < kills:
        pid = start_in_a_fork(folder, out)
        time.sleep(luck.uniform(0.02, 0.25))
        os.kill(pid, signal.SIGKILL)
        killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
        shutil.rmtree(out) if len(list(out.glob("part-*"))) == 12 else None  # it was too quick: once more
    assert predict_parquet(Brightness(), [folder], out).skipped < 12
    assert [row["path"] for row in table(out)] == sorted(str(p) for p in folder.rglob("*.jpg"))
    assert not list(out.glob(".*.tmp"))


def test_what_a_killed_start_left_of_the_manifest_goes(folder, tmp_path):
    (out := tmp_path / "out").mkdir()
    (left := out / "._manifest.json.1-ab.tmp").write_text("{")
    predict_parquet(Brightness(), [folder], out)
    assert not left.exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_command_survives_20_kills(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    luck = random.Random(0)
    for i in range(200):
        (images / f"{i}.png").write_bytes(b"" if i == 77 else jpeg(i % 256))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "litevit.cli", "predict", str(images), "--out", str(out), "--format", "parquet"]
    command += ["--model", "lvt", "--weights", "none", "--size", "32", "--rows-per-file", "4"]
    killed, seen = 0, 0
    began = time.monotonic()
    subprocess.run([*command, "--shard", "0/50"], check=True, capture_output=True)
    startup = time.monotonic() - began
    while killed < 20:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(luck.uniform(0.4, 1.1) * startup)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        parts = len(list(out.glob("part-*")))
        if parts == 50 and killed < 20:  # done before the last kill: some of it once more
            for file in sorted(out.glob("part-*"))[::3]:
                file.unlink()
        assert parts >= seen or seen == 50
        seen = parts
    subprocess.run(command, check=True, capture_output=True)
    rows = table(out)
    assert [row["path"] for row in rows] == sorted(str(path) for path in images.iterdir())
    assert [row["path"] for row in rows if row["error"]] == [str(images / "77.png")]
    whole = tmp_path / "whole"
    subprocess.run([str(whole) if word == str(out) else word for word in command], check=True)
    assert table(whole) == rows


# ------------------------------------------------------------------ failures


def test_unreadable_images_are_rows_up_to_a_limit(folder, tmp_path):
    (folder / "3.jpg").write_bytes(b"no picture")
    (folder / "b" / "8.jpg").write_bytes((folder / "b" / "9.jpg").read_bytes()[:200])
    listing = tmp_path / "list.txt"
    listing.write_text("\n".join([*map(str, sorted(folder.rglob("*.jpg"))), str(tmp_path / "gone.jpg")]))
    done = predict_parquet(Brightness(), [listing], tmp_path / "out", rows_per_file=4)
    assert (done.images, done.errors) == (11, 3)
    errors = {row["path"]: row["error"] for row in table(tmp_path / "out") if row["error"]}
    assert set(errors) == {str(folder / "3.jpg"), str(folder / "b" / "8.jpg"), str(tmp_path / "gone.jpg")}
    assert all(row["mean"] is None for row in table(tmp_path / "out") if row["error"])

    out = tmp_path / "limited"
    for _ in range(2):  # a second start does not begin to count anew
        with pytest.raises(TooManyFailuresError, match=r"8\.jpg"):
            predict_parquet(Brightness(), [listing], out, rows_per_file=4, max_failures=1)
        assert len(table(out)) == 8  # what was done stays
    predict_parquet(Brightness(), [listing], out, max_failures=3)
    assert table(out) == table(tmp_path / "out")


def test_the_command_says_so_and_ends_with_1(folder, tmp_path, capsys):
    (folder / "3.jpg").write_bytes(b"no picture")
    options = ["--model", "lvt", "--weights", "none", "--size", "32", "--format", "parquet", "--rows-per-file", "2"]
    command = ["predict", str(folder), "--out", str(tmp_path / "out"), *options]
    assert main([*command, "--max-failures", "0"]) == 1
    assert "3.jpg is not an image" in capsys.readouterr().err
    assert len(table(tmp_path / "out")) == 2
    assert main(command) == 0
    said = capsys.readouterr()
    assert "1 images could not be read" in said.err
    assert "Wrote 8 rows in 4 files" in said.out
    assert main([*command, "--model", "lvt_plain"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "results of another model, lvt, not lvt_plain: predict into another folder" in said
    assert main([*command, "--top", "3"]) == 2
    assert "results of another top, 5, not 3" in capsys.readouterr().err
    for wrong in (["--shard", "2/2"], ["--shard", "half"], ["--json"], ["--workers", "0"], ["--rows-per-file", "3"]):
        capsys.readouterr()
        assert main([*command, *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) <= 2
    assert main(["predict", str(folder), "--shard", "0/2"]) == 2
    assert "--shard is for --format parquet" in capsys.readouterr().err


def test_a_manifest_of_something_else_is_refused(folder, tmp_path):
    out = tmp_path / "out"
    predict_parquet(Brightness(), [folder], out)
    before = table(out)
    with pytest.raises(ValueError, match="results of another model, brightness, not darkness"):
        predict_parquet(Brightness(name="darkness"), [folder], out)
    (out / "_manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"_manifest\.json is not JSON"):
        predict_parquet(Brightness(), [folder], out)
    (out / "_manifest.json").unlink()
    with pytest.raises(ValueError, match="a folder of its own"):
        predict_parquet(Brightness(), [folder], out)
    assert table(out) == before
    with pytest.raises(ValueError, match="is a file"):
        predict_parquet(Brightness(), [folder], folder / "1.jpg")


@pytest.mark.parametrize(("text", "shard"), [(None, (0, 1)), ("0/1", (0, 1)), ("3/16", (3, 16))])
def test_shards_as_they_are_written(text, shard):
    assert parse_shard(text) == shard


# ---------------------------------------------------------------------- rows


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(),
        Preprocessing(size=96, crop_pct=0.96, interpolation="bilinear"),
        Preprocessing(size=64, crop_pct=1.0, crop_mode="squash"),
    ],
)
def test_pixels_and_normalised_are_the_preprocessing_in_two_steps(how):
    for size in ((300, 200), (33, 64), (900, 20)):
        image = Image.effect_noise(size, 90).convert("RGB")
        assert torch.equal(how.normalised(how.pixels(image)[None])[0], how(image))


def test_classes_are_those_of_predict(folder, tmp_path):
    predictor = open_predictor("lvt", None, top=3, **SMALL)
    predict_parquet(predictor, [folder], tmp_path / "out", workers=2)
    rows = table(tmp_path / "out")
    torch.manual_seed(0)
    model, how = load_classifier("lvt", None)
    how = type(how)(size=32, crop_pct=how.crop_pct)
    for row, wanted in zip(rows, predict(model, sorted(folder.rglob("*.jpg")), how, top=3)):
        assert row["path"] == wanted.path
        assert [guess["index"] for guess in row["guesses"]] == [guess.index for guess in wanted.guesses]
        probabilities = [guess.probability for guess in wanted.guesses]
        assert [guess["probability"] for guess in row["guesses"]] == pytest.approx(probabilities, rel=1e-4)
        assert row["guesses"][0]["name"] == wanted.guesses[0].name


def test_random_weights_are_the_same_at_every_start():
    assert open_predictor("lvt", None, **SMALL).about == open_predictor("lvt", "none", **SMALL).about


@pytest.mark.parametrize("name", ["lvt", "lit_ti", "litv2_s"])
def test_embeddings_are_what_the_head_sees(folder, tmp_path, name):
    predictor = open_predictor(name, None, embeddings=True, **SMALL)
    (row,) = predictor.rows([("a", folder / "2.jpg")])
    torch.manual_seed(0)
    model, how = load_classifier(name, None)
    how = Preprocessing(size=32, crop_pct=how.crop_pct)
    with torch.no_grad():
        wanted = model.forward_pooled(how(folder / "2.jpg")[None])[0]
    torch.testing.assert_close(torch.from_numpy(row["embedding"]), wanted, rtol=1e-3, atol=1e-4)
    predict_parquet(predictor, [folder / "2.jpg"], tmp_path / "out")
    (kept,) = table(tmp_path / "out")
    assert kept["embedding"] == row["embedding"].tolist()
    assert pq.read_schema(next((tmp_path / "out").glob("part-*"))).field("embedding").type.list_size == len(wanted)


DENSE = ["retinanet_lit_ti", "mask_rcnn_lit_ti", "semantic_fpn_lit_ti", "panoptic_fpn_lvt"]


@pytest.mark.parametrize("name", DENSE)
def test_objects_and_segments_are_those_of_the_model(tmp_path, name):
    noise = np.random.default_rng(0).normal(128, 90, (70, 90, 1)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(noise.repeat(3, 2))
    image.save(tmp_path / "a.png")
    least = {"retinanet_lit_ti": 0.0099, "mask_rcnn_lit_ti": 0.0135, "panoptic_fpn_lvt": 0.0}
    options = {"size": 64, "score_threshold": least.get(name)}
    predict_parquet(open_predictor(name, None, device="cpu", **options), [tmp_path / "a.png"], tmp_path / "out")
    (row,) = table(tmp_path / "out")
    torch.manual_seed(0)
    dense = load_dense(name, None, **options)
    dense = dense._replace(model=for_inference(dense.model, "cpu"))  # random weights: rounding decides between equals
    wanted = predict_dense.answer(dense, image)
    assert (row["height"], row["width"], row["error"]) == (70, 90, None)
    if "segments" in row:
        ids = wanted["semantic"] if "semantic_fpn" in name else wanted["panoptic"]
        masks = decode_masks([segment["mask"] for segment in row["segments"]], 70, 90)
        assert row["segments"]
        assert [int(mask.sum()) for mask in masks] == [segment["area"] for segment in row["segments"]]
        for mask, segment in zip(masks, row["segments"]):
            if "panoptic" in name and segment["area"] < 10:
                continue  # random weights: rounding moves single pixels, and such a segment may be one of them
            label = ids[mask].mode().values.item()
            assert ((ids == label) == mask).float().mean() > 0.98  # another number of threads rounds otherwise
            if "semantic_fpn" in name:
                assert segment["label"] == label
        assert masks.sum(0).max() == 1
    else:
        assert len(row["boxes"]) == len(row["names"]) == len(row["labels"]) > 0
        assert abs(len(row["boxes"]) - len(wanted["boxes"])) <= 3
        assert row["scores"] == sorted(row["scores"], reverse=True)
        if "masks" in row:
            assert decode_masks(row["masks"], 70, 90).shape == (len(row["boxes"]), 70, 90)


def test_an_exported_file_takes_the_place_of_weights(folder, tmp_path, capsys):
    torch.manual_seed(0)
    model = litevit.create_model("lvt", num_classes=5).eval()
    file = tmp_path / "four.pt2"
    litevit.export(model, file, format="pt2", verify=False, image_size=64, batch_size=4)
    exported = litevit.load_exported(file)
    predictor = open_predictor(None, None, exported=exported, size=64, batch_size=3)
    predict_parquet(predictor, [folder], tmp_path / "out", workers=2)  # ten images: the last batch is filled up
    rows = table(tmp_path / "out")
    how = Preprocessing(size=64, crop_pct=exported.preprocessing.crop_pct)
    with torch.no_grad():
        wanted = torch.stack([model(how(row["path"])[None])[0].softmax(0) for row in rows])
    assert [row["guesses"][0]["index"] for row in rows] == wanted.argmax(1).tolist()
    assert predictor.about["weights"] != open_predictor("lvt", None, **SMALL).about["weights"]
    with pytest.raises(ValueError, match="--embeddings needs a checkpoint"):
        open_predictor(None, None, exported=exported, embeddings=True)
    names = tmp_path / "names.txt"
    names.write_text("\ufeffcat\ndog\nfish\nbird\nhorse\n\n", encoding="utf-8")
    asked = ["predict", rows[0]["path"], "--weights", str(file)]
    assert main([*asked, "--names", str(names), "--json", "--top", "5"]) == 0
    assert {guess["name"] for guess in json.loads(capsys.readouterr().out)[0]["guesses"]} >= {"cat", "horse"}
    names.write_bytes(b"\xff\xfe")
    assert main([*asked, "--names", str(names)]) == 2
    assert "names.txt is not text in UTF-8" in capsys.readouterr().err
    assert main([*asked, "--device", "cuda"]) == 2
    assert f"--device is for models; {file} runs on the CPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "retinanet_lit_ti", "embeddings": True}, "--embeddings: not for a model that does detection"),
        ({"model": "retinanet_lit_ti", "top": 3}, "--top: not for a model that does detection"),
        ({"model": "lvt", "score_threshold": 0.5}, "--score-threshold: not for a model that does classification"),
        ({"model": "lvt", "size": 16}, "--size of a classifier must be a number of at least 32, got 16"),
        ({"model": "lvt", "top": 0}, "top must be at least 1"),
        ({"model": "lvt_m"}, "Did you mean"),
    ],
)
def test_options_that_do_not_apply(options, message):
    with pytest.raises(ValueError, match=message):
        open_predictor(options.pop("model"), None, **options)


def test_a_large_folder_of_results_is_no_input(tmp_path, folder):
    predict_parquet(Brightness(), [folder], folder / "out", rows_per_file=2)
    assert len(find_inputs([folder], without=folder / "out")) == 10
