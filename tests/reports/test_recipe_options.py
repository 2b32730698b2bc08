"""Trouble that users report with the options of `litevit train`: each kind, and what they see now."""

import json

import pytest

from litevit import cli
from litevit.cli.train import read_options
from litevit.recipes import get_recipe

pytest.importorskip("accelerate", reason="training needs accelerate")


def run(capsys, *arguments) -> tuple[int, str, str]:
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stop:  # tyro's help
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def fails(capsys, *arguments) -> str:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("litevit: ")
    assert err.count("\n") == 1, err
    return err


def read(recipe: str, *words):
    return read_options(get_recipe(recipe), [str(word) for word in words], prog="litevit train")[0]


# -------------------------------------------------------------- how options may be written


@pytest.mark.parametrize(
    "words",
    [
        ["--optim.lr", "1e-3", "--run.grad-checkpointing", "True", "--data.hold_out", "0.2"],
        ["--optim.lr=1e-3", "--run.grad_checkpointing", "--data.hold-out=0.2"],
        ["--run.grad_checkpointing=true", "--data.hold_out", "0.2", "--optim.lr", "0.001"],
    ],
)
def test_fields_with_underscores_or_dashes(words):
    recipe = read("finetune", *words)
    assert (recipe.optim.lr, recipe.run.grad_checkpointing, recipe.data.hold_out) == (1e-3, True, 0.2)
    assert recipe.data.augment == get_recipe("finetune").data.augment


def test_switches_take_a_word_or_none():
    assert read("lit_s").run.grad_checkpointing is get_recipe("lit_s").run.grad_checkpointing
    assert read("lit_s", "--run.compile", "--run.fsdp", "True").run.compile is True
    assert read("retinanet_lit_s").run.grad_checkpointing is True
    assert read("retinanet_lit_s", "--run.grad_checkpointing", "False").run.grad_checkpointing is False
    assert read("retinanet_lit_s", "--run.grad_checkpointing", "False").name == "retinanet_lit_s"


def test_the_data_in_short():
    assert read("finetune", "--data", "photos").data.path == "photos"
    assert read("finetune", "--data=photos", "--run.seed", 1).data.path == "photos"
    assert read("finetune", "--data.path", "photos").data.path == "photos"
    assert read("mask_rcnn_lit_s", "--data", "coco").data.path == "coco"


def test_none_lists_and_trackers():
    assert read("quickstart", "--optim.clip_grad", "None").optim.clip_grad is None
    assert read("finetune", "--model.weights", "None").model.weights is None
    assert read("quickstart", "--optim.betas", 0.8, 0.9).optim.betas == (0.8, 0.9)
    assert read("quickstart", "--run.trackers", "tensorboard").run.trackers == ("tensorboard",)
    assert read("quickstart", "--run.trackers", "tensorboard", "wandb").run.trackers == ("tensorboard", "wandb")
    assert read("quickstart", "--run.device", "cuda").run.device == "cuda"
    assert read("quickstart", "--data.augment.auto_augment", "rand-m5").data.augment.auto_augment == "rand-m5"


def test_options_of_the_model():
    recipe = read("quickstart", "--model.overrides.window-sizes", 0, 0, 2, 2, "--model.overrides.alpha=0.3")
    assert recipe.model.overrides == {
        **get_recipe("quickstart").model.overrides,
        "window_sizes": (0, 0, 2, 2),
        "alpha": 0.3,
    }
    recipe = read("quickstart-segmentation", "--model.overrides.test", '{"size": 64}')
    assert recipe.model.overrides["test"] == {"size": 64}
    assert recipe.model.overrides["depths"] == (1, 1, 2, 1)
    assert read("quickstart").model == get_recipe("quickstart").model  # nothing given: nothing changed


# --------------------------------------------------------------------- options that are wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optim.lrr", 1], "Unknown option --optim.lrr. Did you mean --optim.lr?"),
        (["--optim.lrr=1"], "Unknown option --optim.lrr. Did you mean --optim.lr?"),
        (["--run.batch-sise", 1], "Unknown option --run.batch-sise. Did you mean --run.batch_size?"),
        (
            ["--model.overrides.alhpa", 1],
            "Unknown option --model.overrides.alhpa. Did you mean --model.overrides.alpha?",
        ),
        (["--model.alpha", 1], "Unknown option --model.alpha. Did you mean --model.overrides.alpha?"),
        (["--model.backbone", "lvt"], "litv2_s has its own backbone. For another: --model.name lit_s"),
        (["--model.overrides.backbone", "lvt"], "litv2_s has its own backbone. For another: --model.name lit_s"),
        (["--datas", "x"], "Unknown option --datas. Did you mean --data?"),
        (["--qqqqq"], "Unknown option --qqqqq. --help lists them all."),
        (["photos"], "Unexpected argument 'photos'"),
        (["--optim.lr", "fast"], "--optim.lr must be a number, got 'fast'"),
        (["--optim.lr"], "--optim.lr "),  # needs a value; until tyro 1.0.14 the next word is one
        (["--run.compile", "maybe"], "expected True or False, got maybe"),
        (["--optim.name", "adam"], "'adam'"),
        (["--model.overrides.test", "{"], "Unknown option --model.overrides.test"),
        (["--model.name", "litv2_m1"], "Unknown model 'litv2_m1'. Did you mean 'litv2_m'"),
        (
            ["--without", "nothing"],
            "--without nothing: the recipe has no such override of the model. It has: patch_size",
        ),
    ],
)
def test_a_wrong_option_is_one_line(capsys, tmp_path, words, message):
    assert message in fails(capsys, "train", "quickstart", *words, "--run.root", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run.batch_size", 0], "run.batch_size must be greater than or equal to 1, got 0"),
        (["--run.log_every", 0], "run.log_every must be greater than or equal to 1, got 0"),
        (["--run.eval_every", 0], "run.eval_every must be greater than or equal to 1, got 0"),
        (["--run.max_steps", -3], "run.max_steps must be greater than or equal to 1, got -3"),
        (["--schedule.epochs", 0], "schedule.epochs must be greater than or equal to 1, got 0"),
        (["--data.hold_out", 1.5], "data.hold_out must be less than 1, got 1.5"),
        (["--data.crop_pct", 0], "data.crop_pct must be greater than 0, got 0"),
        (["--optim.lr", "nan"], "optim.lr must be a finite number, got nan"),
        (["--run.seed", -1, "--run.workers", -2], "run.seed must be"),
    ],
)
def test_numbers_out_of_range_make_no_run_folder(capsys, tmp_path, words, message):
    assert message in fails(capsys, "train", "quickstart", *words, "--run.root", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_wrong_numbers_in_a_saved_recipe(capsys, tmp_path):
    from litevit.engine.config import to_dict

    values = to_dict(get_recipe("quickstart"))
    values["run"]["batch_size"] = 0
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    said = fails(capsys, "train", tmp_path / "recipe.json", "--run.root", tmp_path / "runs")
    assert "recipe.run.batch_size must be greater than or equal to 1, got 0" in said
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------- another model for a recipe


def test_another_model_drops_the_overrides_it_does_not_have(capsys):
    recipe = read("quickstart-detection", "--model.name", "retinanet")
    given = get_recipe("quickstart-detection").model.overrides
    assert "box_hidden" not in recipe.model.overrides
    assert recipe.model.overrides["embed_dim"] == given["embed_dim"] == 32
    assert "retinanet has no box_hidden" in capsys.readouterr().err
    recipe = read("quickstart", "--model.name", "lit_ti")
    assert "alpha" not in recipe.model.overrides
    assert recipe.model.overrides["depths"] == (1, 1, 2, 1)


def test_a_detector_without_masks_reads_none():
    from litevit.jobs.train import resolve

    assert resolve(read("quickstart-detection", "--model.name", "retinanet")).data.masks is False
    assert resolve(read("quickstart-detection")).data.masks is True
    assert resolve(read("mask_rcnn_litv2_s", "--model.name", "retinanet_litv2_s")).data.masks is False


def test_an_override_of_the_recipe_can_be_removed():
    recipe = read("quickstart", "--without", "alpha", "depths", "--model.overrides.embed_dim", 16)
    assert set(recipe.model.overrides) == {"patch_size", "embed_dim", "num_heads", "drop_path_rate"}
    assert recipe.model.overrides["embed_dim"] == 16


def test_another_backbone_brings_its_own_options():
    words = ("--model.overrides.backbone", "lvt", "--model.overrides.sr_ratios", 8, 4, 2, 1)
    recipe = read("quickstart-detection", *words, "--without", "depths", "num_heads", "embed_dim", "alpha")
    assert recipe.model.overrides["sr_ratios"] == (8, 4, 2, 1)
    assert recipe.model.overrides["backbone"] == "lvt"


def test_a_saved_recipe_with_an_option_that_is_gone(capsys, tmp_path):
    from litevit.engine.config import to_dict

    values = to_dict(get_recipe("quickstart"))
    values["model"]["overrides"]["alhpa"] = 1
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    said = fails(capsys, "train", tmp_path / "recipe.json")
    assert "Unknown option of litv2_s: 'alhpa'. Did you mean 'alpha'?" in said
    words = ["--without", "alhpa", "--show-recipe"]
    code, out, _ = run(capsys, "train", tmp_path / "recipe.json", *words)
    assert code == 0
    assert json.loads(out)["model"]["overrides"].keys() == get_recipe("quickstart").model.overrides.keys()


# -------------------------------------------------------------------------- what is printed


def test_help_has_the_fields_and_no_comments_of_the_source(capsys):
    code, out, _ = run(capsys, "train", "quickstart", "--help")
    assert code == 0
    text = " ".join(out.replace("│", " ").split())
    for words in (
        "on 1,437 digits",  # the recipe's own words
        "--run.device",
        "{auto,cpu,cuda,mps}",
        "auto: CUDA, else MPS, else the CPU",
        "--model.overrides.alpha",
        "--data.augment.mixup",
        "--without",
        "--show-recipe",
    ):
        assert words in text, words
    for leak in ("What follows", "noqa", "fmt:", "task's own dataclass", "ClassificationData"):
        assert leak not in text, leak


def test_show_recipe_prints_it_and_stops(capsys, tmp_path):
    words = ("--run.root", tmp_path / "runs", "--optim.lr", 0.5, "--show-recipe")
    code, out, _ = run(capsys, "train", "quickstart", *words)
    assert code == 0
    shown = json.loads(out)
    assert (shown["optim"]["lr"], shown["run"]["batch_size"]) == (0.5, 64)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "recipe.json").write_text(out)
    assert json.loads(run(capsys, "train", tmp_path / "recipe.json", "--show-recipe")[1]) == shown


@pytest.mark.slow
def test_a_run_keeps_its_recipe_and_does_not_print_it(capsys, tmp_path):
    small = ("--model.overrides.embed-dim", 16, "--model.overrides.num-heads", 1, 1, 2, 4)
    words = (*small, "--run.max-steps", 1, "--run.root", tmp_path, "--run.device", "cpu")
    code, out, err = run(capsys, "train", "quickstart", *words)
    assert code == 0
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "recipe.json").read_text())["model"]["overrides"]["embed_dim"] == 16
    assert "lr_batch" not in out + err
    assert err.splitlines()[0] == "quickstart: classification, litv2_s"
