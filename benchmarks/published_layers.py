"""LITv2-S as its layers are published, without thought for speed: the "before" of docs/performance.md.

Written from the description of the layers: tokens (B, L, C) travel flat, every module goes to a map and back, windows
are cut by permute + reshape, attention is two products and a softmax, deformable merging is torchvision's operator.
Parameter names are those of the official checkpoints, so that both can be given the same weights.

    python benchmarks/published_layers.py --threads 1 --rounds 7
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

import litevit
from litevit.bench.timing import interleave, speedup, threads
from litevit.checkpoints.lit import to_official


class Attention(nn.Module):
    """HiLo: Hi-Fi in s x s windows, Lo-Fi on window averages."""

    def __init__(self, dim: int, heads: int, s: int, alpha: float):
        super().__init__()
        self.s, self.d = s, dim // heads
        self.lo = heads if s == 1 else int(heads * alpha)
        self.hi = heads - self.lo
        lo_dim, hi_dim = self.lo * self.d, self.hi * self.d
        self.l_q, self.l_kv = nn.Linear(dim, lo_dim), nn.Linear(dim, 2 * lo_dim)
        self.l_proj = nn.Linear(lo_dim, lo_dim)
        if self.hi:
            self.h_qkv, self.h_proj = nn.Linear(dim, 3 * hi_dim), nn.Linear(hi_dim, hi_dim)

    def forward(self, x: Tensor) -> Tensor:
        B, L, C = x.shape
        H = W = int(L**0.5)
        x = x.view(B, H, W, C)
        if not self.hi:
            return self.low(x).reshape(B, L, C)
        return torch.cat((self.high(x), self.low(x)), -1).reshape(B, L, C)

    def high(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        s, h, w = self.s, H // self.s, W // self.s
        x = x.reshape(B, h, s, w, s, C).transpose(2, 3).reshape(B, h * w, s * s, C)
        q, k, v = self.h_qkv(x).reshape(B, h * w, s * s, 3, self.hi, self.d).permute(3, 0, 1, 4, 2, 5)
        weights = ((q @ k.transpose(-2, -1)) * self.d**-0.5).softmax(-1)
        x = (weights @ v).transpose(2, 3).reshape(B, h, w, s, s, self.hi * self.d)
        return self.h_proj(x.transpose(2, 3).reshape(B, H, W, self.hi * self.d))

    def low(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        q = self.l_q(x).reshape(B, H * W, self.lo, self.d).permute(0, 2, 1, 3)
        if self.s > 1:
            x = F.avg_pool2d(x.permute(0, 3, 1, 2), self.s).reshape(B, C, -1).permute(0, 2, 1)
        k, v = self.l_kv(x).reshape(B, -1, 2, self.lo, self.d).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * self.d**-0.5).softmax(-1)
        return self.l_proj((weights @ v).transpose(1, 2).reshape(B, H, W, self.lo * self.d))


class DepthwiseConv(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        B, L, C = x.shape
        H = W = int(L**0.5)
        return self.dwconv(x.transpose(1, 2).reshape(B, C, H, W)).flatten(2).transpose(1, 2)


class ConvFFN(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.fc1, self.dwconv, self.fc2 = nn.Linear(dim, 4 * dim), DepthwiseConv(4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(x))))


class Block(nn.Module):
    def __init__(self, dim: int, attention: Attention | None):
        super().__init__()
        if attention is not None:
            self.norm1 = nn.LayerNorm(dim)
            self.attn = attention
        self.norm2, self.mlp = nn.LayerNorm(dim), ConvFFN(dim)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "attn"):
            x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DeformConv(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2 * dim, dim, 2, 2) / (4 * dim) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(2 * dim))
        self.conv_offset = nn.Conv2d(dim, 8, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return deform_conv2d(x, self.conv_offset(x), self.weight, self.bias, stride=2)


class Merging(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.dconv, self.norm_layer = DeformConv(dim), nn.BatchNorm2d(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        B, L, C = x.shape
        H = W = int(L**0.5)
        x = x.transpose(1, 2).reshape(B, C, H, W)
        return F.gelu(self.norm_layer(self.dconv(x))).flatten(2).transpose(1, 2)


class Stage(nn.Module):
    def __init__(self, i: int, depth: int):
        super().__init__()
        dim = 96 * 2**i
        make = [None, None, lambda: Attention(dim, 12, 2, 0.9), lambda: Attention(dim, 24, 1, 0.9)][i]
        self.blocks = nn.Sequential(*(Block(dim, make() if make else None) for _ in range(depth)))
        self.downsample = Merging(dim) if i < 3 else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(3, 96, 4, stride=4), nn.LayerNorm(96)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))


class PublishedLITv2S(nn.Module):
    """Images (B, 3, 224, 224) -> logits (B, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.layers = nn.Sequential(*(Stage(i, depth) for i, depth in enumerate((2, 2, 6, 2))))
        self.norm, self.head = nn.LayerNorm(768), nn.Linear(768, 1000)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.patch_embed(images))).mean(1))


def pair() -> tuple[nn.Module, nn.Module]:
    """(published layers, litevit's), with the same weights."""
    ours, published = litevit.create_model("litv2_s").eval(), PublishedLITv2S().eval()
    state = {key.removeprefix("backbone."): value for key, value in ours.state_dict().items()}
    published.load_state_dict(to_official(state).state)
    return published, ours


def main() -> None:
    parser = argparse.ArgumentParser(description="litv2_s against a plain transcription of its published layers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.threads, arguments.batch) < 1:
        parser.error("rounds, threads and batch must be at least 1")
    published, ours = pair()
    fused = litevit.optimize_for_inference(ours)
    images = torch.randn(arguments.batch, 3, 224, 224)

    def step(model: nn.Module) -> None:
        model.zero_grad()
        model(images).square().mean().backward()

    with threads(arguments.threads), torch.inference_mode():
        worst = (published(images) - fused(images)).abs().max().item()
        print(f"largest difference of the logits: {worst:.1e}")
        cases = {"published": lambda: published(images), "ours": lambda: fused(images)}
        timed = interleave(cases, rounds=arguments.rounds)
    with threads(arguments.threads):
        published.train(), ours.train()
        steps = {"published, step": lambda: step(published), "ours, step": lambda: step(ours)}
        timed |= interleave(steps, rounds=max(2, arguments.rounds // 2))
    for name, timing in timed.items():
        spread = timing.spread(arguments.clock) or 0
        print(f"{name:16} {timing.median(arguments.clock) * 1e3:8.1f} ms, spread {spread:.0%}")
    for kind in ("", ", step"):
        ratio = speedup(timed[f"ours{kind}"], timed[f"published{kind}"], arguments.clock)
        print(f"ours is {ratio:.2f}x as fast{kind}")


if __name__ == "__main__":
    main()
