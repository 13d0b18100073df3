"""A mixer in training: all of it, from normalised tokens to the update of the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...step_weights import TypesOfStep, WidthOfStep
from .training_core import mixer_core
from .training_norm import scale_rows
from .training_packing import packed_once


def trained_mixer(
    u_BLD: Tensor,
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
) -> Tensor:
    """Mamba2's mixer (arXiv 2405.21060, section 7), two products and the kernels around them.

    Args:
        u_BLD: normalised tokens.
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

    Returns:
        (B, L, D), of the type of the tokens, or that of autocast; with gradients for all tensors.
    """
    device = u_BLD.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else u_BLD.dtype
    # A gated output, which no norm has divided yet, can outgrow float16.
    wide = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    # The norm's weight is a factor of columns of the projection behind it, and a token's factor of its rows.
    parts = (z_ID, x_ID, shared_SD, dt_HD, out_DI, norm_I)
    project_ED, folded_DI = packed_once(parts, TypesOfStep(dtype, wide), width)
    with torch.autocast(device, enabled=False):
        packed_BLE = F.linear(u_BLD.to(dtype), project_ED)
        gated_BLI, sums = mixer_core(
            packed_BLE, taps_XK, conv_bias_X, dt_bias_H, A_log_H, D_H, head_dim, state, group_size
        )
        out_BLD = F.linear(gated_BLI, folded_DI)
        return scale_rows(out_BLD, sums, norm_I.numel(), epsilon, dtype)
