"""Recipes: one function per published row, each returning the whole run as a typed `Recipe`."""

import difflib
from collections.abc import Callable
from pathlib import Path

from litevit.engine.config import Recipe
from litevit.jobs.recipe_files import load_recipe
from litevit.recipes import ade20k, cifar10, coco, finetune_dense, imagenet1k, quickstart_dense
from litevit.recipes.finetune import finetune
from litevit.recipes.quickstart import quickstart

RECIPES: dict[str, Callable[[], Recipe]] = {
    "quickstart": quickstart,
    "quickstart-detection": quickstart_dense.quickstart_detection,
    "quickstart-panoptic": quickstart_dense.quickstart_panoptic,
    "quickstart-segmentation": quickstart_dense.quickstart_segmentation,
    "finetune": finetune,
    "finetune-detection": finetune_dense.finetune_detection,
    "finetune-instances": finetune_dense.finetune_instances,
    "finetune-panoptic": finetune_dense.finetune_panoptic,
    "finetune-segmentation": finetune_dense.finetune_segmentation,
    "cifar10": cifar10.cifar10,
    "cifar10_lit": cifar10.cifar10_lit,
    "cifar10_lvt": cifar10.cifar10_lvt,
    "cifar10_swin": cifar10.cifar10_swin,
    "cifar10_convnext": cifar10.cifar10_convnext,
    "cifar10_smoke": cifar10.cifar10_smoke,
    "lit_ti": imagenet1k.lit_ti,
    "lit_s": imagenet1k.lit_s,
    "lit_m": imagenet1k.lit_m,
    "lit_b": imagenet1k.lit_b,
    "litv2_s": imagenet1k.litv2_s,
    "litv2_m": imagenet1k.litv2_m,
    "litv2_b": imagenet1k.litv2_b,
    "litv2_b_384": imagenet1k.litv2_b_384,
    "litv2_s_alpha_00": imagenet1k.litv2_s_alpha_00,
    "litv2_s_alpha_02": imagenet1k.litv2_s_alpha_02,
    "litv2_s_alpha_04": imagenet1k.litv2_s_alpha_04,
    "litv2_s_alpha_05": imagenet1k.litv2_s_alpha_05,
    "litv2_s_alpha_07": imagenet1k.litv2_s_alpha_07,
    "litv2_s_alpha_09": imagenet1k.litv2_s_alpha_09,
    "litv2_s_alpha_10": imagenet1k.litv2_s_alpha_10,
    "lvt": imagenet1k.lvt,
    "lit_ti_uniform": imagenet1k.lit_ti_uniform,
    "lit_s_uniform": imagenet1k.lit_s_uniform,
    "pvt_s": imagenet1k.pvt_s,
    "pvt_s_dtm": imagenet1k.pvt_s_dtm,
    "pvt_s_msa": imagenet1k.pvt_s_msa,
    "pvt_s_msa_remove_1": imagenet1k.pvt_s_msa_remove_1,
    "pvt_s_msa_remove_12": imagenet1k.pvt_s_msa_remove_12,
    "pvt_s_msa_remove_123": imagenet1k.pvt_s_msa_remove_123,
    "pvt_s_msa_remove_1234": imagenet1k.pvt_s_msa_remove_1234,
    "swin_ti": imagenet1k.swin_ti,
    "swin_ti_dtm": imagenet1k.swin_ti_dtm,
    "retinanet_lit_ti": coco.retinanet_lit_ti,
    "retinanet_lit_s": coco.retinanet_lit_s,
    "mask_rcnn_lit_ti": coco.mask_rcnn_lit_ti,
    "mask_rcnn_lit_s": coco.mask_rcnn_lit_s,
    "retinanet_litv2_s": coco.retinanet_litv2_s,
    "retinanet_litv2_s_ws4": coco.retinanet_litv2_s_ws4,
    "retinanet_litv2_m": coco.retinanet_litv2_m,
    "retinanet_litv2_m_ws4": coco.retinanet_litv2_m_ws4,
    "retinanet_litv2_b": coco.retinanet_litv2_b,
    "retinanet_litv2_b_ws4": coco.retinanet_litv2_b_ws4,
    "mask_rcnn_litv2_s": coco.mask_rcnn_litv2_s,
    "mask_rcnn_litv2_s_ws4": coco.mask_rcnn_litv2_s_ws4,
    "mask_rcnn_litv2_m": coco.mask_rcnn_litv2_m,
    "mask_rcnn_litv2_m_ws4": coco.mask_rcnn_litv2_m_ws4,
    "mask_rcnn_litv2_b": coco.mask_rcnn_litv2_b,
    "mask_rcnn_litv2_b_ws4": coco.mask_rcnn_litv2_b_ws4,
    "panoptic_fpn_lvt": coco.panoptic_fpn_lvt,
    "panoptic_fpn_lvt_1x": coco.panoptic_fpn_lvt_1x,
    "semantic_fpn_lit_ti": ade20k.semantic_fpn_lit_ti,
    "semantic_fpn_lit_s": ade20k.semantic_fpn_lit_s,
    "semantic_fpn_litv2_s": ade20k.semantic_fpn_litv2_s,
    "semantic_fpn_litv2_m": ade20k.semantic_fpn_litv2_m,
    "semantic_fpn_litv2_b": ade20k.semantic_fpn_litv2_b,
    "segformer_lvt": ade20k.segformer_lvt,
}


def get_recipe(name: str) -> Recipe:
    """A recipe by name, or from a `recipe.json` that a run has written.

    Args:
        name: of `RECIPES`, or the path of a JSON file.

    Returns:
        The whole run; `dataclasses.replace` changes it.

    Raises:
        ValueError: an unknown name, or a file that is no recipe.
        FileNotFoundError: no such file.
    """
    if name.endswith(".json"):
        return load_recipe(Path(name))
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(RECIPES)}."
        raise ValueError(f"Unknown recipe {name!r}. {hint}")
    return RECIPES[name]()
