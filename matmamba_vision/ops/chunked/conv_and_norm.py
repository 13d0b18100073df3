"""What stands beside the scan in the mixer: convolution + SiLU, and gate + RMSNorm, with their gradients.

Autograd would keep every intermediate; these keep their inputs and compute the rest again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..autograd import apply_where_wanted


def conv_silu(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
    """Depthwise causal convolution over tokens, then SiLU (Mamba2, arXiv 2405.21060, section 7).

    Args:
        t_BLX: X stands for any channel dimensions.
        kernel_XK: K taps, the last one for the token itself.
        bias_X: added before SiLU.

    Returns:
        Contiguous, of the shape of `t_BLX`.
    """
    if t_BLX.numel() == 0:
        return torch.empty_like(t_BLX)
    # Under autocast the parameters keep float32 while the tokens do not.
    parameters = [tensor.to(t_BLX.dtype) for tensor in (kernel_XK.flatten(0, -2), bias_X.flatten())]
    flat = (t_BLX.flatten(2), *parameters)
    return apply_where_wanted(_ConvSilu, *flat).view(t_BLX.shape)


def gated_rms_norm(y_BLX: Tensor, z_BLX: Tensor, weight_X: Tensor, epsilon: float) -> Tensor:
    """RMSNorm of y SiLU(z) over all channels X, times weight (Mamba2's norm after the gate).

    Returns:
        Contiguous, of the shape of `y_BLX`.
    """
    if y_BLX.numel() == 0:
        return torch.empty_like(y_BLX)
    flat = (y_BLX.flatten(2), z_BLX.to(y_BLX.dtype).flatten(2), weight_X.to(y_BLX.dtype).flatten())
    return apply_where_wanted(_GatedRMSNorm, *flat, epsilon).view(y_BLX.shape)


def _convolve(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor | None) -> Tensor:
    """(B, L + K - 1, X): depthwise convolution of the tokens with K - 1 zeros before and behind.

    As an image of one row with channels last: libraries are fast with that, and padding copies nothing.
    """
    row_BX1L = t_BLX.transpose(1, 2)[:, :, None]
    channels, taps = kernel_XK.shape
    kernel_X11K = kernel_XK[:, None, None]
    return F.conv2d(row_BX1L, kernel_X11K, bias_X, padding=(0, taps - 1), groups=channels)[:, :, 0].mT


class _ConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
        if ctx is not None:
            ctx.save_for_backward(t_BLX, kernel_XK, bias_X)
        return F.silu(_convolve(t_BLX, kernel_XK, bias_X)[:, : t_BLX.shape[1]])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy_BLX: Tensor) -> tuple[Tensor, ...]:
        t_BLX, kernel_XK, bias_X = ctx.saved_tensors
        length, taps = t_BLX.shape[1], kernel_XK.shape[-1]
        convolved_BLX = _convolve(t_BLX, kernel_XK, bias_X)[:, :length]
        d_BLX = torch.ops.aten.silu_backward(dy_BLX, convolved_BLX)
        # Against time: the zeros behind serve, those before do not.
        dt_BLX = _convolve(d_BLX, kernel_XK.flip(-1), None)[:, taps - 1 :]
        dkernel = [(d_BLX[:, s:] * t_BLX[:, : length - s]).sum((0, 1)) for s in reversed(range(taps))]
        return dt_BLX, torch.stack(dkernel, dim=-1), d_BLX.sum((0, 1))


class _GatedRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_BLX: Tensor, z_BLX: Tensor, weight_X: Tensor, epsilon: float) -> Tensor:
        gated_BLX = F.silu(z_BLX).mul_(y_BLX)
        scale_BL1 = _reciprocal_rms(gated_BLX, epsilon)
        if ctx is not None:
            ctx.save_for_backward(y_BLX, z_BLX, weight_X, scale_BL1)
        return gated_BLX.mul_(scale_BL1).mul_(weight_X)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dout_BLX: Tensor) -> tuple[Tensor | None, ...]:
        y_BLX, z_BLX, weight_X, scale_BL1 = ctx.saved_tensors
        gate_BLX = F.silu(z_BLX)
        normal_BLX = (gate_BLX * y_BLX).mul_(scale_BL1)
        dout_normal_BLX = dout_BLX * normal_BLX
        dweight_X = dout_normal_BLX.sum((0, 1))
        along_BL1 = (dout_normal_BLX @ weight_X)[..., None].div_(weight_X.numel())
        dgated_BLX = torch.mul(dout_BLX, weight_X, out=dout_normal_BLX)
        dgated_BLX.addcmul_(normal_BLX, along_BL1, value=-1).mul_(scale_BL1)
        dz_BLX = torch.ops.aten.silu_backward(dgated_BLX * y_BLX, z_BLX)
        return dgated_BLX.mul_(gate_BLX), dz_BLX, dweight_X, None


def _reciprocal_rms(t_BLX: Tensor, epsilon: float) -> Tensor:
    """(B, L, 1): 1 / sqrt(mean square + epsilon), accumulated in float32 at least."""
    dtype = torch.promote_types(t_BLX.dtype, torch.float32)
    norm_BL1 = torch.linalg.vector_norm(t_BLX, dim=-1, keepdim=True, dtype=dtype)
    return norm_BL1.square_().div_(t_BLX.shape[-1]).add_(epsilon).rsqrt_().to(t_BLX.dtype)
