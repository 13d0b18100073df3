"""Launches the scan of long sequences: states travel through an image in registers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..candidates import HOPPER
from ..launch import capability_of, on_device_of, tensor_core_precision
from .configs import StateConfig
from .packing import BlockWeights
from .scan_quadratic import gated_outputs
from .scan_state_kernel import scan_state_kernel


def scan_state(
    row_BLE: Tensor,
    prepared: tuple[Tensor, Tensor, Tensor, Tensor],
    weights: BlockWeights,
    *,
    candidate: StateConfig,
) -> tuple[Tensor, Tensor]:
    """Scan, skip and gate; arguments and results as of `scan_quadratic`."""
    sizes = (weights.heads, weights.head_dim, weights.state, weights.heads_per_group)
    result: tuple[Tensor, Tensor] = _scan_state(
        row_BLE, *prepared, weights.skip, *sizes, candidate.columns, candidate.exact, candidate.num_warps,
        candidate.num_stages,
    )  # fmt: skip
    return result


# States whose halves are still operands of a product.
LARGE = 64


@torch.library.custom_op("matmamba::scan_state", mutates_args=())
def _scan_state(
    row: Tensor,
    decays: Tensor,
    diagonal: Tensor,
    scores: Tensor,
    inputs: Tensor,
    skip: Tensor,
    heads: int,
    head_dim: int,
    state: int,
    heads_per_group: int,
    columns: int,
    exact: bool,
    num_warps: int,
    num_stages: int,
) -> tuple[Tensor, Tensor]:
    outputs = gated_outputs(row, heads, head_dim, heads_per_group, columns)
    if row.numel():
        sizes = {"P": head_dim, "N": state, "COLUMNS": columns, "EXACT": exact}
        options = sizes | {"num_warps": num_warps, "num_stages": num_stages}
        prepared = (decays, diagonal, scores, inputs)
        _launch(row, prepared, skip, outputs, heads_per_group, options)
    return outputs


@_scan_state.register_fake
def _outputs_of(
    row: Tensor,
    decays: Tensor,
    diagonal: Tensor,
    scores: Tensor,
    inputs: Tensor,
    skip: Tensor,
    heads: int,
    head_dim: int,
    state: int,
    heads_per_group: int,
    columns: int,
    exact: bool,
    num_warps: int,
    num_stages: int,
) -> tuple[Tensor, Tensor]:
    return gated_outputs(row, heads, head_dim, heads_per_group, columns)


@on_device_of
def _launch(
    row: Tensor,
    prepared: tuple[Tensor, Tensor, Tensor, Tensor],
    skip: Tensor,
    outputs: tuple[Tensor, Tensor],
    heads_per_group: int,
    options: dict[str, Any],
) -> None:
    (decays, diagonal, scores, inputs), (g, sums), heads = prepared, outputs, len(skip)
    (batch, length, width), (groups, tiles, _, tile, _) = row.shape, scores.shape[1:]
    dot, precision = tensor_core_precision(row.dtype)
    blocks = sums.shape[2] // groups
    # Products in three parts take the registers of operands that do not stay in shared memory.
    halves = precision == "tf32x3" and capability_of(row.device) != HOPPER and options["N"] >= LARGE
    scan_state_kernel[(sums.shape[2], batch)](
        row, inputs, decays, decays.stride(0), diagonal, scores, skip, g, sums, length, width, heads,
        inputs.shape[2], groups, heads_per_group, blocks, tiles, T=tile, HALVES=halves, DOT=dot,
        PRECISION=precision, **options,
    )  # fmt: skip
