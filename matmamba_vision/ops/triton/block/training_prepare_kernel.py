"""The first kernel of a mixer in training: convolution, steps and decays, and scores.

All are made of the packed projection, none of another. Layouts as in `training_parts`.
"""

import triton
import triton.language as tl

from .training_parts import STRONGEST, load, product, store


@triton.jit
def softplus(t):
    """log(1 + exp(t)), of small numbers by its series: 1 + exp(t) would keep few of their digits."""
    e = tl.exp(tl.minimum(t, 20.0))
    series = e * (1 - e * (1 / 2 - e * (1 / 3 - e * (1 / 4 - e * (1 / 5 - e * (1 / 6 - e * (1 / 7)))))))
    return tl.where(t > 20.0, t, tl.where(e < 0.1, series, tl.log(1.0 + e)))


@triton.jit
def _convolved(t, taps, bias, tokens, channels, L, X, t_l):
    """Causal convolution with 4 taps (X, 4) and SiLU, of the type of `t`; zeros beyond the limits.

    tokens, channels: of two dimensions, one of which is 1, so that the caller says which are rows.
    """
    inside = channels < X
    acc = tl.zeros_like(tokens + channels).to(tl.float32)
    acc += tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    for tap in tl.static_range(4):
        at = tokens - (3 - tap)
        value = tl.load(t + at * t_l + channels, mask=(at >= 0) & (at < L) & inside, other=0.0)
        weight = tl.load(taps + channels * 4 + tap, mask=inside, other=0.0).to(tl.float32)
        acc += value.to(tl.float32) * weight
    acc = tl.where((tokens < L) & inside, acc * tl.sigmoid(acc), 0.0)
    return acc.to(t.dtype.element_ty)


@triton.jit
def _scores_of_pair(
    t, taps, bias, tokens, others, first, L, X, t_l,
    T: tl.constexpr, N: tl.constexpr, CHUNK: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    acc_TT = tl.zeros((T, T), tl.float32)
    for start in range(0, N, CHUNK):
        n = first + start + tl.arange(0, CHUNK)
        C_TN = _convolved(t, taps, bias, tokens[:, None], (n + N)[None, :], L, X, t_l)
        # Computed as it is multiplied, and not transposed.
        B_NT = _convolved(t, taps, bias, others[None, :], n[:, None], L, X, t_l)
        acc_TT += product(C_TN, B_NT, DOT, PRECISION)
    return acc_TT


@triton.jit
def _scores(
    t, taps, bias, scores, diagonal, tile, first, L, X, t_l, seen,
    T: tl.constexpr, N: tl.constexpr, CHUNK: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of a tile's own tokens; `first`: where B begins, behind which C stands. Both are convolved again."""
    inner = tl.arange(0, T)
    tokens = tile * T + inner
    acc_TT = _scores_of_pair(t, taps, bias, tokens, tokens, first, L, X, t_l, T, N, CHUNK, DOT, PRECISION)
    tl.store(diagonal + tokens, tl.sum(tl.where(inner[:, None] == inner[None, :], acc_TT, 0.0), 1))
    acc_TT = tl.where(inner[:, None] > inner[None, :], acc_TT, 0.0)
    tl.store(scores + tokens[:, None] * seen + inner[None, :], acc_TT.to(scores.dtype.element_ty))


@triton.jit
def _decays(raw, dt_bias, A_log, step, cum, tokens, heads, L, H, padded, raw_l):
    raw_TH = load(raw, tokens, raw_l, L, heads, 1, H).to(tl.float32)
    raw_TH += tl.load(dt_bias + heads, mask=heads < H, other=0.0).to(tl.float32)[None, :]
    step_TH = tl.where((tokens < L)[:, None], softplus(raw_TH), 0.0)
    rate_H = -tl.exp(tl.load(A_log + heads, mask=heads < H, other=0.0).to(tl.float32))
    a_TH = tl.maximum(step_TH * rate_H[None, :], STRONGEST)
    store(step, step_TH, tokens, 1, padded, heads, padded, H)
    store(cum, tl.cumsum(a_TH, 0), tokens, 1, padded, heads, padded, H)


@triton.jit
def prepare_kernel(
    packed, taps, bias, dt_bias, A_log, conv, step, cum, scores, diagonal,
    L, H, HP, X, groups, head_blocks, padded, packed_b, packed_l,
    T: tl.constexpr, N: tl.constexpr, CHUNK: tl.constexpr, HEADS: tl.constexpr, CHANNELS: tl.constexpr,
    QUADRATIC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Programs do one of three things, so that one launch does all of a tile.

    Grid: tiles; scores of each group, then steps and decays of HEADS heads each, then the convolution of
    CHANNELS channels each; B. QUADRATIC: scores with all tiles before, too.
    """
    batch, task, tile = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    packed += batch * packed_b
    tokens = tile * T + tl.arange(0, T)
    if task < groups:
        row, first, packed = (batch * groups + task) * padded, HP + task * 2 * N, packed + HP
        if QUADRATIC:
            scores += row * padded
            for other in range(tile):
                others = other * T + tl.arange(0, T)
                acc_TT = _scores_of_pair(
                    packed, taps, bias, tokens, others, first, L, X, packed_l, T, N, CHUNK, DOT, PRECISION
                )
                at = scores + tokens[:, None] * padded + others[None, :]
                tl.store(at, acc_TT.to(scores.dtype.element_ty))
            scores, seen = scores + tile * T, padded
        else:
            scores, seen = scores + row * T, T
        _scores(
            packed, taps, bias, scores, diagonal + row, tile, first, L, X, packed_l, seen, T, N, CHUNK, DOT,
            PRECISION,
        )  # fmt: skip
    elif task < groups + head_blocks:
        heads, at = (task - groups) * HEADS + tl.arange(0, HEADS), batch * H * padded
        raw = packed + HP + X
        _decays(raw, dt_bias, A_log, step + at, cum + at, tokens, heads, L, H, padded, packed_l)
    else:
        channels = (task - groups - head_blocks) * CHANNELS + tl.arange(0, CHANNELS)
        t_TC = _convolved(packed + HP, taps, bias, tokens[:, None], channels[None, :], L, X, packed_l)
        store(conv + batch * L * X, t_TC, tokens, X, L, channels, 1, X)
