"""A block between two LayerNorms: products and kernels in turn."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..launch import capability_of
from .configs import BlockConfig, BlockShape, QuadraticConfig
from .conv_scores import conv_scores
from .packing import BlockWeights
from .scan_quadratic import scan_quadratic
from .scan_state import scan_state


def mixed(
    u_BLD: Tensor, weights: BlockWeights, config: BlockConfig, *, last_alone: bool = False
) -> tuple[Tensor, Tensor]:
    """A block's update before its norm has divided it, and the sums of squares that the norm needs.

    Args:
        u_BLD: normalised tokens, contiguous.
        weights: of the block.
        config: how it is launched, for their shape.
        last_alone: whether only the last token is wanted.

    Returns:
        (B, L, D) and (B, L, blocks) as `norm_residual` takes them; of the last token alone if that is wanted.
    """
    row_BLE = F.linear(u_BLD, weights.project, weights.project_bias)
    prepared = conv_scores(row_BLE, weights, scan=config.scan, candidate=config.scores)
    if isinstance(config.scan, QuadraticConfig):
        g_BLI, sums = scan_quadratic(row_BLE, prepared, weights, candidate=config.scan, last_tile=last_alone)
    else:
        g_BLI, sums = scan_state(row_BLE, prepared, weights, candidate=config.scan)
    if last_alone:
        g_BLI, sums = g_BLI[:, -1:], sums[:, -1:].contiguous()
    return F.linear(g_BLI, weights.out), sums


def shape_of(u_BLD: Tensor, weights: BlockWeights) -> BlockShape:
    """What decides how the block is launched."""
    batch, length = u_BLD.shape[:2]
    return BlockShape(
        batch=batch,
        length=length,
        heads=weights.heads,
        head_dim=weights.head_dim,
        state=weights.state,
        heads_per_group=weights.heads_per_group,
        dtype=u_BLD.dtype,
        capability=capability_of(u_BLD.device),
    )
