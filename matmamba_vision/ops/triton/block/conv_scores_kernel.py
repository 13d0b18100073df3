"""Convolution, decays and scores of a block, in Triton's language; `conv_scores` launches it."""

import triton
import triton.language as tl

from .tile_parts import STRONGEST, convolved, product


@triton.jit
def _softplus(t):
    """log(1 + exp(t)), to float32's last digits for small results too."""
    power = tl.exp(-tl.abs(t))
    rounded = 1.0 + power
    # log(1 + power), corrected for what the sum rounds away (Kahan).
    log1p = tl.where(rounded == 1.0, power, tl.log(rounded) * (power / tl.maximum(rounded - 1.0, 1e-30)))
    return tl.maximum(t, 0.0) + log1p


@triton.jit
def _decays(row, dt_bias, rates, decays, layer, batch, tile, block, L, E, H, tiles, offset,
            T: tl.constexpr, HEADS: tl.constexpr):  # fmt: skip
    """The arrays of `tile_parts`, of a block of heads; offset: of dt in a row."""
    inner = tl.arange(0, T)
    token, head = tile * T + inner, block * HEADS + tl.arange(0, HEADS)
    inside = (token < L)[:, None] & (head < H)[None, :]
    raw_TH = tl.load(row + token[:, None] * E + offset + head[None, :], mask=inside, other=0.0)
    raw_TH = raw_TH.to(tl.float32) + tl.load(dt_bias + head, mask=head < H, other=0.0)[None, :]
    step_TH = tl.where(inside, _softplus(raw_TH), 0.0)
    log_TH = step_TH * tl.load(rates + head, mask=head < H, other=0.0)[None, :]
    # Rounding must not make a decay grow.
    cum_TH = tl.minimum(tl.cumsum(tl.maximum(log_TH, STRONGEST), 0), 0.0)
    total_H = tl.sum(tl.where((inner == T - 1)[:, None], cum_TH, 0.0), 0)
    at = decays + ((batch * tiles + tile) * H + head)[None, :] * T + inner[:, None]
    exists = (head < H)[None, :] & (inner >= 0)[:, None]
    tl.store(at, cum_TH, mask=exists)
    tl.store(at + layer, step_TH * tl.exp2(tl.minimum(total_H[None, :] - cum_TH, 0.0)), mask=exists)
    tl.store(at + 2 * layer, step_TH, mask=exists)


@triton.jit
def _scores(row, taps, bias, scores, diagonal, of_group, tile, other, L, E, first, X, tiles, across,
            N: tl.constexpr, CHUNK: tl.constexpr, T: tl.constexpr, TAPS: tl.constexpr,
            DOT: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Scores of the tile's tokens with those of another one, not later.

    first: B's first convolved channel; C's stand behind. across: tiles that have scores with a tile.
    """
    inner, n = tl.arange(0, T), tl.arange(0, CHUNK)
    s_TT = tl.zeros((T, T), tl.float32)
    for start in range(0, N, CHUNK):
        channel = first + start + n
        C_TN = convolved(
            row, (tile * T + inner)[:, None], L, E, (channel + N)[None, :], X, taps, bias, X, TAPS
        )
        # Computed as it is multiplied, and not transposed.
        B_NT = convolved(row, (other * T + inner)[None, :], L, E, channel[:, None], X, taps, bias, X, TAPS)
        s_TT += product(C_TN, B_NT, DOT, PRECISION)
    if tile == other:
        own = tl.sum(tl.where(inner[:, None] == inner[None, :], s_TT, 0.0), 1)
        tl.store(diagonal + (of_group * tiles + tile) * T + inner, own)
        s_TT = tl.where(inner[:, None] > inner[None, :], s_TT, 0.0)
    scores += ((of_group * tiles + tile) * across + tl.minimum(other, across - 1)) * T * T
    tl.store(scores + inner[:, None] * T + inner[None, :], s_TT.to(scores.dtype.element_ty))


@triton.jit
def conv_scores_kernel(
    row, taps, bias, dt_bias, rates, decays, layer, diagonal, scores, inputs, L, E, H, X, G, tiles, across,
    pairs, head_blocks, columns,
    P: tl.constexpr, N: tl.constexpr, CHUNK: tl.constexpr, T: tl.constexpr, TAPS: tl.constexpr,
    COLUMNS: tl.constexpr, HEADS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Programs do one of three things, so that one launch does all.

    Grid: G pairs of tiles for scores, then blocks of heads of each tile for decays, then blocks of columns of
    each tile for what a scan reads convolved, the first `columns`; B. With `across` 1 the pairs
    are each tile with itself.
    """
    role, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row += batch * L * E
    # Behind z.
    I = H * P  # noqa: E741
    convolved_row = row + I
    of_decays = role - G * pairs
    of_columns = of_decays - head_blocks * tiles
    if of_decays < 0:
        group, pair = role // pairs, role % pairs
        tile, other = pair, pair
        if across > 1:
            # Pairs in the order (0, 0), (1, 0), (1, 1), (2, 0) and so on.
            tile = ((tl.sqrt(8.0 * pair + 1.0) - 1.0) * 0.5).to(tl.int32)
            tile -= (tile * (tile + 1) // 2 > pair).to(tl.int32)
            tile += ((tile + 1) * (tile + 2) // 2 <= pair).to(tl.int32)
            other = pair - tile * (tile + 1) // 2
        _scores(convolved_row, taps, bias, scores, diagonal, batch * G + group, tile, other, L, E,
                I + group * 2 * N, X, tiles, across, N, CHUNK, T, TAPS, DOT, PRECISION)  # fmt: skip
    elif of_columns < 0:
        _decays(row, dt_bias, rates, decays, layer, batch, of_decays % tiles, of_decays // tiles, L, E, H,
                tiles, I + X, T, HEADS)  # fmt: skip
    else:
        token = of_columns % tiles * T + tl.arange(0, T)
        column = of_columns // tiles * COLUMNS + tl.arange(0, COLUMNS)
        t_TC = convolved(convolved_row, token[:, None], L, E, column[None, :], columns, taps, bias, X, TAPS)
        mask = (token < L)[:, None] & (column < columns)[None, :]
        at = inputs + batch * L * columns + token[:, None] * columns + column[None, :]
        tl.store(at, t_TC.to(inputs.dtype.element_ty), mask=mask)
