"""The scan of short sequences: chunks look back at all tokens before them, and there is no state.

The quadratic form of the scan (arXiv 2405.21060, section 3) with decays as separable as in `separable`: chunk
after chunk, all inputs so far are weighted by exp(m - cum), m the middle of the chunk, and multiplied by the
scores C B^T that all heads share. Looking back at L tokens costs less than a state of N rows for each head,
as long as L is a few times N; images are that short.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .elementwise import BY_PYTORCH, Passes
from .separable import by_head_groups, chunk_slices, scores_of


def is_short(length: int, state_dim: int, channels: int) -> bool:
    """Whether looking back takes fewer multiply-adds than a state: L at most 4 N I / (N + I)."""
    return length * (state_dim + channels) <= 4 * state_dim * channels


def ssd_quadratic(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    chunk_size: int,
    passes: Passes = BY_PYTORCH,
) -> Tensor:
    """Scan of heads whose `spans` are at most `LARGEST_SPAN`; all of one dtype, float32 at least.

    Arguments and result as in `ssd_reference`.
    """
    x_BLHP = x_BLHP.contiguous()
    inputs = (x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        result: Tensor = _Quadratic.apply(*inputs, chunk_size, passes)  # type: ignore[no-untyped-call]
        return result
    return by_head_groups(partial(_scan, chunk_size=chunk_size, passes=passes), *inputs)


class _Quadratic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, dt, A, B, C, D, *setting = inputs
        ctx.setting = dict(zip(("chunk_size", "passes"), setting, strict=True))
        y_BLHP = _scan(x, dt, A, B, C, D, torch.empty_like(x), **ctx.setting)
        # The output is kept for the gradient of the decays; whatever follows keeps it anyway.
        ctx.save_for_backward(x, dt, A, B, C, D, y_BLHP)
        return y_BLHP

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy_BLHP: Tensor) -> tuple[Tensor | None, ...]:
        x, dt, A, B, C, D, y = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            gradients = _gradients(dy_BLHP.contiguous(), x, dt, A, B, C, D, y_BLHP=y, **ctx.setting)
        return *gradients, None, None


class _Decays(NamedTuple):
    """Factors relative to a chunk's middle m: exp(cum - m) of its Q tokens, exp(m - cum) of the S so far."""

    after_BQH: Tensor
    before_BSH: Tensor


def _decays(cum_BLH: Tensor, tokens: slice, dtype: torch.dtype) -> _Decays:
    first, last = cum_BLH[:, tokens.start, None], cum_BLH[:, tokens.stop - 1, None]
    middle_B1H = (first + last) / 2
    after_BQH = (cum_BLH[:, tokens] - middle_B1H).to(dtype).exp_()
    return _Decays(after_BQH, (middle_B1H - cum_BLH[:, : tokens.stop]).to(dtype).exp_())


def _running_sum(dt_BLH: Tensor, A_H: Tensor) -> Tensor:
    # In float64: the sum grows along the whole sequence, but only its small differences count.
    return (dt_BLH * A_H).cumsum(1, dtype=torch.float64)


def _scores(B_BLN: Tensor, C_BLN: Tensor, tokens: slice) -> Tensor:
    return scores_of(B_BLN[:, : tokens.stop], C_BLN[:, tokens], tokens.start)


def _scan(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    y_BLHP: Tensor,
    *,
    chunk_size: int,
    passes: Passes,
) -> Tensor:
    """Fills in the outputs and returns them."""
    buffer_BLHP = x_BLHP.new_empty(x_BLHP.shape)
    cum_BLH = _running_sum(dt_BLH, A_H)
    for tokens in chunk_slices(x_BLHP.shape[1], chunk_size):
        past = slice(tokens.stop)
        decays = _decays(cum_BLH, tokens, x_BLHP.dtype)
        weight_BSH = decays.before_BSH.mul_(dt_BLH[:, past])
        weighted_BSHP = passes.weigh(x_BLHP[:, past], weight_BSH, buffer_BLHP[:, past])
        y_BQI = torch.bmm(_scores(B_BLN, C_BLN, tokens), weighted_BSHP.flatten(2))
        x_BQHP, y_BQHP = x_BLHP[:, tokens], y_BLHP[:, tokens]
        passes.weigh(y_BQI.view(y_BQHP.shape), decays.after_BQH, y_BQHP, more_BSHP=x_BQHP, skip_H=D_H)
    return y_BLHP


def _gradients(
    dy_BLHP: Tensor,
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    y_BLHP: Tensor,
    chunk_size: int,
    passes: Passes,
) -> tuple[Tensor, ...]:
    """Gradients of x, dt, A, B, C, D. The gradient of dt x gathers what every later chunk looked back at."""
    dB_BLN, dC_BLN, dinput_BLHP = torch.zeros_like(B_BLN), torch.empty_like(C_BLN), torch.empty_like(x_BLHP)
    buffers = x_BLHP.new_empty(2, *x_BLHP.shape)
    cum_BLH = _running_sum(dt_BLH, A_H)
    for tokens in chunk_slices(x_BLHP.shape[1], chunk_size):
        past = slice(tokens.stop)
        x, dt = x_BLHP[:, past], dt_BLH[:, past]
        after_BQH, before_BSH = _decays(cum_BLH, tokens, x.dtype)
        weighted_BSHP = passes.weigh(x, before_BSH * dt, buffers[0, :, past])
        dy = dy_BLHP[:, tokens]
        du_BQI = passes.weigh(dy, after_BQH, dy.new_empty(dy.shape)).flatten(2)
        scores_BQS = _scores(B_BLN, C_BLN, tokens)
        dscores_BQS = torch.bmm(du_BQI, weighted_BSHP.flatten(2).mT).tril_(tokens.start)
        dC_BLN[:, tokens] = torch.bmm(dscores_BQS, B_BLN[:, past])
        dB_BLN[:, past].baddbmm_(dscores_BQS.mT, C_BLN[:, tokens])
        dweighted_BSI = torch.bmm(scores_BQS.mT, du_BQI, out=buffers[1, :, past].flatten(2))
        passes.weigh(dweighted_BSI.view(x.shape), before_BSH, dinput_BLHP[:, past], added=tokens.start)

    end = passes.end(dinput_BLHP, x_BLHP, dy_BLHP, y_BLHP, dt_BLH, D_H, free_BLHP=buffers[0])
    dx_BLHP, dinput_x_BLH, dskip_BLH, dcum_BLH = end
    # <dy, y> without the skip is the gradient of cum as the end of a decay, the other that of its beginning.
    dcum_BLH.addcmul_(D_H, dskip_BLH, value=-1).addcmul_(dinput_x_BLH, dt_BLH, value=-1)
    da_BLH = dcum_BLH.flip(1).cumsum(1, dtype=torch.float64).flip(1).to(dt_BLH.dtype)
    dA_H = (dt_BLH * da_BLH).sum((0, 1))
    return dx_BLHP, dinput_x_BLH.addcmul_(da_BLH, A_H), dA_H, dB_BLN, dC_BLN, dskip_BLH.sum((0, 1))
