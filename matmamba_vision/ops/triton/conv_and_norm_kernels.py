"""What stands beside the scan, by Triton kernels: convolution + SiLU, gate + RMSNorm, and their gradients.

Each is one pass over memory forward and one backward; shapes and meaning as in `chunked.conv_and_norm`.
Arithmetic is in float32 whatever the inputs are.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..autograd import apply_where_wanted
from .candidates import Shapes, name_of
from .chosen import Options, launch_of
from .launch import on_device_of

# Tokens whose gradients of kernel and bias are one partial sum, and whose gradient of the norm's weight is.
CONV_SUMMED, NORM_SUMMED = 256, 64


def conv_silu_triton(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
    """Depthwise causal convolution over tokens, then SiLU; arguments and result as `chunked.conv_silu`."""
    if t_BLX.numel() == 0:
        return torch.empty_like(t_BLX)
    flat = (t_BLX.flatten(2), kernel_XK.flatten(0, -2), bias_X.flatten().contiguous())
    return apply_where_wanted(_ConvSilu, *flat).view(t_BLX.shape)


def gated_rms_norm_triton(y_BLX: Tensor, z_BLX: Tensor, weight_X: Tensor, epsilon: float) -> Tensor:
    """RMSNorm of y SiLU(z), times weight; arguments and result as in `chunked.gated_rms_norm`."""
    if y_BLX.numel() == 0:
        return torch.empty_like(y_BLX)
    flat = (y_BLX.flatten(2), z_BLX.flatten(2), weight_X.flatten().contiguous())
    return apply_where_wanted(_GatedRMSNorm, *flat, epsilon).view(y_BLX.shape)


class _ConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        if ctx is not None:
            ctx.save_for_backward(*inputs)
        return convolved(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy_BLX: Tensor) -> tuple[Tensor, ...]:
        return conv_gradients(dy_BLX, *ctx.saved_tensors)


class _GatedRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_BLX: Tensor, z_BLX: Tensor, weight_X: Tensor, epsilon: float) -> Tensor:
        if ctx is not None:
            ctx.save_for_backward(y_BLX, z_BLX, weight_X)
            ctx.epsilon = epsilon
        return normalised(y_BLX, z_BLX, weight_X, epsilon)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dout_BLX: Tensor) -> tuple[Tensor | None, ...]:
        return *norm_gradients(dout_BLX, *ctx.saved_tensors, ctx.epsilon), None


@on_device_of
def convolved(t: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Convolution and SiLU; t (B, L, X), kernel (X, K), bias (X)."""
    batch, length, channels = t.shape
    y_BLX = torch.empty(t.shape, dtype=t.dtype, device=t.device)
    launch = _launch("conv_silu_kernel", t)
    conv_silu_kernel[(ceil(channels / launch["CHANNELS"]), ceil(length / launch["TOKENS"]), batch)](
        t, kernel, bias, y_BLX, length, channels, *t.stride(), *kernel.stride(), TAPS=kernel.shape[-1],
        **launch,
    )  # fmt: skip
    return y_BLX


@on_device_of
def conv_gradients(dy: Tensor, t: Tensor, kernel: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """Gradients of t, kernel and bias."""
    batch, length, channels = t.shape
    taps, sums = kernel.shape[-1], ceil(length / CONV_SUMMED)
    dt_BLX = torch.empty(t.shape, dtype=t.dtype, device=t.device)
    # Partial sums in a fixed order: a repeated run gives the same bits.
    partial = t.new_empty(batch, sums, taps + 1, channels, dtype=torch.float32)
    launch = _launch("conv_silu_gradient_kernel", t)
    conv_silu_gradient_kernel[(ceil(channels / launch["CHANNELS"]), sums, batch)](
        t, kernel, bias, dy, dt_BLX, partial, length, channels, *t.stride(), *kernel.stride(), *dy.stride(),
        TAPS=taps, SUMMED=CONV_SUMMED, **launch,
    )  # fmt: skip
    dkernel_KX = partial.sum((0, 1))
    return dt_BLX, dkernel_KX[:taps].T.to(kernel.dtype), dkernel_KX[taps].to(bias.dtype)


def _launch(kernel: str, t_BLX: Tensor) -> Options:
    return launch_of(kernel, shapes_of_rows(t_BLX.dtype, t_BLX.shape[-1]), t_BLX.device)


@cache
def shapes_of_rows(dtype: torch.dtype, channels: int) -> Shapes:
    """The class of rows of channels."""
    return Shapes(dtype=name_of(dtype), channels=triton.next_power_of_2(channels))


@on_device_of
def normalised(y: Tensor, z: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Gate and norm; y and z (B, L, X), weight (X)."""
    batch, length, channels = y.shape
    out_BLX = torch.empty(y.shape, dtype=y.dtype, device=y.device)
    gated_rms_norm_kernel[(length, batch)](
        y, z, weight, out_BLX, channels, epsilon, *y.stride(), *z.stride(),
        BLOCK=triton.next_power_of_2(channels), **_launch("gated_rms_norm_kernel", y),
    )  # fmt: skip
    return out_BLX


@on_device_of
def norm_gradients(dout: Tensor, y: Tensor, z: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, ...]:
    """Gradients of y, z and weight."""
    batch, length, channels = y.shape
    dy, dz = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (y, z))
    partial = y.new_empty(batch, ceil(length / NORM_SUMMED), channels, dtype=torch.float32)
    gated_rms_norm_gradient_kernel[(partial.shape[1], batch)](
        y, z, weight, dout, dy, dz, partial, length, channels, epsilon,
        *y.stride(), *z.stride(), *dout.stride(), SUMMED=NORM_SUMMED,
        BLOCK=triton.next_power_of_2(channels), **_launch("gated_rms_norm_gradient_kernel", y),
    )  # fmt: skip
    return dy, dz, partial.sum((0, 1)).to(weight.dtype)


@triton.jit
def _shifted(t, token, channel, shift, L, X, t_l, t_x):
    """Tokens of a tile, each replaced by the one `shift` before it; zeros outside the sequence."""
    at = token - shift
    inside = ((at >= 0) & (at < L))[:, None] & (channel < X)[None, :]
    return tl.load(t + at[:, None] * t_l + channel[None, :] * t_x, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _conv(t, kernel, bias, token, channel, L, X, t_l, t_x, k_x, k_k, TAPS: tl.constexpr):
    acc = tl.zeros((token.shape[0], channel.shape[0]), tl.float32)
    acc += tl.load(bias + channel, mask=channel < X, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(TAPS):
        weight = tl.load(kernel + channel * k_x + tap * k_k, mask=channel < X, other=0.0).to(tl.float32)
        acc += weight[None, :] * _shifted(t, token, channel, TAPS - 1 - tap, L, X, t_l, t_x)
    return acc


@triton.jit
def conv_silu_kernel(
    t, kernel, bias, y, L, X, t_b, t_l, t_x, k_x, k_k,
    TAPS: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Grid: blocks of channels, blocks of tokens, B."""
    batch = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    u = _conv(t + batch * t_b, kernel, bias, token, channel, L, X, t_l, t_x, k_x, k_k, TAPS)
    at = y + batch * L * X + token[:, None] * X + channel[None, :]
    inside = (token < L)[:, None] & (channel < X)[None, :]
    tl.store(at, (u * tl.sigmoid(u)).to(y.dtype.element_ty), mask=inside)


@triton.jit
def conv_silu_gradient_kernel(
    t, kernel, bias, dy, dt, partial, L, X, t_b, t_l, t_x, k_x, k_k, dy_b, dy_l, dy_x,
    TAPS: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr, SUMMED: tl.constexpr,
):  # fmt: skip
    """A token's gradient needs those of the TAPS - 1 behind it, computed again. Grid: channels, sums, B."""
    batch, sums = tl.program_id(2).to(tl.int64), tl.num_programs(1)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    t += batch * t_b
    dy += batch * dy_b
    tap = tl.arange(0, triton.next_power_of_2(TAPS + 1))
    acc = tl.zeros((tap.shape[0], CHANNELS), tl.float32)
    for first in range(tl.program_id(1) * SUMMED, min(L, (tl.program_id(1) + 1) * SUMMED), TOKENS):
        token = first + tl.arange(0, TOKENS)
        dt_tile = tl.zeros((TOKENS, CHANNELS), tl.float32)
        for ahead in tl.static_range(TAPS):
            u = _conv(t, kernel, bias, token + ahead, channel, L, X, t_l, t_x, k_x, k_k, TAPS)
            gate = tl.sigmoid(u)
            du = _shifted(dy, token, channel, -ahead, L, X, dy_l, dy_x) * gate * (1 + u * (1 - gate))
            weight = tl.load(kernel + channel * k_x + (TAPS - 1 - ahead) * k_k, mask=channel < X, other=0.0)
            dt_tile += du * weight.to(tl.float32)[None, :]
            if ahead == 0:
                acc += tl.where(tap[:, None] == TAPS, tl.sum(du, 0)[None, :], 0.0)
                for k in tl.static_range(TAPS):
                    product = du * _shifted(t, token, channel, TAPS - 1 - k, L, X, t_l, t_x)
                    acc += tl.where(tap[:, None] == k, tl.sum(product, 0)[None, :], 0.0)
        at = dt + batch * L * X + token[:, None] * X + channel[None, :]
        tl.store(at, dt_tile.to(dt.dtype.element_ty), mask=(token < L)[:, None] & (channel < X)[None, :])
    out = partial + (batch * sums + tl.program_id(1)) * (TAPS + 1) * X
    inside = (tap <= TAPS)[:, None] & (channel < X)[None, :]
    tl.store(out + tap[:, None] * X + channel[None, :], acc, mask=inside)


@triton.jit
def gated_rms_norm_kernel(
    y, z, weight, out, X, epsilon, y_b, y_l, y_x, z_b, z_l, z_x, BLOCK: tl.constexpr
):  # fmt: skip
    """Grid: tokens, B."""
    batch, token, channel = tl.program_id(1).to(tl.int64), tl.program_id(0), tl.arange(0, BLOCK)
    inside = channel < X
    y_X = tl.load(y + batch * y_b + token * y_l + channel * y_x, mask=inside, other=0.0).to(tl.float32)
    z_X = tl.load(z + batch * z_b + token * z_l + channel * z_x, mask=inside, other=0.0).to(tl.float32)
    gated = y_X * z_X * tl.sigmoid(z_X)
    scale = tl.rsqrt(tl.sum(gated * gated) / X + epsilon)
    weight_X = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    at = out + (batch * tl.num_programs(0) + token) * X + channel
    tl.store(at, (gated * scale * weight_X).to(out.dtype.element_ty), mask=inside)


@triton.jit
def gated_rms_norm_gradient_kernel(
    y, z, weight, dout, dy, dz, partial, L, X, epsilon, y_b, y_l, y_x, z_b, z_l, z_x, d_b, d_l, d_x,
    SUMMED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid: groups of SUMMED tokens, B."""
    batch, channel = tl.program_id(1).to(tl.int64), tl.arange(0, BLOCK)
    inside = channel < X
    weight_X = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    acc = tl.zeros((BLOCK,), tl.float32)
    for token in range(tl.program_id(0) * SUMMED, min(L, (tl.program_id(0) + 1) * SUMMED)):
        y_X = tl.load(y + batch * y_b + token * y_l + channel * y_x, mask=inside, other=0.0).to(tl.float32)
        z_X = tl.load(z + batch * z_b + token * z_l + channel * z_x, mask=inside, other=0.0).to(tl.float32)
        d_X = tl.load(dout + batch * d_b + token * d_l + channel * d_x, mask=inside, other=0.0).to(tl.float32)
        sigmoid = tl.sigmoid(z_X)
        gate = z_X * sigmoid
        scale = tl.rsqrt(tl.sum(y_X * gate * y_X * gate) / X + epsilon)
        normal = y_X * gate * scale
        acc += d_X * normal
        dnormal = d_X * weight_X
        dgated = (dnormal - normal * (tl.sum(dnormal * normal) / X)) * scale
        at = (batch * L + token) * X + channel
        tl.store(dy + at, (dgated * gate).to(dy.dtype.element_ty), mask=inside)
        dz_X = dgated * y_X * sigmoid * (1 + z_X * (1 - sigmoid))
        tl.store(dz + at, dz_X.to(dz.dtype.element_ty), mask=inside)
    tl.store(partial + (batch * tl.num_programs(0) + tl.program_id(0)) * X + channel, acc, mask=inside)
