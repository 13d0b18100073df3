"""The gradient of convolution and SiLU: each convolution is computed once, token by token.

In the quadratic form the same launch ends what waits for all tiles: gradients of steps and of what belongs to
heads, by what `training_backward_kernels` has left of each token.
"""

import triton
import triton.language as tl

from .training_parts import load, step_gradients, tile_total


@triton.jit
def _row(pointer, token, stride, limit, channel, X):
    """Channels of one token, in float32; zeros where it is not one of `limit`."""
    inside = (channel < X) & (token >= 0) & (token < limit)
    return tl.load(pointer + token * stride + channel, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _end_steps(
    raw, draw, dlogs, dinputs, crossing, step, cum, A_log, dt_bias, of_heads, first, L, H, padded, raw_b,
    raw_l, T: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Of a tile, whose decays are also part of all that begin before it and end behind it."""
    batch, tile = tl.program_id(2).to(tl.int64), tl.program_id(1)
    heads, tiles = first + tl.arange(0, HEADS), tl.num_programs(1)
    tokens, at = tile * T + tl.arange(0, T), batch * H * padded
    through_H = tl.zeros((HEADS,), tl.float32)
    for other in range(tile):
        through_H *= tl.exp(tile_total(cum + at, heads, H, other, padded, T))
        begin = crossing + ((batch * H + heads) * tiles + other) * tiles
        through_H += tl.load(begin + tile + 1, mask=(heads < H) & (tile + 1 < tiles), other=0.0)
    through_H *= tl.exp(tile_total(cum + at, heads, H, tile, padded, T))
    da_TH = load(dlogs + at, tokens, 1, padded, heads, padded, H) + through_H[None, :]
    dinput_TH = load(dinputs + at, tokens, 1, padded, heads, padded, H)
    step_TH = load(step + at, tokens, 1, padded, heads, padded, H)
    of_heads += (batch * tiles + tile) * 3 * H + heads
    step_gradients(
        raw + batch * raw_b, draw + batch * raw_b, of_heads, A_log, dt_bias, da_TH, dinput_TH, step_TH,
        tokens, heads, H, L, H, raw_l,
    )  # fmt: skip


@triton.jit
def conv_backward_kernel(
    t, taps, bias, dout, dt, partial, dlogs, dinputs, crossing, step, cum, A_log, dt_bias, of_heads,
    L, X, H, padded, t_b, t_l, taps_x, dout_b, dout_l, channel_blocks,
    SUMMED: tl.constexpr, CHANNELS: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Of a convolution with 4 taps (X, 4): to dt, of t's strides, and partial (B, sums, 5, X): taps and bias.

    A program goes through SUMMED tokens and the 3 behind them, whose gradients it needs, and keeps in its
    registers what the last tokens have left. If there is `dlogs`, which in the quadratic form is given,
    further programs have HEADS heads each, whose steps stand behind the channels. Grid: blocks of channels,
    then of heads; sums; B.
    """
    if dlogs is not None:
        block = tl.program_id(0) - channel_blocks
        if block >= 0:
            _end_steps(
                t + X, dt + X, dlogs, dinputs, crossing, step, cum, A_log, dt_bias, of_heads, block * HEADS,
                L, H, padded, t_b, t_l, SUMMED, HEADS,
            )  # fmt: skip
            return
    batch = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < X
    t += batch * t_b
    dt += batch * t_b
    dout += batch * dout_b
    w0 = tl.load(taps + channel * taps_x, mask=inside, other=0.0).to(tl.float32)
    w1 = tl.load(taps + channel * taps_x + 1, mask=inside, other=0.0).to(tl.float32)
    w2 = tl.load(taps + channel * taps_x + 2, mask=inside, other=0.0).to(tl.float32)
    w3 = tl.load(taps + channel * taps_x + 3, mask=inside, other=0.0).to(tl.float32)
    bias_X = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    first = tl.program_id(1) * SUMMED
    last = tl.minimum(first + SUMMED, L)
    t0, t1 = _row(t, first - 3, t_l, L, channel, X), _row(t, first - 2, t_l, L, channel, X)
    t2 = _row(t, first - 1, t_l, L, channel, X)
    none = tl.zeros((CHANNELS,), tl.float32)
    d0, d1, d2 = none, none, none
    s0, s1, s2, s3, sb = none, none, none, none, none
    for token in range(first, last + 3):
        t3, dout_X = _row(t, token, t_l, L, channel, X), _row(dout, token, dout_l, L, channel, X)
        u = bias_X + w0 * t0 + w1 * t1 + w2 * t2 + w3 * t3
        gate = tl.sigmoid(u)
        d3 = dout_X * gate * (1.0 + u * (1.0 - gate))
        own = tl.where(token < last, d3, 0.0)
        s0 += own * t0
        s1 += own * t1
        s2 += own * t2
        s3 += own * t3
        sb += own
        dt_X = w3 * d0 + w2 * d1 + w1 * d2 + w0 * d3
        at = dt + (token - 3) * t_l + channel
        tl.store(at, dt_X.to(dt.dtype.element_ty), mask=inside & (token - 3 >= first))
        t0, t1, t2 = t1, t2, t3
        d0, d1, d2 = d1, d2, d3
    out = partial + (batch * tl.num_programs(1) + tl.program_id(1)) * 5 * X + channel
    tl.store(out, s0, mask=inside)
    tl.store(out + X, s1, mask=inside)
    tl.store(out + 2 * X, s2, mask=inside)
    tl.store(out + 3 * X, s3, mask=inside)
    tl.store(out + 4 * X, sb, mask=inside)
