"""`optimize_for_inference`: a copy of a model in which modules are replaced by faster twins of the same function."""

import copy
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from litevit.layers.attention import Attention, RelativeAttention
from litevit.layers.block import AttentionBlock, FeedForwardBlock
from litevit.layers.conv_ffn import ConvFFN
from litevit.layers.csa import ConvolutionalSelfAttention
from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.hilo import HiLo
from litevit.layers.mlp import MLP
from litevit.layers.patch_embed import OverlapPatchEmbed, PatchEmbed
from litevit.layers.rasa import RecursiveAtrousSelfAttention
from litevit.optimize.attention import KeptRelativeAttention, NativeAttention, NativeHiLo, NativeRASA
from litevit.optimize.csa import NativeCSA
from litevit.optimize.entries import FoldedMerging, PixelsTogether, PixelsTogetherOverlap, fold_norm
from litevit.optimize.feed_forward import BlockedConvFFN, BlockedMLP
from litevit.optimize.linear import OneDNNLinear
from litevit.optimize.native import build
from litevit.optimize.norm import FusedAttentionBlock, FusedFeedForwardBlock, NativeLayerNorm
from litevit.optimize.operators import HAS_TRITON, is_watched
from litevit.optimize.processor import prefers_onednn


class Twin(NamedTuple):
    """What replaces a plain module, and when."""

    kind: type[nn.Module]
    serves: Callable[[], bool]  # on this machine
    absorbs: tuple[str, ...] = ()  # children whose parameters it reads instead of calling them


def _always() -> bool:
    return True


TWINS: dict[type[nn.Module], Twin] = {
    nn.Linear: Twin(OneDNNLinear, prefers_onednn),
    nn.LayerNorm: Twin(NativeLayerNorm, build.make),
    MLP: Twin(BlockedMLP, _always, ("fc1", "fc2")),
    ConvFFN: Twin(BlockedConvFFN, _always, ("fc1", "dwconv", "fc2")),
    FeedForwardBlock: Twin(FusedFeedForwardBlock, _always),
    AttentionBlock: Twin(FusedAttentionBlock, _always),
    Attention: Twin(NativeAttention, build.make),
    RelativeAttention: Twin(KeptRelativeAttention, lambda: build.make() or True),
    HiLo: Twin(NativeHiLo, build.make),
    RecursiveAtrousSelfAttention: Twin(NativeRASA, lambda: prefers_onednn() or HAS_TRITON),
    ConvolutionalSelfAttention: Twin(NativeCSA, build.make),
    DeformableTokenMerging: Twin(FoldedMerging, _always, ("norm",)),
    PatchEmbed: Twin(PixelsTogether, _always),
    OverlapPatchEmbed: Twin(PixelsTogetherOverlap, _always),
}


def optimize_for_inference(model: nn.Module, *, twins: dict[type[nn.Module], Twin] | None = None) -> nn.Module:
    """A copy of a model that computes the same function faster; the model itself is not touched.

    On every device BatchNorm after token merging is folded and DropPath and Dropout go; on CUDA token merging
    samples by a Triton kernel. On a CPU modules are replaced by the twins of the table `TWINS`: feed-forward
    networks in pieces that stay in cache, relative biases that are kept, images with their pixels together; with
    AVX-512 also oneDNN's products, and on Linux litevit's C++ kernels for attention, convolutional self-attention,
    LayerNorm and, in bfloat16, depthwise convolutions. Those are compiled here, at the first call on a machine
    (about 10 seconds, said on stderr, kept in the cache folder), never in a forward.

    A twin has the state-dict keys of what it replaces. Hooks fire on twins and on what they call. These children are
    absorbed: `fc1`, `dwconv` and `fc2` of feed-forward networks, which are called all the same, by the plain layer,
    while they have hooks or a parametrisation; and `norm` of token merging, which is gone. A module with hooks or a
    parametrisation on a child that would be absorbed is left as it is. Writing to a weight, `load_state_dict`,
    `to()`, deepcopy and pickle work as on the plain model: nothing is packed or kept that a weight could leave
    behind. Under autocast, gradients, `torch.compile` and export the twins run their plain layers.

    Args:
        model: any model, backbone or layer of litevit, trained; it may be in training mode. Other modules' linear
            layers and LayerNorms are replaced as well.
        twins: another table than `TWINS`, for measurements.

    Returns:
        The copy, in evaluation mode, its parameters without gradients. Its BatchNorms are folded: it can neither be
        trained on nor take a checkpoint that has them. Outputs agree to rounding (float32: about 1e-6 of their scale).

    Raises:
        TypeError: this is no model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"optimize_for_inference takes a model (litevit.create_model makes one), got {model!r}")
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "DropPath" or isinstance(child, nn.Dropout):
                setattr(module, name, nn.Identity())
    on_cpu = all(p.device.type == "cpu" for p in copied.parameters())
    elsewhere = (DeformableTokenMerging, RecursiveAtrousSelfAttention)
    everywhere: dict[type[nn.Module], Twin] = {kind: TWINS[kind] for kind in elsewhere}
    return replace(copied, (TWINS if twins is None else twins) if on_cpu else everywhere)


def replace(model: nn.Module, table: dict[type[nn.Module], Twin]) -> nn.Module:
    """Puts twins in the place of modules, in place. Returns: the model, or the twin of the model itself."""
    made: dict[nn.Module, nn.Module] = {}
    for module in list(model.modules()):
        twin = table.get(type(module))
        if twin is not None and _may(module, twin):
            if twin.kind is FoldedMerging and isinstance(module, DeformableTokenMerging):
                fold_norm(module)
            made[module] = _become(module, twin.kind)
    for module in [*model.modules(), *made.values()]:
        for name, child in module._modules.items():
            if child in made:
                module._modules[name] = made[child]
    return made.get(model, model)


def _may(module: nn.Module, twin: Twin) -> bool:
    """Whether a twin may replace this module: it serves here, and nobody listens to or has changed what it absorbs."""
    if not twin.serves():
        return False
    if isinstance(module, nn.LayerNorm) and (len(module.normalized_shape) != 1 or module.bias is None):
        return False
    if isinstance(module, DeformableTokenMerging) and twin.kind is FoldedMerging and not _is_foldable(module):
        return False
    known = (nn.Linear, nn.Conv2d, nn.BatchNorm2d)
    children = [getattr(module, name) for name in twin.absorbs]
    return all(type(child) in known and not is_watched(child) for child in children)


def _is_foldable(merging: DeformableTokenMerging) -> bool:
    norm, proj = merging.norm, merging.proj
    has_all = isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.weight is not None
    return has_all and type(proj) is nn.Linear


def _become(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A twin with everything that the module has."""
    twin = kind.__new__(kind)
    twin.__dict__.update(module.__dict__)
    return twin
