"""A mixer in training: all of it, from tokens to the update of the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...step_weights import WidthOfStep
from .training_core import mixer_core
from .training_norm import scale_rows
from .training_start import Started, packed_once, started, types_of


def trained_mixer(
    t_BLD: Tensor,
    z_ID: Tensor,
    x_ID: Tensor,
    shared_SD: Tensor,
    dt_HD: Tensor,
    taps_XK: Tensor,
    conv_bias_X: Tensor,
    dt_bias_H: Tensor,
    A_log_H: Tensor,
    D_H: Tensor,
    norm_I: Tensor,
    out_DI: Tensor,
    *,
    head_dim: int,
    state: int,
    group_size: int,
    epsilon: float,
    width: WidthOfStep | None = None,
    before: nn.LayerNorm | None = None,
    adds: bool = False,
) -> Tensor:
    """Mamba2's mixer (arXiv 2405.21060, section 7), two products and the kernels around them.

    Args:
        t_BLD: normalised tokens, or those that are to be.
        z_ID: projection to the gate.
        x_ID: projection to the input.
        shared_SD: projections to B and C of each group, in turn.
        dt_HD: projection to the steps.
        taps_XK: 4 taps of the convolution of x, B and C, the last one for the token itself.
        conv_bias_X: added before SiLU.
        dt_bias_H: added to dt before softplus.
        A_log_H: logarithms of the rates of decay.
        D_H: skip weights.
        norm_I: the norm's weight.
        out_DI: the output projection.
        head_dim: P.
        state: N.
        group_size: consecutive heads that share B and C; no more than H.
        epsilon: of the norm.
        width: what was packed of these weights for all of a step, if anything.
        before: normalises the tokens, where they are not yet.
        adds: whether the update is added to the tokens; needs `before`.

    Returns:
        (B, L, D), of the type of the tokens, or that of autocast; with gradients for all tensors.
    """
    types = types_of(t_BLD)
    # The norm's weight is a factor of columns of the projection behind it, and a token's factor of its rows.
    parts = (z_ID, x_ID, shared_SD, dt_HD, out_DI, norm_I)
    if before is None:
        start = Started(None, t_BLD, *packed_once(parts, types, width))
    else:
        start = started(t_BLD, before, parts, types, width, adds)
    with torch.autocast(t_BLD.device.type, enabled=False):
        packed_BLE = F.linear(start.u.to(types.project), start.project)
        gated_BLI, sums = mixer_core(
            packed_BLE, taps_XK, conv_bias_X, dt_bias_H, A_log_H, D_H, head_dim, state, group_size
        )
        out_BLD = F.linear(gated_BLI, start.folded)
        return scale_rows(out_BLD, sums, start.stream, norm_I.numel(), epsilon, types.project)
