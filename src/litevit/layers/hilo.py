"""HiLo attention of LITv2 (arXiv:2205.13213, sec. 3.1): some heads see fine detail, the others the average.

Hi-Fi heads attend inside s x s windows (high frequencies); Lo-Fi heads attend from every position to the window
averages (low frequencies). Shapes: B batch, H x W grid, C channels, N heads, L queries, M keys, D head channels,
h x w = ceil(H/s) x ceil(W/s) windows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litevit.ops.grid import crop_grid, pad_grid
from litevit.ops.heads import merge_heads
from litevit.ops.window_attention import window_attention


class HiLo(nn.Module):
    """Self-attention split into a high-frequency and a low-frequency group of heads.

    Args:
        dim: channels C.
        num_heads: N, both groups together; must divide dim.
        window_size: side s of the windows; 1 means ordinary global attention, whatever alpha is.
        alpha: share of the heads given to Lo-Fi, in [0, 1]; int(N * alpha) heads. 0 is pure Hi-Fi, 1 pure Lo-Fi.
        qkv_bias: bias of the input projections (the output projections always have one).
        qk_scale: factor on the logits; None takes D ** -0.5.
        pad_windows: a grid that s does not divide is padded with zeros at the right and bottom, and cropped after
            (the rule of the published detectors: padded tokens act as keys, nothing is masked). False is the rule of
            the authors' stand-alone module: Lo-Fi drops the incomplete windows from its average, Hi-Fi refuses.

    Example:
        >>> import torch, litevit
        >>> hilo = litevit.HiLo(dim=384, num_heads=12, window_size=2, alpha=0.5)
        >>> tokens = torch.randn(64, 14 * 14, 384)
        >>> hilo(tokens, 14, 14).shape                    # tokens with their grid, as the authors call it
        torch.Size([64, 196, 384])
        >>> hilo(tokens.view(64, 14, 14, 384)).shape      # or a BHWC map
        torch.Size([64, 14, 14, 384])
        >>> hilo.flops(14, 14)                            # multiply-adds of one image
        83467776
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        window_size: int = 2,
        alpha: float = 0.5,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        pad_windows: bool = True,
    ):
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise ValueError(f"HiLo: dim must be a multiple of num_heads, got dim={dim}, num_heads={num_heads}")
        if window_size < 1:
            raise ValueError(f"HiLo: window_size must be at least 1, got {window_size}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"HiLo: alpha must be in [0, 1], got {alpha}")
        self.dim = dim
        self.window_size = window_size
        self.pad_windows = pad_windows
        self.head_dim = dim // num_heads
        self.lo_heads = num_heads if window_size == 1 else int(num_heads * alpha)
        self.hi_heads = num_heads - self.lo_heads
        self.lo_dim = self.lo_heads * self.head_dim
        self.hi_dim = self.hi_heads * self.head_dim
        self.scale = qk_scale or self.head_dim**-0.5
        # One projection for all that reads full-resolution tokens, [Lo-Fi q | Hi-Fi q, k, v]; official: l_q, h_qkv.
        self.in_proj = nn.Linear(dim, self.lo_dim + 3 * self.hi_dim, bias=qkv_bias)
        if self.lo_heads:
            self.lo_kv = nn.Linear(dim, 2 * self.lo_dim, bias=qkv_bias)
            self.lo_proj = nn.Linear(self.lo_dim, self.lo_dim)
        if self.hi_heads:
            self.hi_proj = nn.Linear(self.hi_dim, self.hi_dim)

    def forward(self, x: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        """
        Args:
            x: (B, H, W, C), or tokens (B, H*W, C).
            height, width: of the tokens' grid; not asked of a map.

        Returns:
            Shaped as x.

        Raises:
            ValueError: tokens without their grid or of another; without `pad_windows` a grid that s does not divide.
        """
        if x.ndim == 3:
            if height is None or width is None or height * width != x.shape[1]:
                raise ValueError(
                    "HiLo: tokens (B, L, C) need height * width == L, "
                    f"got L={x.shape[1]}, height={height}, width={width}"
                )
            return self._attend(x.view(x.shape[0], height, width, x.shape[2])).flatten(1, 2)
        return self._attend(x)

    def _attend(self, x: Tensor) -> Tensor:
        _, H, W, _ = x.shape
        s = self.window_size
        if self.pad_windows:
            x = pad_grid(x, s) if s > 1 else x
        elif self.hi_heads and (H % s or W % s):
            raise ValueError(f"HiLo: without pad_windows a {H} x {W} grid must be a multiple of window_size={s}")
        projected = self.in_proj(x)
        outs = []
        if self.hi_heads:
            outs.append(self.hi_proj(self.hi_fi(projected[..., self.lo_dim :])))
        if self.lo_heads:
            outs.append(self.lo_proj(self.lo_fi(x, projected[..., : self.lo_dim])))
        out = torch.cat(outs, -1) if len(outs) == 2 else outs[0]
        return crop_grid(out, H, W) if s > 1 else out

    def hi_fi(self, qkv: Tensor) -> Tensor:
        """Attention inside windows.

        Args:
            qkv: (B, H, W, 3 * N * D), H and W multiples of s.

        Returns:
            (B, H, W, N * D).
        """
        return window_attention(qkv, num_heads=self.hi_heads, window_size=self.window_size, scale=self.scale)

    def lo_fi(self, x: Tensor, q: Tensor) -> Tensor:
        """Attention of every position to the window averages.

        Args:
            x: (B, H, W, C).
            q: (B, H, W, N * D).

        Returns:
            (B, H, W, N * D).
        """
        B, H, W, _ = x.shape
        N, D = self.lo_heads, self.head_dim
        k_BNMD, v_BNMD = self.lo_kv(self.pool(x)).view(B, -1, 2, N, D).permute(2, 0, 3, 1, 4)
        q_BNLD = q.reshape(B, H * W, N, D).transpose(1, 2)
        return merge_heads(self.attend(q_BNLD, k_BNMD, v_BNMD)).reshape(B, H, W, N * D)

    def pool(self, x: Tensor) -> Tensor:
        """What Lo-Fi attends to: the mean of every window. Args: x: (B, H, W, C). Returns: (B, h, w, C)."""
        s = self.window_size
        return F.avg_pool2d(x.permute(0, 3, 1, 2), s).permute(0, 2, 3, 1) if s > 1 else x

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(scale q k^T) v. Args: q: (B, N, L, D); k, v: (B, N, M, D). Returns: (B, N, L, D)."""
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale)

    def flops(self, height: int, width: int) -> int:
        """Multiply-adds for one image, as the authors count them (no biases, softmax or pooling).

        Args:
            height, width: of the grid.

        Returns:
            The authors' own figure where s divides the grid; else that of the padded one.
        """
        s, C = self.window_size, self.dim
        h, w = -(-height // s), -(-width // s)
        windows, tokens = h * w, h * w * s * s
        hi = 3 * tokens * C * self.hi_dim + 2 * windows * s**4 * self.hi_dim + tokens * self.hi_dim**2
        lo = (
            tokens * C * self.lo_dim
            + 2 * windows * C * self.lo_dim
            + 2 * tokens * windows * self.lo_dim
            + tokens * self.lo_dim**2
        )
        return hi + lo
