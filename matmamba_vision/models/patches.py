"""Patches to tokens, and where weights start: timm's, to the bit, without the library of all networks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

Pair = tuple[int, int]
# Far beyond any draw of a small deviation.
_BOUND = 2.0


class PatchEmbed(nn.Module):
    """A convolution whose steps are patches.

    Args:
        img_size: height and width in pixels.
        patch_size: height and width in pixels.
        in_chans: channels.
        embed_dim: D.
        place: device and dtype of the parameters.
    """

    def __init__(self, img_size: Pair, patch_size: Pair, in_chans: int, embed_dim: int, **place: Any) -> None:
        super().__init__()
        self.img_size, self.patch_size = img_size, patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size, **place)

    @property
    def grid_size(self) -> Pair:
        """Rows and columns of patches."""
        (height, width), (rows, columns) = self.img_size, self.patch_size
        return height // rows, width // columns

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return self.grid_size[0] * self.grid_size[1]

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, S, S) to (B, L, D), in raster order."""
        return self.proj(x).flatten(2).transpose(1, 2)

    def set_input_size(self, img_size: Pair, patch_size: Pair) -> None:
        """Take images, or patches, of another size from now on; weights of patches are interpolated."""
        if patch_size != self.patch_size:
            self.proj = self._resampled(patch_size)
        self.img_size, self.patch_size = img_size, patch_size

    @torch.no_grad()
    def _resampled(self, patch_size: Pair) -> nn.Conv2d:
        from timm.layers import resample_patch_embed

        old = self.proj
        like: dict[str, Any] = {"device": old.weight.device, "dtype": old.weight.dtype}
        new = nn.Conv2d(old.in_channels, old.out_channels, kernel_size=patch_size, stride=patch_size, **like)
        new.weight.copy_(resample_patch_embed(old.weight, list(patch_size)))
        assert new.bias is not None
        assert old.bias is not None
        new.bias.copy_(old.bias)
        for mine, theirs in ((new.weight, old.weight), (new.bias, old.bias)):
            mine.requires_grad_(theirs.requires_grad)
        return new.train(old.training)


@torch.no_grad()
def fill_normal(tensor: Tensor, std: float) -> None:
    """Draw from a normal distribution that is cut off at 2 on both sides, in place (timm's `trunc_normal_`).

    Args:
        tensor: is filled.
        std: deviation.
    """
    if tensor.is_meta:
        # Shapes without numbers: torch would load its compiler to draw none.
        return
    share = math.erf(_BOUND / (std * math.sqrt(2.0)))
    tensor.uniform_(-share, share).erfinv_().mul_(std * math.sqrt(2.0)).add_(0.0).clamp_(-_BOUND, _BOUND)
