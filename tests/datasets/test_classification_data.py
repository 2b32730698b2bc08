"""Sources, splits, unreadable images, transforms, sampling."""

import functools
import hashlib
import io
import json
import operator
import random
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from litevit.data.classification import (
    Augment,
    ClassCountError,
    ClassificationData,
    ClassificationImages,
    count_classes,
    create_dataset,
    eval_transform,
    held_out_indices,
    numeric_class_order,
    real_label_sets,
    train_transform,
)
from litevit.data.embedded import DIGITS, Digits, digits_split
from litevit.data.sampling import BatchStream, SampleKey, SeededDataset, Unreadable, epoch_order, epoch_size, shard
from litevit.data.shards import WebDatasetReader, expand_shards


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (20, 16)) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def folder(tmp_path) -> Path:
    for split in ("train", "val"):
        for label, name in enumerate(("bee", "cow")):
            where = tmp_path / "set" / split / name
            where.mkdir(parents=True)
            for i in range(3):
                picture(10 * label + i).save(where / f"{i}.png")
    return tmp_path / "set"


def settings(path, **changes) -> ClassificationData:
    return ClassificationData(**{"path": str(path), "num_classes": 2, "image_size": 16, **changes})


# ----------------------------------------------------------------- sources


def test_folder(folder):
    train, held = create_dataset(settings(folder), "train"), create_dataset(settings(folder), "eval")
    assert train.classes == held.classes == ("bee", "cow")
    assert [held[i][1] for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert held[0][0].shape == (3, 16, 16)
    assert held.name(5).endswith("cow/2.png")


def test_tar_gives_what_the_folder_gives(folder, tmp_path):
    with tarfile.open(tmp_path / "val.tar", "w") as archive:
        archive.add(folder / "val", arcname="val")
    from_folder = create_dataset(settings(folder), "eval")
    from_tar = create_dataset(settings(tmp_path / "val.tar"), "eval")
    for i in range(6):
        assert torch.equal(from_folder[i][0], from_tar[i][0])
        assert from_folder[i][1] == from_tar[i][1]


def write_shards(root: Path, *, json_labels: bool = False) -> None:
    root.mkdir()
    for number in range(2):
        with tarfile.open(root / f"train-{number:04d}.tar", "w") as archive:
            for i in range(3):
                buffer = io.BytesIO()
                picture(10 * number + i).save(buffer, "PNG")
                label = json.dumps({"label": number}) if json_labels else str(number)
                kind = "json" if json_labels else "cls"
                for name, content in ((f"{i:03d}.png", buffer.getvalue()), (f"{i:03d}.{kind}", label.encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("json_labels", [False, True])
def test_webdataset_shards(folder, tmp_path, json_labels):
    write_shards(tmp_path / "shards", json_labels=json_labels)
    from_folder = create_dataset(settings(folder), "eval")
    for path in ("shards", "shards/train-{0000..0001}.tar", "shards/*.tar"):
        data = settings(tmp_path / path, reader="wds", eval_split="train")
        shards = create_dataset(data, "eval")
        assert [shards[i][1] for i in range(6)] == [0, 0, 0, 1, 1, 1]
        assert all(torch.equal(shards[i][0], from_folder[i][0]) for i in range(6))
    assert "train-0001.tar:001.png" in shards.name(4)
    assert count_classes(settings(tmp_path / "shards", reader="wds", num_classes=0)) == 2


def test_webdataset_is_what_the_webdataset_library_reads(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    write_shards(tmp_path / "shards")
    mine = WebDatasetReader(str(tmp_path / "shards"), "train")
    theirs = webdataset.WebDataset(mine.shards, shardshuffle=False)
    for i, sample in enumerate(theirs):
        file, label = mine[i]
        assert file.read() == sample["png"]
        assert label == int(sample["cls"])
    assert i == len(mine) - 1


def test_hugging_face_data_set(folder, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the datasets package is not installed")
    rows = {"image": [picture(i) for i in range(4)], "label": [0, 1, 1, 0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["bee", "cow"])})
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(tmp_path / "hf" / "train.parquet")
    data = ClassificationData(
        reader=f"hfds/{tmp_path / 'hf'}", path=str(tmp_path / "cache"), num_classes=2, image_size=16
    )
    found = create_dataset(data, "train")
    assert len(found) == 4
    assert [found[i][1] for i in range(4)] == [0, 1, 1, 0]


def test_digits_are_split_once_and_for_all():
    images, labels, held = digits_split()
    assert (len(images), int(held.sum())) == (1797, 360)
    counts = np.bincount(labels[held])
    assert counts.min() >= 35
    assert counts.max() <= 37  # the same share of each
    assert int((labels * held * np.arange(1797)).sum()) == 1_546_551  # this very split
    bits = hashlib.sha256(images.tobytes() + labels.tobytes() + held.tobytes()).hexdigest()
    assert bits.startswith("bce8f52147a10acd")  # as version 0.1 took them from scikit-learn
    train, validation = Digits("train"), Digits("validation")
    assert (len(train), len(validation)) == (1437, 360)
    assert train[0][0].size == (32, 32)


def test_digits_are_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    images, labels, held = digits_split()
    theirs = datasets.load_digits()
    assert (images == np.round(theirs.images * (255 / 16))).all()
    assert (labels == theirs.target).all()
    from sklearn.model_selection import train_test_split

    _, expected = train_test_split(np.arange(1797), test_size=360, random_state=0, stratify=labels)
    assert sorted(expected) == np.flatnonzero(held).tolist()


def test_whose_the_digits_are_is_said_beside_them():
    text = DIGITS.with_name("digits.LICENSE").read_text(encoding="utf-8")
    for words in ("Alpaydin", "10.24432/C50P49", "CC BY 4.0", "Changes:"):
        assert words in text


# ------------------------------------------------------------ wrong input


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No data at .*nowhere"):
        create_dataset(settings(tmp_path / "nowhere"), "train")
    with pytest.raises(ValueError, match="--data PATH"):
        create_dataset(settings(""), "train")


def test_a_split_that_is_not_there(folder):
    (folder / "val").rename(folder / "other")
    with pytest.raises(FileNotFoundError, match=r"No 'validation' split.*has train"):
        create_dataset(settings(folder), "eval")


def test_a_folder_without_images(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="No images under"):
        create_dataset(settings(tmp_path), "eval")


def test_compressed_archives_are_to_be_unpacked(tmp_path):
    (tmp_path / "train.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"It has train\.tar\.gz: unpack first"):
        create_dataset(settings(tmp_path, eval_split="train"), "eval")


def test_an_empty_class_folder_is_named(folder):
    (folder / "train" / "ant").mkdir()
    with pytest.raises(ValueError, match=r"Class folder without images: .*ant"):
        create_dataset(settings(folder), "train")


@pytest.mark.parametrize("head", [1, 3, 1000])
def test_another_number_of_classes_than_the_head(folder, head):
    with pytest.raises(ValueError, match=f"has 2 classes but the head has {head}.*--data.num_classes 2"):
        create_dataset(settings(folder, num_classes=head), "train")


def test_imagenet_folders_mean_imagenet_classes(tmp_path):
    for name in ("n01440764", "n15075141"):  # tench 0, toilet tissue 999
        (tmp_path / name).mkdir()
        picture(0).save(tmp_path / name / "a.png")
    found = create_dataset(settings(tmp_path, num_classes=1000), "eval")
    assert [found[i][1] for i in range(2)] == [0, 999]


class Reader:
    """As a Hugging Face data set: labels are only known when a sample is read."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return picture(index), self.labels[index]

    def filename(self, index, absolute=False):
        return f"row {index}"


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_out_of_range_are_never_skipped(label):
    found = ClassificationImages(Reader([0, label]), num_classes=2, unreadable="skip")
    with pytest.raises(ValueError, match=rf"0..1 for a head of 2 classes, got {label} \(row 1\)"):
        found[1]


@pytest.mark.parametrize("damage", ["truncated", "not an image", "empty"])
def test_unreadable_images_are_named(folder, damage):
    file = folder / "train" / "bee" / "1.png"
    content = file.read_bytes()
    file.write_bytes({"truncated": content[: len(content) // 2], "not an image": b"hello", "empty": b""}[damage])
    skipped = create_dataset(settings(folder), "train")[1]
    assert isinstance(skipped, Unreadable)
    assert skipped.name == str(file)
    with pytest.raises(ValueError, match=r"Cannot read .*bee/1\.png"):
        create_dataset(settings(folder, unreadable="raise"), "train")[1]
    (folder / "train" / "bee" / "1.png").replace(folder / "val" / "bee" / "1.png")
    with pytest.raises(ValueError, match=r"Cannot read .*bee/1\.png"):  # evaluation raises by default
        create_dataset(settings(folder), "eval")[1]


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("P", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("1", "png")]
)
def test_any_kind_of_image_becomes_rgb(folder, mode, suffix):
    picture(1, mode).save(folder / "val" / "bee" / f"0.{suffix}")
    assert create_dataset(settings(folder), "eval")[0][0].shape == (3, 16, 16)


def test_broken_shards(tmp_path):
    (tmp_path / "train-0.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ValueError, match="not a readable tar"):
        WebDatasetReader(str(tmp_path), "train")
    with pytest.raises(FileNotFoundError, match="1 of 2 missing"):
        expand_shards(str(tmp_path / "train-{0..1}.tar"), "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"No \.tar shards"):
        expand_shards(str(tmp_path / "empty"), "train")


def test_holding_out_a_share(folder):
    root = folder / "train"
    data = settings(root, hold_out=0.34)
    train, held = create_dataset(data, "train"), create_dataset(data, "eval")
    assert (len(train), len(held)) == (4, 2)
    names = {train.name(i) for i in range(4)} | {held.name(i) for i in range(2)}
    assert len(names) == 6
    assert sorted(held[i][1] for i in range(2)) == [0, 1]  # one of each class
    with pytest.raises(ValueError, match=r"evaluated on its training images.*hold_out"):
        create_dataset(settings(root), "train")
    assert held_out_indices([0] * 10 + [1], 0.2) == held_out_indices([0] * 10 + [1], 0.2)
    assert 10 not in held_out_indices([0] * 10 + [1], 0.2)  # a single image is for training


def pack(folder: Path, target: Path, kind: str) -> ClassificationData:
    """The training images of a folder as one tar, as one tar per class, or as shards."""
    if kind == "tar":
        with tarfile.open(target / "photos.tar", "w") as archive:
            archive.add(folder / "train", arcname=".")
        return settings(target / "photos.tar")
    if kind == "tars":
        for name in ("cow", "bee"):
            with tarfile.open(target / f"{name}.tar", "w") as archive:
                for file in (folder / "train" / name).iterdir():
                    archive.add(file, arcname=file.name)
        return settings(target)
    write_shards(target / "shards")
    return settings(target / "shards/*.tar", reader="wds")


@pytest.mark.parametrize("kind", ["tar", "tars", "wds"])
def test_packed_images_are_never_evaluated_on_what_they_train_on(folder, tmp_path, kind):
    (tmp_path / "packed").mkdir()
    data = pack(folder, tmp_path / "packed", kind)
    with pytest.raises(ValueError, match=r"evaluated on its training images.*--data.eval_path.*hold_out"):
        create_dataset(data, "train")
    parts = [create_dataset(replace(data, hold_out=0.34), split) for split in ("train", "eval")]
    assert [len(part) for part in parts] == [4, 2]
    images = {part[i][0].numpy().tobytes() for part in parts for i in range(len(part))}
    whole = create_dataset(replace(data, hold_out=0, eval_split="train"), "eval")
    held = create_dataset(replace(data, hold_out=0.34), "eval")
    assert sorted(held[i][1] for i in range(2)) == [0, 1]
    assert {held[i][0].numpy().tobytes() for i in range(2)} < {whole[i][0].numpy().tobytes() for i in range(6)}
    assert len(images) == 6
    elsewhere = replace(data, eval_path=str(folder / "val"), reader="")
    if kind != "wds":
        assert len(create_dataset(elsewhere, "train")) == len(create_dataset(elsewhere, "eval")) == 6


def test_tars_of_classes_have_the_order_and_the_names_of_the_folders(folder, tmp_path):
    unpacked = create_dataset(settings(folder / "train", eval_split="train"), "eval")
    for kind in ("tar", "tars"):
        (tmp_path / kind).mkdir()
        data = replace(pack(folder, tmp_path / kind, kind), eval_split="train")
        packed = create_dataset(data, "eval")
        assert packed.classes == unpacked.classes == ("bee", "cow")
        for i in range(6):
            assert torch.equal(packed[i][0], unpacked[i][0])
            assert packed[i][1] == unpacked[i][1]
            assert packed.key(i) == unpacked.key(i)


@pytest.mark.parametrize(
    ("train", "held"),
    [
        ("train-0.tar", "val-0.tar"),
        ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"),
        ("train/0.tar", "test/0.tar"),
    ],
)
def test_shards_are_told_by_their_split(tmp_path, train, held):
    for name in (train, held):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert expand_shards(str(tmp_path), "train") == [str(tmp_path / train)]
    assert expand_shards(str(tmp_path), "validation") == [str(tmp_path / held)]
    (tmp_path / held).unlink()
    if "/" not in held:
        with pytest.raises(FileNotFoundError, match=r"No 'validation' shards in .*it has train"):
            expand_shards(str(tmp_path), "validation")


def test_files_that_are_no_data(tmp_path):
    picture(0).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"one\.png is one file"):
        create_dataset(settings(tmp_path / "one.png"), "train")
    with tarfile.open(tmp_path / "empty.tar", "w") as archive:
        archive.add(tmp_path / "one.png", arcname="notes.txt")
    with pytest.raises(ValueError, match=r"No images in .*empty\.tar"):
        create_dataset(settings(tmp_path / "empty.tar", eval_split="train"), "eval")
    (tmp_path / "junk.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ValueError, match="damaged or truncated"):
        create_dataset(settings(tmp_path / "junk.tar", eval_split="train"), "eval")


# ------------------------------------------------------------- transforms


def test_evaluation_is_the_published_protocol():
    from torchvision import transforms

    image = picture(3, size=(500, 375))
    published = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    torch.testing.assert_close(eval_transform(ClassificationData())(image), published(image))
    at_384 = transforms.Compose(
        [
            transforms.Resize((384, 384), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    torch.testing.assert_close(eval_transform(ClassificationData(image_size=384, crop_pct=1.0))(image), at_384(image))


def test_training_has_the_published_steps():
    steps = [type(step).__name__ for step in train_transform(ClassificationData()).transforms]
    assert [name for name in steps if "Tensor" not in name] == [
        "RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment", "Normalize", "RandomErasing",
    ]  # fmt: skip


def test_small_images_are_padded_and_cropped():
    data = ClassificationData(image_size=32, augment=Augment(crop="padded", auto_augment=None, erase_prob=0, hflip=0))
    torch.manual_seed(0)
    seen = {train_transform(data)(picture(0, size=(32, 32))).shape for _ in range(5)}
    assert seen == {(3, 32, 32)}


# --------------------------------------------------------------- sampling


class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_sample_is_a_function_of_seed_epoch_and_index():
    once, again, other = (SeededDataset(Noise(), seed) for seed in (1, 1, 2))
    a = once[SampleKey(3, 7)]
    once[SampleKey(0, 0)]
    assert a == again[SampleKey(3, 7)] == once[SampleKey(3, 7)]
    different = [once[SampleKey(4, 7)], once[SampleKey(3, 8)], once[SampleKey(3, 7, 1)], other[SampleKey(3, 7)]]
    assert len({a[1:], *(item[1:] for item in different)}) == 5
    assert len({a[1], a[2], a[3]}) == 3


@pytest.mark.parametrize("workers", [1, 3])
def test_whatever_the_number_of_workers(workers):
    stream = BatchStream(40, batch_size=8, steps=12, seed=3)
    here = [SeededDataset(Noise(), 3)[key] for batch in stream for key in batch]
    loader = DataLoader(SeededDataset(Noise(), 3), batch_sampler=stream, num_workers=workers, collate_fn=list)
    assert [sample for batch in loader for sample in batch] == here


def test_every_epoch_sees_every_sample_once_in_another_order():
    stream = BatchStream(40, batch_size=8, steps=15, seed=3)
    keys = [key for batch in stream for key in batch]
    for epoch in range(3):
        part = keys[40 * epoch : 40 * epoch + 40]
        assert {key.epoch for key in part} == {epoch}
        assert sorted(key.index for key in part) == list(range(40))
    assert [k.index for k in keys[:40]] != [k.index for k in keys[40:80]]


def test_resuming_gives_the_rest():
    whole = list(BatchStream(40, batch_size=8, steps=15, seed=3, accumulate=2))
    for start in (1, 7, 14):
        assert list(BatchStream(40, batch_size=8, steps=15, seed=3, accumulate=2, start=start)) == whole[2 * start :]


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (4, 1), (2, 2), (1, 4)])
def test_processes_share_the_batch(world, accumulate):
    whole = list(BatchStream(40, batch_size=8, steps=5, seed=3))
    parts = [
        list(BatchStream(40, batch_size=8, steps=5, seed=3, rank=r, world=world, accumulate=accumulate))
        for r in range(world)
    ]
    for step in range(5):
        together = [
            key for part in parts for batch in part[step * accumulate : (step + 1) * accumulate] for key in batch
        ]
        assert sorted(together) == sorted(whole[step])
        assert all(len(batch) == 8 // world // accumulate for part in parts for batch in part)


def test_repeated_augmentation_is_timms():
    """The same shape as timm's sampler: neighbours are repeats, the epoch is the set cut to a multiple of 256."""
    from timm.data.distributed_sampler import RepeatAugSampler

    class Sized(torch.utils.data.Dataset):
        def __len__(self):
            return 600

    assert epoch_size(600, repeats=3) == 512
    order = epoch_order(600, seed=0, epoch=0, repeats=3)
    assert len(order) == 512 == sum(len(RepeatAugSampler(Sized(), 2, rank)) for rank in range(2))
    assert [key.repeat for key in order[:6]] == [0, 1, 2, 0, 1, 2]
    assert len({key.index for key in order}) == 171  # a third of the epoch
    timms = [list(RepeatAugSampler(Sized(), 2, rank)) for rank in range(2)]
    ours = [[key.index for key in order[rank::2]] for rank in range(2)]
    for a, b in zip(timms, ours):  # the same pattern of repeats on each process
        first = {value: i for i, value in reversed(list(enumerate(a)))}
        second = {value: i for i, value in reversed(list(enumerate(b)))}
        assert [first[v] for v in a] == [second[v] for v in b]


def test_shards_of_an_evaluation_are_disjoint_and_whole():
    for size in (1, 7, 8):
        parts = [list(shard(size, rank=rank, world=3)) for rank in range(3)]
        assert sorted(functools.reduce(operator.iadd, parts, [])) == list(range(size))


# ----------------------------------------------------------------- labels


def test_imagenet_real_labels_come_by_file_name():
    sets = real_label_sets(["/x/ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00050000.JPEG"])
    assert len(sets) == 2
    assert all(0 <= label < 1000 for labels in sets for label in labels)
    with pytest.raises(ValueError, match="needs the validation images"):
        real_label_sets(["cat.jpg"])


def test_imagenet_v2_folders_are_numbers():
    as_text = {name: i for i, name in enumerate(sorted(map(str, range(12))))}  # 0, 1, 10, 11, 2, ...
    assert numeric_class_order(SimpleNamespace(class_to_idx=as_text))[2] == 10
    with pytest.raises(ValueError, match=r"0\.\.999"):
        numeric_class_order(SimpleNamespace(class_to_idx={"cat": 0}))


def test_unknown_reader(folder):
    with pytest.raises(ValueError, match="'wds' or 'hfds/NAME'"):
        create_dataset(replace(settings(folder), reader="zip"), "train")


def test_digits_are_for_models_of_ten_classes() -> None:
    digits = ClassificationData(path="embedded:digits", image_size=32, num_classes=1000)
    for split in ("train", "eval"):
        with pytest.raises(ClassCountError, match=r"embedded:digits has 10 classes but the head has 1000"):
            create_dataset(digits, split)
    assert len(create_dataset(replace(digits, num_classes=10), "eval")) == 360
