"""What the training loop costs: its own time per step, its data path beside timm's loader, activation checkpointing.

Everything is measured side by side in one run, because the times of a machine at work drift:

    python benchmarks/engine_overhead.py --threads 1 [--steps 3] [--images 512] [--workers 1]
        [--parts loop data memory] [--out FILE]

loop: LITv2-S, batch 16 at 224: `litevit.engine.fit` against the bare forward, backward, clip and AdamW step on the same
batches, in turns in one process, by the CPU clock (so take one thread); and the loop's own time, from `fit` with a
model that costs nothing. data: images/s of timm's own loader, and of `fit` with that model, on the same JPEG files,
augmentation and workers. memory: peak of a training step with and without activation checkpointing, each in a process
of its own. Parts may be run one at a time; --out keeps what is in the file.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset

import litevit
from litevit.data.classification import Augment, ClassificationData, create_dataset
from litevit.data.classification_transforms import train_transform
from litevit.data.posterize import with_posterize_to_black
from litevit.engine import ModelConfig, OptimConfig, Recipe, RunConfig, ScheduleConfig, fit, param_groups
from litevit.engine.optim import create_optimizer
from litevit.jobs.classification import ClassificationTask

BATCH = 16


class FixedImages(Dataset):
    """Images in memory, so that only the loop is measured."""

    def __init__(self, images: int, size: int):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(images, 3, size, size, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], index % 1000


class TimedTask(ClassificationTask):
    """Remembers when each step's loss is asked for: the differences are whole steps of the loop."""

    def __init__(self, recipe: Recipe, dataset: Dataset, model: nn.Module, clock: Callable[[], float]):
        super().__init__(recipe)
        self.dataset, self.model, self.clock, self.starts = dataset, model, clock, []

    def build_model(self) -> nn.Module:
        return self.model

    def train_dataset(self) -> Dataset:
        return self.dataset

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        self.starts.append(self.clock())
        return super().loss(model, batch)

    def evaluate(self, model: nn.Module, accelerator: object) -> dict[str, float]:
        return {"top1": 0.0}

    def report(self, model: nn.Module, folder: Path) -> None: ...


def recipe(folder: str, *, steps: int, workers: int, data: ClassificationData) -> Recipe:
    return Recipe(
        name="overhead",
        task="classification",
        model=ModelConfig(name="litv2_s"),
        data=data,
        optim=OptimConfig(offset_lr_ratio=0.01, clip_grad=5.0),
        schedule=ScheduleConfig(kind="constant", epochs=10_000),
        run=RunConfig(batch_size=BATCH, workers=workers, dir=folder, max_steps=steps, device="cpu", log_every=10),
    )


PLAIN = ClassificationData(augment=Augment(mixup=0.0, cutmix=0.0))


def loop(steps: int) -> dict[str, float]:
    """Seconds per step of the bare step and of `fit`; medians over alternating turns of both."""
    torch.manual_seed(0)
    model = litevit.create_model("litv2_s")
    dataset = FixedImages(BATCH * 4, 224)
    bare: list[float] = []
    ours: list[float] = []
    settings = OptimConfig(offset_lr_ratio=0.01, clip_grad=5.0)
    for turn in range(3):
        optimizer = create_optimizer(param_groups(model, lr=1e-3, weight_decay=0.05, offset_lr=1e-5), settings)
        model.train()
        for step in range(steps + 1):
            start = time.process_time()
            images = dataset.images[:BATCH]
            labels = torch.arange(BATCH)
            torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step:  # the first of a turn warms up
                bare.append(time.process_time() - start)
        with tempfile.TemporaryDirectory() as folder:
            run = recipe(folder, steps=steps + 2, workers=0, data=PLAIN)
            task = TimedTask(run, dataset, model, time.process_time)
            fit(run, task, console=Console(quiet=True))
        ours += np.diff(task.starts)[1:].tolist()
        print(f"  turn {turn + 1}: bare {np.median(bare):.3f} s, fit {np.median(ours):.3f} s per step")
    alone = overhead_alone()
    return {
        "bare_s_per_step": float(np.median(bare)),
        "fit_s_per_step": float(np.median(ours)),
        "difference_percent": 100 * (float(np.median(ours)) / float(np.median(bare)) - 1),
        "loop_alone_s_per_step": alone,
        "loop_alone_percent": 100 * alone / float(np.median(bare)),
    }


class Nothing(nn.Module):
    """A classifier that costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1000))

    def forward(self, images: Tensor) -> Tensor:
        return self.bias.expand(len(images), -1)


def overhead_alone(steps: int = 300) -> float:
    """The loop's own time per step, by the difference of two costs that are easy to measure: `fit` with a model that
    costs nothing, which still collates 16 images, steps the optimizer and logs."""
    dataset = FixedImages(BATCH * 4, 224)
    with tempfile.TemporaryDirectory() as folder:
        run = recipe(folder, steps=steps, workers=0, data=PLAIN)
        task = TimedTask(run, dataset, Nothing(), time.process_time)
        fit(run, task, console=Console(quiet=True))
    return float(np.mean(np.diff(task.starts)))  # the mean: with what is done every ten steps


def write_images(root: Path, count: int) -> None:
    """JPEG files of ImageNet's usual size, with enough structure to cost what photographs cost to decode."""
    random = np.random.RandomState(0)
    (root / "train" / "a").mkdir(parents=True)
    for i in range(count):
        coarse = random.randint(0, 256, (24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        noise = random.randint(-12, 13, (375, 500, 3))
        pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "train" / "a" / f"{i}.jpg", quality=90)


def data(images: int, workers: int) -> dict[str, float]:
    """Images/s of timm's loader and of `fit`, in alternating turns."""
    from timm.data import create_dataset as timm_dataset
    from timm.data import create_loader

    found: dict[str, list[float]] = {"timm": [], "fit": []}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_images(root, images)
        settings = ClassificationData(path=str(root / "train"), num_classes=1, augment=Augment(mixup=0.0, cutmix=0.0))
        for turn in range(3):
            loader = create_loader(
                timm_dataset("", root=str(root / "train"), is_training=True),
                input_size=(3, 224, 224),
                batch_size=BATCH,
                is_training=True,
                use_prefetcher=False,
                auto_augment="rand-m9-mstd0.5-inc1",
                interpolation="bicubic",
                re_prob=0.25,
                re_mode="pixel",
                num_workers=workers,
                device=torch.device("cpu"),
            )
            with_posterize_to_black(loader.dataset.transform)  # Pillow 13 refuses what timm asks for
            count, start = 0, 0.0
            for number, (batch, _) in enumerate(loader):
                if number == 4:  # workers are up
                    start = time.perf_counter()
                elif number > 4:
                    count += len(batch)
            found["timm"].append(count / (time.perf_counter() - start))

            steps = images // BATCH
            run = recipe(str(root / f"run{turn}"), steps=steps, workers=workers, data=settings)
            dataset = create_dataset(
                ClassificationData(
                    path=str(root),
                    num_classes=1,
                    eval_split="train",
                    augment=settings.augment,
                ),
                "train",
            )
            assert repr(dataset.transform) == repr(train_transform(settings))  # the published augmentation
            task = TimedTask(run, dataset, Nothing(), time.perf_counter)
            fit(run, task, console=Console(quiet=True))
            found["fit"].append(BATCH * (len(task.starts) - 6) / (task.starts[-1] - task.starts[5]))
            print(f"  turn {turn + 1}: timm {found['timm'][-1]:.1f}, fit {found['fit'][-1]:.1f} images/s")
    timm, ours = float(np.median(found["timm"])), float(np.median(found["fit"]))
    return {"timm_images_per_s": timm, "fit_images_per_s": ours, "ratio": ours / timm, "workers": workers}


def _peak(name: str, checkpointing: bool, pipe) -> None:
    torch.manual_seed(0)
    model = litevit.create_model(name)
    model.set_grad_checkpointing(checkpointing)
    images = torch.randn(BATCH, 3, 224, 224)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    model(images).sum().backward()
    pipe.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base, time.perf_counter() - start))


def memory() -> dict[str, float]:
    """Peak resident memory that one forward and backward adds to the model and its batch."""
    result: dict[str, float] = {}
    for checkpointing in (False, True):
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_peak, args=("litv2_s", checkpointing, there))
        process.start()
        peak, seconds = here.recv()
        process.join()
        name = "checkpointed" if checkpointing else "plain"
        result |= {f"{name}_mb": peak / 1024, f"{name}_s": seconds}
    result["saved_percent"] = 100 * (1 - result["checkpointed_mb"] / result["plain_mb"])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--parts", nargs="+", default=["loop", "data", "memory"], choices=["loop", "data", "memory"])
    parser.add_argument("--out", type=Path, help="also write the result as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parts = {
        "loop": lambda: loop(arguments.steps),
        "data": lambda: data(arguments.images, arguments.workers),
        "memory": memory,
    }
    result: dict = {
        "machine": f"{platform.machine()} {platform.system()}, {arguments.threads} threads",
        "torch": torch.__version__,
        "batch": BATCH,
    }
    for name in arguments.parts:
        print(name)
        result[name] = {key: round(value, 5) for key, value in parts[name]().items()}
    if arguments.out and arguments.out.exists():
        result = json.loads(arguments.out.read_text()) | result
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
