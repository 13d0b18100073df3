"""What the kernels of a block share, in Triton's language.

T tokens of a tile, C columns of a program: channels of whole heads of one group. `decays` are three arrays
(B, tiles, H, T) of float32, one after the other: the running sum of dt A log2(e) within a tile; dt times the
decay from a token to the end of its tile, at most dt; and dt.
"""

import triton
import triton.language as tl

# Strongest decay of one token, in log2: it leaves 3e-8 of the past, which float32 would round away. Without
# a bound, one very strong decay would leave no digits to those behind it.
STRONGEST = tl.constexpr(-25.0)
# Decays of a tile up to so much, in log2, are split into a scale of rows and one of columns.
SEPARABLE = tl.constexpr(100.0)


@triton.jit
def product(a, b, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """Matrix product with operands of type DOT, accumulated in float32."""
    return tl.dot(a.to(DOT), b.to(DOT), input_precision=PRECISION)


@triton.jit
def silu(t):
    """t sigmoid(t); a GPU has the root's inverse as one instruction, and a quotient as many."""
    over = 1.0 + tl.exp(-t)
    return t * tl.rsqrt(over * over)


@triton.jit
def convolved(row, token, L, E, channel, end, taps, bias, X, TAPS: tl.constexpr):
    """Causal convolution and SiLU, in float32; zeros for channels from `end` on.

    row: first convolved channel of an image's first token. token, channel: of two dimensions, one of which
    is 1, so that the caller says which are rows.
    """
    inside = channel < end
    acc = tl.zeros_like(token + channel).to(tl.float32) + tl.load(bias + channel, mask=inside, other=0.0)
    for tap in range(TAPS):
        at = token - (TAPS - 1 - tap)
        value = tl.load(row + at * E + channel, mask=(at >= 0) & (at < L) & inside, other=0.0)
        acc = acc + value.to(tl.float32) * tl.load(taps + tap * X + channel, mask=inside, other=0.0)
    return silu(acc)


@triton.jit
def of_heads(decays, first, end, T: tl.constexpr, HEADS: tl.constexpr):
    """(T, HEADS) of a tile of one of the three arrays; zeros from the head `end` on."""
    head = (first + tl.arange(0, HEADS))[None, :]
    return tl.load(decays + head * T + tl.arange(0, T)[:, None], mask=head < end, other=0.0)


@triton.jit
def totals(decays, first, end, T: tl.constexpr, HEADS: tl.constexpr):
    """(HEADS,) log2 of the decays over a whole tile."""
    head = first + tl.arange(0, HEADS)
    return tl.load(decays + head * T + T - 1, mask=head < end, other=0.0)


@triton.jit
def to_columns(t_TH, P: tl.constexpr):
    """(T, HEADS P): each head's number for each of its channels; it is computed and read once for all."""
    T: tl.constexpr = t_TH.shape[0]
    HEADS: tl.constexpr = t_TH.shape[1]
    return tl.reshape(tl.broadcast_to(t_TH[:, :, None], (T, HEADS, P)), (T, HEADS * P))


@triton.jit
def exact_own(scores_TT, x_TC, decays, layer, first, end, P: tl.constexpr, T: tl.constexpr,
              HEADS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """What the tokens of a tile read of those before them in it, decays of any strength: head by head.

    decays: of this tile. first: the program's first head.
    """
    inner, of_column = tl.arange(0, T), tl.arange(0, HEADS * P) // P
    before = inner[:, None] > inner[None, :]
    own_TC = tl.zeros((T, HEADS * P), tl.float32)
    for number in range(HEADS):
        at = decays + (first + number) * T + inner
        inside = inner < tl.where(first + number < end, T, 0)
        cum = tl.load(at, mask=inside, other=0.0)
        step = tl.load(at + 2 * layer, mask=inside, other=0.0)
        decay_TT = tl.exp2(tl.where(before, cum[:, None] - cum[None, :], 0.0))
        weight_TT = tl.where(before, scores_TT * decay_TT * step[None, :], 0.0)
        # Chosen, not multiplied by zero: a head that is not a number spoils no other.
        own_TC += tl.where((of_column == number)[None, :], product(weight_TT, x_TC, DOT, PRECISION), 0.0)
    return own_TC


@triton.jit
def tile_outputs(past_TC, scores_TT, x_TC, weighted_TC, diagonal, skip, decays, layer, first, end,
                 P: tl.constexpr, T: tl.constexpr, HEADS: tl.constexpr, EXACT: tl.constexpr,
                 DOT: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Outputs of a tile's tokens, before the gate.

    past_TC: what they read of earlier tiles, as at the end of the one before. scores_TT: strictly lower.
    weighted_TC: x times dt and the decay to the end of the tile. diagonal (T,): of the scores. decays: of
    this tile. first, end: the program's first head, the group's last one.
    """
    head = first + tl.arange(0, HEADS)
    cum_TH = of_heads(decays, first, end, T, HEADS)
    total_H = totals(decays, first, end, T, HEADS)
    if EXACT:
        own_TC = exact_own(scores_TT, x_TC, decays, layer, first, end, P, T, HEADS, DOT, PRECISION)
    elif tl.min(total_H) >= -SEPARABLE:
        # Inputs are weighted as at the end of the tile: the way back is at most 2^SEPARABLE, and what it
        # takes to overflow is not there, because the product is so much smaller.
        back_TH = tl.exp2(cum_TH - total_H[None, :])
        own_TC = product(scores_TT, weighted_TC, DOT, PRECISION) * to_columns(back_TH, P)
    else:
        own_TC = exact_own(scores_TT, x_TC, decays, layer, first, end, P, T, HEADS, DOT, PRECISION)
    # A token reads itself apart from the product, in float32.
    skip_H = tl.load(skip + head, mask=head < end, other=0.0)
    own_TH = skip_H[None, :] + of_heads(decays + 2 * layer, first, end, T, HEADS) * diagonal[:, None]
    return own_TC + x_TC * to_columns(own_TH, P) + past_TC * to_columns(tl.exp2(cum_TH), P)


@triton.jit
def gate_and_store(y_TC, row, g, sums, token, L, E, column, inside, inner, block, blocks):
    """y SiLU(z) to g (L, I), and its squares, summed over these columns, to sums (L, blocks).

    row: z of an image's first token. inner: I.
    """
    mask = (token < L)[:, None] & inside[None, :]
    z_TC = tl.load(row + token[:, None] * E + column[None, :], mask=mask, other=0.0).to(tl.float32)
    g_TC = y_TC * silu(z_TC)
    g_TC = tl.where(mask, g_TC, 0.0)
    tl.store(g + token[:, None] * inner + column[None, :], g_TC.to(g.dtype.element_ty), mask=mask)
    tl.store(sums + token * blocks + block, tl.sum(g_TC * g_TC, 1), mask=token < L)
