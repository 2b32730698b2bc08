"""Absolute position embedding of PVT and LIT-Ti (arXiv:2102.12122): one learned row per position of a stage's grid."""

import torch
from torch import Tensor, nn

from litevit.ops.position import resized_position


class AbsolutePosition(nn.Module):
    """Adds a row of a table to every token; another grid than the table's gets it resized (bilinear).

    Args:
        dim: channels C.
        grid_size: the grid (H, W) the table is made for.
        class_row: whether the table has a first row for a class token, there or not.
    """

    def __init__(self, dim: int, *, grid_size: tuple[int, int], class_row: bool = False):
        super().__init__()
        self.grid_size = grid_size
        self.class_row = class_row
        self.table = nn.Parameter(torch.empty(1, grid_size[0] * grid_size[1] + class_row, dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tensor, class_token: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (B, H, W, C).
            class_token: (1, 1, C), put before the tokens.

        Returns:
            As x; with a class token (B, 1 + H * W, C).
        """
        B, H, W, C = x.shape
        x = x + resized_position(self.table[:, self.class_row :], self.grid_size, H, W)
        if class_token is None:
            return x
        first = (class_token + self.table[:, :1]).expand(B, -1, -1)
        return torch.cat([first, x.reshape(B, H * W, C)], 1)
