"""Top-1 accuracy on ImageNet-1k beside speed: ours as published, the peers' from the papers that name them."""

from litevit.models import info, list_models

# Top-1 and the side of the images it was measured at, trained on ImageNet-1k alone, by the paper's table. (d): with a
# teacher. timm's own weights of these names may be better trained ones.
TOP1: dict[str, tuple[float, int]] = {
    "cait_xxs24_224": (77.6, 224),  # arXiv:2103.17239
    "convnext_tiny": (82.1, 224),  # arXiv:2201.03545
    "deit3_small_patch16_224": (81.4, 224),  # arXiv:2204.07118
    "efficientformerv2_s2": (81.6, 224),  # arXiv:2212.08059 (d)
    "efficientvit_b2": (82.1, 224),  # arXiv:2205.14756
    "focalnet_tiny_srf": (82.1, 224),  # arXiv:2203.11926
    "hiera_tiny_224": (82.8, 224),  # arXiv:2306.00989, masked pre-training
    "pvt_v2_b0": (70.5, 224),  # arXiv:2106.13797
    "pvt_v2_b2": (82.0, 224),
    "repvit_m1_5": (82.3, 224),  # arXiv:2307.09283 (d), 300 epochs
    "repvit_m2_3": (83.3, 224),
    "resnet50": (80.4, 224),  # arXiv:2110.00476, A1
    "swin_tiny_patch4_window7_224": (81.3, 224),  # arXiv:2103.14030
    "tiny_vit_11m_224": (81.5, 224),  # arXiv:2207.10666
    "tnt_s_patch16_224": (81.5, 224),  # arXiv:2103.00112
    "twins_svt_small": (81.7, 224),  # arXiv:2104.13840
    "xcit_small_12_p16_224": (82.0, 224),  # arXiv:2106.09681
}


def published_top1(name: str, size: tuple[int, int]) -> float | None:
    """Of a model at a size of images; None where no table says. Args: name: of litevit's or timm's."""
    if name in list_models():
        known = info(name)
        found = known.published.get("top1")
        return float(found) if found is not None and known.image_size == size else None
    top1, side = TOP1.get(name, (None, 0))
    return top1 if size == (side, side) else None
