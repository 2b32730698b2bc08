"""Speed of this checkout against another one: the same models in turns, one process each, processor time.

    git worktree add ../before COMMIT
    python benchmarks/against_commit.py ../before --models litv2_s lit_s lvt --dtype fp32 bf16 --train

Prints milliseconds of the median round, and before / now: above 1 this checkout is faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

WORKER = """
import json, sys, time
import torch
import litevit
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
for line in sys.stdin:
    job = json.loads(line)
    if "build" in job:
        name, dtype = job["build"], DTYPES[job["dtype"]]
        model = litevit.create_model(name, **job["options"]).to(dtype)
        detector = "rcnn" in name or "retinanet" in name
        shape = (1, 3, 800, 1333) if detector else (job["batch"], 3, 224, 224)
        x = torch.rand(shape).to(dtype)
        if job["train"]:
            make = getattr(litevit, "optimize_for_training", None)
            model = (make(model) if make else model).train()
            def run():
                out = model(x)
                out.float().square().mean().backward()
                for p in model.parameters():
                    p.grad = None
        else:
            model = litevit.optimize_for_inference(model)
            forward = (lambda x: model([x[0]])) if detector else model
            def run():
                with torch.inference_mode():
                    forward(x)
        run()
        print(json.dumps({"built": litevit.__file__}), flush=True)
    else:
        start = time.process_time()
        run()
        print(json.dumps({"seconds": time.process_time() - start}), flush=True)
"""


class Worker:
    """One checkout's process."""

    def __init__(self, root: Path, threads: int):
        environment = {**os.environ, "PYTHONPATH": str(root / "src")}
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def ask(self, **job: object) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of the other checkout")
    parser.add_argument("--models", nargs="+", default=["litv2_s", "lit_s", "lvt"])
    parser.add_argument("--dtype", nargs="+", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--train", action="store_true", help="a training step instead of inference")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    now = Path(__file__).resolve().parents[1]
    workers = {"before": Worker(arguments.before.resolve(), arguments.threads), "now": Worker(now, arguments.threads)}
    rows = []
    for name in arguments.models:
        for dtype in arguments.dtype:
            for worker in workers.values():
                job = {"dtype": dtype, "options": {}, "batch": arguments.batch, "train": arguments.train}
                built = worker.ask(build=name, **job)["built"]
                assert Path(built).is_relative_to(worker.root), built
            seconds: dict[str, list[float]] = {label: [] for label in workers}
            for _ in range(arguments.rounds):
                for label, worker in workers.items():
                    seconds[label].append(worker.ask()["seconds"])
            ratios = [b / n for b, n in zip(seconds["before"], seconds["now"])]
            row = {
                "model": name,
                "dtype": dtype,
                "what": "training step" if arguments.train else "inference",
                **{f"{label}_ms": round(1e3 * statistics.median(s), 1) for label, s in seconds.items()},
                "ratio": round(statistics.median(ratios), 3),
                "ratio_min": round(min(ratios), 3),
                "ratio_max": round(max(ratios), 3),
            }
            rows.append(row)
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"command": sys.argv, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
