"""Launches the last kernel of a block: norm factor, residual stream, and the LayerNorm of the next block."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
import triton
from torch import Tensor

from ..launch import on_device_of
from .configs import NormConfig
from .norm_residual_kernel import norm_residual_kernel


def norm_residual(
    x_BLD: Tensor,
    update: tuple[Tensor, Tensor] | None,
    bias_D: Tensor | None,
    order_L: Tensor | None,
    *,
    inner: int,
    gate_epsilon: float,
    epsilon: float | None,
    candidate: NormConfig,
) -> tuple[Tensor, Tensor]:
    """The stream with a block's update, and what the next block reads.

    Args:
        x_BLD: the residual stream.
        update: (B, L, D) projected output of a block whose norm has not yet divided it, and the sums of
            squares (B, L, blocks) that the norm needs; None where nothing is to be added.
        bias_D: float32, added to the update; None for none.
        order_L: int64, for each place of the result the place from which its token comes, perhaps fewer than
            there are; None where all stay.
        inner: I of the block whose update it is.
        gate_epsilon: of its norm.
        epsilon: of the LayerNorm without weights; None where none is wanted.
        candidate: how it is launched.

    Returns:
        The stream, and LayerNorm of it, of the type and device of `x_BLD`; without `epsilon` the latter is
        empty.
    """
    projected, sums = (None, None) if update is None else update
    if projected is None and bias_D is None and order_L is None:
        # Nothing changes: no copy is made.
        return x_BLD, _norm_alone(x_BLD, epsilon, candidate)
    result: tuple[Tensor, Tensor] = _norm_residual(
        x_BLD, projected, sums, bias_D, order_L, inner, gate_epsilon, -1.0 if epsilon is None else epsilon,
        candidate.rows, candidate.num_warps,
    )  # fmt: skip
    return result


def _norm_alone(x_BLD: Tensor, epsilon: float | None, candidate: NormConfig) -> Tensor:
    if epsilon is None:
        return x_BLD.new_empty(0)
    options = (0, 0.0, epsilon, candidate.rows, candidate.num_warps)
    return _norm_residual(x_BLD, None, None, None, None, *options)[1]


@torch.library.custom_op("matmamba::norm_residual", mutates_args=())
def _norm_residual(
    x: Tensor,
    update: Tensor | None,
    sums: Tensor | None,
    bias: Tensor | None,
    order: Tensor | None,
    inner: int,
    gate_epsilon: float,
    epsilon: float,
    rows: int,
    num_warps: int,
) -> tuple[Tensor, Tensor]:
    outputs = _outputs_of(x, update, sums, bias, order, inner, gate_epsilon, epsilon, rows, num_warps)
    if max(output.numel() for output in outputs):
        epsilons = {"gate_epsilon": gate_epsilon, "epsilon": epsilon}
        options = {"ROWS": rows, "NORM": epsilon >= 0, "num_warps": num_warps}
        _launch(x, (update, sums, bias, order), outputs, inner, epsilons | options)
    return outputs


@_norm_residual.register_fake
def _outputs_of(
    x: Tensor,
    update: Tensor | None,
    sums: Tensor | None,
    bias: Tensor | None,
    order: Tensor | None,
    inner: int,
    gate_epsilon: float,
    epsilon: float,
    rows: int,
    num_warps: int,
) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], x.shape[1] if order is None else len(order), x.shape[2])
    changes = update is not None or bias is not None or order is not None
    return x.new_empty(shape if changes else 0), x.new_empty(shape if epsilon >= 0 else 0)


@on_device_of
def _launch(
    x: Tensor,
    given: tuple[Tensor | None, ...],
    outputs: tuple[Tensor, Tensor],
    inner: int,
    options: dict[str, Any],
) -> None:
    update, sums, bias, order = given
    batch, length, dim = x.shape
    places = length if order is None else len(order)
    blocks = 1 if sums is None else sums.shape[2]
    # What is not there is never read.
    pointers = [x if tensor is None else tensor for tensor in given]
    norm_residual_kernel[(ceil(batch * places / options["ROWS"]),)](
        x, *pointers, *outputs, batch * places, length, places, dim, blocks, inner,
        BLOCK_D=triton.next_power_of_2(dim), BLOCKS=triton.next_power_of_2(blocks),
        UPDATE=update is not None, BIAS=bias is not None, ORDER=order is not None, **options,
    )  # fmt: skip
