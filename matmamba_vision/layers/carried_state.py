"""The mixer that goes on where earlier tokens stopped, and the state of fixed size that it carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..ops import Backend, convolve_carried, resolve_for, scan_carried
from .mixer import MixerSetting, MixerWeights, of_groups, project, project_back
from .order import Orders, TokenOrder


class MixerState(NamedTuple):
    """What tokens leave to those that follow, in one order.

    Attributes:
        x_BKHP: the last K - 1 inputs of the convolution.
        BC_BKX: the same of B and C.
        scan_BHPN: the state of each head.
    """

    x_BKHP: Tensor
    BC_BKX: Tensor
    scan_BHPN: Tensor


# One for each order in which a mixer reads; empty before the first token, and where nothing is read.
MixerStates: TypeAlias = "tuple[MixerState, ...]"


def mix_on(
    u_BLD: Tensor,
    weights: MixerWeights,
    setting: MixerSetting,
    orders: Orders = (None,),
    states: MixerStates = (),
) -> tuple[Tensor, MixerStates]:
    """As `mix`, from the states that earlier tokens left; with those that these leave.

    In each order the tokens follow the earlier ones, whichever way they are read themselves.

    Args:
        u_BLD: normalised tokens.
        weights: as many heads as are active.
        setting: how it is computed.
        orders: convolution and scan run once in each.
        states: one for each order; none if these tokens are the first.
    """
    if len(orders) == 1 and orders[0] is not None:
        update_BLD, states = mix_on(orders[0].arrange(u_BLD), weights, setting, (None,), states)
        return orders[0].restore(update_BLD), states
    groups = setting.groups(len(weights.in_z))
    state_dim = weights.in_BC.shape[0] // (2 * len(groups))
    ops = resolve_for(setting.backend, u_BLD, weights.norm.shape[1], state_dim, weights.conv_x.shape[-1])
    inputs = project(u_BLD, weights)
    found = [
        _scan_on(order, inputs, weights, setting, ops, state)
        for order, state in zip(orders, states or [None] * len(orders), strict=True)
    ]
    y_BLHP = found[0][0]
    for more_BLHP, _ in found[1:]:
        y_BLHP = y_BLHP + more_BLHP
    return project_back(y_BLHP, u_BLD, weights, ops), tuple(state for _, state in found)


def _scan_on(
    order: TokenOrder | None,
    inputs: Sequence[Tensor],
    weights: MixerWeights,
    setting: MixerSetting,
    ops: Backend,
    state: MixerState | None,
) -> tuple[Tensor, MixerState]:
    """Convolution and scan in one order, all groups."""
    x_BLHP, BC_BLX, dt_BLH = inputs if order is None else map(order.arrange, inputs)
    before = (None, None) if state is None else state[:2]
    kernels = (weights.conv_x, weights.conv_x_bias), (weights.conv_BC, weights.conv_BC_bias)
    x_BLHP, x_BKHP = convolve_carried(x_BLHP, *kernels[0], before[0], convolve=ops.conv_silu)
    BC_BLX, BC_BKX = convolve_carried(BC_BLX, *kernels[1], before[1], convolve=ops.conv_silu)
    given = of_groups(x_BLHP, BC_BLX, dt_BLH, weights, setting)
    sizes = [heads.stop - heads.start for heads in setting.groups(dt_BLH.shape[-1])]
    entering = [None] * len(sizes) if state is None else state.scan_BHPN.split(sizes, dim=1)
    scanned = [
        scan_carried(*of_group, part, scan=ops.scan, chunk_size=setting.chunk_size)
        for of_group, part in zip(given, entering, strict=True)
    ]
    outputs, left = zip(*scanned, strict=True)
    y_BLHP = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    scan_BHPN = left[0] if len(left) == 1 else torch.cat(left, dim=1)
    y_BLHP = y_BLHP if order is None else order.restore(y_BLHP)
    return y_BLHP, MixerState(x_BKHP, BC_BKX, scan_BHPN)
