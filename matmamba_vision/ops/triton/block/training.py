"""A mixer in training: what stands behind its packed projection, up to the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .training_core import mixer_core
from .training_norm import scale_rows


def trained_mixer(
    packed_BLE: Tensor,
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
) -> Tensor:
    """Convolution, scan, skip, gate, norm and output projection (Mamba2, arXiv 2405.21060, section 7).

    Args:
        packed_BLE: z, x, B and C of each group, dt, as for `mixer_core`, whose arguments are the next ones.
        taps_XK: 4 taps.
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

    Returns:
        (B, L, D), of the type of `packed_BLE`, with gradients for all tensors.
    """
    gated_BLI, sums = mixer_core(
        packed_BLE, taps_XK, conv_bias_X, dt_bias_H, A_log_H, D_H, head_dim, state, group_size
    )
    # A token's factor commutes with the projection, and the norm's weight is a factor of its columns.
    folded_DI = (out_DI * norm_I).to(gated_BLI.dtype)
    # What is wider than autocast's type stays so: a gated output can outgrow float16.
    with torch.autocast(packed_BLE.device.type, enabled=False):
        out_BLD = F.linear(gated_BLI, folded_DI)
    return scale_rows(out_BLD, sums, norm_I.numel(), epsilon, packed_BLE.dtype)
