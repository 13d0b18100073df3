"""Stochastic depth, without the library that has all networks (timm's `DropPath`, to the bit)."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Skips the update of some samples in training (arXiv 1603.09382), and scales that of the others.

    Args:
        drop_prob: share of samples that are skipped, below 1.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Updates (B, ...) to updates."""
        if not self.training:
            return x
        kept = 1 - self.drop_prob
        return x * x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(kept).div_(kept)
