"""Deformable token merging (DTM) of LIT (arXiv:2105.14217, sec. 3.3): the entry of stages 2-4 of LIT and LITv2."""

from torch import Tensor, nn

from litevit.ops.deformable_sampling import deformable_sample


class DeformableTokenMerging(nn.Module):
    """Halves the grid: each new token is a learned mixture of 2 x 2 tokens read at predicted offsets.

    At initialisation the offsets are 0 and this is a 2 x 2 convolution with stride 2, BatchNorm and GELU.

    Args:
        in_dim: channels of the tokens that come in.
        dim: channels of the merged tokens.

    Example:
        >>> import torch, litevit
        >>> merge = litevit.DeformableTokenMerging(96, 192)
        >>> merge(torch.randn(2, 56, 56, 96)).shape
        torch.Size([2, 28, 28, 192])
    """

    def __init__(self, in_dim: int, dim: int):
        super().__init__()
        self.offset = nn.Conv2d(in_dim, 8, 2, stride=2)  # official name: dconv.conv_offset
        self.proj = nn.Linear(
            4 * in_dim, dim
        )  # the deformable kernel, tap by tap; official: dconv, (dim, in_dim, 2, 2)
        self.norm = nn.BatchNorm2d(dim)
        self.act = nn.GELU()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the offset branch to zero (sampling starts on the regular grid), the kernel as a convolution's."""
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        self.proj.reset_parameters()  # as a convolution of as many inputs

    def predict_offset(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C). Returns: (B, H//2, W//2, 8): dy, dx of the four taps, in pixels of x."""
        return self.offset(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def sample(self, x: Tensor, offset: Tensor) -> Tensor:
        """The four taps of every patch.

        Args:
            x: (B, H, W, C_in).
            offset: (B, H//2, W//2, 8).

        Returns:
            (B, H//2, W//2, 4 * C_in).
        """
        return deformable_sample(x, offset)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (B, H, W, C_in), H and W >= 2. Returns: (B, H//2, W//2, C)."""
        merged = self.proj(self.sample(x, self.predict_offset(x)))
        return self.act(self.norm(merged.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
