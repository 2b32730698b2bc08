"""mIoU and accuracies: figures by hand, a plain loop, processes, speed, wrong input."""

import math
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from litevit.metrics.segmentation import MeanIoU, write_index_png


def test_hand_computed():
    metric = MeanIoU(4, class_names=("sky", "road", "car", "never"))
    truth = torch.tensor([[0, 0, 0, 1], [1, 1, 255, 2]])
    metric.update(torch.tensor([[0, 0, 1, 1], [1, 0, 3, 2]]), truth)
    result = metric.compute()
    assert result["per_class"]["sky"] == pytest.approx({"iou": 2 / 4, "accuracy": 2 / 3})
    assert result["per_class"]["road"] == pytest.approx({"iou": 2 / 4, "accuracy": 2 / 3})
    assert result["per_class"]["car"] == {"iou": 1, "accuracy": 1}
    assert math.isnan(result["per_class"]["never"]["iou"])  # predicted only where nothing counts
    assert result["miou"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert result["mean_accuracy"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert result["pixel_accuracy"] == pytest.approx(5 / 7)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32])
def test_equals_a_plain_loop(dtype):
    rng = np.random.RandomState(0)
    metric, expected = MeanIoU(6), np.zeros((6, 6), dtype=np.int64)
    for _ in range(3):
        truth, prediction = rng.randint(0, 7, (9, 11)), rng.randint(0, 6, (9, 11))
        truth[truth == 6] = 255
        metric.update(torch.from_numpy(prediction).to(dtype), torch.from_numpy(truth).to(dtype))
        for t, p in zip(truth.flat, prediction.flat):
            if t != 255:
                expected[t, p] += 1
    assert np.array_equal(metric.confusion.numpy(), expected)


def test_a_class_predicted_but_absent_counts():
    metric = MeanIoU(2)
    metric.update(np.array([[0, 1]]), np.array([[0, 0]]))
    assert metric.compute()["miou"] == pytest.approx(0.25)
    assert metric.compute()["mean_accuracy"] == pytest.approx(0.5)


def test_processes_add_up_exactly():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 5, (6, 2, 8, 8), generator=generator)
    whole, parts = MeanIoU(5), [MeanIoU(5), MeanIoU(5)]
    for i, (prediction, truth) in enumerate(maps):
        whole.update(prediction, truth)
        parts[i % 2].update(prediction, truth)
    parts[0].merge(parts[1])
    assert torch.equal(parts[0].confusion, whole.confusion)
    assert parts[0].compute() == whole.compute()
    with pytest.raises(ValueError, match="classes"):
        whole.merge(MeanIoU(4))


def test_all_ignored_image_changes_nothing():
    metric = MeanIoU(3)
    metric.update(torch.zeros(4, 4, dtype=torch.int64), torch.full((4, 4), 255))
    assert metric.confusion.sum() == 0
    assert math.isnan(metric.compute()["miou"])


def test_other_ignore_index():
    metric = MeanIoU(3, ignore_index=-1)
    metric.update(torch.tensor([[0, 1]]), torch.tensor([[0, -1]]))
    assert metric.confusion.sum() == 1
    with pytest.raises(ValueError, match=r"truth must hold labels 0\.\.2 or -1"):
        metric.update(torch.tensor([[0, 1]]), torch.tensor([[0, 255]]))


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (torch.zeros(4, 4, dtype=torch.int64), torch.zeros(4, 5, dtype=torch.int64), r"one size, got \(4, 4\)"),
        (torch.zeros(4, 4, dtype=torch.int64), torch.full((4, 4), 3), r"a\.png: truth must hold labels 0\.\.2.*3"),
        (torch.zeros(4, 4, dtype=torch.int64), torch.full((4, 4), -1), "truth must hold"),
        (torch.full((4, 4), 3), torch.zeros(4, 4, dtype=torch.int64), r"prediction must hold labels 0\.\.2"),
        (torch.zeros(4, 4), torch.zeros(4, 4, dtype=torch.int64), "integer labels"),
    ],
)
def test_wrong_input(prediction, truth, message):
    metric = MeanIoU(3)
    with pytest.raises(ValueError, match=message):
        metric.update(prediction, truth, name="a.png")
    assert metric.confusion.sum() == 0


def test_wrong_settings():
    with pytest.raises(ValueError, match="class_names needs 3"):
        MeanIoU(3, class_names=("a",))
    with pytest.raises(ValueError, match="at least 1"):
        MeanIoU(0)


def test_is_no_bottleneck():
    """An image of 512 x 683 at 150 classes must cost less than 10 ms, in CPU time: the machine may be busy."""
    generator = torch.Generator().manual_seed(0)
    prediction, truth = torch.randint(0, 150, (2, 512, 683), generator=generator, dtype=torch.int64)
    metric, best = MeanIoU(150), math.inf
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(10):
            start = time.thread_time()
            metric.update(prediction, truth)
            best = min(best, time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    print(f"{best * 1e3:.2f} ms per image")
    assert best < 0.010


@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_index_png(tmp_path, reduce_zero_label):
    labels = torch.tensor([[0, 1], [149, 3]])
    write_index_png(tmp_path / "a.png", labels, reduce_zero_label=reduce_zero_label)
    with Image.open(tmp_path / "a.png") as file:
        assert file.mode == "L"
        assert np.array_equal(np.asarray(file), labels.numpy() + reduce_zero_label)
    with pytest.raises(ValueError, match=r"0\.\.255"):
        write_index_png(tmp_path / "b.png", labels * 2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


WORKER = """
import sys
import torch
from accelerate import Accelerator
from litevit.metrics import MeanIoU, PanopticQuality

accelerator = Accelerator(cpu=True)
rank, world = accelerator.process_index, accelerator.num_processes
maps = torch.randint(0, 5, (7, 2, 8, 8), generator=torch.Generator().manual_seed(0))
miou, pq = MeanIoU(5), PanopticQuality([{"id": 1, "isthing": 1}, {"id": 2, "isthing": 0}])
for prediction, truth in maps[rank::world]:
    miou.update(prediction, truth)
    described = [[{"id": i, "category_id": 1 + i % 2} for i in m.unique().tolist() if i] for m in (prediction, truth)]
    pq.update(prediction, described[0], truth, described[1])
miou.reduce(accelerator)
pq.reduce(accelerator)
if rank == 0:
    torch.save({"world": world, "confusion": miou.confusion, "counts": pq.counts}, sys.argv[1])
"""


@pytest.mark.slow
def test_two_real_processes(tmp_path):
    pytest.importorskip("accelerate", reason="several processes need accelerate (the extra 'train')")
    (tmp_path / "worker.py").write_text(WORKER)
    results = []
    for world in (1, 2):
        out = tmp_path / f"{world}.pt"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        subprocess.run([*command, str(tmp_path / "worker.py"), str(out)], check=True, timeout=300)
        results.append(torch.load(out))
    assert [r["world"] for r in results] == [1, 2]
    assert results[0]["confusion"].sum() == 7 * 64
    assert torch.equal(results[0]["confusion"], results[1]["confusion"])
    assert results[0]["counts"].sum() > 0
    assert torch.allclose(results[0]["counts"], results[1]["counts"], rtol=0, atol=1e-12)
