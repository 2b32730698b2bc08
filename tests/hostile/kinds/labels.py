"""Hostile YOLO, Pascal VOC and class lists: YAML and XML bombs, numbers that are none, names that climb out."""

import random
from pathlib import Path

from PIL import Image

from hostile.arena import Kind
from hostile.mutations import TEXTS, corrupt, json_bytes, names
from litevit.data.class_names import read_class_list
from litevit.data.doctor import examine
from litevit.data.doctor.fix import mend
from litevit.data.layouts import layouts_of
from litevit.data.mask_labels import read_labels
from litevit.data.voc import class_names as voc_names
from litevit.data.voc import counts_from_zero
from litevit.data.voc import read as read_voc
from litevit.data.yolo import class_names as yolo_names
from litevit.data.yolo import read as read_yolo

WORDS = (
    "0",
    "1",
    "0.5",
    "-1",
    "1e999",
    "nan",
    "inf",
    "-inf",
    "1e-320",
    "0x1",
    "",
    "9" * 5000,
    "٣",
    "1_0",
    "cat",
    "2",
    "1.5",
    "1,5",
)


def prepare(seeds: Path) -> None:
    for n in (1, 2):
        Image.linear_gradient("L").resize((48, 40)).convert("RGB").save(seeds / f"{n}.jpg")


def yaml_text(draw: random.Random, folder: Path) -> str:
    train = draw.choice(("images/train", "images/train", "train.txt", "../images/train", names(draw, folder)))
    listed = draw.choice(
        (
            "[cat, dog]",
            "[cat, dog]",
            "{0: cat, 1: dog}",
            "{a: b}",
            "[]",
            "7",
            "[[cat], dog]",
            "{0: cat, 0: dog}",
            "{-1: cat}",
            "{1: cat}",
            "null",
        )
    )
    deed = draw.randrange(8)
    if deed == 0:  # a bomb of references
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, draw.choice((3, 9, 30)))]
        return "\n".join([*lines, f"names: *a{len(lines) - 1}", f"train: {train}", "val: images/val"])
    if deed == 1:
        return f"names: {listed}\ntrain: {'[' * draw.choice((10, 3000))}\n"
    if deed == 2:
        return draw.choice((
            f"names: !!python/object/apply:os.system ['touch {folder.parent / 'canary'}']\ntrain: x\n", "names: &a [*a]\ntrain: images/train\n", "? [a]\n: b\nnames: [x]\ntrain: y\n",
            "names: [x]\ntrain: 2020-99-99\n", "names: [x]\ntrain: !!binary x\n", "names: [0x" + "f" * 5000 + "]\ntrain: images/train\n", "names: [" + "9" * 5000 + "]\ntrain: images/train\n",
            "%YAML 9.9\n---\nnames: [x]\ntrain: y", "names: [1:60:60:60.5]\ntrain: images/train", "\0", "names: ['\\ud800']\ntrain: images/train\n", "<<: [1]\nnames: [x]\ntrain: x\n",
            "names: {1" + "0" * 5000 + ": x}\ntrain: images/train\n", "names: {²: x}\ntrain: images/train\n", "names: {true: x}\ntrain: images/train",
        ))  # fmt: skip
    path = draw.choice(("", "path: .\n", f"path: {names(draw, folder)!r}\n", "path: [1]\n"))
    return f"{path}names: {listed}\ntrain: {train}\nval: images/val\nnc: 2\n"


def yolo(draw: random.Random, seeds: Path, root: Path, folder: Path) -> None:
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        (root / "images" / split / "1.jpg").write_bytes((seeds / "1.jpg").read_bytes())
        lines = ["0 0.5 0.5 0.2 0.2", "1 0.1 0.1 0.9 0.1 0.9 0.9"]
        if draw.random() < 0.6:
            lines.append(" ".join(draw.choice(WORDS) for _ in range(draw.choice((5, 7, 3, 1, 200)))))
        (root / "labels" / split / "1.txt").write_text("\n".join(lines))
    text = yaml_text(draw, folder).encode("utf-8", "surrogatepass")
    (root / "data.yaml").write_bytes(corrupt(draw, text) if draw.random() < 0.3 else text)
    listed = draw.choice(("./images/train/1.jpg\n", f"{names(draw, folder)}\n", "images\\train\\1.jpg", "\xff"))
    (root / "train.txt").write_bytes(listed.encode("utf-8", "surrogatepass"))


def xml_text(draw: random.Random, folder: Path) -> str:
    number = lambda plain: plain if draw.random() < 0.8 else draw.choice(WORDS)  # noqa: E731
    name = draw.choice(("1.jpg", "1.jpg", names(draw, folder), "&a9;", ""))
    box = "".join(f"<{k}>{number(v)}</{k}>" for k, v in (("xmin", "2"), ("ymin", "3"), ("xmax", "20"), ("ymax", "30")))
    prolog = ""
    deed = draw.randrange(8)
    if deed == 0:
        prolog = (
            "<!DOCTYPE a [<!ENTITY a0 'x'>"
            + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
            + "]>"
        )
        name = "&a9;"
    elif deed == 1:
        prolog = f"<!DOCTYPE a [<!ENTITY a9 SYSTEM '{draw.choice(('file:///etc/passwd', 'http://127.0.0.1:9/', '/dev/zero'))}'>]>"
        name = "&a9;"
    elif deed == 2:
        prolog = "<!DOCTYPE a [<!ENTITY a9 '" + "x" * 50_000 + "'>]>"
        name = "&a9;" * draw.choice((10, 20_000))
    elif deed == 3:
        return draw.choice(
            (
                "<a>" * 50_000,
                "<annotation/>",
                "<annotation",
                "",
                "<?xml version='1.0' encoding='utf-7'?><a/>",
                "<a b='1' b='2'/>",
                "<a xmlns:x='y'><x:b/></a>",
                "<?xml version='1.0' encoding='nope'?><a/>",
            )
        )
    objects = f"<object><name>{draw.choice(('cat', 'cat', 'dog', '', ' ', '&#0;', '&#xD800;'))}</name><difficult>{number('0')}</difficult><bndbox>{box}</bndbox></object>"
    objects *= draw.choice((1, 1, 2, 0))
    size = f"<size><width>{number('48')}</width><height>{number('40')}</height></size>"
    return f"<?xml version='1.0'?>{prolog}<annotation><filename>{name.replace(chr(0), '')}</filename>{size}{objects}</annotation>"


def voc(draw: random.Random, seeds: Path, root: Path, folder: Path) -> None:
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for n in (1, 2):
        (root / "JPEGImages" / f"{n}.jpg").write_bytes((seeds / f"{n}.jpg").read_bytes())
        stem = f"{n}" if draw.random() < 0.8 else f"{n}x"
        text = xml_text(draw, folder).encode("utf-8", "surrogatepass")
        (root / "Annotations" / f"{stem}.xml").write_bytes(corrupt(draw, text) if draw.random() < 0.2 else text)
    if draw.random() < 0.4:
        listed = draw.choice(
            (
                "1\n2\n",
                "1 1\n",
                "../../outside/evil\n",
                "\xff",
                "a\x00b",
                f"{folder.parent}/outside/evil\n",
                "1\n1\n1\n",
            )
        )
        (root / "ImageSets" / "Main" / "train.txt").write_bytes(listed.encode("latin-1", "replace"))


def class_list(draw: random.Random, folder: Path) -> Path:
    name = draw.choice(
        ("classes.json", "classes.txt", "labelmap.txt", "_classes.csv", "objectInfo150.txt", "obj.names")
    )
    file = folder / name
    if name.endswith(".json"):
        told = draw.choice(
            (
                ["a", "b"],
                {"0": "a", "255": "b"},
                {"categories": [{"id": 1, "name": "a", "isthing": 1}]},
                [{"id": 1, "name": "a"}],
            )
        )
        file.write_bytes(json_bytes(draw, told, folder))
        return file
    text = {
        "_classes.csv": "Pixel Value, Class\n0, a\n1, b\n", "labelmap.txt": "# label:color\na:0,0,0::\nb:1,2,3::\n",
        "objectInfo150.txt": "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t1\t1\t1\twall, walls\n",
    }.get(name, "a\nb\n")  # fmt: skip
    deed = draw.randrange(5)
    lines = text.splitlines()
    if deed == 0:
        lines[draw.randrange(len(lines))] = draw.choice(
            (*TEXTS, ",", "9" * 5000 + ", a", "²,b", "a:256,0,0", 'a:"', '"', '"' + "x" * 200_000, "Idx\t")
        )
    elif deed == 1:
        lines *= draw.choice((2, 100, 300))
    raw = "\n".join(lines).encode("utf-8", "surrogatepass")
    file.write_bytes(
        corrupt(draw, raw) if deed == 2 else draw.choice((b"", b"\xff\xfe", b"\0" * 100)) if deed == 3 else raw
    )
    return file


def attack(draw: random.Random, seeds: Path, folder: Path) -> None:
    root = folder / "set"
    root.mkdir()
    what = draw.randrange(3)
    if what == 2:
        file = class_list(draw, folder)
        read_labels(file) if draw.random() < 0.6 else read_class_list(file)
        return
    (yolo, voc)[what](draw, seeds, root, folder)
    way = draw.randrange(6)
    if way == 0:
        examine(root)
    elif way == 1:
        mend(root, folder / "mended")
    else:
        for layout in layouts_of(root):
            for part in layout.parts.values():
                if layout.kind == "yolo":
                    yolo_names(layout)
                    read_yolo(layout, part, on_problem=None if way < 4 else lambda text: None)
                elif layout.kind == "voc":
                    read_voc(layout, part, voc_names(layout), from_zero=counts_from_zero(layout))


KIND = Kind("labels", attack, prepare, inputs=3000, share=60)
