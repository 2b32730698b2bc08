"""Deterministic weights and inputs made from key names, and the stored outputs of the official code on them."""

import gzip
import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from litevit.devices import processor_name

DATA = Path(__file__).parent / "data"

# What was compared in this run: group -> (share of the tolerance that was used, what it was).
_used: dict[str, list[tuple[float, str]]] = {}


def note(group: str, what: str, share: float) -> None:
    """Keeps how much of its tolerance a comparison used, for the lines at the end of a run. It asserts nothing."""
    _used.setdefault(group, []).append((share, what))


def share_of(got: float, wanted: float, *, rel: float = 0.0, abs_: float = 0.0) -> float:
    """The share of `pytest.approx(wanted, rel=rel, abs=abs_)` that `got` uses: the larger of the two limits counts."""
    return abs(got - wanted) / max(rel * abs(wanted), abs_)


def worst_shares() -> list[str]:
    """A line per group: the worst share, where it was, and how many comparisons there were."""
    lines = []
    for group, used in sorted(_used.items()):
        share, what = max(used)
        lines.append(f"{group}: {share:.3f} of the tolerance ({what}), the worst of {len(used)} comparisons")
    return lines


def write_shares(folder: Path) -> None:
    """Adds what this run has compared to `folder`, and writes its table anew: runs of pieces make one table.

    `shares.json` holds group -> golden -> comparison -> share; `README.md` the worst of every group and golden.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "shares.json"
    known: dict[str, dict[str, dict[str, float]]] = json.loads(file.read_text()) if file.exists() else {}
    files = [
        path for path in DATA.rglob("cases.json") if path.parent.name != "v0_1"
    ]  # those are not the official code's
    named = {name for path in files for name in json.loads(path.read_text())}
    for group, used in _used.items():
        for what in dict.fromkeys(what for _, what in used):
            first, _, rest = what.partition(" ")
            case, array = (first, rest or "value") if first in named else ("(made in the test)", what)
            share = max(share for share, other in used if other == what)
            known.setdefault(group, {}).setdefault(case, {})[array] = float(f"{share:.3g}")
    known = {
        group: {case: dict(sorted(found.items())) for case, found in sorted(known[group].items())}
        for group in sorted(known)
    }
    file.write_text(json.dumps(known, indent=1) + "\n")
    left = sorted(named - {case for found in known.values() for case in found})
    (folder / "README.md").write_text(_table(known, left))


def _table(known: dict[str, dict[str, dict[str, float]]], left: list[str]) -> str:
    """Markdown: the worst of every group, then of every golden. Args: left: goldens that no run has compared."""
    head = [
        "# Goldens: the worst share of the tolerance",
        "",
        "Outputs of the official code against ours, of the same filled weights and inputs: abs(ours - stored) as a "
        "share of its tolerance (`atol + rtol * abs(stored)` of the `cases.json` in `tests/data`); above 1 fails. "
        "Float32 on a CPU, the training step in float64. Made by",
        "",
        "```",
        "python -m pytest tests/parity tests/explain/test_offsets.py -m 'slow or not slow' --goldens FOLDER",
        "```",
        "",
        f"with PyTorch {torch.__version__.partition('+')[0]} on {processor_name()}. Parts (`-k`, a file at a time) add "
        "up in one FOLDER.",
        "",
    ]
    groups = ["| group | goldens | comparisons | worst share | where |", "|---|---|---|---|---|"]
    rows = ["", "| group | golden | comparisons | worst share | where |", "|---|---|---|---|---|"]
    if left:
        head += [f"Not in this table, because no part has compared them yet ({len(left)}): {', '.join(left)}.", ""]
    for group, cases_ in known.items():
        worst = {case: max((share, array) for array, share in found.items()) for case, found in cases_.items()}
        (share, array), case = max((one, case) for case, one in worst.items())
        count = sum(map(len, cases_.values()))
        named = len(cases_) - ("(made in the test)" in cases_)
        groups.append(f"| {group} | {named} | {count} | {share:.3g} | {case}: {array} |")
        rows += [f"| {group} | {c} | {len(cases_[c])} | {s:.3g} | {a} |" for c, (s, a) in worst.items()]
    return "\n".join([*head, *groups, *rows, ""])


def fill_value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of an official state-dict entry, a function of its key and shape alone."""
    rs = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
    if key.endswith("running_var"):
        return (0.5 + rs.rand(*shape)).astype(np.float32)
    r = rs.standard_normal(shape)
    if "pos_embed" in key or "position_bias_table" in key:
        return (0.2 * r).astype(np.float32)
    if len(shape) <= 1:
        return ((1 + 0.1 * r) if key.endswith("weight") else 0.1 * r).astype(np.float32)
    return (r / np.sqrt(int(np.prod(shape[1:])))).astype(np.float32)


def golden_input(n: int, h: int, w: int, seed: int = 0) -> Tensor:
    """(n, 3, h, w) float32, roughly like a normalised image."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((n, 3, h, w)).astype(np.float32))


def golden_tokens(n: int, length: int, c: int, seed: int) -> Tensor:
    """(n, length, c) float32."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((n, length, c)).astype(np.float32))


def golden_map(n: int, c: int, h: int, w: int, seed: int) -> Tensor:
    """(n, c, h, w) float32."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((n, c, h, w)).astype(np.float32))


@cache
def manifests() -> dict[str, dict[str, list]]:
    """Official state-dict layouts: `family/name` -> key -> shape (with the dtype as a last string if not float32)."""
    return json.loads(gzip.decompress((DATA / "manifests.json.gz").read_bytes()))


def state_from(shapes: dict[str, list]) -> dict[str, Tensor]:
    """Filled state dict from key -> shape; integer entries are 0, relative position indices are made."""
    state = {}
    for key, shape in shapes.items():
        integer = bool(shape) and isinstance(shape[-1], str)
        if key.endswith("relative_position_index"):
            side = int(shape[0] ** 0.5)
            ys, xs = np.divmod(np.arange(side * side), side)
            dy, dx = ys[:, None] - ys[None], xs[:, None] - xs[None]
            state[key] = torch.from_numpy((dy + side - 1) * (2 * side - 1) + dx + side - 1)
        elif integer:
            state[key] = torch.zeros(shape[:-1], dtype=torch.int64)
        else:
            state[key] = torch.from_numpy(np.asarray(fill_value(key, tuple(shape))))
    return state


def official_state(name: str) -> dict[str, Tensor]:
    """Filled official state dict of a manifest, such as `"lit/litv2_s"` or `"dense/retinanet_lit_s_fpn_1x_coco"`."""
    return state_from(manifests()[name])


@cache
def cases(folder: str) -> dict[str, dict]:
    """The cases of tests/data/<folder>/cases.json by name."""
    return json.loads((DATA / folder / "cases.json").read_text())


def worst_deviation(got: Tensor, stored: np.ndarray, spec: dict) -> float:
    """Largest |got - stored| / (atol + rtol * |stored|) over the stored sample; also checks shape, mean and std.

    Args:
        got: our whole array.
        stored: `flatten()[::k]` of the official one.
        spec: shape, k, atol, rtol, and mean and std of the whole where known.
    """
    array = got.detach().double().cpu().numpy()
    assert list(array.shape) == list(spec["shape"]), f"shape {array.shape}, official {spec['shape']}"
    sample = array.flatten()[:: spec.get("k", 1)].reshape(stored.shape)
    assert np.isfinite(sample).all()
    if "mean" in spec:
        assert abs(array.mean() - spec["mean"]) <= 2 * spec["atol"] + 1e-4 * abs(spec["mean"])
    return float((np.abs(sample - stored) / (spec["atol"] + spec["rtol"] * np.abs(stored))).max())
