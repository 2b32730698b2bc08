"""Pictures, videos and result files of dense models, with models that answer what the test says."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import litevit
from litevit.checkpoints.files import write_state_dict
from litevit.data.class_names import ADE20K, COCO_STUFF, COCO_THINGS, ClassList, read_class_list
from litevit.data.coco_masks import decode_masks
from litevit.jobs import draw
from litevit.jobs.dense_models import INSTANCES, PANOPTIC, SEMANTIC, DenseModel, load_dense, task_of
from litevit.jobs.dense_results import create_results, image_id
from litevit.jobs.predict_dense import answer, count_pictures, find_files, predict, table, unique_names
from litevit.jobs.videos import VideoWriter, read_video
from litevit.metrics.panoptic import read_panoptic_png

H, W = 48, 64
DOGS = ClassList(("cat", "dog"), (17, 18))
ROOM = ClassList(("wall", "floor", "lamp"), (1, 2, 3))
PARK = ClassList(("dog", "grass", "sky"), (18, 193, 187), num_things=1)


class Says(nn.Module):
    """Gives the same answer to every image, of the image's size."""

    def __init__(self, found):
        super().__init__()
        self.anchor, self.found = nn.Parameter(torch.zeros(1)), found

    def forward(self, images):
        assert all(image.shape == (3, H, W) and 0 <= image.min() and image.max() <= 1 for image in images)
        return [self.found for _ in images]

    def segment(self, image):
        return self.found


def two_objects():
    masks = torch.zeros(2, H, W, dtype=torch.bool)
    masks[0, 4:20, 6:30] = True
    masks[1, 25:45, 30:60] = True
    boxes = torch.tensor([[6.0, 4, 30, 20], [30, 25, 60, 45]])
    return {"boxes": boxes, "scores": torch.tensor([0.9, 0.4]), "labels": torch.tensor([1, 0]), "masks": masks}


def room():
    labels = torch.zeros(H, W, dtype=torch.int64)
    labels[30:] = 1
    return labels


def park():
    ids = torch.zeros(H, W, dtype=torch.int64)
    ids[20:], ids[25:40, 10:30] = 2, 1000
    segments = [
        {"id": 1000, "category_id": 0, "isthing": True, "score": 0.8},
        {"id": 2, "category_id": 1, "isthing": False, "score": 0.7},
    ]
    return {"panoptic": ids, "segments_info": segments}


MODELS = {
    INSTANCES: DenseModel(Says(two_objects()), "mask_rcnn", INSTANCES, DOGS),
    SEMANTIC: DenseModel(Says(room()), "segformer", SEMANTIC, ROOM),
    PANOPTIC: DenseModel(Says(park()), "panoptic_fpn", PANOPTIC, PARK),
}


@pytest.fixture
def folder(tmp_path):
    """Two images, one of them in a subfolder, and a text file."""
    inside = tmp_path / "images"
    (inside / "more").mkdir(parents=True)
    for n, path in enumerate((inside / "000000000139.jpg", inside / "more" / "b.png")):
        Image.effect_noise((W, H), 20 + n).convert("RGB").save(path)
    (inside / "notes.txt").write_text("no image")
    return inside


def run(task, folder, out):
    results = create_results(MODELS[task], out)
    found = list(predict(MODELS[task], find_files([folder]), results))
    results.save()
    return found


def test_detections_as_coco_results(folder, tmp_path):
    found = run(INSTANCES, folder, tmp_path / "out")
    entries = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(e["image_id"], e["category_id"]) for e in entries] == [(139, 18), (139, 17), ("b", 18), ("b", 17)]
    assert entries[0]["bbox"] == [6, 4, 24, 16]
    assert entries[0]["score"] == pytest.approx(0.9)
    assert torch.equal(decode_masks([entries[1]["segmentation"]], H, W)[0], two_objects()["masks"][1])
    assert [(row.name, row.box) for row in found[0].rows] == [("dog", (6, 4, 30, 20)), ("cat", (30, 25, 60, 45))]
    assert table(found)[0][1:] == ("dog", "0.90", "6 4 30 20")
    assert Image.open(tmp_path / "out" / "b.png").size == (640, 480)  # enlarged, to be read


def test_coco_reads_the_results(folder, tmp_path):
    pytest.importorskip("pycocotools", reason="needs pycocotools")
    from pycocotools.coco import COCO

    run(INSTANCES, folder / "000000000139.jpg", tmp_path / "out")
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 139, "height": H, "width": W}],
        "annotations": [],
        "categories": [{"id": 17}, {"id": 18}],
    }
    truth.createIndex()
    read = truth.loadRes(str(tmp_path / "out" / "results.json"))
    assert [read.anns[i]["area"] for i in (1, 2)] == [16 * 24, 20 * 30]


def test_semantic_maps_in_ade20ks_layout(folder, tmp_path):
    found = run(SEMANTIC, folder, tmp_path / "out")
    index = np.array(Image.open(tmp_path / "out" / "index" / "000000000139.png"))
    assert (index == room().numpy() + 1).all()
    (first, _) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert first["classes"] == [
        {"id": 1, "name": "wall", "pixels": 30 * W},
        {"id": 2, "name": "floor", "pixels": 18 * W},
    ]
    assert table(found)[0][1:] == ("wall", "62.5 %", "")


def test_panoptic_results_in_cocos_layout(folder, tmp_path):
    run(PANOPTIC, folder, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    entry = content["annotations"][0]
    assert (entry["image_id"], entry["file_name"]) == (139, "000000000139.png")
    assert [(s["id"], s["category_id"], s["area"]) for s in entry["segments_info"]] == [(1000, 18, 300), (2, 193, 1492)]
    assert content["categories"][0] == {"id": 18, "name": "dog", "isthing": 1}
    png = read_panoptic_png(tmp_path / "out" / "panoptic" / entry["file_name"])
    assert (png == park()["panoptic"].numpy()).all()


def test_video(tmp_path):
    pytest.importorskip("av", reason="needs PyAV")
    from fractions import Fraction

    clip = VideoWriter(tmp_path / "clip.mp4", rate=Fraction(5))
    for n in range(4):
        clip.write(Image.new("RGB", (W, H), (60 * n, 0, 0)), None)
    clip.close()
    for task, file in ((INSTANCES, "results.json"), (SEMANTIC, "results.json"), (PANOPTIC, "panoptic.json")):
        out = tmp_path / task
        assert count_pictures([tmp_path / "clip.mp4"]) == 4
        found = run(task, tmp_path / "clip.mp4", out)
        assert [one.frame for one in found] == [0, 1, 2, 3]
        frames = [frame for frame, _ in read_video(out / "clip.mp4")]
        assert len(frames) == 4
        assert len({frame.size for frame in frames}) == 1
        content = json.loads((out / file).read_text())
        entries = content["annotations"] if task == PANOPTIC else content
        assert sorted({e["image_id"] for e in entries}) == [f"clip-{n:06d}" for n in range(4)]
        assert table(found) == [(str(tmp_path / "clip.mp4"), "4 frames", "", "")]
        assert not list(out.glob(".*"))


def test_a_video_is_written_through_a_link(tmp_path):
    pytest.importorskip("av", reason="needs PyAV")
    from fractions import Fraction

    (tmp_path / "disk").mkdir()
    (tmp_path / "clip.mp4").symlink_to(tmp_path / "disk" / "long.mp4")
    clip = VideoWriter(tmp_path / "clip.mp4", rate=Fraction(5))
    clip.write(Image.new("RGB", (W, H)), None)
    clip.close()
    assert (tmp_path / "clip.mp4").is_symlink()
    assert [file.name for file in (tmp_path / "disk").iterdir()] == ["long.mp4"]


def test_video_without_the_extra_names_it(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"litevit\[video\]"):
        count_pictures([tmp_path / "clip.mp4"])


def test_masks_without_the_extra_are_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match=r"litevit\[coco\]"):
        create_results(MODELS[INSTANCES], tmp_path)


def test_broken_files_stop_nothing(folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not really")
    (folder / "zz.mp4").write_bytes(b"no video")
    found = run(INSTANCES, folder, tmp_path / "out")
    assert [bool(one.error) for one in found] == [False, True, False, True]
    assert "broken.jpg" in found[1].error
    assert "zz.mp4 is not a video" in found[3].error
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 4


def test_wrong_files(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_files([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="No images or videos"):
        find_files([tmp_path / "empty"])
    with pytest.raises(ValueError, match="Nothing to predict"):
        find_files([])
    with pytest.raises(ValueError, match="would overwrite"):
        run(INSTANCES, folder / "more" / "b.png", folder / "more")


def test_names_of_results(tmp_path):
    paths = [tmp_path / "a" / "1.jpg", tmp_path / "b" / "1.jpg", tmp_path / "1-2.png"]
    assert [name for name, _ in unique_names(paths)] == ["1", "1-2", "1-2-2"]
    numbers = [tmp_path / "000139.jpg", tmp_path / "139.jpg"]
    assert [name for name, _ in unique_names(numbers)] == ["000139", "139-2"], "one image_id must be one image"
    assert (image_id("000000000139"), image_id("b")) == (139, "b")


def test_an_image_without_objects(folder, tmp_path):
    none = {key: value[:0] for key, value in two_objects().items()}
    dense = MODELS[INSTANCES]._replace(model=Says(none))
    results = create_results(dense, tmp_path / "out")
    found = list(predict(dense, [folder / "more" / "b.png"], results))
    assert results.content() == []
    assert table(found)[0][1] == "nothing found"
    picture = np.asarray(Image.open(tmp_path / "out" / "b.png"))
    assert (picture == np.asarray(draw.to_picture(Image.open(folder / "more" / "b.png")))).all()


# ------------------------------------------------------------------ drawing


def test_boxes_masks_and_labels_are_drawn_where_they_are():
    grey = torch.full((3, 480, 640), 0.5)
    found = two_objects()
    masks = torch.nn.functional.interpolate(found["masks"][None].float(), size=(480, 640))[0].bool()
    picture = draw.draw_detections(grey, found["boxes"] * 10, ["dog 0.90", "cat 0.40"], masks=masks)
    pixels = np.asarray(picture).astype(int)
    first, second = (np.array(draw.colour(n)) for n in (0, 1))
    assert (pixels[40, 100] == first).all()  # edge of the box
    assert (pixels[400, 599] == second).all() or (pixels[400, 600] == second).all()
    assert abs(pixels[120, 180] - (0.55 * 128 + 0.45 * first)).max() <= 2  # inside the mask
    assert (pixels[470, 20] == 128).all()  # outside of everything
    label = pixels[20:38, 62:120].reshape(-1, 3)  # above the first box: its colour, and text on it
    assert (label == first).all(1).mean() > 0.5
    assert (np.abs(label - first).max(1) > 100).any()


def test_labels_do_not_cover_each_other():
    boxes = torch.tensor([[100.0, 100, 300, 300]] * 5)
    pixels = np.asarray(draw.draw_detections(torch.zeros(3, 480, 640), boxes, [f"thing {n}" for n in range(5)]))
    areas = [(pixels == np.array(draw.colour(n))).all(-1).sum() for n in range(1, 5)]  # boxes are under the first
    assert min(areas) > 400


def test_legend_lists_what_is_there():
    labels = torch.zeros(480, 640, dtype=torch.int64)
    labels[:, 320:], labels[:10, :10] = 2, 255
    picture = draw.draw_map(torch.zeros(3, 480, 640), labels, ("wall", "floor", "lamp"))
    panel = np.asarray(picture)[:, 640:].reshape(-1, 3)
    assert picture.width > 640
    present = [bool((panel == np.array(draw.colour(n))).all(1).any()) for n in range(3)]
    assert present == [True, False, True]
    many = draw.beside_legend(Image.new("RGB", (640, 200)), [(f"class {n}", "", draw.colour(n)) for n in range(40)])
    assert many.height == 200  # those that do not fit are counted, the picture does not grow


def test_colours_differ():
    colours = [draw.colour(n) for n in range(24)] + [draw.colour(n, soft=True) for n in range(12)]
    assert len(set(colours)) == len(colours)


# ------------------------------------------------------------- class names


def test_published_class_lists():
    assert (len(COCO_THINGS), len(COCO_STUFF), len(ADE20K), len(set(ADE20K))) == (80, 53, 150, 150)
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    theirs = MaskRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    assert all(theirs[i] == name for i, name in COCO_THINGS.items())
    assert {i for i, name in enumerate(theirs) if name not in ("__background__", "N/A")} == set(COCO_THINGS)
    assert list(COCO_STUFF) == sorted(COCO_STUFF)


def test_class_lists_from_files(tmp_path):
    text = tmp_path / "names.txt"
    text.write_text("cat\ndog\n\n")
    assert read_class_list(text, first_id=1) == ClassList(("cat", "dog"), (1, 2))
    coco = tmp_path / "coco.json"
    coco.write_text(json.dumps({"categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]}))
    assert read_class_list(coco) == DOGS
    things = [{"id": 187, "name": "sky", "isthing": 0}, {"id": 200, "name": "dog", "isthing": 1}]
    coco.write_text(json.dumps(things))
    assert read_class_list(coco) == ClassList(("dog", "sky"), (200, 187), 1)
    coco.write_text('["cat", "dog"]')
    assert read_class_list(coco) == ClassList(("cat", "dog"), (0, 1))
    with pytest.raises(FileNotFoundError):
        read_class_list(tmp_path / "none.txt")
    for content, message in (
        ("{", "is not JSON"),
        ('[{"id": 1}]', "needs 'id', a whole number, and 'name'"),
        ("3", "must be a list"),
    ):
        coco.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_class_list(coco)


# ------------------------------------------------------------------ loading

TINY = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "alpha": 0.5}
HEADS = {
    "retinanet": {"num_classes": 3, "channels": 16},
    "mask_rcnn": {"num_classes": 3, "channels": 16, "box_hidden": 16},
    "semantic_fpn": {"num_classes": 3, "fpn_channels": 16, "head_channels": 16},
    "segformer": {"num_classes": 3, "head_channels": 16},
    "panoptic_fpn": {"num_things": 2, "num_stuff": 1, "channels": 16, "box_hidden": 16, "semantic_channels": 24},
}


@pytest.fixture
def training_run(tmp_path):
    """Weights as a training run leaves them; the model of the recipe says nothing about classes."""

    def write(name):
        options = {"backbone": "litv2_s", **TINY, **HEADS[name]}
        model = litevit.create_model(name, **options)
        overrides = {k: v for k, v in options.items() if k not in ("num_classes", "num_things", "num_stuff")}
        recipe = {
            "task": "detection",
            "model": {"name": name, "overrides": overrides},
            "data": {"path": str(tmp_path / "gone")},
        }
        write_state_dict(model.state_dict(), tmp_path / "best.safetensors", metadata={"recipe": json.dumps(recipe)})
        (tmp_path / "per_class.json").write_text('{"cat": {}, "dog": {}, "sky": {}}')
        return model

    return write


@pytest.mark.parametrize("name", HEADS)
def test_a_training_run_says_model_and_classes(name, training_run, tmp_path):
    written = training_run(name)
    dense = load_dense(None, tmp_path, size=64)
    assert (dense.name, dense.task, dense.classes.names) == (name, task_of(name), ("cat", "dog", "sky"))
    assert task_of(None, tmp_path) == dense.task
    assert dense.classes.num_things == (2 if name == "panoptic_fpn" else None)
    assert dense.classes.ids == ((1, 2, 3) if dense.task == SEMANTIC else (0, 1, 2))
    state = dense.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in written.state_dict().items())
    found = answer(dense, Image.effect_noise((80, 64), 50))
    if dense.task in (SEMANTIC, PANOPTIC):
        assert found["semantic" if dense.task == SEMANTIC else "panoptic"].shape == (64, 80)
    else:
        assert found["boxes"].shape == (len(found["scores"]), 4)


def test_names_of_wrong_length(training_run, tmp_path):
    training_run("segformer")
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    with pytest.raises(ValueError, match="has 2 names, the model 3 classes"):
        load_dense(None, tmp_path, names=names)


def test_wrong_models_and_weights(training_run, tmp_path):
    with pytest.raises(FileNotFoundError, match="not the folder of a finished training run"):
        load_dense("segformer_lvt", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth does not exist"):
        task_of(None, tmp_path / "nothing.pth")
    training_run("segformer")
    with pytest.raises(ValueError, match="no score threshold"):
        load_dense(None, tmp_path, score_threshold=0.5)
    with pytest.raises(ValueError, match="at least 32"):
        load_dense(None, tmp_path, size=8)
    with pytest.raises(ValueError, match="classification model"):
        load_dense("litv2_s", None)
    backbone = litevit.create_backbone("litv2_s", **TINY)
    write_state_dict(backbone.state_dict(), tmp_path / "backbone.safetensors")
    with pytest.raises(ValueError, match="does not say which model"):
        load_dense(None, tmp_path / "backbone.safetensors")
    assert task_of("panoptic_fpn_lvt") == PANOPTIC
    assert task_of("litv2_s") == "classification"
