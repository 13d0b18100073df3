"""Convolution + SiLU, and gate + RMSNorm, with their gradients, each in one pass over its data.

Shapes and meaning as in `chunked.conv_and_norm`. Gradients of weights are summed image by image, or some rows
at a time, and then in order: they do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...native import GATE_ROWS, MOST_TAPS, ConvolutionStruct, GateStruct, Library, library
from .. import chunked
from ..autograd import apply_where_wanted
from .serving import are_plain


def conv_silu(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
    """Depthwise causal convolution over tokens, then SiLU; arguments and result as `chunked.conv_silu`."""
    serves = are_plain(t_BLX, kernel_XK, bias_X) and kernel_XK.shape[-1] <= MOST_TAPS and t_BLX.numel()
    if not serves or library() is None:
        return chunked.conv_silu(t_BLX, kernel_XK, bias_X)
    flat = (t_BLX.flatten(2), kernel_XK.flatten(0, -2), bias_X.flatten())
    return apply_where_wanted(_ConvSilu, *flat).view(t_BLX.shape)


def gated_rms_norm(y_BLX: Tensor, z_BLX: Tensor, weight_X: Tensor, epsilon: float) -> Tensor:
    """RMSNorm of y SiLU(z), times weight; arguments and result as in `chunked.gated_rms_norm`."""
    if not (are_plain(y_BLX, z_BLX, weight_X) and y_BLX.numel()) or library() is None:
        return chunked.gated_rms_norm(y_BLX, z_BLX, weight_X, epsilon)
    flat = (y_BLX.flatten(2), z_BLX.flatten(2), weight_X.flatten())
    return apply_where_wanted(_GatedRMSNorm, *flat, epsilon).view(y_BLX.shape)


def _kernels() -> Library:
    found = library()
    assert found is not None
    return found


def _convolution(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> ConvolutionStruct:
    """All tensors contiguous; they have to be held by whoever calls the kernels."""
    pass_ = ConvolutionStruct(*t_BLX.shape, kernel_XK.shape[1])
    pass_.tokens, pass_.kernel, pass_.bias = t_BLX.data_ptr(), kernel_XK.data_ptr(), bias_X.data_ptr()
    return pass_


class _ConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
        inputs = t_BLX.contiguous(), kernel_XK.contiguous(), bias_X.contiguous()
        if ctx is not None:
            ctx.save_for_backward(*inputs)
        out_BLX = torch.empty_like(inputs[0])
        pass_ = _convolution(*inputs)
        pass_.out = out_BLX.data_ptr()
        _kernels().convolve(pass_)
        return out_BLX

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dout_BLX: Tensor) -> tuple[Tensor, ...]:
        t_BLX, kernel_XK, bias_X = ctx.saved_tensors
        channels, taps = kernel_XK.shape
        dout_BLX, dt_BLX = dout_BLX.contiguous(), torch.empty_like(t_BLX)
        sums, total = t_BLX.new_empty(len(t_BLX), taps + 1, channels), t_BLX.new_empty(taps + 1, channels)
        pass_ = _convolution(t_BLX, kernel_XK, bias_X)
        pass_.dout, pass_.dtokens = dout_BLX.data_ptr(), dt_BLX.data_ptr()
        pass_.sums, pass_.total = sums.data_ptr(), total.data_ptr()
        _kernels().convolve(pass_)
        return dt_BLX, total[:taps].T.contiguous(), total[taps]


def _gate(y_BLX: Tensor, z_BLX: Tensor, weight_X: Tensor, scale_BL: Tensor, epsilon: float) -> GateStruct:
    """All tensors contiguous; they have to be held by whoever calls the kernels."""
    pass_ = GateStruct(scale_BL.numel(), len(weight_X), y_BLX.data_ptr(), z_BLX.data_ptr())
    pass_.weight, pass_.scale, pass_.epsilon = weight_X.data_ptr(), scale_BL.data_ptr(), epsilon
    return pass_


class _GatedRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_BLX: Tensor, z_BLX: Tensor, weight_X: Tensor, epsilon: float) -> Tensor:
        inputs = y_BLX.contiguous(), z_BLX.contiguous(), weight_X.contiguous()
        scale_BL, out_BLX = y_BLX.new_empty(y_BLX.shape[:2]), torch.empty_like(inputs[0])
        if ctx is not None:
            ctx.save_for_backward(*inputs, scale_BL)
        pass_ = _gate(*inputs, scale_BL, epsilon)
        pass_.out = out_BLX.data_ptr()
        _kernels().gate(pass_)
        return out_BLX

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dout_BLX: Tensor) -> tuple[Tensor | None, ...]:
        y_BLX, z_BLX, weight_X, scale_BL = ctx.saved_tensors
        dout_BLX, dy_BLX, dz_BLX = dout_BLX.contiguous(), torch.empty_like(y_BLX), torch.empty_like(z_BLX)
        parts = -(-scale_BL.numel() // GATE_ROWS)
        sums, dweight_X = y_BLX.new_empty(parts, len(weight_X)), torch.empty_like(weight_X)
        pass_ = _gate(y_BLX, z_BLX, weight_X, scale_BL, 0.0)
        pass_.dout, pass_.dy, pass_.dz = dout_BLX.data_ptr(), dy_BLX.data_ptr(), dz_BLX.data_ptr()
        pass_.sums, pass_.total = sums.data_ptr(), dweight_X.data_ptr()
        _kernels().gate(pass_)
        return dy_BLX, dz_BLX, dweight_X, None
