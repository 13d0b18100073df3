"""Launches the scan of short sequences: every token looks back at all tokens before it."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor

from ..launch import on_device_of, precision_of
from .configs import QuadraticConfig
from .packing import BlockWeights, wide
from .scan_quadratic_kernel import scan_quadratic_kernel


def scan_quadratic(
    row_BLE: Tensor,
    prepared: tuple[Tensor, Tensor, Tensor, Tensor],
    weights: BlockWeights,
    *,
    candidate: QuadraticConfig,
    last_tile: bool = False,
) -> tuple[Tensor, Tensor]:
    """Scan, skip and gate.

    Args:
        row_BLE: the rows that `conv_scores` was given; z is read of them.
        prepared: what it gave.
        weights: of the block.
        candidate: how it is launched.
        last_tile: whether only the tokens of the last tile are wanted; the others' results are anything.

    Returns:
        g (B, L, I) = y SiLU(z), not normalised; and (B, L, blocks) float32 sums of the squares of each
        block of its columns.
    """
    sizes = (weights.heads, weights.head_dim, weights.heads_per_group, last_tile)
    result: tuple[Tensor, Tensor] = _scan_quadratic(
        row_BLE, *prepared, weights.skip, *sizes, candidate.columns, candidate.exact,
        candidate.num_warps, candidate.num_stages,
    )  # fmt: skip
    return result


@torch.library.custom_op("matmamba::scan_quadratic", mutates_args=())
def _scan_quadratic(
    row: Tensor,
    decays: Tensor,
    diagonal: Tensor,
    scores: Tensor,
    inputs: Tensor,
    skip: Tensor,
    heads: int,
    head_dim: int,
    heads_per_group: int,
    last_tile: bool,
    columns: int,
    exact: bool,
    num_warps: int,
    num_stages: int,
) -> tuple[Tensor, Tensor]:
    outputs = gated_outputs(row, heads, head_dim, heads_per_group, columns)
    if row.numel():
        sizes = {"P": head_dim, "COLUMNS": columns, "EXACT": exact}
        options = sizes | {"num_warps": num_warps, "num_stages": num_stages}
        _launch(row, (decays, diagonal, scores, inputs), skip, outputs, heads_per_group, last_tile, options)
    return outputs


@_scan_quadratic.register_fake
def _outputs_of(
    row: Tensor,
    decays: Tensor,
    diagonal: Tensor,
    scores: Tensor,
    inputs: Tensor,
    skip: Tensor,
    heads: int,
    head_dim: int,
    heads_per_group: int,
    last_tile: bool,
    columns: int,
    exact: bool,
    num_warps: int,
    num_stages: int,
) -> tuple[Tensor, Tensor]:
    return gated_outputs(row, heads, head_dim, heads_per_group, columns)


def blocks_of_groups(heads: int, head_dim: int, heads_per_group: int, columns: int) -> tuple[int, int]:
    """Groups, and blocks of columns of each: a block has heads of one group."""
    return ceil(heads / heads_per_group), ceil(min(heads, heads_per_group) * head_dim / columns)


def gated_outputs(
    row: Tensor, heads: int, head_dim: int, heads_per_group: int, columns: int
) -> tuple[Tensor, Tensor]:
    """Empty, as a scan gives them."""
    groups, blocks = blocks_of_groups(heads, head_dim, heads_per_group, columns)
    g_BLI = row.new_empty((*row.shape[:2], heads * head_dim), dtype=wide(row.dtype))
    return g_BLI, row.new_empty((*row.shape[:2], groups * blocks), dtype=torch.float32)


@on_device_of
def _launch(
    row: Tensor,
    prepared: tuple[Tensor, Tensor, Tensor, Tensor],
    skip: Tensor,
    outputs: tuple[Tensor, Tensor],
    heads_per_group: int,
    last_tile: bool,
    options: dict[str, Any],
) -> None:
    (decays, diagonal, scores, inputs), (g, sums), heads = prepared, outputs, len(skip)
    (batch, length, width), (groups, tiles, _, tile, _) = row.shape, scores.shape[1:]
    dot, precision = precision_of(row.dtype)
    blocks = sums.shape[2] // groups
    scan_quadratic_kernel[(sums.shape[2], 1 if last_tile else tiles, batch)](
        row, inputs, decays, decays.stride(0), diagonal, scores, skip, g, sums, length, width, heads, groups,
        heads_per_group, blocks, tiles, T=tile, DOT=dot, PRECISION=precision, **options,
    )  # fmt: skip
