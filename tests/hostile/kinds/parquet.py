"""Hostile Parquet: files of images, lists and results in the folder of a prediction that is gone on with, and its manifest."""

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hostile.arena import Kind
from hostile.mutations import NUMBERS, corrupt, json_bytes, names
from litevit.data.images import read_image
from litevit.jobs.predict_parquet import TooManyFailuresError, predict_parquet
from litevit.jobs.predict_rows import RowPredictor

IMAGES = 6


class Brightness(RowPredictor):
    """The mean of an image: a model of no weights."""

    batch_size = 2
    columns = ("mean",)

    def __init__(self) -> None:
        self.about = {
            "model": "brightness",
            "task": "none",
            "classes": ["a"],
            "weights": "0",
            "preprocessing": None,
            "options": {},
        }

    def prepare(self, source: Any, name: str | None = None) -> Any:
        return np.asarray(read_image(source, name=name))

    def answer(self, images: Any) -> Any:
        return [{"mean": float(image.mean())} for image in images]

    def types(self) -> Any:
        import pyarrow as pa

        return {"mean": pa.float32()}


def jpeg(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (value, value, value)).save(file, "JPEG")
    return file.getvalue()


def prepare(seeds: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for n in range(2):
        (seeds / f"{n}.jpg").write_bytes(jpeg(40 * n))
    images = [jpeg(20 * n) for n in range(IMAGES)]
    pq.write_table(pa.table({"image": images}), seeds / "bytes.parquet")
    pq.write_table(
        pa.table({"path": [str(seeds / f"{n % 2}.jpg") for n in range(IMAGES)]}),
        seeds / "path.parquet",
        row_group_size=2,
    )
    cells = [{"bytes": content, "path": None} for content in images]
    pq.write_table(
        pa.table({"image": cells, "label": list(range(IMAGES))}), seeds / "struct.parquet", compression="zstd"
    )
    predict_parquet(Brightness(), [seeds / "bytes.parquet"], seeds / "out", rows_per_file=2, workers=1)


def strange(draw: random.Random, folder: Path) -> bytes:
    """A table that is Parquet, and not what it should be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    many = draw.choice((0, 1, 6, 3000))
    text = [names(draw, folder).encode("utf-8", "replace").decode() for _ in range(min(many, 6))] * (many // 6 + 1)
    columns: dict[str, Any] = {
        "path": pa.array(text[:many], pa.string()), "image": pa.array([b"x" * draw.choice((0, 10, 10**6))] * min(many, 6), pa.binary()),
        "bytes": pa.array([None] * many, pa.large_binary()), "piece": pa.array([draw.choice((0, -1, 2**31 - 1)) for _ in range(many)], pa.int32()),
        "first": pa.array([draw.choice((None, 0, -5, 2**62)) for _ in range(many)], pa.int64()), "count": pa.array([draw.choice((None, 0, 1, -1, 2, 2**62)) for _ in range(many)], pa.int64()),
        "jpg": pa.array([[1]] * many), "file": pa.array([1.5] * many), "": pa.array([True] * many), "content": pa.DictionaryArray.from_arrays(pa.array([0] * many, pa.int8()), pa.array([b"x"])),
    }  # fmt: skip
    chosen = draw.choice(
        (draw.sample(sorted(columns), draw.randint(1, 4)), ["piece", "path", "first", "count"], ["image"], ["path"])
    )
    least = min(len(columns[name]) for name in chosen)
    file = io.BytesIO()
    pq.write_table(
        pa.table({name: columns[name][:least] for name in chosen}).replace_schema_metadata(
            {"litevit_errors": draw.choice(("x", "-1", "9" * 5000, "²", "0"))}
        ),
        file,
    )
    return file.getvalue()


def bomb() -> bytes:
    """A megabyte, named ten thousand times."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    one = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array([bytes(2**20)]))
    pq.write_table(pa.table({"image": one}), file, compression="zstd")
    return file.getvalue()


def spoilt(draw: random.Random, content: bytes, folder: Path) -> bytes:
    deed = draw.randrange(12)
    if deed == 0:
        return strange(draw, folder)
    if deed == 1:
        return content[: draw.randrange(len(content))]
    if deed == 2:
        return draw.choice((b"", b"PAR1", b"PAR1" + b"\xff" * 8 + b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", b"PARE" * 3))
    if deed <= 6:  # the footer: a thrift structure before the last eight bytes
        length = int.from_bytes(content[-8:-4], "little")
        return corrupt(draw, content[: -8 - length] + content[-8 - length :], begin=len(content) - 8 - length)
    return corrupt(draw, content)


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    source = folder / "in.parquet"
    content = (seeds / draw.choice(("bytes.parquet", "path.parquet", "struct.parquet"))).read_bytes()
    out = folder / "out"
    victim = draw.choice(("in", "in", "list", "part", "manifest", "none"))
    if victim == "in":
        content = bomb() if draw.random() < 0.01 else spoilt(draw, content, folder)
    source.write_bytes(content)
    if victim != "in" or draw.random() < 0.3:  # gone on with
        out.mkdir()
        for file in sorted((seeds / "out").iterdir()):
            told = file.read_bytes()
            if file.name == "_manifest.json":
                if victim == "manifest":
                    manifest = json.loads(told)
                    if draw.random() < 0.5:
                        manifest[draw.choice(sorted(manifest))] = draw.choice((*NUMBERS, "", None, [], {}, "x" * 5000))
                    told = json_bytes(draw, manifest, folder) if draw.random() < 0.6 else json.dumps(manifest).encode()
            elif file.name.startswith("_inputs"):
                told = spoilt(draw, told, folder) if victim == "list" else told
            elif file.suffix == ".parquet":
                if victim != "part" and draw.random() < 0.5:
                    continue  # to be made
                told = spoilt(draw, told, folder) if victim == "part" else told
            if file.is_file() and not file.name.startswith("."):
                (out / file.name).write_bytes(told)
    try:
        predict_parquet(
            Brightness(),
            [source],
            out,
            rows_per_file=draw.choice((None, None, 2)),
            max_failures=draw.choice((1000, 1000, 0)),
            workers=1,
        )
    except TooManyFailuresError as error:  # the command line ends with its message
        raise ValueError(str(error)) from None


KIND = Kind("parquet", attack, prepare, inputs=4000, share=80, warm=10)
