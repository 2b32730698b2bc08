"""What is alive after many steps and predictions of tiny models: tensors, and the size of the process."""

import gc
from collections.abc import Callable

import torch
from torch import Tensor

import litevit
from interop.dense import DETECTORS, create, inputs

CLASSIFIER = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 4, 4), "num_classes": 5}
KINDS = {"classifier": None, "retinanet": "litv2_s", "segformer": "lvt", "panoptic_fpn": "lvt"}
HOW = ("train", "predict", "optimised")
ALLOWED_KB = 16 * 1024  # over a whole test: what allocators keep; 2,000 lost maps of 16 KB would be twice that


def step_of(kind: str, how: str) -> Callable[[], None]:
    """A training step, a prediction, or a prediction of the optimised copy, of a tiny model."""
    torch.manual_seed(0)
    if KINDS[kind] is None:
        model = litevit.create_model("litv2_s", **CLASSIFIER)
        given = (torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    else:
        model = create(kind, KINDS[kind], **({"score_threshold": 0.5} if kind in DETECTORS else {}))
        given = inputs(kind)
    if how != "train":
        model = litevit.optimize_for_inference(model) if how == "optimised" else model.eval()

        def predict() -> None:
            with torch.no_grad():
                model(given[0])

        return predict
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4)

    def train() -> None:
        if KINDS[kind] is None:
            loss = torch.nn.functional.cross_entropy(model(given[0]), given[1])
        else:
            loss = sum(model(*given).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return train


def alive() -> int:
    gc.collect()
    return sum(issubclass(type(x), Tensor) for x in gc.get_objects())


def resident_kb() -> int:
    """Of this process; the kernel's count, as no peak falls."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def warm_up(steps: int) -> int:
    return max(steps // 20, 5)


def grows(step: Callable[[], None], steps: int) -> tuple[int, int]:
    """Tensors and kilobytes that steps leave behind, after some to warm up."""
    for _ in range(warm_up(steps)):
        step()
    tensors, size = alive(), resident_kb()
    for _ in range(steps):
        step()
    return alive() - tensors, resident_kb() - size
