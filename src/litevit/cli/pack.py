"""`litevit pack`."""

import sys
from pathlib import Path

from tyro.conf import Positional

from litevit.cli.terminal import plain_word, refuse_for_run


def pack(
    model: Positional[str],
    folder: Positional[Path],
    *,
    weights: str | None = None,
    num_classes: int | None = None,
    names: Path | None = None,
    image: Path | None = None,
    licence: str | None = None,
    force: bool = False,
) -> None:
    """Writes a model as a folder in Hugging Face's layout: configuration, weights and a model card.

    Args:
        model: folder of a training run, or name of a model.
        folder: what is written; timm, transformers and litevit open it as local-dir:FOLDER, `hf upload` puts it on the
            Hub.
        weights: of a name: 'official' (the default; downloaded once), 'none' (random), a checkpoint file, or a training
            run.
        num_classes: of the checkpoint, where it is not the published one's.
        names: text file with one class name per line; for detectors and segmenters also COCO's annotation file.
        image: the card shows what the model says to it; default: the run's picture, or a drawn scene.
        licence: of the weights, such as apache-2.0; default: that of the published ones, or not stated.
        force: replace a folder that is not empty.
    """
    from litevit.adapters.hugging_face import pack as write

    refuse_for_run(model, {"weights": weights, "num_classes": num_classes})
    weights = plain_word(weights or "official")
    if weights == "none":
        print("Random weights: the packed model will mean nothing.", file=sys.stderr)
    target = write(
        model,
        folder,
        weights=None if weights == "none" else weights,
        num_classes=num_classes,
        names=names,
        image=image,
        licence=licence,
        force=force,
    )
    print(f"Packed {model} in {target}; litevit.create_model('local-dir:{target}') opens it")
