"""`litevit token-labels`."""

from pathlib import Path

from tyro.conf import Positional

from litevit.cli.terminal import Device, progress_bar, refuse


def token_labels(
    model: Positional[str],
    data: Positional[str],
    out: Positional[Path],
    *,
    weights: str | None = None,
    num_classes: int | None = None,
    reader: str = "",
    split: str = "train",
    size: int = 576,
    grid: int = 18,
    k: int = 5,
    batch_size: int = 16,
    workers: int = 4,
    device: Device = "auto",
) -> None:
    """Writes label maps for token labelling, made by any classifier; an interrupted run is continued.

    Args:
        model: name of ours, or timm's as timm/NAME.
        data: images to label: folder, tar or shards, as for training.
        out: folder for the maps.
        weights: of our model: 'official' (also 'imagenet'), a checkpoint file or a training run's folder; timm's models
            bring their own.
        num_classes: of the checkpoint of our model, where it is not the published one's.
        reader: how timm reads the data: '' (folder or tar), 'wds', 'hfds/NAME'.
        split: of the data.
        size: side the images are resized to; 576 gives 18 x 18 positions at stride 32.
        grid: cells per side of a map.
        k: classes kept per cell.
        batch_size: images at a time.
        workers: processes that read images.
        device: where to run.
    """
    least = {"size": (size, 32), "grid": (grid, 1), "k": (k, 1), "batch_size": (batch_size, 1), "workers": (workers, 0)}
    for name, (value, low) in least.items():
        if value < low:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {low}, got {value}")
    if model.startswith("timm/"):
        refuse({"num_classes": num_classes}, f"for our models; {model} knows its classes")
    from litevit.devices import find_device
    from litevit.jobs.token_labels import make_token_labels

    with progress_bar("images", quiet=False) as advance:
        written = make_token_labels(
            model,
            data,
            out,
            weights=weights,
            num_classes=num_classes,
            reader=reader,
            split=split,
            image_size=size,
            grid=grid,
            k=k,
            batch_size=batch_size,
            workers=workers,
            device=find_device(device),
            on_progress=advance,
        )
    print(f"Wrote {written} label maps to {out}")
