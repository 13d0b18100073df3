"""What the kernels of a mixer in training share, in Triton's language.

A program has C = HB P columns: HB heads of P channels each, of one group of heads, which share B and C. The
tokens of an image are cut into tiles of T. Layouts: rows of the packed projection (B, L, E) are z, x, B and C
of each group in turn, dt; `conv` (B, L, X) is x, B and C behind convolution and SiLU; step, cum (B, H,
padded L) are float32, padded with dt = 0, and cum is the running sum of dt A within each tile; scores (B, G,
padded L, T) are C B^T of a tile's own tokens, strictly lower, and `diagonal` (B, G, padded L) is what they
leave out, in float32; states (B, places, tiles, N, C), a place for each program of an image.

In the quadratic form, of short sequences, scores (B, G, padded L, padded L) are those of all tokens before,
and states are None.

Every exponent is a sum of numbers that are not positive, or is bounded by SPAN.
"""

import triton
import triton.language as tl

# Strongest decay of one token, in nats: it leaves 2e-9 of the past, which float32 would round away. Without a
# bound, one very strong decay would leave no digits to those behind it.
STRONGEST = tl.constexpr(-20.0)


@triton.jit
def rounded(t, DOT: tl.constexpr):
    """As a matrix product takes it."""
    return t.to(DOT)


@triton.jit
def product(a, b, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """Matrix product with operands of type DOT, accumulated in float32."""
    return tl.dot(rounded(a, DOT), rounded(b, DOT), input_precision=PRECISION)


@triton.jit
def load(pointer, rows, row_stride, row_limit, columns, column_stride, column_limit):
    """A matrix; zeros beyond the limits."""
    inside = (rows < row_limit)[:, None] & (columns < column_limit)[None, :]
    at = pointer + rows[:, None] * row_stride + columns[None, :] * column_stride
    return tl.load(at, mask=inside, other=0.0)


@triton.jit
def store(pointer, value, rows, row_stride, row_limit, columns, column_stride, column_limit):
    inside = (rows < row_limit)[:, None] & (columns < column_limit)[None, :]
    at = pointer + rows[:, None] * row_stride + columns[None, :] * column_stride
    tl.store(at, value.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def first_head(place, blocks, group_size, HB: tl.constexpr):
    """Of a program at this place: places of a group lie side by side."""
    return place // blocks * group_size + place % blocks * HB


@triton.jit
def last_head(place, blocks, group_size, H):
    """One behind the last head of the place's group."""
    return tl.minimum((place // blocks + 1) * group_size, H)


@triton.jit
def per_column(t_TH, T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr):
    """(T, C): what heads have, for each of their columns."""
    return tl.reshape(tl.broadcast_to(t_TH[:, :, None], (T, HB, P)), (T, HB * P))


@triton.jit
def per_row(t_HT, T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr):
    """(C, T): the same where columns are rows."""
    return tl.reshape(tl.broadcast_to(t_HT[:, None, :], (HB, P, T)), (HB * P, T))


@triton.jit
def per_head(t_TC, T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr):
    """(T, HB): sums over the columns of each head."""
    return tl.sum(tl.reshape(t_TC, (T, HB, P)), 2)


@triton.jit
def own_decay(cum_TH, head, FROM_LATER: tl.constexpr, T: tl.constexpr, HB: tl.constexpr):
    """(T, T): decay of one head from token j to token i >= j of a tile, 0 elsewhere.

    Rows are i and columns j, or if FROM_LATER the other way round.
    """
    chosen = (tl.arange(0, HB) == head)[None, :]
    cum = tl.sum(tl.where(chosen, cum_TH, 0.0), 1)
    token = tl.arange(0, T)
    if FROM_LATER:
        inside, log = token[:, None] <= token[None, :], cum[None, :] - cum[:, None]
    else:
        inside, log = token[:, None] >= token[None, :], cum[:, None] - cum[None, :]
    return tl.exp(tl.where(inside, log, float("-inf")))


@triton.jit
def through_scores(
    scores_TT, t_TC, cum_TH, separable, FROM_LATER: tl.constexpr,
    T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(T, C): scores, strictly triangular, times rows; where decays are not separable, times those as well.

    FROM_LATER: the scores are transposed, rows j.
    """
    if separable:
        acc = product(scores_TT, t_TC, DOT, PRECISION)
    else:
        acc = tl.zeros((T, HB * P), tl.float32)
        head_C = tl.arange(0, HB * P) // P
        for head in range(HB):
            decay_TT = own_decay(cum_TH, head, FROM_LATER, T, HB)
            own_TC = tl.where((head_C == head)[None, :], t_TC, 0.0)
            acc += product(scores_TT.to(tl.float32) * decay_TT, own_TC, DOT, PRECISION)
    return acc


@triton.jit
def tile_total(cum, heads, last, tile, padded, T: tl.constexpr):
    """The decays of all of a tile, by head."""
    return tl.load(cum + heads * padded + tile * T + T - 1, mask=heads < last, other=0.0)


@triton.jit
def earlier_tiles(
    conv, step, cum, scores, tile, heads, c, last, L, X, padded,
    T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(T, C): what a tile's tokens read of all tiles before it, as decays left it where the tile begins."""
    inner = tl.arange(0, T)
    acc = tl.zeros((T, HB * P), tl.float32)
    for other in range(tile):
        tokens = other * T + inner
        step_TH = load(step, tokens, 1, padded, heads, padded, last)
        cum_TH = load(cum, tokens, 1, padded, heads, padded, last)
        weight_TH = tl.exp(tile_total(cum, heads, last, other, padded, T)[None, :] - cum_TH) * step_TH
        x_TC = load(conv, tokens, X, L, c, 1, last * P).to(tl.float32) * per_column(weight_TH, T, P, HB)
        total_C = tl.load(cum + c // P * padded + other * T + T - 1, mask=c < last * P, other=0.0)
        scores_TT = load(scores, tile * T + inner, padded, padded, tokens, 1, padded)
        acc = acc * tl.exp(total_C)[None, :] + product(scores_TT, x_TC, DOT, PRECISION)
    return acc


@triton.jit
def scan_outputs(
    conv, step, cum, scores, diagonal, row, states, place, D, tile, heads, c, last, L, of_B, X, padded, SPAN,
    T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr, N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs of the scan for a tile, skip included, from the state that enters it, and their parts.

    conv, step, cum: of the image. row: of the group's scores. place: of this tile in `states`. c: the
    columns. of_B: where B of the group begins in a row of `conv`. What is read within the tile and what of
    the past come without the factors (T, C) that follow them.
    """
    inner, n, column = tl.arange(0, T), tl.arange(0, N), tl.arange(0, HB * P)
    tokens = tile * T + inner
    if states is None:
        # First, while nothing else is in registers.
        scores += row * padded
        past_TC = earlier_tiles(
            conv, step, cum, scores, tile, heads, c, last, L, X, padded, T, P, HB, DOT, PRECISION
        )
    step_TH = load(step, tokens, 1, padded, heads, padded, last)
    cum_TH = load(cum, tokens, 1, padded, heads, padded, last)
    total_H = tl.load(cum + heads * padded + tile * T + T - 1, mask=heads < last, other=0.0)
    separable = tl.min(total_H) >= -SPAN
    # As seen from the middle of the tile, where decays are not too strong for that.
    middle_TH = tl.where(separable, cum_TH - 0.5 * total_H[None, :], 0.0)
    x_TC = load(conv, tokens, X, L, c, 1, last * P).to(tl.float32)
    own_TC = rounded(x_TC * per_column(step_TH * tl.exp(-middle_TH), T, P, HB), DOT)
    if states is None:
        scores_TT = load(scores, tokens, padded, padded, tokens, 1, padded)
    else:
        scores_TT = load(scores + row * T, tokens, T, padded, inner, 1, T)
    read_TC = through_scores(scores_TT, own_TC, cum_TH, separable, False, T, P, HB, DOT, PRECISION)
    if states is not None:
        C_TN = load(conv + of_B + N, tokens, X, L, n, 1, N)
        state_NC = load(states + place * N * (HB * P), n, HB * P, N, column, 1, HB * P)
        past_TC = product(C_TN, state_NC, DOT, PRECISION)
    to_own_TC = per_column(tl.exp(middle_TH), T, P, HB)
    from_past_TC = per_column(tl.exp(cum_TH), T, P, HB)
    D_C = tl.load(D + c // P, mask=c < last * P, other=0.0).to(tl.float32)
    # A token reads itself apart from the product, in float32.
    itself_TH = step_TH * tl.load(diagonal + row + tokens)[:, None]
    y_TC = x_TC * (per_column(itself_TH, T, P, HB) + D_C[None, :])
    y_TC += read_TC * to_own_TC + past_TC * from_past_TC
    return y_TC, read_TC, past_TC, to_own_TC, from_past_TC


@triton.jit
def step_gradients(
    raw, draw, of_heads, A_log, dt_bias, da_TH, dinput_TH, step_TH, tokens, heads, last, L, H, raw_l
):  # fmt: skip
    """Of steps, from those of log decays `da` and of inputs; to dt, and of a tile's A_log and dt_bias.

    of_heads: rows of a tile's A_log, D and dt_bias, of the first of `heads`.
    """
    A_H = -tl.exp(tl.load(A_log + heads, mask=heads < last, other=0.0).to(tl.float32))
    da_TH = tl.where(step_TH * A_H[None, :] > STRONGEST, da_TH, 0.0)
    raw_TH = load(raw, tokens, raw_l, L, heads, 1, last).to(tl.float32)
    raw_TH += tl.load(dt_bias + heads, mask=heads < last, other=0.0).to(tl.float32)[None, :]
    draw_TH = (dinput_TH + da_TH * A_H[None, :]) * tl.sigmoid(raw_TH)
    draw_TH = tl.where((tokens < L)[:, None], draw_TH, 0.0)
    store(draw, draw_TH, tokens, raw_l, L, heads, 1, last)
    tl.store(of_heads, tl.sum(da_TH * step_TH, 0) * A_H, mask=heads < last)
    tl.store(of_heads + 2 * H, tl.sum(draw_TH, 0), mask=heads < last)
