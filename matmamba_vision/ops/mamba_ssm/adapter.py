"""The kernels of mamba-ssm (arXiv 2405.21060) and causal-conv1d, for those who have them installed.

Each function takes and gives what the same one of the other backends does, and hands it over as these
packages want it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from . import installed

# Tokens of a chunk, as in mamba-ssm's own modules.
CHUNK = 256


def ssd_mamba_ssm(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    chunk_size: int = 64,
) -> Tensor:
    """Scan by `mamba_chunk_scan_combined`; arguments and result as in `ssd_reference`.

    Args:
        chunk_size: unused, part of the common signature: the kernels are made for chunks of 256.
    """
    if x_BLHP.numel() == 0:
        return torch.empty_like(x_BLHP)
    # Under autocast B and C may be of another type than x; the kernels have one group of heads at least.
    B_BLGN, C_BLGN = (tensor.to(x_BLHP.dtype)[:, :, None] for tensor in (B_BLN, C_BLN))
    combined = installed.load("ssd_combined").mamba_chunk_scan_combined
    result: Tensor = combined(x_BLHP, dt_BLH, A_H.float(), B_BLGN, C_BLGN, CHUNK, D=D_H.float())
    return result


def gated_rms_norm_mamba_ssm(y_BLX: Tensor, z_BLX: Tensor, weight_X: Tensor, epsilon: float) -> Tensor:
    """RMSNorm of y SiLU(z), times weight; arguments and result as in `chunked.gated_rms_norm`."""
    if y_BLX.numel() == 0:
        return torch.empty_like(y_BLX)
    norm = installed.load("layernorm_gated").rmsnorm_fn
    flat = norm(
        y_BLX.flatten(2), weight_X.flatten(), None, z=z_BLX.flatten(2), eps=epsilon, norm_before_gate=False
    )
    result: Tensor = flat.view(y_BLX.shape)
    return result


def conv_silu_cuda(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
    """Depthwise causal convolution + SiLU by causal-conv1d; arguments and result as `chunked.conv_silu`."""
    if t_BLX.numel() == 0:
        return torch.empty_like(t_BLX)
    convolve = importlib.import_module("causal_conv1d").causal_conv1d_fn
    parameters = (kernel_XK.flatten(0, -2).to(t_BLX.dtype), bias_X.flatten().to(t_BLX.dtype))
    result: Tensor = convolve(t_BLX.flatten(2).transpose(1, 2), *parameters, activation="silu").transpose(
        1, 2
    )
    return result.contiguous().view(t_BLX.shape)


def inner_mamba_ssm(
    zxBCdt_BLE: Tensor,
    kernel_XK: Tensor,
    bias_X: Tensor,
    dt_bias_H: Tensor,
    A_H: Tensor,
    D_H: Tensor,
    norm_I: Tensor,
    epsilon: float,
) -> Tensor:
    """Everything between a mixer's projections by `mamba_split_conv1d_scan_combined`.

    Args:
        zxBCdt_BLE: the packed input projection, as in the published layout: z (I), x (I), B (N), C (N), dt
            (H), dt before bias and softplus.
        kernel_XK: of the convolution over x, B, C, so that X = I + 2 N.
        bias_X: of the convolution.
        dt_bias_H: added to dt.
        A_H: decay rates, negative.
        D_H: skip weights.
        norm_I: weight of the norm.
        epsilon: of the norm.

    Returns:
        (B, L, I): what the output projection takes.
    """
    combined = installed.load("ssd_combined").mamba_split_conv1d_scan_combined
    result: Tensor = combined(
        zxBCdt_BLE, kernel_XK, bias_X, dt_bias_H, A_H.float(), D_H.float(), CHUNK,
        rmsnorm_weight=norm_I, rmsnorm_eps=epsilon, headdim=norm_I.numel() // D_H.numel(),
        norm_before_gate=False,
    )  # fmt: skip
    return result


def inner_where_it_fits(taps: int, channels: int, row: int) -> Callable[..., Tensor] | None:
    """`inner_mamba_ssm`, where causal-conv1d is there and takes the layout, otherwise None.

    Args:
        taps: of the convolution.
        channels: convolved.
        row: numbers of a token in the packed projection.
    """
    # It takes 2 to 4 taps, and tokens that begin at multiples of 8.
    fits = 2 <= taps <= 4 and channels % 8 == 0 and row % 8 == 0
    return inner_mamba_ssm if fits and installed.has_conv() else None
