"""The dense quickstarts in a form of under a minute each: enough to see that every part learns, on held-out scenes.

A model that learns nothing has 0 to 0.1. Reached on one thread: box and mask AP50 0.27, PQ 0.33, mIoU 0.44.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from litevit.jobs.train import train
from litevit.recipes import get_recipe

pytest.importorskip("faster_coco_eval", reason="COCO evaluation needs faster-coco-eval (the extra 'coco')")
pytest.importorskip("accelerate", reason="training needs accelerate (the extra 'train')")

FLOORS = {
    "quickstart-detection": {"bbox/AP50": 0.12, "segm/AP50": 0.12},
    "quickstart-panoptic": {"pq": 0.15, "pq_stuff": 0.3},
    "quickstart-segmentation": {"miou": 0.3},
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "floors"), FLOORS.items())
def test_a_short_run_learns(name: str, floors: dict[str, float], tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LITEVIT_CACHE", str(tmp_path / "cache"))
    recipe = get_recipe(name)
    recipe = replace(
        recipe,
        data=replace(recipe.data, scenes=replace(recipe.data.scenes, train=800, val=60)),
        schedule=replace(recipe.schedule, epochs=1),
        run=replace(recipe.run, root=str(tmp_path), eval_every=1, device="cpu"),
    )
    result = train(recipe, console=Console(quiet=True))
    print(name, {key: round(value, 3) for key, value in result.best.items()})
    assert {key: value for key, value in result.best.items() if value < floors.get(key, 0.0) and key in floors} == {}
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = [row for row in rows if row["kind"] == "train"]
    for loss in {"loss", "loss_seg", "loss_mask", "loss_rpn_cls"} & first.keys():
        assert last[loss] < 0.85 * first[loss], loss
    with Image.open(result.folder / "predictions.png") as sheet:
        assert min(sheet.size) >= 640
        assert len(np.unique(np.asarray(sheet.convert("L")))) > 20
