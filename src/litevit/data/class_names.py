"""Names of the classes that the published dense models were trained on, and class lists read from files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litevit.data.ade20k import read_classes
from litevit.files import parse_json, read_text

# COCO 2017: category id -> name; a model's labels count them in this order.
COCO_THINGS: dict[int, str] = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck", 9: "boat",
    10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench", 16: "bird", 17: "cat",
    18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe",
    27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove", 41: "skateboard",
    42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass", 47: "cup", 48: "fork", 49: "knife",
    50: "spoon", 51: "bowl", 52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot",
    58: "hot dog", 59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard",
    77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator", 84: "book",
    85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}  # fmt: skip
COCO_STUFF: dict[int, str] = {  # of the panoptic task
    92: "banner", 93: "blanket", 95: "bridge", 100: "cardboard", 107: "counter", 109: "curtain", 112: "door-stuff",
    118: "floor-wood", 119: "flower", 122: "fruit", 125: "gravel", 128: "house", 130: "light", 133: "mirror-stuff",
    138: "net", 141: "pillow", 144: "platform", 145: "playingfield", 147: "railroad", 148: "river", 149: "road",
    151: "roof", 154: "sand", 155: "sea", 156: "shelf", 159: "snow", 161: "stairs", 166: "tent", 168: "towel",
    171: "wall-brick", 175: "wall-stone", 176: "wall-tile", 177: "wall-wood", 178: "water-other", 180: "window-blind",
    181: "window-other", 184: "tree-merged", 185: "fence-merged", 186: "ceiling-merged", 187: "sky-other-merged",
    188: "cabinet-merged", 189: "table-merged", 190: "floor-other-merged", 191: "pavement-merged",
    192: "mountain-merged", 193: "grass-merged", 194: "dirt-merged", 195: "paper-merged", 196: "food-other-merged",
    197: "building-other-merged", 198: "rock-merged", 199: "wall-other-merged", 200: "rug-merged",
}  # fmt: skip

# ADE20K's 150 classes: the first name of each line of the challenge's objectInfo150.txt.
ADE20K = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
    "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
    "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
    "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
    "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase",
    "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
    "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television", "airplane", "dirt track",
    "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van",
    "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool", "barrel",
    "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name",
    "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce",
    "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor", "bulletin board",
    "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip


@dataclass(frozen=True)
class ClassList:
    """Names of a model's labels 0..K-1, the ids its files use, and how many of the first are things."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    num_things: int | None = None  # panoptic: labels below it are things

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ids) or len(set(self.ids)) != len(self.ids):
            raise ValueError(f"a class list needs one id per name, all different, got {len(self.names)} and {self.ids}")


def detection_classes(num_classes: int) -> ClassList:
    """COCO's for 80 classes; otherwise numbers, which are the ids as well."""
    if num_classes == len(COCO_THINGS):
        return ClassList(tuple(COCO_THINGS.values()), tuple(COCO_THINGS))
    return _numbered(num_classes)


def panoptic_classes(num_things: int, num_stuff: int) -> ClassList:
    """COCO's for 80 things and 53 stuff; otherwise numbers."""
    if (num_things, num_stuff) == (len(COCO_THINGS), len(COCO_STUFF)):
        return ClassList((*COCO_THINGS.values(), *COCO_STUFF.values()), (*COCO_THINGS, *COCO_STUFF), num_things)
    numbered = _numbered(num_things + num_stuff)
    return ClassList(numbered.names, numbered.ids, num_things)


def semantic_classes(num_classes: int) -> ClassList:
    """ADE20K's for 150 classes; otherwise numbers. Ids are those of ADE20K's PNGs: label + 1."""
    ids = tuple(range(1, num_classes + 1))
    return ClassList(ADE20K if num_classes == len(ADE20K) else _numbered(num_classes).names, ids)


def _numbered(num_classes: int) -> ClassList:
    return ClassList(tuple(f"class {i}" for i in range(num_classes)), tuple(range(num_classes)))


def read_class_list(path: str | Path, *, first_id: int = 0) -> ClassList:
    """A class list from a file, in the order of a model's labels.

    Args:
        path: a text file with one name per line; ADE20K's `objectInfo150.txt`; JSON: a list of names, an object
            {"1": name, ...}, COCO's `categories` or a whole annotation file of COCO's (things before stuff, by
            ascending id).
        first_id: id of the first name, where the file has none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"class list {path} does not exist")
    categories = _coco_categories(path) if path.suffix == ".json" else None
    if categories is not None:
        return categories
    if path.suffix == ".json" or (text := read_text(path, "class list")).startswith("Idx\t"):
        names = read_classes(path)
    else:
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not names:
        raise ValueError(f"class list {path} is empty")
    return ClassList(names, tuple(range(first_id, first_id + len(names))))


def _coco_categories(path: Path) -> ClassList | None:
    """None: the file is no list of categories."""
    content: Any = parse_json(read_text(path, "class list"), f"class list {path}")
    if isinstance(content, dict) and "categories" in content:
        content = content["categories"]
    if not isinstance(content, list) or not content or not all(isinstance(c, dict) for c in content):
        return None
    if any(type(c.get("id")) is not int or "name" not in c for c in content):
        raise ValueError(f"class list {path}: every category needs 'id', a whole number, and 'name'")
    panoptic = all("isthing" in c for c in content)
    ordered = sorted(content, key=lambda c: (panoptic and not c["isthing"], c["id"]))
    things = sum(bool(c["isthing"]) for c in content) if panoptic else None
    return ClassList(tuple(str(c["name"]) for c in ordered), tuple(int(c["id"]) for c in ordered), things)
