"""The doctor said "in no known layout" of WebDataset shards and Hugging Face data sets, which training reads."""

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

Sample = tuple[bytes, int]


def samples(photos: Path, split: str) -> list[Sample]:
    """Pictures and the numbers of their classes."""
    files = sorted((photos / split).rglob("*.png"))
    names = sorted({file.parent.name for file in files})
    return [(file.read_bytes(), names.index(file.parent.name)) for file in files]


def write_shard(file: Path, content: list[Sample]) -> None:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for i, (picture, label) in enumerate(content):
            for ending, data in (("png", picture), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{i:04d}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def write_tables(folder: Path, parts: dict[str, list[Sample]]) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face data sets need the extra 'data'")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["bee", "cow", "dog"])})
    made = {}
    for split, content in parts.items():
        rows = {"img": [{"bytes": data, "path": None} for data, _ in content], "label": [label for _, label in content]}
        made[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(made).save_to_disk(str(folder))


@pytest.fixture(params=["shards", "tables"])
def write(request, tmp_path):
    """Writes training and evaluation samples; returns the folder and the reader that training is given."""

    def make(train: list[Sample], val: list[Sample]) -> tuple[Path, str]:
        folder = tmp_path / request.param
        if request.param == "shards":
            write_shard(folder / "train-0000.tar", train)
            write_shard(folder / "val-0000.tar", val)
            return folder, "wds"
        write_tables(folder, {"train": train, "test": val})
        return folder, f"hfds/{folder}"

    return make


def findings(litevit, folder: Path) -> tuple[int, dict[str, str]]:
    code, out, error = litevit("doctor", folder, "--json")
    assert code in (0, 1), error
    return code, {row["problem"]: row["severity"] for row in json.loads(out)["findings"]}


def test_clean_ones_are_clean_and_train_reads_the_same(write, photos, litevit):
    folder, reader = write(samples(photos, "train"), samples(photos, "val"))
    assert findings(litevit, folder) == (0, {})
    code, out, _ = litevit("doctor", folder)
    assert "12 images in" in out
    path = folder if reader == "wds" else ""
    words = ("--data.reader", reader, "--model.weights", "none", "--data", path, "--show-recipe")
    code, out, error = litevit("train", "finetune", *words)
    assert code == 0, error
    assert json.loads(out)["data"]["num_classes"] == 3


def test_broken_and_repeated_pictures(write, photos, litevit):
    train, val = samples(photos, "train"), samples(photos, "val")
    folder, _ = write([*train, (train[0][0][:60], 1)], [*val, train[1]])
    code, found = findings(litevit, folder)
    assert code == 1
    assert found == {"broken images": "error", "the same image in two splits": "error"}


def test_one_class_teaches_nothing(write, photos, litevit):
    train, val = ([sample for sample in samples(photos, split) if sample[1] == 0] for split in ("train", "val"))
    folder, _ = write(train, val)
    code, found = findings(litevit, folder)
    assert (code, found["a single class (there is nothing to tell apart)"]) == (1, "error")


def test_a_label_that_training_lacks(photos, tmp_path, litevit):
    train, val = samples(photos, "train"), samples(photos, "val")
    write_shard(tmp_path / "s" / "train-0.tar", [sample for sample in train if sample[1] < 2])
    write_shard(tmp_path / "s" / "val-0.tar", val)
    code, found = findings(litevit, tmp_path / "s")
    assert (code, found["classes that training does not have"]) == (1, "error")


def test_what_is_no_shard(photos, tmp_path, litevit):
    """A tar of class folders with a description among its pictures stays one."""
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(photos / "train" / "bee", "bee")
        archive.add(photos / "train" / "cow", "cow")
        member = tarfile.TarInfo("bee/about.json")
        archive.addfile(member, io.BytesIO(b""))
    _, out, _ = litevit("doctor", tmp_path / "set.tar")
    assert "a tar of class folders" in out
    write_shard(tmp_path / "s" / "train-0.tar", samples(photos, "train"))
    code, _, error = litevit("doctor", tmp_path / "s", "--fix", tmp_path / "out")
    assert code == 2
    assert "--fix writes folders and COCO's files" in error
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------- names of the Hub: only folders were taken


def test_a_name_as_training_has_it(photos, tmp_path, litevit):
    write_tables(tmp_path / "hf", {"train": samples(photos, "train"), "test": samples(photos, "val")})
    assert findings(litevit, f"hfds/{tmp_path / 'hf'}") == (0, {})


def test_a_set_of_the_hub_is_opened_as_training_opens_it(photos, tmp_path, litevit, monkeypatch):
    """The Hub is a folder here; what is asked for is asked of the library under the name that was given."""
    datasets = pytest.importorskip("datasets", reason="Hugging Face data sets need the extra 'data'")
    write_tables(tmp_path / "hf", {"train": samples(photos, "train"), "test": samples(photos, "val")})
    there, asked = datasets.load_from_disk(str(tmp_path / "hf")), []

    def load(name, split, **_):
        asked.append((name, split))
        return there[split]

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: list(there))
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert findings(litevit, "hfds/people/animals") == (0, {})
    assert asked == [("people/animals", "train"), ("people/animals", "test")]
    code, _, error = litevit("doctor", "hfds/people/animals", "--fix", tmp_path / "out")
    assert code == 2
    assert "--fix writes folders and COCO's files; hfds/people/animals is a Hugging Face data set" in error


def test_columns_that_are_named(photos, tmp_path, litevit):
    datasets = pytest.importorskip("datasets", reason="Hugging Face data sets need the extra 'data'")
    content = samples(photos, "train")
    picture = [{"bytes": data, "path": None} for data, _ in content]
    kinds = {"front": datasets.Image(), "back": datasets.Image(), "kind": datasets.ClassLabel(names=list("abc"))}
    rows = {"front": picture, "back": picture, "kind": [label for _, label in content]}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "hf"))
    code, out, _ = litevit("doctor", tmp_path / "hf")
    assert code == 1
    assert "which column has the images? It has front (PIL.Image.Image), back" in " ".join(out.split())
    assert litevit("doctor", tmp_path / "hf", "--image-column", "back")[0] == 0
    code, _, error = litevit("doctor", photos, "--image-column", "back")
    assert code == 2
    assert "--image-column is for Hugging Face data sets" in error


def test_a_folder_that_is_not_there_may_be_a_name_of_the_hub(litevit):
    code, _, error = litevit("doctor", "people/animals")
    assert code == 2
    assert "people/animals does not exist. A data set of the Hugging Face Hub is hfds/people/animals" in error


def test_what_the_library_complains_of_is_one_line(litevit, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="Hugging Face data sets need the extra 'data'")

    class OddError(Exception):
        """Of a network library: no OSError."""

    def fail(name, **_):
        raise OddError("the server hung up\nand more\nlines")

    monkeypatch.setattr(datasets, "get_dataset_split_names", fail)
    code, _, error = litevit("doctor", "hfds/people/animals")
    assert code == 2
    assert error == (
        "litevit: The Hugging Face data set people/animals (no folder here, so it was looked for on the Hub) cannot be "
        "opened: the server hung up\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False], ids=["a Hub without it", "no network"])
def test_what_the_hub_does_not_give_is_said_in_a_line(there, tmp_path):
    pytest.importorskip("datasets", reason="Hugging Face data sets need the extra 'data'")

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        run = subprocess.run(
            [sys.executable, "-m", "litevit.cli", "doctor", "hfds/people/animals"],
            env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": str(int(not there))},
            capture_output=True,
            text=True,
            check=False,
        )
        server.shutdown()
    assert run.returncode == 2
    last = run.stderr.splitlines()[-1]
    assert last.startswith("litevit: The Hugging Face data set people/animals (no folder here, so it was looked for on")
    assert "Traceback" not in run.stderr
