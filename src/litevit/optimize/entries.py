"""Entries of a stage: BatchNorm folded into token merging, images with their pixels together: inference."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_weights

from litevit.layers.deformable_merging import DeformableTokenMerging
from litevit.layers.patch_embed import OverlapPatchEmbed, PatchEmbed
from litevit.ops.deformable_sampling import deformable_sample
from litevit.optimize.linear import OneDNNLinear
from litevit.optimize.operators import takes, takes_triton


def sample(x: Tensor, offset: Tensor) -> Tensor:
    """`deformable_sample`, on CUDA by litevit's Triton kernel: 9 times as fast on an H200 in bfloat16.

    The kernel's gradient of x is summed in no fixed order, so that deterministic training takes the plain form.
    """
    learns = torch.is_grad_enabled() and (x.requires_grad or offset.requires_grad)
    if takes_triton(x, offset) and not (learns and torch.are_deterministic_algorithms_enabled()):
        from litevit.ops.triton.merging import deformable_sample as triton_sample

        return triton_sample(x, offset)
    return deformable_sample(x, offset)


class SampledMerging(DeformableTokenMerging):
    """Token merging that samples by the Triton kernel on CUDA; replaces it in training."""

    def sample(self, x: Tensor, offset: Tensor) -> Tensor:
        """As the plain layer's."""
        return sample(x, offset)


class FoldedMerging(SampledMerging):
    """Token merging with its BatchNorm folded into `proj`, GELU inside the product; replaces it in inference.

    Absorbs `norm`, which becomes an Identity.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C_in), H and W >= 2. Returns: (B, H//2, W//2, C)."""
        sampled = self.sample(x, self.predict_offset(x))
        if isinstance(self.proj, OneDNNLinear):
            return self.proj(sampled, "gelu")
        return F.gelu(self.proj(sampled))


@torch.no_grad()
def fold_norm(merging: DeformableTokenMerging) -> None:
    """Folds BatchNorm's statistics and affine part into `proj`, in place."""
    norm, proj = merging.norm, merging.proj
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_linear_bn_weights(
        proj.weight, proj.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    proj.weight, proj.bias = weight, bias
    merging.norm = nn.Identity()  # type: ignore[assignment]


class PixelsTogether(PatchEmbed):
    """Images reach the first convolution with their pixels together, 3 to 4 times as fast; replaces PatchEmbed."""

    def forward(self, x: Tensor) -> Tensor:
        """As the plain layer's."""
        return super().forward(x.contiguous() if takes(x) else x)


class PixelsTogetherOverlap(OverlapPatchEmbed):
    """The same of OverlapPatchEmbed."""

    def forward(self, x: Tensor) -> Tensor:
        """As the plain layer's."""
        return super().forward(x.contiguous() if takes(x) else x)
