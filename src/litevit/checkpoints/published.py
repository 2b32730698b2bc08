"""The published checkpoints: where each lies, whose it is, how its images are prepared, what was published for it.

`WEIGHTS` is the table. `fetch("litv2_s")` downloads a file once (resumable, hashed, renamed into place when complete)
and returns its path. The LVT files sit behind a share page and under a non-commercial licence, so they are taken
from where the user has put them, never re-hosted.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from filelock import FileLock

from litevit.checkpoints.download import download, remove_parts, sha256_of
from litevit.checkpoints.files import Pathlike
from litevit.checkpoints.preprocessing import ADE20K, COCO, IMAGENET_224, IMAGENET_384, IMAGENET_LVT, Preprocessing
from litevit.files import cache_dir, remove_temporaries, write_text
from litevit.zoo import MODELS, family_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One published checkpoint. Exactly one of `url` (a direct download) and `page` (a share page) is set."""

    task: str
    source: str
    url: str | None = None
    page: str | None = None
    file: str = ""  # name in the cache; the last part of `url` where not given
    sha256: str | None = None  # None: not published; the hash is recorded on first use and checked after
    licence: str = "Apache-2.0"
    preprocessing: Preprocessing = IMAGENET_224
    published: Mapping[str, float | str] = field(default_factory=dict)  # macs: multiply-adds counted once
    counted_at: tuple[int, int] | None = None  # (H, W) of the published multiply-adds, where not the rule's

    @property
    def filename(self) -> str:
        """Its name in the cache."""
        return self.file or (self.url or "").rsplit("/", 1)[-1]

    @property
    def figure_size(self) -> tuple[int, int]:
        """(H, W) the published multiply-adds are counted at."""
        if self.counted_at is not None:
            return self.counted_at
        if self.preprocessing == COCO:
            return (800, 1280)
        if isinstance(self.preprocessing.size, tuple):
            return (512, 512)
        return (self.preprocessing.size, self.preprocessing.size)


LIT = "https://github.com/ziplab/LIT/releases/download/"
LIT_GROUP = "https://github.com/zhuang-group/LIT/releases/download/"  # the old name of the same repository
LITV2 = "https://github.com/ziplab/LITv2/releases/download/"
LVT_PAGE = "https://livejohnshopkins-my.sharepoint.com/:u:/g/personal/cyang76_jh_edu/"
LIT_REPO = "github.com/ziplab/LIT (arXiv:2105.14217)"
LITV2_REPO = "github.com/ziplab/LITv2 (arXiv:2205.13213)"
LVT_REPO = "github.com/Chenglin-Yang/LVT (arXiv:2112.10809)"
ADOBE = "Adobe source code licence: non-commercial research and evaluation"
ADOBE_NOTICE = "the LVT weights are Adobe's, for non-commercial research and evaluation only; do not redistribute them"

# Figures as the papers and their README files publish them.
# fmt: off
WEIGHTS: dict[str, Weights] = {
    "lit_ti": Weights(
        task="classification", url=LIT + "v1.0/lit_ti.pth", source=LIT_REPO, published=dict(
            params_M=19, macs_G=3.6, top1=81.1, throughput_img_s_rtx3090_b64=1294, train_mem_MB_b64=5868,
            test_mem_MB_b64=1194, imagenet_real_top1=86.6, imagenet_v2_top1=70.4)),
    "lit_s": Weights(
        task="classification", url=LIT + "v1.0/lit_s.pth", source=LIT_REPO, published=dict(
            params_M=27, macs_G=4.1, top1=81.5, throughput_img_s_rtx3090_b64=1298, train_mem_MB_b64=5973,
            test_mem_MB_b64=1264, imagenet_real_top1=86.4, imagenet_v2_top1=70.4)),
    "lit_m": Weights(
        task="classification", url=LIT + "v1.0/lit_m.pth", source=LIT_REPO, published=dict(
            params_M=48, macs_G=8.6, top1=83.0, throughput_img_s_rtx3090_b64=638, train_mem_MB_b64=12248,
            test_mem_MB_b64=1473, imagenet_real_top1=87.3, imagenet_v2_top1=72.0)),
    "lit_b": Weights(
        task="classification", url=LIT + "v1.0/lit_b.pth", source=LIT_REPO, published=dict(
            params_M=86, macs_G=15.0, top1=83.4, throughput_img_s_rtx3090_b64=444, train_mem_MB_b64=16766,
            test_mem_MB_b64=2150, imagenet_real_top1=87.6, imagenet_v2_top1=72.8)),
    "pvt_s_msa": Weights(
        task="classification", url=LIT_GROUP + "v2.1/pvt_full_msa.pth", source=LIT_REPO, published=dict(
            params_M=20, macs_G=8.4, top1=80.9)),
    "retinanet_lit_ti": Weights(
        task="detection", url=LIT + "v2.0/retina_lit_ti.pth", source=LIT_REPO, preprocessing=COCO, published=dict(
            schedule="1x", params_M=30, box_ap=41.6)),
    "retinanet_lit_s": Weights(
        task="detection", url=LIT + "v2.0/retina_lit_s.pth", source=LIT_REPO, preprocessing=COCO, published=dict(
            schedule="1x", params_M=39, box_ap=41.6)),
    "mask_rcnn_lit_ti": Weights(
        task="instance segmentation", url=LIT + "v2.0/mask_rcnn_lit_ti.pth", source=LIT_REPO, preprocessing=COCO,
        published=dict(
            schedule="1x", params_M=40, box_ap=42.0, mask_ap=39.1)),
    "mask_rcnn_lit_s": Weights(
        task="instance segmentation", url=LIT + "v2.0/mask_rcnn_lit_s.pth", source=LIT_REPO, preprocessing=COCO,
        published=dict(
            schedule="1x", params_M=48, box_ap=42.9, mask_ap=39.6)),
    "semantic_fpn_lit_ti": Weights(
        task="semantic segmentation", url=LIT + "v2.0/sem_fpn_lit_ti.pth", source=LIT_REPO, preprocessing=ADE20K,
        published=dict(
            iterations=80000, params_M=24, miou=41.3)),
    "semantic_fpn_lit_s": Weights(
        task="semantic segmentation", url=LIT + "v2.0/sem_fpn_lit_s.pth", source=LIT_REPO, preprocessing=ADE20K,
        published=dict(
            iterations=80000, params_M=32, miou=41.7)),
    "litv2_s": Weights(
        task="classification", url=LITV2 + "v1.0/litv2_s.pth", source=LITV2_REPO, published=dict(
            params_M=28, macs_G=3.7, throughput_img_s_rtx3090_b64=1471, train_mem_GB_b64=5.1, test_mem_GB_b64=1.2,
            top1=82.0)),
    "litv2_m": Weights(
        task="classification", url=LITV2 + "v1.0/litv2_m.pth", source=LITV2_REPO, published=dict(
            params_M=49, macs_G=7.5, throughput_img_s_rtx3090_b64=812, train_mem_GB_b64=8.8, test_mem_GB_b64=1.4,
            top1=83.3)),
    "litv2_b": Weights(
        task="classification", url=LITV2 + "v1.0/litv2_b.pth", source=LITV2_REPO, published=dict(
            params_M=87, macs_G=13.2, throughput_img_s_rtx3090_b64=602, train_mem_GB_b64=12.2, test_mem_GB_b64=2.1,
            top1=83.6)),
    "litv2_b_384": Weights(
        task="classification", url=LITV2 + "v1.0/litv2_b_384.pth", source=LITV2_REPO, preprocessing=IMAGENET_384,
        published=dict(
            params_M=87, macs_G=39.7, throughput_img_s_rtx3090_b64=198, train_mem_GB_b64=35.8, test_mem_GB_b64=4.6,
            top1=84.7)),
    "litv2_s_alpha_00": Weights(
        task="classification", url=LITV2 + "v1.1/alpha_0.pth", source=LITV2_REPO, published=dict(
            params_M=28, macs_G=3.97, lo_fi_heads=0, hi_fi_heads=12, top1=81.16)),
    "litv2_s_alpha_02": Weights(
        task="classification", url=LITV2 + "v1.1/alpha_0.2.pth", source=LITV2_REPO, published=dict(
            params_M=28, macs_G=3.88, lo_fi_heads=2, hi_fi_heads=10, top1=81.89)),
    "litv2_s_alpha_04": Weights(
        task="classification", url=LITV2 + "v1.1/alpha_0.4.pth", source=LITV2_REPO, published=dict(
            params_M=28, macs_G=3.82, lo_fi_heads=4, hi_fi_heads=8, top1=81.81)),
    "litv2_s_alpha_05": Weights(
        task="classification", url=LITV2 + "v1.1/alpha_0.5.pth", source=LITV2_REPO, published=dict(
            params_M=28, macs_G=3.77, lo_fi_heads=6, hi_fi_heads=6, top1=81.88)),
    "litv2_s_alpha_07": Weights(
        task="classification", url=LITV2 + "v1.1/alpha_0.7.pth", source=LITV2_REPO, published=dict(
            params_M=28, macs_G=3.74, lo_fi_heads=8, hi_fi_heads=4, top1=81.94)),
    "litv2_s_alpha_09": Weights(
        task="classification", url=LITV2 + "v1.1/alpha_0.9.pth", source=LITV2_REPO, published=dict(
            params_M=28, macs_G=3.73, lo_fi_heads=10, hi_fi_heads=2, top1=82.03)),
    "litv2_s_alpha_10": Weights(
        task="classification", url=LITV2 + "v1.1/alpha_1.pth", source=LITV2_REPO, published=dict(
            params_M=28, macs_G=3.7, lo_fi_heads=12, hi_fi_heads=0, top1=81.89)),
    "retinanet_litv2_s": Weights(
        task="detection", url=LITV2 + "v1.0/retinanet_litv2_s_fpn_1x_coco.pth", source=LITV2_REPO, preprocessing=COCO,
        published=dict(
            schedule="1x", window_size=2, params_M=38, macs_G=242, fps_rtx3090=18.7, box_ap=44.0)),
    "mask_rcnn_litv2_s": Weights(
        task="instance segmentation", url=LITV2 + "v1.0/mask_rcnn_litv2_s_fpn_1x_coco.pth", source=LITV2_REPO,
        preprocessing=COCO, published=dict(
            schedule="1x", window_size=2, params_M=47, macs_G=261, fps_rtx3090=18.7, box_ap=44.9, mask_ap=40.8)),
    "retinanet_litv2_s_ws4": Weights(
        task="detection", url=LITV2 + "v1.0/retinanet_litv2_s_fpn_1x_coco_ws_4.pth", source=LITV2_REPO,
        preprocessing=COCO, published=dict(
            schedule="1x", window_size=4, params_M=38, macs_G=230, fps_rtx3090=20.4, box_ap=43.7)),
    "mask_rcnn_litv2_s_ws4": Weights(
        task="instance segmentation", url=LITV2 + "v1.0/mask_rcnn_litv2_s_fpn_1x_coco_ws_4.pth", source=LITV2_REPO,
        preprocessing=COCO, published=dict(
            schedule="1x", window_size=4, params_M=47, macs_G=249, fps_rtx3090=21.9, box_ap=44.7, mask_ap=40.7)),
    "retinanet_litv2_m": Weights(
        task="detection", url=LITV2 + "v1.0/retinanet_litv2_m_fpn_1x_coco.pth", source=LITV2_REPO, preprocessing=COCO,
        published=dict(
            schedule="1x", window_size=2, params_M=59, macs_G=348, fps_rtx3090=12.2, box_ap=46.0)),
    "mask_rcnn_litv2_m": Weights(
        task="instance segmentation", url=LITV2 + "v1.0/mask_rcnn_litv2_m_fpn_1x_coco.pth", source=LITV2_REPO,
        preprocessing=COCO, published=dict(
            schedule="1x", window_size=2, params_M=68, macs_G=367, fps_rtx3090=12.6, box_ap=46.8, mask_ap=42.3)),
    "retinanet_litv2_m_ws4": Weights(
        task="detection", url=LITV2 + "v1.0/retinanet_litv2_m_fpn_1x_coco_ws_4.pth", source=LITV2_REPO,
        preprocessing=COCO, published=dict(
            schedule="1x", window_size=4, params_M=59, macs_G=312, fps_rtx3090=14.8, box_ap=45.8)),
    "mask_rcnn_litv2_m_ws4": Weights(
        task="instance segmentation", url=LITV2 + "v1.0/mask_rcnn_litv2_m_fpn_1x_coco_ws_4.pth", source=LITV2_REPO,
        preprocessing=COCO, published=dict(
            schedule="1x", window_size=4, params_M=68, macs_G=315, fps_rtx3090=16.0, box_ap=46.5, mask_ap=42.0)),
    "retinanet_litv2_b": Weights(
        task="detection", url=LITV2 + "v1.0/retinanet_litv2_b_fpn_1x_coco.pth", source=LITV2_REPO, preprocessing=COCO,
        published=dict(
            schedule="1x", window_size=2, params_M=97, macs_G=481, fps_rtx3090=9.5, box_ap=46.7)),
    "mask_rcnn_litv2_b": Weights(
        task="instance segmentation", url=LITV2 + "v1.0/mask_rcnn_litv2_b_fpn_1x_coco.pth", source=LITV2_REPO,
        preprocessing=COCO, published=dict(
            schedule="1x", window_size=2, params_M=106, macs_G=500, fps_rtx3090=9.3, box_ap=47.3, mask_ap=42.6)),
    "retinanet_litv2_b_ws4": Weights(
        task="detection", url=LITV2 + "v1.0/retinanet_litv2_b_fpn_1x_coco_ws_4.pth", source=LITV2_REPO,
        preprocessing=COCO, published=dict(
            schedule="1x", window_size=4, params_M=97, macs_G=430, fps_rtx3090=11.8, box_ap=46.3)),
    "mask_rcnn_litv2_b_ws4": Weights(
        task="instance segmentation", url=LITV2 + "v1.0/mask_rcnn_litv2_b_fpn_1x_coco_ws_4.pth", source=LITV2_REPO,
        preprocessing=COCO, published=dict(
            schedule="1x", window_size=4, params_M=106, macs_G=449, fps_rtx3090=11.5, box_ap=46.8, mask_ap=42.3)),
    "semantic_fpn_litv2_s": Weights(
        task="semantic segmentation", url=LITV2 + "v1.0/litv2_s_fpn_r50_512x512_80k_ade20k.pth", source=LITV2_REPO,
        preprocessing=ADE20K, published=dict(
            iterations=80000, params_M=31, macs_G=41, fps=42.6, miou=44.3)),
    "semantic_fpn_litv2_m": Weights(
        task="semantic segmentation", url=LITV2 + "v1.0/litv2_m_fpn_r50_512x512_80k_ade20k.pth", source=LITV2_REPO,
        preprocessing=ADE20K, published=dict(
            iterations=80000, params_M=52, macs_G=63, fps=28.5, miou=45.7)),
    "semantic_fpn_litv2_b": Weights(
        task="semantic segmentation", url=LITV2 + "v1.0/litv2_b_fpn_r50_512x512_80k_ade20k.pth", source=LITV2_REPO,
        preprocessing=ADE20K, published=dict(
            iterations=80000, params_M=90, macs_G=93, fps=27.5, miou=47.2)),
    "lvt": Weights(
        task="classification", page=LVT_PAGE + "EfRiWkG1IHdCr1fMHcpv4AcBqnfqkrTVI7XVD-tom6Gwwg?e=DSc7sH",
        file="lvt_imagenet.pth.tar", source=LVT_REPO, licence=ADOBE, preprocessing=IMAGENET_LVT, published=dict(
            params_M=3.4, params_are="backbone only", macs_G=0.9, top1=74.8)),
    "lvt_backbone": Weights(
        task="pre-training weights", page=LVT_PAGE + "EWY2UcHaAPlLkRi7MQvXNWQBAXA8tc_y5No_rCjXnzw97Q?e=YEp3zj",
        file="lvt_imagenet_pretrained.pth.tar", source=LVT_REPO, licence=ADOBE, preprocessing=IMAGENET_LVT),
    "segformer_lvt": Weights(
        task="semantic segmentation", page=LVT_PAGE + "ERCKoFH80EREtzvmeTklq6MBa-Iw5nX9IM7w5lwFsW6UjA?e=eNhaf7",
        file="segformer_lvt_ade20k.pth", source=LVT_REPO, licence=ADOBE, preprocessing=ADE20K, published=dict(
            iterations=160000, params_M=3.9, macs_G=10.6, macs_at="short side 512", fps_v100=45.5, miou=39.3)),
    "panoptic_fpn_lvt": Weights(
        task="panoptic segmentation", page=LVT_PAGE + "ESd4pNvGu1VGjJ14_XQ1ViABJldEqDmtEH5UAGmBSbm-pA?e=mNGeN5",
        file="panoptic_fpn_lvt_fpn_coco.pth", source=LVT_REPO, licence=ADOBE, preprocessing=COCO,
        counted_at=(800, 1344), published=dict(
            schedule="3x", params_M=5.4, macs_G=56.4, macs_at="1333x800", fps_v100=20.4, pq=42.8, pq_things=49.5,
            pq_stuff=32.6, test_dev_pq=43.0, test_dev_pq_things=49.9, test_dev_pq_stuff=32.6)),
}

# Rows of LIT's tables 2-4 that were published as figures only. remove_12: no attention in stages 1 and 2.
ABLATIONS: dict[str, dict[str, float]] = {
    "lit_ti_uniform": dict(params_M=19, macs_G=3.6, top1=80.4),
    "lit_s_uniform": dict(params_M=27, macs_G=4.1, top1=81.3),
    "pvt_s": dict(params_M=25, macs_G=3.8, top1=79.8),
    "pvt_s_dtm": dict(params_M=25, macs_G=3.8, top1=80.5),
    "swin_ti": dict(params_M=28, macs_G=4.5, top1=81.3),
    "swin_ti_dtm": dict(params_M=28, macs_G=4.5, top1=81.6),
    "pvt_s_msa_remove_1": dict(params_M=20, macs_G=4.5, top1=80.8),
    "pvt_s_msa_remove_12": dict(params_M=19, macs_G=3.6, top1=80.4),
    "pvt_s_msa_remove_123": dict(params_M=17, macs_G=3.0, top1=75.0),
    "pvt_s_msa_remove_1234": dict(params_M=14, macs_G=2.8, top1=66.8),
}
# fmt: on


def weights_word(weights: Pathlike | None) -> Pathlike | None:
    """The words for weights, in any case: None for "none", "official", "imagenet"; anything else is a path and stays.

    They mean the same wherever weights are taken: random; the published file of the model; of a dense model, the
    published ImageNet weights of its backbone under a random head (a classifier's are its published file).
    """
    if weights is not None and not isinstance(weights, str | os.PathLike):  # timm's second argument is pretrained
        raise ValueError(
            f'weights must be "official", "imagenet", "none", a file or the folder of a run, got {weights!r:.60}'
        )
    word = str(weights).lower()
    return None if word == "none" else word if word in ("official", "imagenet") else weights


def is_file(weights: Pathlike | None) -> bool:
    """Whether weights are a path, and none of the words."""
    return weights_word(weights) not in (None, "official", "imagenet")


def find(name: str) -> Weights:
    """The published checkpoint of a model name."""
    if name in WEIGHTS:
        return WEIGHTS[name]
    near = get_close_matches(name.lower(), WEIGHTS, n=3)
    hint = f" Near names that have one: {', '.join(near)}." if near else ""
    raise ValueError(
        f"No checkpoint was published for '{name}'.{hint} Other weights: none (random), the path of a file, a run; "
        "imagenet, for a backbone of ours in a detector or segmenter."
    )


def preprocessing(name: str) -> Preprocessing:
    """The published preprocessing of a model name; a model without published weights gets its family's."""
    if name in WEIGHTS:
        return WEIGHTS[name].preprocessing
    if name not in MODELS:
        return IMAGENET_224
    entry = MODELS[name]
    if entry.task.name == "semantic segmentation":
        return ADE20K
    if entry.task.name != "classification":
        return COCO
    return replace(IMAGENET_224, crop_pct=family_of(entry.backbone).crop_pct)


def fetch(name: str, *, progress: bool = True) -> Path:
    """Path of the published checkpoint of `name`, downloaded on first use.

    Args:
        name: a key of `WEIGHTS`.
        progress: show a bar on stderr while downloading.

    Raises:
        ValueError: nothing was published under this name, or the cached file is not the one recorded.
        FileNotFoundError: the file has to be fetched by hand from a share page.
        OSError: no network, no space, or the transfer broke off; nothing incomplete takes the file's name.
    """
    entry = find(name)
    folder = cache_dir()
    target = folder / entry.filename
    if entry.page and not target.exists():
        raise FileNotFoundError(
            f"The weights of {name} sit behind a share page and cannot be downloaded by a program. Open {entry.page} "
            f"in a browser, save the file as {target} or pass its path as weights=PATH. Licence: {ADOBE_NOTICE}."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"Cannot write to the cache {folder} ({error.strerror}). Set LITEVIT_CACHE to a folder."
        ) from None
    with FileLock(folder / f"{entry.filename}.lock"):  # one process of a distributed run downloads, the others wait
        remove_temporaries(_record(target))
        if target.exists():
            remove_parts(target)  # of a process that was killed when all was there
        else:
            assert entry.url is not None
            download(entry.url, target, sha256=entry.sha256, progress=progress)
        _check_hash(target, expected=entry.sha256)
    if entry.licence == ADOBE:
        logger.warning("%s: %s.", entry.filename, ADOBE_NOTICE)
    return target


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _check_hash(path: Path, *, expected: str | None) -> None:
    """Compares a cached file with the published hash or the one recorded on first use; records it if there is none."""
    record = _record(path)
    if expected is None and record.exists():
        expected = record.read_text(encoding="utf-8").split()[0]
    found = sha256_of(path)
    if expected is None:
        write_text(record, f"{found}  {path.name}\n")  # the format of `sha256sum --check`
    elif found != expected:
        raise ValueError(
            f"{path} has changed: its sha256 should be {expected}, is {found}. "
            f"Delete the file (and {record.name}) to get it anew."
        )
