"""What the children of a zygote do. Every job is restarted by doing it again with the same arguments."""

import dataclasses
import functools
import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import time
from pathlib import Path
from typing import Any

MODEL = {"patch_size": 4, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "alpha": 0.5}
CLASSES = ("cat", "dog", "fox", "owl", "yak")


def import_all() -> None:
    """What a job would import, without computing anything."""
    import accelerate  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import pyarrow.dataset
    import pyarrow.parquet  # noqa: F401
    import torch._dynamo
    import torch.export
    import torch.optim.adamw  # noqa: F401

    import litevit.adapters.hugging_face
    import litevit.cli.convert
    import litevit.cli.export
    import litevit.cli.predict
    import litevit.cli.token_labels
    import litevit.cli.train
    import litevit.deploy.exporter
    import litevit.jobs.predict_parquet
    import litevit.jobs.token_labels
    import litevit.jobs.train  # noqa: F401


def during(watch: Any, place: Any, name: str, phase: str) -> None:
    """Marks the phase while a function runs."""
    function = getattr(place, name)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        before, watch.phase = watch.phase, phase
        watch.maybe_storm()
        try:
            return function(*args, **kwargs)
        finally:
            watch.phase = before

    setattr(place, name, call)


def cli(watch: Any, *arguments: str) -> int:
    from litevit.cli import main

    return main(arguments)


# ---------------------------------------------------------------------- jobs


def train(watch: Any, data: str, folder: str, *options: str) -> int:
    """Six steps with a checkpoint after every second and an evaluation after every third; then what is done last.

    Args:
        options: more of the command line; "pictures": draw them, which takes longer than all the rest.
    """
    from litevit.engine import best
    from litevit.engine import train as engine
    from litevit.engine.learner import Learner

    during(watch, engine, "save_checkpoint", "checkpoint write")
    during(watch, engine, "save_weights", "best weights")
    during(watch, Learner, "evaluate", "evaluation")
    during(watch, best, "finish", "results")
    during(watch, engine, "_resume", "continuing")
    during(watch, Learner, "set_rates", "training step")

    def stay(self: Any, *args: Any, _plain: Any = Learner.set_rates, **kwargs: Any) -> Any:
        rates = _plain(self, *args, **kwargs)
        watch.phase = "training step"
        return rates

    Learner.set_rates = stay  # type: ignore[method-assign]
    if "pictures" not in options:
        draw_little()
    overrides = [word for key, value in MODEL.items() for word in _option(f"model.overrides.{key}", value)]
    return cli(
        watch, "train", "quickstart", "--data", data, "--run.dir", folder, *overrides,
        "--data.num_classes", "0", "--data.eval_batch_size", "8", "--model.overrides.drop_path_rate", "0.1",
        "--run.batch_size", "4", "--run.max_steps", "6", "--run.checkpoint_every", "2", "--run.eval_steps", "3",
        "--run.log_every", "1", "--run.ema_decay", "0.9", "--run.optimize", "off", "--run.device", "cpu",
        *(option for option in options if option != "pictures"),
    )  # fmt: skip


def draw_little() -> None:
    """Pictures of one pixel, written as the others are."""
    from PIL import Image

    from litevit.engine import best
    from litevit.files import whole_file
    from litevit.jobs import pictures

    def draw(*arguments: Any, **_: Any) -> None:
        path = next(one for one in arguments if isinstance(one, Path))
        with whole_file(path / "curves.png" if path.is_dir() else path) as temporary:
            Image.new("L", (1, 1)).save(temporary, format="PNG")

    best.draw_curves = pictures.draw_confusion = pictures.draw_predictions = draw


def _option(name: str, value: Any) -> list[str]:
    return [f"--{name}", *(str(item) for item in (value if isinstance(value, tuple) else (value,)))]


def download(watch: Any, cache: str, address: str, sha256: str | None) -> int:
    """`fetch` of a published file that lies on a server of ours."""
    os.environ["LITEVIT_CACHE"] = cache
    from litevit.checkpoints import download as transfers
    from litevit.checkpoints import published

    watch.phase = "download"
    transfers.CHUNK, transfers.PAUSE = 4096, 0.01
    entry = dataclasses.replace(published.WEIGHTS["litv2_s"], url=address, sha256=sha256)
    published.WEIGHTS["litv2_s"] = entry
    print(published.fetch("litv2_s", progress=False))
    return 0


def convert(watch: Any, source: str, target: str) -> int:
    watch.phase = "conversion"
    return cli(watch, "convert", source, target)


def export(watch: Any, run: str, target: str) -> int:
    watch.phase = "export"
    return cli(
        watch, "export", run, "--format", "pt2", "--out", target, "--image-size", "32", "--batch-size", "1",
        "--no-verify",
    )  # fmt: skip


def predict(watch: Any, run: str, images: str, out: str) -> int:
    watch.phase = "Parquet shards"
    return cli(
        watch, "predict", images, "--weights", run, "--format", "parquet", "--out", out, "--rows-per-file", "3",
        "--workers", "2", "--batch-size", "2", "--device", "cpu",
    )  # fmt: skip


def token_labels(watch: Any, run: str, data: str, out: str) -> int:
    watch.phase = "label maps"
    return cli(
        watch, "token-labels", "litv2_s", data, out, "--weights", run, "--size", "32", "--grid", "2", "--workers",
        "0", "--batch-size", "2", "--device", "cpu",
    )  # fmt: skip


def pack(watch: Any, run: str, out: str) -> int:
    watch.phase = "pack"
    return cli(watch, "pack", run, out, "--force")


def evaluate(watch: Any, run: str, data: str) -> int:
    watch.phase = "litevit eval"
    return cli(watch, "eval", "--run", run, "--data", data, "--workers", "0", "--device", "cpu", "--json")


# -------------------------------------------------------- other faults than kills


def at_step(number: int, act: Any) -> None:
    """Calls `act` before a training step."""
    from litevit.engine.learner import Learner

    plain = Learner.set_rates

    def set_rates(self: Any, schedule: Any, step: int, *args: Any, **kwargs: Any) -> Any:
        if step == number:
            act()
        return plain(self, schedule, step, *args, **kwargs)

    Learner.set_rates = set_rates  # type: ignore[method-assign]


def train_with_a_jumping_clock(watch: Any, data: str, folder: str) -> int:
    """Every question for the time is answered by another day."""
    luck, plain = random.Random(1), time.time
    time.time = lambda: plain() + luck.uniform(-1e6, 1e6)
    time.time_ns = lambda: int(1e9 * time.time())
    return train(watch, data, folder)


def predict_with_a_jumping_clock(watch: Any, run: str, images: str, out: str) -> int:
    luck, plain = random.Random(1), time.time
    time.time = lambda: plain() + luck.uniform(-1e6, 1e6)
    return predict(watch, run, images, out)


def train_and_lose_a_loader_worker(watch: Any, data: str, folder: str) -> int:
    def kill_one() -> None:
        worker = multiprocessing.active_children()[0].pid
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)  # it is dead, and PyTorch can see it

    at_step(3, kill_one)
    return train(watch, data, folder, "--run.workers", "2")


def start_a_second_run(watch: Any, data: str, folder: str, patience: float) -> int:
    """In the folder of a run that stands at its fourth step. Returns the second one's exit code."""
    from litevit.engine import run_folder

    reading, writing = os.pipe()
    if not (second := os.fork()):
        os.read(reading, 1)
        run_folder.PATIENCE = patience
        os._exit(train(watch, data, folder))
    codes = []

    def wait_for_the_second() -> None:
        os.write(writing, b"x")
        codes.append(os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]))

    at_step(3, wait_for_the_second)
    assert train(watch, data, folder) == 0
    return codes[0]


def train_on_two_ranks(watch: Any, data: str, folder: str, die_at: int | None = None) -> int:
    """Two processes; the second one is killed before a step. Returns the exit code of the first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    second = os.fork()
    rank = str(int(second == 0))
    os.environ |= {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    if second == 0 and die_at is not None:
        at_step(die_at, lambda: os.kill(os.getpid(), signal.SIGKILL))
    code = train(watch, data, folder)
    if second == 0:
        os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(second, 0)[1])
    assert ended == (0 if die_at is None else -signal.SIGKILL), ended
    return code


def train_with_little_memory(watch: Any, data: str, folder: str, more: int) -> int:
    """Args: more: megabytes of address space beside what the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return train(watch, data, folder, "--data.image_size", "256", "--run.batch_size", "24")


# ------------------------------------------------------------------ materials


def make_materials(watch: Any, folder: str) -> int:
    """Pictures of five classes, a finished run, and an official checkpoint, for the jobs."""
    import numpy as np
    import torch
    from PIL import Image

    import golden
    import litevit
    from litevit.checkpoints.files import write_state_dict
    from litevit.engine.config import to_dict
    from litevit.recipes import get_recipe

    place, numbers = Path(folder), np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for name in CLASSES:
            (place / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = numbers.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "data" / split / name / f"{name}{i}.png")
    saved: Any = to_dict(get_recipe("quickstart"))
    saved["model"] = {"name": "litv2_s", "weights": None, "overrides": MODEL, "drop_head": None}
    saved["data"] |= {"num_classes": len(CLASSES), "path": str(place / "data")}
    torch.manual_seed(0)
    model = litevit.create_model("litv2_s", num_classes=len(CLASSES), **MODEL)
    (place / "run").mkdir()
    header = {"recipe": json.dumps(saved), "classes": json.dumps(CLASSES), "step": "7", "metrics": '{"top1": 51.5}'}
    write_state_dict(model.state_dict(), place / "run" / "best.safetensors", metadata=header)
    torch.save({"state_dict": golden.official_state("lvt/lvt_backbone")}, place / "official.pth")
    return 0
