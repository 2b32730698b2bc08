"""Entries of a stage: non-overlapping patch embedding and the two uniform token mergings.

Deformable token merging, LIT's own entry, is in `deformable_merging.py`.
"""

import torch
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """p x p patches -> tokens: strided convolution, then LayerNorm. On images, and PVT's uniform merging on maps."""

    def __init__(self, in_dim: int, dim: int, *, patch_size: int, norm_eps: float = 1e-5):
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C_in). Returns: (B, H//p, W//p, C)."""
        return self.norm(self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class OverlapPatchEmbed(nn.Module):
    """LVT's: a strided convolution whose kernel reaches into the neighbouring patches, then LayerNorm."""

    def __init__(self, in_dim: int, dim: int, *, stride: int):
        super().__init__()
        kernel = max(3, 2 * stride - 1)
        self.proj = nn.Conv2d(in_dim, dim, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C_in). Returns: (B, ceil(H/stride), ceil(W/stride), C)."""
        return self.norm(self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class LinearMerging(nn.Module):
    """Swin's uniform merging (arXiv:2103.14030, sec. 3.1): concatenate 2 x 2 tokens, LayerNorm, linear."""

    def __init__(self, in_dim: int, dim: int, *, norm_eps: float = 1e-5):
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_dim, eps=norm_eps)
        self.reduction = nn.Linear(4 * in_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C_in). Returns: (B, H//2, W//2, C); an odd last row or column is dropped."""
        rows = torch.arange(x.shape[1] // 2, device=x.device) * 2
        columns = torch.arange(x.shape[2] // 2, device=x.device) * 2
        # Swin's order of the four tokens: down the column first.
        x = torch.cat([x[:, rows + i][:, :, columns + j] for j in (0, 1) for i in (0, 1)], -1)
        return self.reduction(self.norm(x))
