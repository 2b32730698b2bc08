"""Every kind of picture file through every path into a model: the same array, bit for bit where nothing is resized.

`python tests/datasets/test_every_path.py` prints the table that docs/data.md shows.
"""

import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import litevit
from litevit.checkpoints.preprocessing import Preprocessing
from litevit.data.ade20k import ade20k
from litevit.data.classification import ClassificationData, create_dataset
from litevit.data.coco import CocoInstances
from litevit.data.coco_masks import write_panoptic_png
from litevit.data.coco_panoptic import CocoPanoptic
from litevit.data.images import has_heic
from litevit.data.token_labels import TokenLabelImages, label_map_path
from litevit.jobs import predict as classify
from litevit.jobs import predict_dense
from litevit.jobs.token_labels import make_token_labels
from litevit.jobs.videos import read_video

SIDE = 32
Kinds = dict[str, tuple[str, bytes, np.ndarray]]  # name -> file ending, content, what a person sees (H, W, 3)


# ----------------------------------------------------------------- the files


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """For alphas of 0 and 255, where there is nothing to round."""
    return np.where(alpha[..., None] == 255, rgb, 255).astype(np.uint8)


def decoded(content: bytes) -> np.ndarray:
    """Pillow's own reading of a lossy file that needs nothing else."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def kinds_of_files() -> Kinds:
    rng = np.random.default_rng(7)
    rgb = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    grey = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    deep = rng.integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)
    alpha = rng.choice(np.array([0, 255], dtype=np.uint8), (SIDE, SIDE))
    smooth = Image.fromarray(rgb[:4, :4]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    picture, other = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    palette = Image.fromarray(grey % 7).convert("P")
    palette.putpalette([*rng.integers(0, 256, 21).tolist()])
    colours = np.array(palette.getpalette()[:21], dtype=np.uint8).reshape(7, 3)[grey % 7]
    three = np.repeat(grey[..., None], 3, -1)
    deep3 = np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, -1)
    jpeg, cmyk, avif = encoded(smooth, "JPEG"), encoded(smooth.convert("CMYK"), "JPEG"), encoded(smooth, "AVIF")
    kinds = {
        "JPEG": (".jpg", jpeg, decoded(jpeg)),
        "JFIF": (".jfif", jpeg, decoded(jpeg)),
        "PNG": (".png", encoded(picture, "PNG"), rgb),
        "WebP": (".webp", encoded(picture, "WEBP", lossless=True), rgb),
        "BMP": (".bmp", encoded(picture, "BMP"), rgb),
        "TIFF": (".tif", encoded(picture, "TIFF"), rgb),
        "PPM": (".ppm", encoded(picture, "PPM"), rgb),
        "AVIF": (".avif", avif, decoded(avif)),
        "GIF": (".gif", encoded(palette, "GIF"), colours),
        "JPEG, EXIF 6": (".JPG", encoded(smooth, "JPEG", exif=turned(6)), np.rot90(decoded(jpeg), -1)),
        "PNG, EXIF 3": (".png", encoded(picture, "PNG", exif=turned(3)), rgb[::-1, ::-1]),
        "WebP, EXIF 5": (".webp", encoded(picture, "WEBP", lossless=True, exif=turned(5)), rgb.swapaxes(0, 1)),
        "TIFF, EXIF 8": (".tiff", encoded(picture, "TIFF", exif=turned(8)), np.rot90(rgb)),
        "PNG, 16-bit grey": (".png", encoded(Image.fromarray(deep), "PNG"), deep3),
        "TIFF, 16-bit grey": (".tif", encoded(Image.fromarray(deep), "TIFF"), deep3),
        "PGM, 16-bit": (".pgm", b"P5 %d %d 65535\n" % (SIDE, SIDE) + deep.astype(">u2").tobytes(), deep3),
        "PNG, alpha": (".png", encoded(Image.fromarray(np.dstack([rgb, alpha])), "PNG"), on_white(rgb, alpha)),
        "PNG, grey and alpha": (".png", encoded(grey_alpha(grey, alpha), "PNG"), on_white(three, alpha)),
        "PNG, palette": (".png", encoded(palette, "PNG"), colours),
        "PNG, transparent index": (
            ".png",
            encoded(palette, "PNG", transparency=2),
            np.where((grey % 7 == 2)[..., None], 255, colours).astype(np.uint8),
        ),
        "PNG, grey": (".png", encoded(Image.fromarray(grey), "PNG"), three),
        "PNG, bilevel": (".png", encoded(Image.fromarray(grey > 127), "PNG"), (three > 127).astype(np.uint8) * 255),
        "JPEG, CMYK": (".jpeg", cmyk, decoded(cmyk)),
        "GIF, animated": (".gif", encoded(palette, "GIF", save_all=True, append_images=[other.quantize(7)]), colours),
        "WebP, animated": (
            ".webp", encoded(picture, "WEBP", lossless=True, save_all=True, append_images=[other]), rgb
        ),
    }  # fmt: skip
    if has_heic():
        heic = encoded(smooth, "HEIF")
        kinds["HEIC"] = (".heic", heic, decoded(heic))
    return kinds


def grey_alpha(grey: np.ndarray, alpha: np.ndarray) -> Image.Image:
    image = Image.fromarray(grey)
    image.putalpha(Image.fromarray(alpha))
    return image


# ----------------------------------------------------------------- the paths
#
# Each takes the files and an empty folder, and gives the array (H, W, 3) uint8 of each kind as a model would get it.

Path_ = Callable[[Kinds, Path], dict[str, np.ndarray]]
PREPARED = {"image_size": SIDE, "crop_pct": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def stem(kind: str) -> str:
    return kind.lower().replace(", ", "_").replace(" ", "-")


def write_files(kinds: Kinds, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, (ending, content, _) in kinds.items():
        paths.append(folder / f"{stem(kind)}{ending}")
        paths[-1].write_bytes(content)
    return paths


def by_name(kinds: Kinds, found: dict[str, Any]) -> dict[str, np.ndarray]:
    """From file stems to kinds."""
    assert len(found) == len(kinds), f"{len(found)} of {len(kinds)} files came through"
    return {kind: np.asarray(found[stem(kind)]) for kind in kinds}


def pixels(tensor: torch.Tensor) -> np.ndarray:
    """Of a picture in [0, 1] that was 8 bits."""
    values = tensor.detach().as_subclass(torch.Tensor).permute(1, 2, 0) * 255
    assert (values - values.round()).abs().max() < 1e-3  # nothing was resized on the way
    return values.round().to(torch.uint8).numpy()


def folder_data(kinds: Kinds, folder: Path) -> ClassificationData:
    write_files(kinds, folder / "val" / "a")
    (folder / "val" / "b").mkdir()
    (folder / "val" / "b" / "other.png").write_bytes(kinds["PNG"][1])
    return ClassificationData(path=str(folder), num_classes=2, **PREPARED)


def read_dataset(kinds: Kinds, data: ClassificationData, **options: Any) -> dict[str, np.ndarray]:
    dataset = create_dataset(data, "eval", **options)
    found = {Path(dataset.key(i)).stem: pixels(dataset[i][0]) for i in range(len(dataset))}
    found.pop("other", None)
    return by_name(kinds, found)


def class_folder(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    return read_dataset(kinds, folder_data(kinds, folder))


def tar(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    folder_data(kinds, folder / "unpacked")
    with tarfile.open(folder / "val.tar", "w") as archive:
        archive.add(folder / "unpacked" / "val", arcname="val")
    return read_dataset(kinds, ClassificationData(path=str(folder / "val.tar"), num_classes=2, **PREPARED))


def tar_of_each_class(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    folder_data(kinds, folder / "unpacked")
    (folder / "tars").mkdir()
    for name in ("a", "b"):
        with tarfile.open(folder / "tars" / f"{name}.tar", "w") as archive:
            archive.add(folder / "unpacked" / "val" / name, arcname=".")
    return read_dataset(kinds, ClassificationData(path=str(folder / "tars"), num_classes=2, **PREPARED))


def shard(kinds: Kinds, folder: Path, *, stream: bool = False) -> dict[str, np.ndarray]:
    with tarfile.open(folder / "val-0.tar", "w") as archive:
        for kind, (ending, content, _) in kinds.items():
            for name, body in ((f"{stem(kind)}{ending}", content), (f"{stem(kind)}.cls", b"1")):
                member = tarfile.TarInfo(name)
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
    data = ClassificationData(path=str(folder), reader="wds", stream=stream, num_classes=2, **PREPARED)
    if not stream:
        return read_dataset(kinds, data)
    return dict(zip(kinds, (pixels(image) for image, _ in create_dataset(data, "eval")), strict=True))


def streamed_shard(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    return shard(kinds, folder, stream=True)


def hugging_face(kinds: Kinds, folder: Path, *, stream: bool = False) -> dict[str, np.ndarray]:
    datasets = pytest.importorskip("datasets", reason="the datasets package is not installed")
    rows = {"img": [{"bytes": content, "path": None} for _, content, _ in kinds.values()], "kind": [0] * len(kinds)}
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "hf" / "test.parquet")
    data = ClassificationData(
        reader=f"hfds/{folder / 'hf'}", path=str(folder / "cache"), stream=stream, num_classes=2, **PREPARED
    )
    dataset = create_dataset(data, "eval")
    items = dataset if stream else (dataset[i] for i in range(len(dataset)))
    return dict(zip(kinds, (pixels(image) for image, _ in items), strict=True))


def streamed_hugging_face(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    return hugging_face(kinds, folder, stream=True)


def coco_records(paths: list[Path]) -> list[dict[str, Any]]:
    return [{"id": i, "file_name": path.name, "height": SIDE, "width": SIDE} for i, path in enumerate(paths, start=1)]


def coco(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    paths = write_files(kinds, folder / "images")
    content = {"images": coco_records(paths), "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    dataset = CocoInstances(folder / "images", folder / "instances.json")
    return dict(zip(kinds, (dataset[i][0].permute(1, 2, 0).numpy() for i in range(len(dataset))), strict=True))


def panoptic(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    paths = write_files(kinds, folder / "images")
    (folder / "panoptic").mkdir()
    segment = {"id": 5, "category_id": 1, "bbox": [0, 0, SIDE, SIDE], "area": SIDE * SIDE, "iscrowd": 0}
    annotations = []
    for record in coco_records(paths):
        name = f"{record['id']}.png"
        write_panoptic_png(folder / "panoptic" / name, np.full((SIDE, SIDE), 5, dtype=np.int64))
        annotations.append({"image_id": record["id"], "file_name": name, "segments_info": [segment]})
    categories = [{"id": 1, "name": "a", "isthing": 1}, {"id": 2, "name": "b", "isthing": 0}]
    content = {"images": coco_records(paths), "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content))
    dataset = CocoPanoptic(folder / "images", folder / "panoptic.json")
    return dict(zip(kinds, (dataset[i][0].permute(1, 2, 0).numpy() for i in range(len(dataset))), strict=True))


def masks(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    paths = write_files(kinds, folder / "images" / "validation")
    (folder / "annotations" / "validation").mkdir(parents=True)
    for path in paths:
        mask = Image.fromarray(np.ones((SIDE, SIDE), dtype=np.uint8))
        mask.save(folder / "annotations" / "validation" / f"{path.stem}.png")
    dataset = ade20k(folder, "validation", classes=("a", "b"))
    return by_name(kinds, {dataset.image_id(i): dataset[i][0].permute(1, 2, 0).numpy() for i in range(len(dataset))})


class Camera(nn.Module):
    """A classifier that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.seen: list[torch.Tensor] = []

    def forward(self, images: Any) -> Any:
        self.seen += list(images)
        return torch.zeros(len(images), 2)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:  # as timm's
        self.seen += list(images)
        return torch.zeros(len(images), 2, 4, 4)

    def forward_head(self, cells: torch.Tensor) -> torch.Tensor:
        return cells.flatten(1)


def predict(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    paths = write_files(kinds, folder)
    camera, how = Camera(), Preprocessing(size=SIDE, crop_pct=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    results = list(classify.predict(camera, paths, how, names=("a", "b")))
    assert not [result.error for result in results if result.error]
    assert classify.find_images([folder]) == sorted(paths)
    return dict(zip(kinds, map(pixels, camera.seen), strict=True))


def predict_detector(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    paths = write_files(kinds, folder)
    camera = Camera()
    dense = SimpleNamespace(model=lambda images: (camera(images), [{}])[1], task="detection")
    dense.model.parameters = camera.parameters  # type: ignore[attr-defined]
    results = SimpleNamespace(folder=None, add=lambda name, found: ())
    found = list(predict_dense.predict(dense, paths, results))  # type: ignore[arg-type]
    assert not [one.error for one in found if one.error]
    return dict(zip(kinds, map(pixels, camera.seen), strict=True))


def token_label_training(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    data = folder_data(kinds, folder / "images")
    (folder / "images" / "val").rename(folder / "images" / "train")
    (folder / "images" / "val" / "a").mkdir(parents=True)
    options = {**PREPARED, "path": data.path, "num_classes": 2, "eval_split": "train"}
    dataset = TokenLabelImages(ClassificationData(**options, token_labels=str(folder)))
    dataset.transform = lambda image, maps, label: image  # type: ignore[assignment, return-value]
    found = {}
    for i in range(len(dataset)):
        path = label_map_path(folder, dataset.images.key(i))
        path.parent.mkdir(exist_ok=True)
        torch.save(torch.zeros(2, 1, 6, 6), path)
        found[path.stem] = dataset[i]
    found.pop("other")
    return by_name(kinds, found)


def token_label_making(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    data = folder_data(kinds, folder / "images")
    camera = Camera()
    make_token_labels(camera, data.path, folder / "maps", split="val", image_size=SIDE, grid=4, workers=0)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (ClassificationData().mean, ClassificationData().std))
    order = create_dataset(data, "eval")
    found = {Path(order.key(i)).stem: pixels(seen * std + mean) for i, seen in enumerate(camera.seen)}
    found.pop("other")
    return by_name(kinds, found)


def video(kinds: Kinds, folder: Path) -> dict[str, np.ndarray]:
    """A video has no kinds: what is seen of each is put into one without loss."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(folder / "frames.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "bgr0"
        for _, _, seen in kinds.values():
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(seen), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return dict(zip(kinds, (np.asarray(image) for image, _ in read_video(folder / "frames.mkv")), strict=True))


PATHS: dict[str, Path_] = {
    "class folder": class_folder, "tar": tar, "tar per class": tar_of_each_class, "shard": shard,
    "streamed shard": streamed_shard, "Hugging Face": hugging_face, "streamed": streamed_hugging_face,
    "COCO": coco, "panoptic": panoptic, "masks": masks, "predict, classifier": predict,
    "predict, detector": predict_detector, "token labels, training": token_label_training,
    "token labels, making": token_label_making, "video frame": video,
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_the_same_picture_on_every_path(path, tmp_path):
    kinds = kinds_of_files()
    found = PATHS[path](kinds, tmp_path)
    different = [kind for kind, (_, _, seen) in kinds.items() if not np.array_equal(found[kind], seen)]
    assert not different


def test_the_kinds_are_what_they_are_called():
    """Otherwise the table would be of PNGs only."""
    modes = {kind: Image.open(io.BytesIO(content)) for kind, (_, content, _) in kinds_of_files().items()}
    assert {kind: image.mode for kind, image in modes.items() if image.mode not in ("RGB", "P")} == {
        "PNG, 16-bit grey": "I;16", "TIFF, 16-bit grey": "I;16", "PGM, 16-bit": "I", "PNG, alpha": "RGBA",
        "PNG, grey and alpha": "LA", "PNG, grey": "L", "PNG, bilevel": "1", "JPEG, CMYK": "CMYK",
    }  # fmt: skip
    assert {kind for kind, image in modes.items() if getattr(image, "n_frames", 1) == 2} == {
        "GIF, animated", "WebP, animated",
    }  # fmt: skip
    turns = {kind: image.getexif().get(0x0112, 1) for kind, image in modes.items()}
    assert {kind: turn for kind, turn in turns.items() if turn > 1} == {
        "JPEG, EXIF 6": 6, "PNG, EXIF 3": 3, "WebP, EXIF 5": 5, "TIFF, EXIF 8": 8,
    }  # fmt: skip


def test_nobody_else_opens_pictures():
    """Masks are no pictures: their values are classes. The doctor looks at headers too."""
    root = Path(litevit.__file__).parent
    opening = {path.relative_to(root) for path in root.rglob("*.py") if "Image.open(" in path.read_text()}
    others = {path for path in opening if not path.as_posix().startswith("data/doctor")}
    assert others <= {Path("data/images.py"), Path("data/coco_masks.py"), Path("data/mask_labels.py")}


def main() -> None:
    kinds = kinds_of_files()
    columns = {}
    for name, path in PATHS.items():
        with tempfile.TemporaryDirectory() as folder:
            columns[name] = path(kinds, Path(folder))
    print("| file | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for kind, (_, _, seen) in kinds.items():
        cells = ["=" if np.array_equal(found[kind], seen) else "**differs**" for found in columns.values()]
        print(f"| {kind} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    sys.exit(main())
