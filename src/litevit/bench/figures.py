"""Figures of the models: what is counted on ours beside what was published, and why a row differs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from litevit.backbones.lit import LITConfig
from litevit.backbones.litv2 import LITv2Config
from litevit.checkpoints.published import ABLATIONS, WEIGHTS
from litevit.models import info, list_models
from litevit.zoo import MODELS

GIGA = 1e9

_LIT_PARAMS = "the paper prints the parameters without the classifier head, truncated"
_LITV2_MACS = "published: the official formula (column beside), which adds norms, biases and four offset channels"
REASONS: dict[str, str] = {
    "lit_ti": _LIT_PARAMS,
    "lit_s": _LIT_PARAMS,
    "lit_m": _LIT_PARAMS,
    "lit_b": _LIT_PARAMS,
    "lit_ti_uniform": _LIT_PARAMS,
    "lit_s_uniform": _LIT_PARAMS,
    "pvt_s": "24.5 rounded up",
    "pvt_s_msa_remove_1": "4.46 with norms, at 5 operations per element, as fvcore counts",
    "pvt_s_msa_remove_12": _LIT_PARAMS,
    "litv2_b_384": _LITV2_MACS,
    "litv2_s_alpha_00": _LITV2_MACS,
    "litv2_s_alpha_02": _LITV2_MACS,
    "litv2_s_alpha_04": _LITV2_MACS,
    "litv2_s_alpha_05": _LITV2_MACS,
    "litv2_s_alpha_07": _LITV2_MACS,
    "litv2_s_alpha_09": _LITV2_MACS,
    "litv2_s_alpha_10": "the official formula gives 3.75 G as well; the printed 3.70 G is not reproduced by any count",
    "lvt": "published: the backbone alone (3.43 M); ours has the class-attention layers and two heads as well",
}

# Dense models: shown by `litevit info`.
_LITV2_MERGING = (
    "published: lower by about the products of deformable merging (at 800 x 1280 3.5 G at S and M, 6.3 G at B), which "
    "counters of linear layers and convolutions pass over"
)
DENSE_REASONS: dict[str, str] = {
    **{
        f"{task}_{backbone}": _LITV2_MERGING
        for task in ("retinanet", "mask_rcnn")
        for backbone in ("litv2_s", "litv2_m", "litv2_b", "litv2_s_ws4", "litv2_m_ws4", "litv2_b_ws4")
    },
    **{f"semantic_fpn_{backbone}": _LITV2_MERGING for backbone in ("litv2_s", "litv2_m", "litv2_b")},
    "mask_rcnn_litv2_m_ws4": "RetinaNet's published 312 and the 19 that Mask R-CNN adds in every other row make 331; "
    "315 is printed",
    "panoptic_fpn_lvt": "100 masks are counted, 7.8 G of it; the published total would fit about 9",
}


def official_macs(config: Any, image_size: int, num_classes: int = 1000) -> float | None:
    """Multiply-adds by the formula in the official LIT-S/M/B and LITv2 classifiers; None for a model without one.

    Counts what the official `flops()` counts, its oddities included: 12 offset channels in token merging (there are
    8) and the final norm at stage 1's grid / 16.
    """
    formula = OFFICIAL_FORMULAS.get(type(config))
    return None if formula is None else formula(config, image_size, num_classes)


def _lit_macs(config: LITConfig, image_size: int, num_classes: int) -> float | None:
    if config.position != "relative" or config.merging != "deformable":
        return None

    def block(i: int, H: int) -> float:
        C, N = config.embed_dims[i], H * H
        mlp = 2 * N * C * C * config.mlp_ratios[i]
        return 2 * N * C + 4 * N * C * C + 2 * N * N * C + mlp if config.attention[i] else mlp + N * C

    return _skeleton_macs(config, config.embed_dims, block, image_size, num_classes)


def _litv2_macs(config: LITv2Config, image_size: int, num_classes: int) -> float | None:
    dims = [config.embed_dim * 2**i for i in range(4)]

    def block(i: int, H: int) -> float:
        C, N, window = dims[i], H * H, config.window_sizes[i]
        mlp = 8 * N * C * C + N * C + N * (9 * 4 * C + 4 * C)  # with the depthwise convolution and its bias
        return mlp + N * C + _hilo_macs(H, C, config.num_heads[i], window, config.alpha) if window else mlp

    return _skeleton_macs(config, dims, block, image_size, num_classes)


OFFICIAL_FORMULAS: dict[type, Callable[[Any, int, int], float | None]] = {
    LITConfig: _lit_macs,
    LITv2Config: _litv2_macs,
}


def _skeleton_macs(
    config: Any, dims: Sequence[int], block: Callable[[int, int], float], image_size: int, num_classes: int
) -> float:
    """Patches, stages of blocks, merging between them, head."""
    side = image_size // config.patch_size
    total: float = side**2 * dims[0] * 3 * config.patch_size**2 + side**2 * dims[0]
    for i, (C, depth) in enumerate(zip(dims, config.depths)):
        H = side // 2**i
        total += depth * block(i, H)
        if i < 3:
            half = (H // 2) ** 2
            total += half * (4 * C * 12 + 12) + half * (4 * C * 2 * C + 2 * C) + half * 2 * C
    return float(total + dims[-1] * side * side // 16 + dims[-1] * num_classes)


def _hilo_macs(H: int, C: int, num_heads: int, window: int, alpha: float) -> float:
    """HiLo attention on an H x H grid, padded to the window."""
    lo_dim = int(num_heads * alpha) * (C // num_heads) if window > 1 else C
    hi_dim = C - lo_dim
    Np = (-(-H // window) * window) ** 2
    G = Np / window**2  # windows; as many pooled keys
    hi = 3 * Np * C * hi_dim + G * 2 * window**4 * hi_dim + Np * hi_dim**2
    lo = Np * C * lo_dim + 2 * G * C * lo_dim + 2 * Np * G * lo_dim + Np * lo_dim**2
    return hi + lo


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One published model: its figures and ours."""

    name: str
    image_size: tuple[int, int]
    params: int
    macs: int
    published_params: float | None  # millions
    published_macs: float | None  # 1e9
    official_macs: float | None  # by the official formula
    reason: str

    @property
    def params_match(self) -> bool:
        """Whether ours rounds to the published figure, as far as that is printed."""
        digits = 1 if isinstance(self.published_params, float) else 0
        return self.published_params is None or round(self.params / 1e6, digits) == self.published_params

    @property
    def macs_match(self) -> bool:
        """Whether ours rounds to the published figure, as far as that is printed."""
        digits = 2 if "_alpha_" in self.name else 1  # LITv2's table of alphas prints two
        return self.published_macs is None or round(self.macs / GIGA, digits) == self.published_macs


def figures(names: Iterable[str] | None = None) -> list[FigureRow]:
    """Ours beside the published figures, for every published classification row or the given names."""
    if names is None:
        names = [name for name in (*WEIGHTS, *ABLATIONS) if name in list_models(task="classification")]
    rows = []
    for name in names:
        ours = info(name)
        entry = MODELS[name]
        params, macs = ours.published.get("params_M"), ours.published.get("macs_G")
        rows.append(
            FigureRow(
                name=name,
                image_size=ours.image_size,
                params=ours.params,
                macs=ours.macs,
                published_params=params,
                published_macs=macs,
                official_macs=official_macs(entry.backbone, ours.image_size[0]),
                reason=REASONS.get(name, ""),
            )
        )
    return rows


def markdown(rows: Iterable[FigureRow]) -> str:
    """The rows as a Markdown table; what does not round to the published figure is set in bold, with the reason."""
    lines = [
        "| model | size | parameters, M | published | multiply-adds, G | official formula | published | why |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        size = "x".join(map(str, row.image_size))
        params, macs = f"{row.params / 1e6:.2f}", f"{row.macs / GIGA:.3f}"
        params = params if row.params_match else f"**{params}**"
        macs = macs if row.macs_match else f"**{macs}**"
        formula = f"{row.official_macs / GIGA:.3f}" if row.official_macs else "none"
        why = row.reason if not (row.params_match and row.macs_match) else ""
        cells = (row.name, size, params, row.published_params, macs, formula, row.published_macs, why)
        lines.append("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"
