"""`litevit explain`: its files, and one line for what a user can mend."""

import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import litevit
from litevit.cli import main
from litevit.explain import draw, figures
from litevit.explain.cam import box_score, class_activation, class_score, region_score
from litevit.explain.errors import sheet
from litevit.tasks.detection import prepare_images

pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib (the extra 'explain')")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["offsets"], ["a-offsets", "a-offsets-overview"]),
        (["attention", "--stage", "3", "--block", "1"], ["a-attention-stage-3-block-1-pixel-32-32"]),
        (["frequency", "--stage", "3", "--block", "0"], ["a-frequency", "a-amplitude"]),
        (["features", "--pixel", "3", "4"], ["a-features"]),
    ],
)
def test_pictures_and_arrays(picture: Path, tmp_path: Path, arguments: list[str], files: list[str]) -> None:
    what, *rest = arguments
    out = tmp_path / "out"
    options = ["--weights", "none", "--size", "64", "--paper", "single", "--out", str(out)]
    assert main(["explain", what, str(picture), *rest, *options]) == 0
    wanted = {f"{name}.{kind}" for name in files for kind in ("png", "svg", "pdf", "npz")}
    assert {path.name for path in out.iterdir()} == wanted
    assert b"<text" in (out / f"{files[0]}.svg").read_bytes()  # text, not outlines


def test_the_mean_has_the_published_layout(picture: Path, tmp_path: Path) -> None:
    Image.open(picture).rotate(90).save(tmp_path / "b.png")
    out = tmp_path / "out"
    options = ["--model", "pvt_s_msa", "--weights", "none", "--size", "64", "--out", str(out)]
    assert main(["explain", "attention", str(tmp_path), *options]) == 0
    assert len(list(out.glob("attention_map/stage-*/block*/pixel-*-block-*-head-*.png"))) == 65
    stages = np.load(out / "full_msa_eval_maps.npy", allow_pickle=True)
    assert stages.shape == (4,)
    assert [len(stage) for stage in stages] == [3, 4, 6, 3]
    assert stages[0][0].shape == (1, 256, 256)
    assert stages[3][0].shape == (8, 5, 5)  # with the class token
    np.testing.assert_allclose(stages[2][0].sum(-1), 1, rtol=1e-5)


@pytest.mark.slow
def test_the_mean_of_a_hundred_images_holds_under_two_gibibytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(100):
        Image.fromarray(rng.integers(0, 255, (256, 320, 3), dtype=np.uint8)).save(tmp_path / f"{n}.jpg")
    code = "import resource, sys; from litevit.cli import main; assert main(sys.argv[1:]) == 0; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"  # noqa: E501
    options = ["--model", "pvt_s_msa", "--weights", "none", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-c", code, "explain", "attention", str(tmp_path), *options]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(said.split()[-1]) < 2 * 2**20  # KiB
    assert len(list((tmp_path / "out").glob("attention_map/*/*/*.png"))) == 65


def test_the_mean_refuses_heads_and_pixels_that_are_not_there(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    Image.open(picture).rotate(90).save(tmp_path / "b.png")
    out = tmp_path / "out"
    for option, message in [
        (["--head", "24"], "--head must be 0 to 23 here, got 24"),
        (["--pixel", "0", "0"], "--pixel takes one image"),
        (["--paper", "single"], "PNG and .npy, without --paper"),
        (["--formats", "pdf"], "PNG and .npy, without --formats"),
    ]:
        options = ["--weights", "none", "--size", "64", "--stage", "4", "--out", str(out), *option]
        assert main(["explain", "attention", str(tmp_path), *options]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["offsets", "--model", "lvt"], "no deformable token merging"),
        (["attention", "--stage", "9"], "stage must be 1 to 4, got 9"),
        (["attention", "--stage", "1"], "Block 0 of stage 1 has no attention; stages 3, 4 have"),
        (["attention", "--stage", "3", "--block", "6"], "block must be 0 to 5 in stage 3, got 6"),
        (["attention", "--head", "24"], "--head must be 0 to 23 here, got 24"),
        (["attention", "--pixel", "64", "0"], "--pixel must be in the picture that the model sees, 64 x 64"),
        (["attention", "--model", "pvt_s_msa_remove_1234"], "no attention"),
        (["offsets", "--cells", "2", "2"], "--cells must be in the last map, 2 x 2"),
        (["features", "--pixel", "0", "99"], "--pixel must be"),
        (["errors"], "errors takes one folder"),
        (["errors", "--stage", "3"], "errors does not take --stage"),
        (
            ["offsets", "--label", "0", "--pixel", "1", "1"],
            "offsets does not take --label and --pixel; it takes --cells",
        ),
        (["frequency", "--block", "0"], "--block needs its --stage"),
        (["cam", "--label", "1000"], "--label must be 0 to 999, got 1000"),
        (["cam", "--stage", "5"], "stage must be 1 to 4, got 5"),
        (["cam", "--box", "1"], "--box chooses among the boxes of a detector"),
        (["attention", "--rollout", "--model", "lit_s", "--head", "0"], "leave out --head"),
        (["attention", "--rollout", "--model", "lit_s", "--block", "0"], "leave out --block"),
        (["offsets", "--model", "mask_rcnn_litv2_s", "--published"], "leave it out for this model"),
        (["offsets", "--published"], "leave out --size"),
        (["attention", "--size", "31"], "--size must be at least 32, got 31"),
        (["attention", "--model", "lit_x"], "Unknown model 'lit_x'"),
    ],
)
def test_wrong_input(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    what, *rest = arguments
    out = tmp_path / "out"
    code = main(["explain", what, str(picture), "--weights", "none", "--size", "64", "--out", str(out), *rest])
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Random")]
    assert code == 2
    assert len(error) == 1
    assert message in error[0]
    assert not out.exists()


def test_class_activation_leaves_everything_as_it_was() -> None:
    pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is the reference here (the extra 'dev')")
    torch.manual_seed(0)
    for name in ("lit_ti", "litv2_s", "lvt"):
        model = litevit.create_model(name, num_classes=4)
        parameter = next(model.parameters())
        parameter.grad = kept = torch.ones_like(parameter)
        heat = class_activation(model, torch.randn(3, 64, 96), class_score(2), method="layercam")
        assert heat.shape == (64, 96)
        assert 0 <= heat.min() <= heat.max() <= 1
        assert parameter.grad is kept
        assert torch.equal(kept, torch.ones_like(kept))
        assert model.training
        assert all(p.requires_grad for p in model.parameters())
        assert not any(m._forward_hooks for m in model.modules())
        with pytest.raises(ValueError, match="class must be 0 to 3, got 4"):
            class_activation(model, torch.randn(3, 64, 64), class_score(4))


@pytest.mark.parametrize("name", ["retinanet_litv2_s", "mask_rcnn_litv2_s", "semantic_fpn_litv2_s"])
def test_class_activation_of_dense_models(name: str) -> None:
    pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is the reference here (the extra 'dev')")
    torch.manual_seed(0)
    model = litevit.create_model(name, num_classes=3).eval()
    box = torch.tensor([10.0, 20.0, 50.0, 60.0])
    score = region_score(1) if "semantic" in name else box_score(box, 1)
    heat = class_activation(model, torch.randn(3, 64, 96), score, method="layercam", stage=3)
    assert heat.shape == (64, 96)
    assert heat.max() > 0.9


def test_panoptic_models_say_why_of_boxes_and_of_grounds(tmp_path: Path) -> None:
    """`--label` below the number of things is a box's class, above it a ground's."""
    pytest.importorskip("pytorch_grad_cam", reason="the extra `explain`")
    torch.manual_seed(0)
    options = {"channels": 16, "semantic_channels": 8, "semantic_groups": 2, "resize": False, "box_hidden": 16,
               "score_threshold": 0.1}  # fmt: skip
    model = litevit.create_model("panoptic_fpn", backbone="litv2_s", num_things=2, num_stuff=3, **options).eval()
    image = torch.rand(3, 64, 96)
    names = ["cat", "dog", "grass", "sky", "road"]
    seen = SimpleNamespace(batch=image[None], picture=image.permute(1, 2, 0).numpy(), pixels=image, scale=(1, 1))
    look: Any = SimpleNamespace(
        model=model, task="panoptic segmentation", classes=names, names=names, see=lambda path: seen
    )
    (picture, _) = draw.draw_cam(look, [("a", Path("a.png"))], tmp_path, label=3, stage=3)
    assert picture.name == "a-gradcam-stage-3-class-3.png"
    with np.load(picture.with_suffix(".npz")) as arrays:
        found = class_activation(model, image, region_score(1), stage=3)  # sky is the second of the grounds
        np.testing.assert_array_equal(arrays["activation"], found)
    torch.nn.init.normal_(model.roi_heads.box_head.cls_logits.weight, std=3.0)
    (picture, _) = draw.draw_cam(look, [("a", Path("a.png"))], tmp_path)
    assert picture.name.startswith("a-layercam-stage-3-class-")  # of a box
    with pytest.raises(ValueError, match="--label must be 0 to 4, got 5"):
        draw.draw_cam(look, [("a", Path("a.png"))], tmp_path, label=5)
    with pytest.raises(ValueError, match=r"boxes, 0 to \d+; there is no --box 1000"):
        draw.draw_cam(look, [("a", Path("a.png"))], tmp_path, box=1000)
    torch.nn.init.constant_(model.roi_heads.box_head.cls_logits.weight, 0)
    torch.nn.init.constant_(model.roi_heads.box_head.cls_logits.bias, 0)
    model.roi_heads.score_threshold = 0.9
    with pytest.raises(ValueError, match="finds no box, so there is none to explain; --label 2 to 4 explains a ground"):
        draw.draw_cam(look, [("a", Path("a.png"))], tmp_path)


def test_the_box_is_explained_by_what_became_of_it() -> None:
    """Class order and anchor: the score of a box is the logit that the model found it by."""
    torch.manual_seed(0)
    model = litevit.create_model("retinanet", backbone="litv2_s", num_classes=3, channels=16, resize=False).eval()
    for layer in (model.head.cls_logits, model.head.deltas):
        torch.nn.init.normal_(layer.weight, std=0.3)
        torch.nn.init.zeros_(layer.bias)
    image = torch.rand(3, 64, 96)
    with torch.no_grad():
        (found,) = model([image])
        batch = prepare_images([image], resize=False).images
        assert len(found["labels"].unique()) == 3
        for box, label, score in list(zip(found["boxes"], found["labels"], found["scores"]))[::9]:
            logit = box_score(box, int(label))(model, batch)
            assert float(logit.sigmoid()) == pytest.approx(float(score), abs=1e-5)


def looking(model: torch.nn.Module, image: torch.Tensor) -> SimpleNamespace:
    seen = SimpleNamespace(batch=image[None], picture=image.permute(1, 2, 0).numpy(), pixels=None, scale=(1, 1))
    names = ["a", "b", "c"]
    return SimpleNamespace(model=model, task="classification", classes=None, names=names, see=lambda path: seen)


def test_pixels_of_other_patches(tmp_path: Path) -> None:
    """The digits' model has patches of 2 pixels: strides come from the model."""
    overrides = {"patch_size": 2, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 4, 4)}
    model = litevit.create_model("litv2_s", num_classes=3, **overrides).eval()
    look = looking(model, torch.rand(3, 32, 32))
    images = [("a", Path("a.png"))]
    draw.draw_attention(look, images, tmp_path, where=draw.Where(stage=3), pixel=(31, 9))
    with np.load(tmp_path / "a-attention-stage-3-block-0-pixel-31-9.npz") as arrays:
        assert (arrays["query_row"], arrays["query_column"]) == (1, 3)  # cells of 8 pixels
    draw.draw_offsets(look, images, tmp_path, cells=(1, 0))
    with np.load(tmp_path / "a-offsets.npz") as arrays:  # a new model's offsets are 0
        assert {tuple(xy) for xy in arrays["pixels_1_0"]} == {
            (min(max(x, 1), 30), min(y, 30)) for x in range(1, 17, 2) for y in range(17, 33, 2)
        }
    draw.draw_offsets(look, images, tmp_path)
    with np.load(tmp_path / "a-offsets-overview.npz") as arrays:
        np.testing.assert_array_equal(arrays["density"], 1)
        np.testing.assert_allclose(arrays["mean_xy"], arrays["centres_xy"])
    draw.draw_features(look, images, tmp_path, pixel=(31, 9))
    with np.load(tmp_path / "a-features.npz") as arrays:
        assert [arrays[f"cosine_{i}"][9 // s, 31 // s] for i, s in ((1, 2), (2, 4), (3, 8), (4, 16))] == (
            pytest.approx([1] * 4, abs=1e-5)
        )


@pytest.mark.parametrize(("paper", "inches"), [("single", 3.5), ("double", 7.16)])
def test_a_picture_is_as_wide_as_its_column(tmp_path: Path, paper: Any, inches: float) -> None:
    picture = np.zeros((40, 60, 3))
    figure = figures.attention_figure(
        picture, [("head {head}", np.random.default_rng(0).random((5, 4, 6)))], paper=paper
    )
    figures.save(figure, tmp_path / "a", {}, dpi=200)
    assert Image.open(tmp_path / "a.png").width == pytest.approx(200 * inches, abs=1)


@pytest.mark.parametrize("paper", [None, "single"])
def test_frequencies_of_wide_maps_leave_no_gaps(paper: Any) -> None:
    maps = {name: np.random.default_rng(0).random((8, 16)) for name in ("hi", "lo", "full")}
    figure = figures.frequency_figure([(f"3.{k}", maps) for k in range(6)], paper=paper)
    figure.draw_without_rendering()
    boxes = {round(axis.get_window_extent().y0): axis.get_window_extent() for axis in figure.axes if axis.images}
    used = sum(box.height for box in boxes.values())
    assert used > (0.5 if paper is None else 0.35) * figure.bbox.height


LONG = "cash machine, cash dispenser, automated teller machine, automatic teller machine, automated teller, ATM"


@pytest.mark.parametrize("paper", [None, "double", "single"])
def test_long_names_stay_in_their_picture(paper: Any) -> None:
    picture, heat = np.zeros((40, 40, 3)), np.ones((40, 40))
    figure = figures.cam_figure(picture, heat, f"Grad-CAM, stage 4: {LONG}\nnothing here speaks for it", paper=paper)
    figure.draw_without_rendering()
    left, right = (axis.title.get_window_extent() for axis in figure.axes[:2])
    assert left.x1 < right.x0
    assert right.x1 < figure.bbox.x1
    assert figure.axes[1].get_window_extent().width > 0.35 * figure.bbox.width  # the title took nothing of it


@pytest.mark.parametrize("paper", [None, "double", "single"])
def test_captions_of_errors_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paper: Any) -> None:
    names = [LONG, "Rhodesian-ridgeback-without-a-synonym"]
    for name in names:
        (tmp_path / name).mkdir()
    see = lambda path: SimpleNamespace(batch=torch.zeros(1, 3, 8, 8), picture=np.zeros((8, 8, 3)))  # noqa: E731
    look: Any = SimpleNamespace(task="classification", classes=names, names=names, see=see)
    look.model = lambda batch: torch.tensor([[9.0, 0.0]])  # always the first
    images = [(str(n), tmp_path / names[n % 2] / f"{n}.jpg") for n in range(20)]
    drawn: list[Any] = []
    monkeypatch.setattr("litevit.explain.draw.errors.save", lambda figure, *_: drawn.append(figure) or [])
    draw.draw_errors(look, images, tmp_path, tmp_path / "out", style=figures.Style(paper))
    (figure,) = drawn
    figure.draw_without_rendering()
    boxes = [axis.title.get_window_extent() for axis in figure.axes if axis.title.get_text()]
    assert len(boxes) > 8
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0 or right.x0 < left.x0  # a neighbour, or in the next row
    assert max(box.x1 for box in boxes) < figure.bbox.x1


def test_the_sheet_of_errors() -> None:
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.55, 0.45]])
    rows, arrays = sheet(p, torch.tensor([1, 1, 1, 0]), ["cat", "dog"])
    assert [i for i, _ in rows[0][1]] == [0, 2]  # the surest mistake first
    assert rows[0][1][0][1] == "cat, 90 %\nis dog"
    assert [i for i, _ in rows[1][1]] == [3, 1]
    assert rows[2][0] == "dog\n2 of 3 wrong"
    assert arrays["predicted"].tolist() == [0, 1, 0, 0]
