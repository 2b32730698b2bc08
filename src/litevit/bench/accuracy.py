"""Top-1 accuracy on ImageNet-1k beside speed: ours as their papers say, the peers' as timm measured its weights."""

from typing import NamedTuple

from litevit.models import info, list_models

# The peers': huggingface/pytorch-image-models @ 7479d45, results/results-imagenet.csv, validation set, this side of the
# images. Weights trained on ImageNet-1k alone; without a teacher where there are such (a tag with "dist": there are
# none), and of several the best. hgnetv2_b3 has none trained on ImageNet-1k alone, fastvit none measured at this side.
SIDE = 224
TOP1: dict[str, tuple[float, str]] = {
    "cait_xxs24_224": (78.392, "fb_dist_in1k"),
    "coatnet_0_rw_224": (82.394, "sw_in1k"),
    "convnext_tiny": (82.066, "fb_in1k"),
    "deit3_small_patch16_224": (81.374, "fb_in1k"),
    "efficientformerv2_s2": (82.150, "snap_dist_in1k"),
    "efficientvit_b2": (82.162, "r224_in1k"),
    "focalnet_tiny_srf": (82.144, "ms_in1k"),
    "hiera_tiny_224": (82.824, "mae_in1k_ft_in1k"),
    "mobilenetv4_conv_medium": (79.092, "e500_r224_in1k"),
    "pvt_v2_b0": (70.656, "in1k"),
    "pvt_v2_b2": (82.094, "in1k"),
    "repvit_m1_5": (82.520, "dist_450e_in1k"),
    "repvit_m2_3": (83.742, "dist_450e_in1k"),
    "resnet50": (80.844, "tv2_in1k"),
    "swin_tiny_patch4_window7_224": (81.388, "ms_in1k"),
    "tiny_vit_11m_224": (81.538, "in1k"),
    "tnt_s_patch16_224": (81.528, "in1k"),
    "twins_svt_small": (81.692, "in1k"),
    "xcit_small_12_p16_224": (81.982, "fb_in1k"),
}


class Top1(NamedTuple):
    percent: float
    by: str  # who says so: "paper", or "timm" and the tag of its weights


def published_top1(name: str, size: tuple[int, int]) -> Top1 | None:
    """Of a model at a size of images; None where no table says. Args: name: of litevit's or timm's."""
    if name in list_models():
        known = info(name)
        found = known.published.get("top1")
        return Top1(float(found), "paper") if found is not None and known.image_size == size else None
    if name not in TOP1 or size != (SIDE, SIDE):
        return None
    percent, tag = TOP1[name]
    return Top1(percent, f"timm {tag}")
