"""What must hold after a kill, and after the restart: nothing half under a final name, and the same as undisturbed."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image

from litevit.checkpoints.files import read_file, read_metadata
from litevit.data.token_labels import load_label_map
from litevit.engine.checkpoint import list_checkpoints, load_checkpoint
from litevit.engine.logging import read_metrics
from litevit.files import read_json

TIMING = {"images_per_s", "memory_mb"}


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*.tmp") if path.exists()]


def assert_whole(folder: Path) -> int:
    """Every file under a final name can be read to its end. Returns: how many there are."""
    count = 0
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file() or path.name.endswith((".part", ".part.etag")):
            continue
        count += 1
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".jsonl":
            assert all(json.loads(line) for line in path.read_bytes().splitlines()[:-1])  # the last may be cut
        elif path.suffix == ".safetensors":
            read_file(path)
        elif path.suffix == ".pt" and path.parent.name == "checkpoints":
            load_checkpoint(path)
        elif path.suffix == ".pt":
            load_label_map(path)
        elif path.suffix in (".png", ".jpg"):
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".parquet":
            pq.read_table(path)
    return count


def assert_equal(a: Any, b: Any, where: str = "state") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), f"{where}: {sorted(a.keys() ^ b.keys())} in one of them alone"
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, f"{where}: {a} and {b}"


def of_run(folder: Path) -> dict[str, Any]:
    """Weights, average, optimizer, losses, evaluations, best weights and result of a run."""
    newest, *older = list_checkpoints(folder / "checkpoints")
    state = load_checkpoint(newest)
    for free in ("dir", "workers"):
        state["recipe"]["run"].pop(free)
    rows = [{k: v for k, v in row.items() if k not in TIMING} for row in read_metrics(folder / "metrics.jsonl")]
    best = folder / "best.safetensors"
    header = read_metadata(best)
    return {
        "state": state,
        "kept": [path.name[:13] for path in (newest, *older)],
        "metrics": rows,
        "best": read_file(best),
        "of best": {key: header[key] for key in ("step", "metrics", "classes")},
        "result": read_json(folder / "result.json"),
        "names": sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")),
    }


def of_weights(path: Path) -> dict[str, Any]:
    header = {key: value for key, value in read_metadata(path).items() if key != "litevit_sha256"}
    return {"tensors": read_file(path), "header": header}


def of_export(path: Path) -> dict[str, Any]:
    """What the exported program answers, and what stands beside it."""
    from litevit.deploy.exported import load_exported

    image = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    report = read_json(path.with_name(f"{path.name}.report.json"))
    return {"answer": load_exported(path).named(image), "model": report["model"]}


def of_parquet(folder: Path) -> list[dict[str, Any]]:
    rows = [row for file in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert len({row["path"] for row in rows}) == len(rows), "an image stands there twice"
    return rows


def of_label_maps(folder: Path) -> dict[str, Any]:
    return {str(path.relative_to(folder)): load_label_map(path) for path in sorted(folder.rglob("*.pt"))}


def of_pack(folder: Path) -> dict[str, Any]:
    names = sorted(path.name for path in folder.iterdir())
    return {
        "names": names,
        "config": read_json(folder / "config.json"),
        **of_weights(folder / "model.safetensors"),
    }
