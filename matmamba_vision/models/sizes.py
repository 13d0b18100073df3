"""Images of other sizes than the trained one."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor


def positions_for(pos_embed: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions (1, L, D) of patches and class token on another grid, interpolated (bicubic, antialiased).

    Args:
        pos_embed: positions of the old grid's patches, then of the class token. old, new: rows and columns.
    """
    if tuple(old) == tuple(new):
        return pos_embed
    patches = resample_abs_pos_embed(pos_embed[:, :-1], list(new), list(old), num_prefix_tokens=0)
    return torch.cat([patches, pos_embed[:, -1:]], dim=1)


def require_size(size: Any, trained: Any, patch: Any, dynamic: bool) -> None:
    """Raise `ValueError` unless images of `size` are taken."""
    if not dynamic and tuple(size) != tuple(trained):
        raise ValueError(
            f"images of {size[0]}x{size[1]} pixels: this model takes {trained[0]}x{trained[1]}"
            " (set_input_size changes that, dynamic_img_size=True takes any)"
        )
    if any(whole < part or whole % part for whole, part in zip(size, patch, strict=True)):
        raise ValueError(
            f"images of {size[0]}x{size[1]} pixels are no multiple of patches of {patch[0]}x{patch[1]}"
        )
