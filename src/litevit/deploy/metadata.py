"""What an exported file says about itself: a flat table of texts that every format has a place for.

A program in another language reads the same keys: `task`, `classes` (JSON list), `preprocessing` (JSON), `licence`, ...
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from litevit.checkpoints.preprocessing import Preprocessing, checked_preprocessing
from litevit.files import parse_json

MOST_BYTES = 2**24  # as JSON
KEY = "litevit"  # the name of the table where a format has one for everybody


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """All fields are plain values; `write` and `read` turn them into texts and back."""

    model: str  # its name in litevit, or the class of a module
    task: str  # as in `litevit.list_models(task=...)`; "features": a backbone; "module": any other
    outputs: tuple[str, ...]
    classes: tuple[str, ...] = ()
    class_ids: tuple[int, ...] = ()  # COCO's or ADE20K's ids of the labels
    num_things: int | None = None
    preprocessing: Preprocessing | None = None
    preprocessing_inside: bool = False  # takes uint8 RGB of any size
    config: Mapping[str, Any] = field(default_factory=dict)  # of the head
    batch: int | None = None  # None: any
    size: tuple[int, int] | None = None  # height and width; None: any
    smallest: int = 32  # side, where any
    verified: bool = False
    int8: bool = False
    licence: str | None = None
    source: str | None = None
    notice: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)  # of the training run
    litevit: str = ""  # version
    seal: str | None = None  # a checksum, see deploy/seal.py; None: the format has its own

    def write(self) -> dict[str, str]:
        """Texts as they are, everything else as JSON; what is not known is left out."""
        table = {}
        for key, value in asdict(self).items():
            if value is not None and value != {} and value != ():
                table[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return table

    @staticmethod
    def read(table: Mapping[str, str], path: Any) -> "Metadata":
        """The inverse of `write`. Args: path: named in the error where this is no file of litevit's."""
        if not isinstance(table, Mapping) or not all(isinstance(text, str) for text in table.values()):
            raise ValueError(f"{path}: what it says of itself must be an object of texts; the file is damaged")
        if "task" not in table or "outputs" not in table:
            raise ValueError(f"{path} was not written by litevit export: it says nothing about its task and outputs")
        known = {f.name: f for f in fields(Metadata)}
        values: dict[str, Any] = {}
        for key, text in table.items():
            if key not in known:
                continue  # written by a later version
            plain = known[key].type in (str, str | None)
            value = text if plain else parse_json(text, f"{path}: {key!r} of what it says of itself")
            values[key] = tuple(value) if isinstance(value, list) else value
            if not _fits(key, values[key]):
                raise ValueError(f"{path}: {key!r} of what it says of itself cannot be {value!r:.60}; it is damaged")
        if (how := values.get("preprocessing")) is not None:
            values["preprocessing"] = checked_preprocessing(how, path)
        return Metadata(**values)


def _fits(key: str, value: Any) -> bool:
    """Whether a value can be of a field of `Metadata`."""

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31

    def all_of(kind: type) -> bool:
        return isinstance(value, tuple) and all(isinstance(one, kind) for one in value)

    if key in ("outputs", "classes"):
        return all_of(str)
    if key == "class_ids":
        return all_of(int)
    if key == "size":
        return isinstance(value, tuple) and len(value) == 2 and all(map(whole, value))
    if key == "smallest":
        return whole(value) and value > 0
    if key in ("batch", "num_things"):
        return whole(value)
    if key in ("preprocessing_inside", "verified", "int8"):
        return isinstance(value, bool)
    if key in ("config", "recipe", "preprocessing"):
        return isinstance(value, dict)
    return isinstance(value, str)
