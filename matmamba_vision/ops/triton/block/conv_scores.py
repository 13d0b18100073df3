"""Launches the first kernel of a block: convolution, steps, decays, and scores."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor

from ..launch import on_device_of, precision_of
from .configs import QuadraticConfig, ScoresConfig, StateConfig
from .conv_scores_kernel import conv_scores_kernel
from .packing import BlockWeights, wide

# Heads of a program that computes decays, channels of one that convolves, and states taken at once.
HEADS, COLUMNS, CHUNK = 16, 64, 64


def conv_scores(
    row_BLE: Tensor,
    weights: BlockWeights,
    *,
    scan: QuadraticConfig | StateConfig,
    candidate: ScoresConfig,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a scan reads, of the rows that the input projection gives.

    Args:
        row_BLE: contiguous rows.
        weights: of the block.
        scan: the scan that reads it, whose tile this is cut in.
        candidate: how it is launched.

    Returns:
        (3, B, tiles, H, T) float32: log2 of the decays summed within a tile, steps times the decay to the
        tile's end, steps; (B, G, tiles T) float32, the scores of tokens with themselves; (B, G, tiles, tiles
        or 1, T, T) scores of pairs of tiles, or of a tile with itself, 0 from the diagonal up; and what is
        convolved: x (B, L, I), and for the state form B and C of each group behind it (B, L, X).
    """
    sizes = (weights.heads, weights.head_dim, weights.state, weights.heads_per_group)
    tensors = (row_BLE, weights.taps, weights.conv_bias, weights.dt_bias, weights.rates)
    states = isinstance(scan, StateConfig)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _conv_scores(
        *tensors, *sizes, states, scan.tile, candidate.num_warps, candidate.num_stages
    )
    return result


@torch.library.custom_op("matmamba::conv_scores", mutates_args=())
def _conv_scores(
    row: Tensor,
    taps: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    rates: Tensor,
    heads: int,
    head_dim: int,
    state: int,
    heads_per_group: int,
    states: bool,
    tile: int,
    num_warps: int,
    num_stages: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    outputs = _outputs(row, heads, head_dim, state, heads_per_group, states, tile)
    if row.numel():
        sizes = {"P": head_dim, "N": state, "T": tile}
        options = sizes | {"num_warps": num_warps, "num_stages": num_stages}
        _launch(row, taps, conv_bias, dt_bias, rates, outputs, heads, options)
    return outputs


@_conv_scores.register_fake
def _outputs_of(
    row: Tensor,
    taps: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    rates: Tensor,
    heads: int,
    head_dim: int,
    state: int,
    heads_per_group: int,
    states: bool,
    tile: int,
    num_warps: int,
    num_stages: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(row, heads, head_dim, state, heads_per_group, states, tile)


def _outputs(
    row: Tensor, heads: int, head_dim: int, state: int, heads_per_group: int, states: bool, tile: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Empty, see `conv_scores`."""
    batch, length = row.shape[:2]
    groups, tiles = ceil(heads / heads_per_group), (length + tile - 1) // tile
    scores = (batch, groups, tiles, 1 if states else tiles, tile, tile)
    shared = 2 * state * groups if states else 0
    return (
        row.new_empty((3, batch, tiles, heads, tile), dtype=torch.float32),
        row.new_empty((batch, groups, tiles * tile), dtype=torch.float32),
        row.new_empty(scores, dtype=wide(row.dtype)),
        row.new_empty((batch, length, heads * head_dim + shared)),
    )


@on_device_of
def _launch(
    row: Tensor,
    taps: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    rates: Tensor,
    outputs: tuple[Tensor, Tensor, Tensor, Tensor],
    heads: int,
    options: dict[str, Any],
) -> None:
    decays, diagonal, scores, inputs = outputs
    (batch, length, width), (groups, tiles, across) = row.shape, scores.shape[1:4]
    dot, precision = precision_of(row.dtype)
    channels, columns = taps.shape[1], inputs.shape[2]
    pairs = tiles * (tiles + 1) // 2 if across > 1 else tiles
    head_blocks, column_blocks = ceil(heads / HEADS), ceil(columns / COLUMNS)
    conv_scores_kernel[(groups * pairs + (head_blocks + column_blocks) * tiles, batch)](
        row, taps, conv_bias, dt_bias, rates, decays, decays.stride(0), diagonal, scores, inputs, length,
        width, heads, channels, groups, tiles, across, pairs, head_blocks,
        columns, CHUNK=min(CHUNK, options["N"]), TAPS=len(taps),
        COLUMNS=COLUMNS, HEADS=HEADS, DOT=dot, PRECISION=precision, **options,
    )  # fmt: skip
