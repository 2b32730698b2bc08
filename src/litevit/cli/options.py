"""The options of every model without its code, so that `litevit train RECIPE --help` waits for no library.

They stand in `options_table.py`, which `python -m litevit.cli.models` writes and a test holds to the models.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from litevit.cli.options_table import BACKBONES, CONFIGS, GENERIC, MODELS

TABLE = Path(__file__).with_name("options_table.py")
ABOUT = '''"""The fields of every config, and whose they are: written by `python -m litevit.cli.models`."""

from typing import Any, Literal
'''


def known_options(name: str, backbone: str | None = None) -> dict[str, Any] | None:
    """As `litevit.zoo.model_options`; a type of litevit's own is `object`. None: no model of the table."""
    if name in GENERIC and backbone is not None:
        of_backbone = [BACKBONES[backbone]] if backbone in BACKBONES else []
        configs, found = [GENERIC[name], *of_backbone], {"backbone": str}
    elif name in MODELS:
        configs, found = list(MODELS[name]), {}
    else:
        return None
    for config in configs:
        found = {**CONFIGS[config], **found}
    return found


def table() -> str:
    """What `options_table.py` has to say."""
    from litevit import zoo

    rows = {name: (type(entry.backbone), type(entry.head)) for name, entry in zoo.MODELS.items()}
    generic = {name: task.config for name, task in zoo.GENERIC.items()}
    backbones = {name: type(config) for name, config in zoo.BACKBONES.items()}
    configs = dict.fromkeys([kind for row in rows.values() for kind in row] + list(generic.values()))
    fields = [
        f'    "{kind.__name__}": {{\n'
        + "".join(f'        "{name}": {_written(of)},\n' for name, of in get_type_hints(kind).items())
        + "    },\n"
        for kind in configs
    ]
    tables = [
        "CONFIGS: dict[str, dict[str, Any]] = {\n" + "".join(fields) + "}\n",
        _rows("MODELS: dict[str, tuple[str, str]]", {k: (a.__name__, b.__name__) for k, (a, b) in rows.items()}),
        _rows("GENERIC: dict[str, str]", {k: kind.__name__ for k, kind in generic.items()}),
        _rows("BACKBONES: dict[str, str]", {k: kind.__name__ for k, kind in backbones.items()}),
    ]
    return "\n".join([ABOUT, *tables])


def _rows(name: str, rows: dict[str, Any]) -> str:
    lines = (f"    {key!r}: {value!r},\n" for key, value in rows.items())
    return f"{name} = {{\n{''.join(lines)}}}\n".replace("'", '"')


def _written(kind: Any) -> str:
    """A type as its annotation is written."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "None"
    if dataclasses.is_dataclass(kind):
        return "object"
    if origin in (Union, UnionType):
        return " | ".join(map(_written, parts))
    if origin is tuple:
        return f"tuple[{_joined('...' if part is Ellipsis else _written(part) for part in parts)}]"
    if origin is None:
        return kind.__name__
    return f"Literal[{_joined(repr(part) for part in parts)}]".replace("'", '"')


def _joined(words: Iterable[str]) -> str:
    return ", ".join(words)
