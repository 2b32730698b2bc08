"""The server of `litevit app`: what it answers, whom it refuses, and that a browser can compute the same from it."""

import asyncio
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import SMALL, add_rows, write_run
from PIL import Image

import litevit
from litevit.app import looks, pictures, predictions
from litevit.app import runs as app_runs
from litevit.app import server as app_server
from litevit.app.choices import Choice, Choices, Opened
from litevit.app.packing import pack, unpack
from litevit.app.pictures import GoneError, Pictures
from litevit.app.server import PAGE, Server, create_app, listen
from litevit.app.work import BusyError, LeftError, Worker
from litevit.cli import main
from litevit.data.class_names import ClassList
from litevit.explain import attention_maps, chain_pixels, sampling_chain
from litevit.jobs.dense_models import DenseModel
from litevit.jobs.looking import Look
from litevit.jobs.predict_dense import answer as look_for

testclient = pytest.importorskip("starlette.testclient", reason="the extra `app` and httpx")
LOCAL = {"base_url": "http://127.0.0.1:8765"}
RUN = "run:digits"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def choices(folder: Path) -> Choices:
    return Choices(runs=[folder.parent])


@pytest.fixture
def client(choices: Choices) -> Any:
    return testclient.TestClient(create_app(choices), **LOCAL)


def session(client: Any) -> dict[str, str]:
    return {"x-session": client.post("/api/session").json()["session"]}


def png(width: int = 80, height: int = 60, seed: int = 0) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def send(client: Any, headers: dict[str, str], content: bytes, name: str = "a.png") -> Any:
    return client.post("/api/pictures", content=content, headers={**headers, "x-name": name})


def ask(client: Any, path: str, headers: dict[str, str], **body: Any) -> Any:
    return client.post(f"/api/{path}", json=body, headers=headers)


def test_the_page_is_whole_small_and_asks_nobody_else(client: Any) -> None:
    files = list(PAGE.iterdir())
    assert sum(file.stat().st_size for file in files) < 300_000
    for file in files:
        answer = client.get("/" if file.name == "index.html" else f"/{file.name}")
        assert answer.status_code == 200
        assert answer.content == file.read_bytes()
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, no address
        assert "http://" not in text
        assert "https://" not in text
        assert "cookie" not in text
        assert "localStorage" not in text
    assert client.get("/nothing.js").status_code == 404
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "set-cookie" not in client.post("/api/session").headers


def test_whatever_stands_in_the_list_can_be_described(client: Any) -> None:
    listed = client.get("/api/list").json()
    assert [m["name"] for m in listed["models"]] == litevit.list_models()
    assert [(o["key"], o["group"], o["task"]) for o in listed["others"]] == [(RUN, "run", "classification")]
    assert listed["first"] == RUN
    told = ask(client, "describe", session(client), choice=RUN).json()
    assert told["stages"] == [[False], [False], [True, True], [True]]
    assert told["offsets"]
    assert not told["random"]
    assert told["arguments"].endswith("digits")


def test_a_classifier_answers_as_it_does_in_the_library(client: Any, folder: Path) -> None:
    headers = session(client)
    picture = send(client, headers, png()).json()
    assert (picture["width"], picture["height"], picture["name"]) == (80, 60, "a.png")
    found = unpack(ask(client, "predict", headers, picture=picture["picture"], choice=RUN).content).values
    run = litevit.run(folder)
    with torch.no_grad():
        expected = run.model()(litevit.preprocessing(run)(Image.open(io.BytesIO(png())))[None])[0].softmax(-1)
    assert [g["name"] for g in found["guesses"]] == [str(int(k)) for k in expected.argsort(descending=True)]
    np.testing.assert_allclose([g["p"] for g in found["guesses"]], expected.sort(descending=True)[0], rtol=1e-5)
    assert found["seconds"] > 0
    shown = client.get(f"/api/pictures/{picture['picture']}", headers=headers)
    assert np.array_equal(Image.open(io.BytesIO(shown.content)), Image.open(io.BytesIO(png())))


@pytest.mark.parametrize("block", [0, 1])
def test_attention_is_sent_once_and_holds_every_row(client: Any, folder: Path, block: int) -> None:
    headers = session(client)
    picture = send(client, headers, png()).json()["picture"]
    asked = {"picture": picture, "choice": RUN, "stage": 3, "block": block}
    found = unpack(ask(client, "look/attention", headers, **asked).content)
    run = litevit.run(folder)
    image = litevit.preprocessing(run)(Image.open(io.BytesIO(png())))
    exact = attention_maps(run.model(), image, stage=3, block=block)
    assert [b["branch"] for b in found.values["branches"]] == ["hi", "lo"]
    for n, (branch, maps) in enumerate(zip(found.values["branches"], exact)):
        p, peak = found.arrays[f"p{n}"], found.arrays[f"peak{n}"]
        assert p.dtype == np.uint8
        assert p.shape == tuple(maps.probabilities.shape)
        steps = peak[..., None] / 255
        assert (np.abs(p * steps - maps.probabilities.numpy()) <= 0.5001 * steps).all()
        assert branch["mapGrid"] == list(maps.map_grid)
    assert np.array_equal(found.arrays["cells0"], exact[0].key_cells)
    row = unpack(ask(client, "look/row", headers, cell=5, **asked).content)
    for n, maps in enumerate(exact):
        heat = row.arrays[f"p{n}"][:, 0] * (row.arrays[f"peak{n}"] / 255)
        np.testing.assert_allclose(heat, maps.on_map(5).flatten(1), atol=float(row.arrays[f"peak{n}"].max()) / 500)
    kept = ask(client, "look/arrays", headers, view="attention", cell=5, **asked)
    with np.load(io.BytesIO(kept.content)) as file:
        np.testing.assert_allclose(file["lo"], exact[1].probabilities[:, 5], rtol=1e-5)
        assert (int(file["query_row"]), int(file["query_column"])) == (1, 1)  # of 4 x 4


def test_large_maps_are_sent_row_by_row(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "MOST", 10)
    headers = session(client)
    picture = send(client, headers, png()).json()["picture"]
    asked = {"picture": picture, "choice": RUN, "stage": 3, "block": 0}
    found = unpack(ask(client, "look/attention", headers, **asked).content)
    assert not any(b["whole"] for b in found.values["branches"])
    assert set(found.arrays) == {"rows0", "rows1"}
    assert set(unpack(ask(client, "look/row", headers, cell=3, **asked).content).arrays) == {
        "p0",
        "peak0",
        "p1",
        "peak1",
    }
    refused = ask(client, "look/row", headers, cell=16, **asked)
    assert refused.status_code == 400
    assert refused.json()["error"] == "The cell must be 0 to 15 of the map, got 16"


@pytest.mark.parametrize(("name", "cell"), [("lvt", 0), ("lvt", 37), ("pvt_s", 5), ("swin_ti_dtm", 21)])
def test_rows_of_every_kind_of_attention(name: str, cell: int) -> None:
    """`rows_of_cells` finds the row whose query is the cell, also of CSA's windows and behind a class token."""
    options: dict[str, Any] = {"lvt": {"embed_dims": (8, 8, 20, 32)}}.get(name, {})
    model = litevit.create_backbone(name, **options).eval()
    (source,) = looks.attention_sources(model, torch.randn(3, 64, 64), stage=1, block=0)
    row = looks.rows_of_cells(source)[cell]
    maps = source.maps(torch.tensor([int(row)]))
    if source.branch == "csa":
        assert int(maps.key_cells[0, int(row) % 9]) == cell
        everyone = looks.rows_of_cells(source)
        assert torch.equal(source.cells(everyone).gather(1, everyone[:, None] % 9)[:, 0], torch.arange(len(everyone)))
    else:
        assert int(maps.queries[0]) == cell


def test_offsets_features_and_frequencies(client: Any, folder: Path) -> None:
    headers = session(client)
    picture = send(client, headers, png()).json()["picture"]
    asked = {"picture": picture, "choice": RUN}
    offsets = unpack(ask(client, "look/offsets", headers, **asked).content)
    assert [offsets.arrays[f"offsets{n}"].shape for n in range(3)] == [(8, 8, 8), (4, 4, 8), (2, 2, 8)]
    with np.load(io.BytesIO(ask(client, "look/arrays", headers, view="offsets", cell=2, **asked).content)) as file:
        levels = [torch.tensor(offsets.arrays[f"offsets{n}"]) for n in range(3)]
        w = levels[-1].shape[1]
        chain = sampling_chain(levels, row=2 // w, column=2 % w)
        pixels = file[f"pixels_{2 // w}_{2 % w}"]
        np.testing.assert_array_equal(pixels, chain_pixels(chain, image_size=(64, 64)))
    features = unpack(ask(client, "look/features", headers, stage=2, **asked).content)
    H, W, C = features.arrays["features"].shape
    assert features.arrays["pca"].shape == (H, W, 3)
    with np.load(
        io.BytesIO(ask(client, "look/arrays", headers, view="features", stage=2, cell=3, **asked).content)
    ) as file:
        cells = features.arrays["features"].reshape(-1, C).astype(float)
        cosine = cells @ cells[3] / np.linalg.norm(cells, axis=1) / np.linalg.norm(cells[3])
        np.testing.assert_allclose(cosine.reshape(H, W), file["cosine_2"], atol=0.02)
    frequency = unpack(ask(client, "look/frequency", headers, stage=3, block=1, **asked).content)
    assert {"magnitude_hi", "magnitude_lo", "magnitude_full", "x0", "y0"} <= set(frequency.arrays)
    assert frequency.values["curves"] == ["1.0", "2.0", "3.0", "3.1", "4.0"]
    seen = unpack(ask(client, "look/seen", headers, **asked).content).arrays["pixels"]
    assert seen.shape == (64, 64, 3)


def test_what_cannot_be_looked_at_is_a_note(client: Any) -> None:
    headers = session(client)
    picture = send(client, headers, png()).json()["picture"]
    asked = {"picture": picture, "choice": RUN}
    for view, more, message in [
        ("attention", {"stage": 1, "block": 0}, "no attention; stages 3, 4 have"),
        ("attention", {"stage": 9, "block": 0}, "stage must be 1 to 4, got 9"),
        ("attention", {"stage": 3, "block": 7}, "block must be 0 to 1 in stage 3, got 7"),
        ("frequency", {"stage": 0, "block": 0}, "stage must be 1 to 4, got 0"),
        ("features", {"stage": 5}, "stage must be 1 to 4, got 5"),
        ("offsets", {"choice": "model:pvt_s:none"}, "no deformable token merging"),
        ("attention", {"stage": "x"}, "needs stage, a whole number"),
        ("nothing", {}, "There is no view 'nothing'"),
        ("attention", {"choice": "model:litv2_sx:none"}, "Did you mean 'litv2_s'"),
        ("attention", {"choice": "run:gone"}, "not, or no longer, in the list"),
        ("attention", {"choice": "/etc/passwd"}, "not, or no longer, in the list"),
    ]:
        answer = ask(client, f"look/{view}", headers, **{**asked, **more})
        assert answer.status_code == 400, view
        assert message in answer.json()["error"]


def test_published_weights_are_never_downloaded(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path))
    answer = ask(client, "describe", session(client), choice="model:litv2_s:official")
    assert "not on this machine, and the page downloads nothing" in answer.json()["error"]
    assert {m["official"] for m in client.get("/api/list").json()["models"]} == {"none", "elsewhere"}
    assert not any(tmp_path.iterdir())
    assert main(["app", "--model", "litv2_s", "--weights", "official"]) == 2
    assert "page downloads nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mask_rcnn", {"min_size": 64, "max_size": 64, "score_threshold": 0.0, "num_classes": 3}),
        ("semantic_fpn", {"num_classes": 5}),
        ("panoptic_fpn", {"min_size": 64, "max_size": 64, "num_things": 2, "num_stuff": 2}),
    ],
)
def test_objects_and_maps_at_the_size_that_is_shown(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = litevit.create_model(name, backbone="litv2_s", **SMALL, **options).eval()
    task = {"mask_rcnn": "instance segmentation", "semantic_fpn": "semantic segmentation"}.get(
        name, "panoptic segmentation"
    )
    names = tuple("abcde")
    look = Look(model, task, names, names, lambda path: None)  # type: ignore[arg-type, return-value]
    picture = pictures.Picture("x", "x.png", Image.open(io.BytesIO(png(96, 64))))
    found = predictions.predict(Opened(Choice("k", "k", "run", task, name, "w"), look, None), picture)
    again = unpack(pack(found.values, found.arrays))
    if name == "mask_rcnn":
        boxes, corners, bits = (again.arrays[key] for key in ("boxes", "corners", "bits"))
        assert len(boxes) == len(again.values["labels"]) == len(corners) > 0
        assert again.values["scores"] == sorted(again.values["scores"], reverse=True)
        expected = look_for(DenseModel(model, name, task, ClassList(names, tuple(range(5)))), picture.image)
        whole = expected["masks"][expected["scores"].argsort(descending=True)[0]].numpy()
        x, y, w, h = corners[0]
        part = np.unpackbits(bits[: (w * h + 7) // 8])[: w * h].reshape(h, w)
        assert np.array_equal(part, whole[y : y + h, x : x + w])
        assert whole.sum() == part.sum()  # nothing of the mask is outside
    else:
        shown = again.arrays["map"]
        assert shown.shape == (64, 96)
        for n, segment in enumerate(again.values["segments"]):
            assert segment["share"] == pytest.approx(float((shown == n).mean()))


def test_large_pictures_are_made_smaller_for_dense_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some look at every pixel, and masks are as large as the picture: 50 million pixels would be gigabytes."""
    monkeypatch.setattr(pictures, "MOST_SEARCHED", 3000)
    picture = pictures.Picture("x", "x.png", Image.open(io.BytesIO(png(96, 64))))
    assert picture.reduced.size == (67, 44)
    assert picture.memory == 3 * (96 * 64 + 3000)
    torch.manual_seed(0)
    model = litevit.create_model("mask_rcnn", backbone="litv2_s", resize=False, score_threshold=0.0, **SMALL).eval()
    names = tuple(map(str, range(80)))
    look = Look(model, "instance segmentation", names, names, lambda path: None)  # type: ignore[arg-type, return-value]
    found = predictions.predict(Opened(Choice("k", "k", "run", look.task, "mask_rcnn", "w"), look, None), picture)
    assert found.values["reduced"] == [67, 44]
    with torch.no_grad():
        (own,) = model([litevit.preprocessing("mask_rcnn_litv2_s")(picture.reduced)])
    boxes = own["boxes"][own["scores"].argsort(descending=True)] * torch.tensor([96 / 67, 64 / 44] * 2)
    np.testing.assert_allclose(found.arrays["boxes"], boxes, atol=1e-3)  # of the picture that is shown
    small = pictures.Picture("x", "x.png", Image.open(io.BytesIO(png(50, 50))))
    assert small.reduced is small.image


def test_pictures_of_others_are_not_seen(client: Any) -> None:
    mine, theirs = session(client), session(client)
    picture = send(client, mine, png()).json()["picture"]
    for headers in (theirs, {}, {"x-session": "guess"}):
        for answer in (
            client.get(f"/api/pictures/{picture}", headers=headers),
            ask(client, "predict", headers, picture=picture, choice=RUN),
            ask(client, "look/seen", headers, picture=picture, choice=RUN),
        ):
            assert answer.status_code == 410
    assert client.get(f"/api/pictures/{picture}", headers=mine).status_code == 200


def test_the_store_forgets_and_is_bounded() -> None:
    now = [0.0]
    store = Pictures(sessions=2, per_session=2, memory=10_000, idle=60, clock=lambda: now[0])
    image = Image.new("RGB", (20, 20))  # 1,200 bytes
    first = store.open()
    kept = [store.add(first, image, "x").id for _ in range(3)]
    with pytest.raises(GoneError, match="drop it again"):
        store.get(first, kept[0])
    assert store.get(first, kept[2]).image is image
    second = store.open()
    large = store.add(second, Image.new("RGB", (50, 60)), "y")  # 9,000 bytes: the other's go
    assert store.memory() <= 10_000
    assert store.get(second, large.id)
    store.open()
    with pytest.raises(GoneError, match="load it again"):
        store.check(first)
    now[0] = 61
    with pytest.raises(GoneError):
        store.check(second)
    assert store.memory() == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"this is no picture at all", "is not an image that can be read (25 bytes)"),
        (b"", "is not an image that can be read (0 bytes)"),
        (png()[:200], "is damaged or truncated"),
    ],
)
def test_an_upload_that_is_no_picture(client: Any, content: bytes, message: str) -> None:
    answer = send(client, session(client), content, "notes.txt")
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert answer.json()["error"].startswith("notes.txt")


def test_uploads_are_limited_in_bytes_and_pixels(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = session(client)
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    monkeypatch.setattr(pictures, "read_image", lambda *_, **__: pytest.fail("100 million pixels were decoded"))
    answer = send(client, headers, file.getvalue(), "huge.png")
    assert answer.status_code == 400
    assert "100 million pixels (10000 x 10000); the page takes up to 50 million" in answer.json()["error"]
    answer = send(client, headers, b"\0" * (pictures.MOST_BYTES + 1))
    assert answer.status_code == 413
    assert "larger than 32 MB" in answer.json()["error"]


def test_foreign_names_pages_and_tokens_are_refused(choices: Choices) -> None:
    client = testclient.TestClient(create_app(choices), **LOCAL)
    assert client.get("/", headers={"host": "evil.example:8765"}).status_code == 421  # DNS rebinding
    assert client.get("/", headers={"host": "10.0.0.1"}).status_code == 421
    for host in ("localhost:8765", "127.0.0.1", "[::1]:8765"):
        assert client.get("/", headers={"host": host}).status_code == 200
    assert client.post("/api/session", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/api/session", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post("/api/session", headers={"origin": "http://127.0.0.1:8765"}).status_code == 200
    open_ = testclient.TestClient(create_app(choices, host="0.0.0.0", token="secret"), base_url="http://10.1.2.3:80")
    for path in ("/", "/app.js", "/api/list", "/wrong/", "/secre/", "/secrets/api/list"):
        assert open_.get(path).status_code == 403, path
    assert open_.get("/secret", follow_redirects=False).headers["location"] == "/secret/"
    assert open_.get("/secret/").status_code == 200
    assert open_.get("/secret/app.js").status_code == 200
    assert open_.post("/secret/api/session").status_code == 200
    assert open_.get("/secret/", headers={"host": "evil.example"}).status_code == 421


def test_a_run_is_followed_while_it_trains(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "live")
    client = testclient.TestClient(create_app(Choices(runs=[tmp_path])), **LOCAL)
    told = client.get("/api/runs/live").json()
    assert told["state"] == "training"
    assert [row["step"] for row in told["rows"] if row["kind"] == "train"] == [1, 2, 3, 4, 5]
    add_rows(folder, [6])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')  # as it is being written
    more = client.get("/api/runs/live", params={"after": len(told["rows"])}).json()
    assert [(row["kind"], row["step"]) for row in more["rows"]] == [("train", 6), ("eval", 6)]
    (folder / "result.json").write_text('{"step": 6, "top1": NaN}')
    told = client.get("/api/runs/live").json()
    assert told["state"] == "finished"
    assert told["result"] == {"step": 6, "top1": None}
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "recipe.json").write_text((folder / "recipe.json").read_text())
    assert client.get("/api/runs").json()["runs"] == ["begun", "live"]
    assert client.get("/api/runs/begun").json()["rows"] == []
    assert [o["key"] for o in client.get("/api/list").json()["others"]] == ["run:live"]  # the other has no weights
    for path, status, message in [
        ("runs/gone", 404, "not, or no longer, among the runs"),
        ("runs/live?after=x", 400, "must be a number of lines"),
        ("runs/live/best.safetensors", 400, "is not one of"),
        ("runs/live/confusion.png", 404, "live has no confusion.png, or no longer"),
    ]:
        answer = client.get(f"/api/{path}")
        assert answer.status_code == status
        assert message in answer.json()["error"]


def test_a_run_that_vanishes_while_it_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "live")
    client = testclient.TestClient(create_app(Choices(runs=[tmp_path])), **LOCAL)
    headers = session(client)
    picture = send(client, headers, png()).json()["picture"]
    assert ask(client, "predict", headers, picture=picture, choice="run:live").status_code == 200
    monkeypatch.setattr(app_runs, "read_metrics", lambda path: path.unlink() or path.stat())  # between two looks
    answer = client.get("/api/runs/live")
    assert (answer.status_code, answer.json()["error"]) == (404, "live is no longer there")
    monkeypatch.undo()
    shutil.rmtree(folder)
    assert client.get("/api/runs/live").status_code == 404
    assert client.post("/api/runs/live/examine", headers=headers).status_code == 404
    assert client.get("/api/list").json()["others"] == []
    answer = ask(client, "predict", headers, picture=picture, choice="run:live")
    assert "not, or no longer, in the list" in answer.json()["error"]
    write_run(folder)  # and comes back
    assert client.get("/api/runs/live").json()["state"] == "training"
    assert ask(client, "predict", headers, picture=picture, choice="run:live").status_code == 200


@pytest.mark.parametrize("recipe", ["{}", "[1]", '{"flour": "500 g"}', "{", "\udcff"])
def test_a_recipe_of_somebody_else_is_a_note(tmp_path: Path, recipe: str) -> None:
    folder = write_run(tmp_path / "cake")
    write_run(tmp_path / "mine")
    (folder / "recipe.json").write_text(recipe, errors="surrogateescape")
    client = testclient.TestClient(create_app(Choices(runs=[tmp_path])), **LOCAL)
    answer = client.get("/api/runs/cake")
    assert answer.status_code == 400
    assert "recipe" in answer.json()["error"]
    assert client.get("/api/runs/mine").status_code == 200
    assert client.get("/api/list").status_code == 200


def test_weights_that_vanish_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    choices = Choices(weights=str(folder))
    (folder / "best.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"one .* cannot be opened: .*best.safetensors is no longer there"):
        choices.open("given")


def test_a_run_is_examined(client: Any, folder: Path) -> None:
    answer = client.post("/api/runs/digits/examine", headers=session(client))
    found = unpack(answer.content)
    confusion = found.arrays["confusion"]
    assert confusion.sum() == found.values["seen"] == found.values["of"] == 360
    assert np.trace(confusion) == found.values["right"]
    sure = [m["p"] for m in found.values["mistakes"]]
    assert sure == sorted(sure, reverse=True)
    assert found.arrays["pictures"].shape == (len(sure), 64, 64, 3)
    assert client.post("/api/runs/digits/examine").status_code == 410  # no session


def test_better_weights_of_a_run_are_read_again(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "live")
    choices = Choices(runs=[tmp_path])
    first = choices.open("run:live")
    assert choices.open("run:live") is first
    content = (folder / "best.safetensors").read_bytes()
    (folder / "best.safetensors").unlink()
    (folder / "best.safetensors").write_bytes(content)
    assert choices.open("run:live") is not first


def test_a_full_queue_answers_at_once() -> None:
    async def crowd() -> list[Any]:
        worker, door = Worker(waiting=2), threading.Event()
        first, second = asyncio.ensure_future(worker.do(door.wait)), asyncio.ensure_future(worker.do(door.wait))
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError, match="Try again"):
            await worker.do(lambda: None)
        door.set()
        done = [await first, await second, await worker.do(lambda: 3)]
        worker.close()
        return done

    assert asyncio.run(crowd()) == [True, True, 3]


def test_nothing_is_computed_for_who_has_left() -> None:
    async def leave() -> None:
        worker, door = Worker(), threading.Event()
        first = asyncio.ensure_future(worker.do(door.wait))
        left = asyncio.ensure_future(worker.do(lambda: pytest.fail("computed for nobody"), gone=told(True)))
        stayed = asyncio.ensure_future(worker.do(lambda: 3, gone=told(False)))
        await asyncio.sleep(0.05)
        door.set()
        await first
        with pytest.raises(LeftError):
            await left
        assert await stayed == 3
        worker.close()

    def told(answer: bool) -> Any:
        async def gone() -> bool:
            return answer

        return gone

    asyncio.run(leave())


def crowd_of(server: Server) -> Any:
    """Many browsers at a time, in one event loop."""
    httpx = pytest.importorskip("httpx", reason="many requests in one event loop")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=server.asgi()), base_url="http://127.0.0.1")


def test_many_pages_load_their_samples_at_once(choices: Choices) -> None:
    async def load() -> set[int]:
        async with crowd_of(Server(choices)) as client:
            answers = await asyncio.gather(*(client.get(f"/api/samples/{n % 8}") for n in range(48)))
            return {answer.status_code for answer in answers}

    assert asyncio.run(load()) == {200}


def test_people_who_ask_at_once_get_their_own_answers(choices: Choices) -> None:
    """Pictures, stages and views interleaved: everyone gets what they get alone."""

    async def person(client: Any, seed: int) -> list[bytes]:
        headers = {"x-session": (await client.post("/api/session")).json()["session"]}
        content = png(seed=seed)
        sent = await client.post("/api/pictures", content=content, headers={**headers, "x-name": f"{seed}.png"})
        asked = {"picture": sent.json()["picture"], "choice": RUN}
        answers = []
        for path, more in [
            ("look/attention", {"stage": 3, "block": seed % 2}),
            ("look/row", {"stage": 3, "block": seed % 2, "cell": seed}),
            ("look/features", {"stage": 1 + seed % 4}),
            ("look/seen", {}),
        ]:
            answer = await client.post(f"/api/{path}", json={**asked, **more}, headers=headers)
            assert answer.status_code == 200
            answers.append(answer.content)
        return answers

    async def together() -> None:
        async with crowd_of(Server(choices)) as client:
            alone = [await person(client, seed) for seed in range(5)]
            assert await asyncio.gather(*(person(client, seed) for seed in range(5))) == alone
            assert len({answers[3] for answers in alone}) == 5

    asyncio.run(together())


def test_an_upload_that_ends_half_way_leaves_nothing(choices: Choices) -> None:
    server = Server(choices)
    name = server.pictures.open()
    messages = [{"type": "http.request", "body": png()[:100], "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def request() -> None:
        async def receive() -> Any:
            return messages.pop(0)

        async def respond(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/api/pictures", "query_string": b"", "root_path": ""}
        await server.asgi()({**scope, "headers": [(b"x-session", name.encode())]}, receive, respond)

    asyncio.run(request())
    assert sent[0]["status"] == 499
    assert server.arriving == 0
    assert server.pictures.memory() == 0


def test_uploads_that_arrive_at_a_time_are_bounded(choices: Choices) -> None:
    server = Server(choices)
    server.arriving = app_server.UPLOADS
    client = testclient.TestClient(server.asgi(), **LOCAL)
    answer = send(client, session(client), png())
    assert answer.status_code == 503
    assert "Try again" in answer.json()["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "nowhere"], "nowhere is not a folder of training runs"),
        (["--exported", "nowhere.onnx"], "nowhere.onnx does not exist"),
        (["--model", "litv2_sx"], "Did you mean 'litv2_s'"),
        (["--weights", "nowhere.pth"], "nowhere.pth does not exist"),
        (["--port", "70000"], "--port must be 0 to 65535"),
        (["--host", "no.such.host.invalid"], "is no address of this machine"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["app", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main(["app", "--port", str(port), "--weights", "none"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"litevit: Cannot listen on 127.0.0.1 port {port}")
    assert "\n" not in said


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert main(["app", "--weights", "none", "--port", "0"]) == 2
    assert "pip install 'litevit[app]'" in capsys.readouterr().err


def test_the_command_serves_until_it_is_interrupted(folder: Path) -> None:
    import signal

    command = [sys.executable, "-m", "litevit.cli", "app", "--run", str(folder), "--port", "0", "--host", "0.0.0.0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]  # http://NAME:PORT/TOKEN/
        *_, port_and_name, token, _ = address.split("/")
        port = port_and_name.rpartition(":")[2]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{token}/api/list") as answer:
            assert json.load(answer)["first"] == RUN
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/list")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130, -signal.SIGINT)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("0.0.0.0", int(port)))
