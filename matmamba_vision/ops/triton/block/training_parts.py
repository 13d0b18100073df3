"""What the kernels of a mixer in training share, in Triton's language.

A program has C = HB P columns: HB heads of P channels each, of one group of heads, which share B and C. The
tokens of an image are cut into tiles of T. Layouts: rows of the packed projection (B, L, E) are z, x, B and C
of each group in turn, dt; `conv` (B, L, X) is x, B and C behind convolution and SiLU; step, cum (B, H,
padded L) are float32, padded with dt = 0, and cum is the running sum of dt A within each tile; scores (B, G,
padded L, T) are C B^T of a tile's own tokens, strictly lower, and `diagonal` (B, G, padded L) is what they
leave out, in float32; states (B, places, tiles, N, C), a place for each program of an image.

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
