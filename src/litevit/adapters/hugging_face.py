"""`litevit.adapters.hugging_face.pack`: a model as a folder in Hugging Face's layout, ready for the Hub.

    config.json         timm's configuration, and litevit's part: task, options, classes, preprocessing, metrics, recipe
    model.safetensors   the weights under litevit's keys
    README.md           the model card: what it is, how good, whose, how to use it
    example.jpg         what it answers, or a finished training run's picture

Classifiers open with `timm.create_model("local-dir:FOLDER", pretrained=True)` after `import litevit.adapters.timm`, and
so in transformers' timm wrapper; every model with `litevit.create_model("local-dir:FOLDER")`. `hf upload OWNER/NAME
FOLDER` puts it on the Hub, from where `"hf-hub:OWNER/NAME"` opens the same way.
"""

import errno
import os
import shutil
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from litevit.checkpoints.files import Pathlike, write_state_dict
from litevit.checkpoints.packed import CONFIG, WEIGHTS
from litevit.checkpoints.published import ADOBE, ADOBE_NOTICE, is_file
from litevit.checkpoints.published import WEIGHTS as PUBLISHED
from litevit.data.images import read_image
from litevit.data.scenes import draw_scene
from litevit.deploy.source import Source, open_source
from litevit.files import behind_links, put_in_place, remove_abandoned, temporary_name, write_json, write_text
from litevit.jobs.dense_models import DenseModel
from litevit.jobs.dense_results import create_results
from litevit.jobs.predict import draw, predict
from litevit.jobs.predict_dense import SHOWN, answer
from litevit.jobs.runs import Run, find_run
from litevit.zoo import BACKBONES, GENERIC, MODELS, family_of

CARD, PICTURE = "README.md", "example.jpg"
PICTURES = ("predictions.png", "curves.png")  # of a training run
PIPELINES = {
    "classification": "image-classification",
    "detection": "object-detection",
    "instance segmentation": "image-segmentation",
    "semantic segmentation": "image-segmentation",
    "panoptic segmentation": "image-segmentation",
}


def pack(
    model: Pathlike,
    folder: Pathlike,
    *,
    weights: Pathlike | None = "official",
    num_classes: int | None = None,
    names: Pathlike | None = None,
    image: Pathlike | None = None,
    licence: str | None = None,
    force: bool = False,
) -> Path:
    """Writes a model's folder, whole or not at all.

    Args:
        model: the folder of a training run, its weights file, or a name of `litevit.list_models()`.
        folder: what is written.
        weights: for a name: "official", None or "none" (random), or a checkpoint file.
        num_classes: of the checkpoint, where it is not the published one's.
        names: text file with one class name per line; for dense models also COCO's annotation file.
        image: the picture of the card shows what the model says to it.
        licence: of the weights, as the Hub writes it (`apache-2.0`); None: the published one's, or not stated.
        force: take the place of a folder that is not empty.

    Returns:
        The folder.

    Raises:
        ValueError: the folder is not empty; the model cannot be packed; the licence cannot be what is asked for.
        OSError: no permission or no space; what was there before is untouched.
    """
    target = Path(folder).expanduser()
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file: a packed model is a folder")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise ValueError(f"{target} is not empty: choose another folder, or --force to replace it")
    picture = read_image(image) if image is not None else None  # cannot be read? say so before a model is loaded
    run = _run_of(model, weights)
    name = run.model_name if run is not None else str(model)
    if name.startswith("timm/"):
        raise ValueError(f"{name} is timm's model: timm.models.push_to_hf_hub packs it")
    torch.manual_seed(0)
    source = open_source(
        str(model),
        weights=None if weights is None else str(weights),
        num_classes=num_classes,
        names=None if names is None else str(names),
    )
    about = _about(source, run, weights, licence)
    real = behind_links(target.absolute())
    staged = temporary_name(real)
    try:
        staged.mkdir(parents=True)
        write_state_dict(source.model.state_dict(), staged / WEIGHTS)
        write_json(staged / CONFIG, _config(source, about), indent=2, sync=True)
        shown = _write_picture(source, run, picture, staged)
        write_text(staged / CARD, _card(source, about, run, shown), sync=True)
        _replace(real, staged)
    except OSError as error:
        raise _in_words_of(target, staged, error) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _in_words_of(target: Path, staged: Path, error: OSError) -> OSError:
    """The error, with the folder that was asked for instead of the hidden one, which is gone."""
    full = error.errno == errno.ENOSPC or "No space left" in str(error)
    if not full and staged.name not in str(error):
        return error
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    reason = os.strerror(errno.ENOSPC) if full else cause.strerror or str(cause)
    return OSError(f"Cannot write {target}: {reason}. What was there before is untouched.")


def _run_of(model: Pathlike, weights: Pathlike | None) -> Run | None:
    if str(model) in MODELS or str(model) in GENERIC:
        return find_run(weights)
    return Run.open(model) if Path(model).exists() else None


def _replace(target: Path, staged: Path) -> None:
    """Puts the new folder where the old one is; that one is gone last."""
    old = temporary_name(target.absolute())
    if target.is_dir():
        put_in_place(target, old)
    try:
        put_in_place(staged, target)
    except OSError:
        if old.is_dir():
            put_in_place(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    remove_abandoned(target.absolute())  # of a process that was killed here: what it was writing, and what it had moved


# -------------------------------------------------------------------- config


def _about(source: Source, run: Run | None, weights: Pathlike | None, licence: str | None) -> dict[str, Any]:
    """litevit's part of the configuration."""
    made_from_adobe = source.notice is not None or _starts_from_adobe(run)
    if made_from_adobe and licence is not None:
        raise ValueError(f"The licence cannot be chosen: {ADOBE_NOTICE}")
    classes = source.classes
    assert classes is not None
    assert source.preprocessing is not None
    found: dict[str, Any] = {
        "version": sys.modules["litevit"].__version__,
        "task": _task(source),
        "options": options_of(source, run),
        "classes": list(classes.names),
        "class_ids": list(classes.ids),
        "num_things": classes.num_things,
        "preprocessing": asdict(source.preprocessing),
        "licence": ADOBE if made_from_adobe else licence or source.licence,
        "notice": ADOBE_NOTICE if made_from_adobe else None,
        "source": source.source,
        "random": weights in (None, "none") and run is None,
        "metrics": dict(run.metrics) if run is not None else {},
        "recipe": _without_folders(run.saved) if run is not None else {},
    }
    return {key: value for key, value in found.items() if key == "options" or value not in (None, {}, False)}


def _without_folders(value: Any) -> Any:
    """A recipe for other people: of whole paths the last part, which says nothing of the machine it ran on."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _starts_from_adobe(run: Run | None) -> bool:
    """A run that was started from LVT's published weights. Of a file that it was started from nothing is known, so
    LVT's are taken to be Adobe's: nobody else has published any."""
    start = None if run is None else run.saved["model"].get("weights")
    if run is None or start in (None, "none"):
        return False
    backbone = run.saved["model"]["overrides"].get("backbone")
    names = [run.model_name, backbone, MODELS[run.model_name].backbone_name if run.model_name in MODELS else None]
    return any(name in PUBLISHED and PUBLISHED[name].licence == ADOBE for name in names)


def _task(source: Source) -> str:
    return MODELS[source.name].task.name if source.name in MODELS else GENERIC[source.name].name


def options_of(source: Source, run: Run | None) -> dict[str, Any]:
    """What `create_model(source.name, **options)` needs to make this model: the fields that differ from its own."""
    model: Any = source.model
    if source.name in MODELS:
        entry = MODELS[source.name]
        return _difference(model.backbone.config, entry.backbone) | _difference(model.config, entry.head)
    task = GENERIC[source.name]
    backbone = run.overrides.get("backbone") if run is not None else None
    if backbone is None:
        raise ValueError(f"{source.name} needs a backbone: pack a training run, or a model that has one")
    found = {"backbone": backbone, **_difference(model.config, task.config())}
    if backbone in BACKBONES:
        own = BACKBONES[backbone]
        found |= _difference(model.backbone.config, family_of(own).dense(own, task.out_norms))
    return found


def _difference(config: Any, own: Any) -> dict[str, Any]:
    changed = {
        f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) != getattr(own, f.name)
    }
    return {key: asdict(value) if hasattr(value, "__dataclass_fields__") else value for key, value in changed.items()}


def _config(source: Source, about: dict[str, Any]) -> dict[str, Any]:
    model: Any = source.model
    mine = {"architecture": source.name, "litevit": about}
    if about["task"] != "classification":
        return mine
    from litevit.adapters.timm import default_cfgs

    how = about["preprocessing"]
    published = default_cfgs[source.name].default.to_dict()
    kept = ("first_conv", "classifier", "min_input_size")
    told = {key: published[key] for key in kept if published.get(key) is not None}
    told |= {key: how[key] for key in ("crop_pct", "crop_mode", "interpolation", "mean", "std")}
    channels = model.backbone.config.in_chans
    told |= {"input_size": [channels, how["size"], how["size"]], "num_classes": model.num_classes}
    told |= {"pool_size": [how["size"] // 32] * 2, "license": about.get("licence"), "origin_url": about.get("source")}
    return {
        "architecture": source.name,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "label_names": about["classes"],
        "model_args": {key: value for key, value in about["options"].items() if key != "num_classes"},
        "pretrained_cfg": {key: value for key, value in told.items() if value is not None},
        **mine,
    }


# ---------------------------------------------------------------------- card


def _write_picture(source: Source, run: Run | None, image: Image.Image | None, folder: Path) -> str | None:
    """`example.jpg`. Returns: what it shows; None: there is none."""
    if image is None and run is not None:
        for name in PICTURES:
            if (run.folder / name).is_file():
                _save(read_image(run.folder / name), folder)
                return "Held-out images with the model's answers." if name == PICTURES[0] else "The training run."
    what = "The model's answer to a picture."
    if image is None:
        image, what = Image.fromarray(draw_scene(0).image), "The model's answer to a drawn scene."
    if _task(source) == "classification":
        image.save(folder / "answer.png")
        assert source.preprocessing is not None
        assert source.classes is not None
        names = source.classes.names
        (found,) = predict(
            source.model, [folder / "answer.png"], source.preprocessing, names=names, top=min(5, len(names))
        )
        page = read_image(draw(found, folder, name="drawn"))
        (folder / "answer.png").unlink()
        (folder / "drawn.png").unlink()
    else:
        dense = DenseModel(source.model.eval(), source.name, _task(source), source.classes)  # type: ignore[arg-type]
        page = create_results(dense, keep=False).draw(image, _clear(answer(dense, image))).convert("RGB")
    _save(page, folder)
    return what


def _clear(found: dict[str, Any]) -> dict[str, Any]:
    """Of detections those that `litevit predict` shows."""
    if "boxes" not in found or "panoptic" in found:
        return found
    shown = found["scores"] >= SHOWN
    return {key: value[shown] for key, value in found.items() if key in ("boxes", "scores", "labels", "masks")}


def _save(page: Image.Image, folder: Path) -> None:
    page.thumbnail((1200, 1600))  # a card is read in a browser
    page.save(folder / PICTURE, quality=85)


def _card(source: Source, about: dict[str, Any], run: Run | None, shown: str | None) -> str:
    from huggingface_hub import ModelCard, ModelCardData

    task, licence = about["task"], about.get("licence")
    adobe = licence == ADOBE
    spelled = "other" if adobe else licence.lower() if licence else None  # the Hub's words
    extra = (
        {"license_name": "adobe-non-commercial-research", "license_link": about["source"]}
        if adobe and "source" in about
        else {}
    )
    if adobe and not extra:
        extra = {"license_name": "adobe-non-commercial-research"}
    data = ModelCardData(
        license=spelled,
        library_name="timm" if task == "classification" else "litevit",
        pipeline_tag=PIPELINES[task],
        tags=["litevit", source.name, task.replace(" ", "-")],
        **extra,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(source, about, run, shown)}"))


def _body(source: Source, about: dict[str, Any], run: Run | None, shown: str | None) -> str:
    task, names = about["task"], about["classes"]
    count = sum(parameter.numel() for parameter in source.model.parameters())
    lines = [f"# {source.name}: {task}", ""]
    lines += [f"A {task} model of [litevit](https://pypi.org/project/litevit/), {count / 1e6:.1f} million parameters."]
    if about.get("random"):
        lines += ["", "**Its weights are random: what it says means nothing.**"]
    if shown:
        lines += ["", f"![{shown}]({PICTURE})", "", f"*{shown}*"]
    lines += ["", "## Classes", "", _listed(names)]
    lines += ["", "## Data and metrics", "", *_told(source, about, run)]
    lines += ["", "## Preprocessing", "", *_prepared(about["preprocessing"], task)]
    lines += ["", "## How to use it", "", _usage(task)]
    lines += ["", "## Licence", "", about.get("licence") or "Not stated by whoever packed it."]
    if "notice" in about:
        lines += ["", f"**{about['notice'][0].upper()}{about['notice'][1:]}.**"]
    if "source" in about:
        lines += ["", f"Made by: {about['source']}."]
    return "\n".join(lines) + "\n"


def _listed(names: list[str], most: int = 40) -> str:
    more = f", and {len(names) - most} more (all in `{CONFIG}`)" if len(names) > most else ""
    return f"{len(names)}: {', '.join(names[:most])}{more}."


def _told(source: Source, about: dict[str, Any], run: Run | None) -> list[str]:
    known = PUBLISHED.get(source.name)
    if run is None:
        if about.get("random") or known is None or "source" not in about:
            return ["Nothing is known about the training of these weights."]
        figures = [f"| {key} | {value} |" for key, value in known.published.items()]
        return [f"Published figures ({known.source}):", "", "| figure | value |", "|---|---|", *figures]
    data, start = run.saved["data"], run.saved["model"].get("weights")
    begun = f"started from {'a file' if is_file(start) else f'the {start} weights'}" if start else "from random weights"
    rows = [
        f"| {key} | {value:.4g} |" for key, value in about.get("metrics", {}).items() if isinstance(value, int | float)
    ]
    where = data["path"] if str(data["path"]).startswith("embedded:") else Path(data["path"]).name
    table = ["", "Of the held-out images:", "", "| metric | value |", "|---|---|", *rows] if rows else []
    return [f"Trained on `{where}`, {begun}; the whole recipe stands in `{CONFIG}`.", *table]


def _prepared(how: dict[str, Any], task: str) -> list[str]:
    if task != "classification":
        return [f"RGB in [0, 1]; the model resizes (short and long side {list(how['size'])}) and normalises itself."]
    return [
        f"{how['size']} x {how['size']} pixels, {how['interpolation']}, crop {how['crop_pct']} ({how['crop_mode']}), "
        f"mean {list(how['mean'])}, standard deviation {list(how['std'])}."
    ]


def _usage(task: str) -> str:
    command = "litevit predict IMAGE --model hf-hub:OWNER/NAME        # or local-dir:FOLDER"
    lines = ["```", "pip install litevit", command, "```", "", "```python", "import litevit", ""]
    lines += ['model = litevit.create_model("hf-hub:OWNER/NAME").eval()   # or "local-dir:FOLDER"']
    if task == "classification":
        lines += [
            "",
            "import litevit.adapters.timm  # makes the architecture known to timm and transformers",
            "import timm",
        ]
        lines += ['model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True).eval()', ""]
        lines += [
            "from transformers import pipeline",
            'classify = pipeline("image-classification", model="OWNER/NAME")',
        ]
    return "\n".join([*lines, "```"])
