"""The quadratic form of a block's scan, in Triton's language; `scan_quadratic` launches it."""

import triton
import triton.language as tl

from .tile_parts import gate_and_store, of_heads, product, tile_outputs, to_columns, totals


@triton.jit
def scan_quadratic_kernel(
    row, inputs, decays, layer, diagonal, scores, skip, g, sums, L, E, H, G, heads_of_group, blocks_of_group,
    tiles, P: tl.constexpr, T: tl.constexpr, COLUMNS: tl.constexpr, EXACT: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of tokens reads all tiles before it, and itself last.

    Grid: blocks of columns of each group, tiles from the last one on, B. inputs: x (B, L, I), convolved.
    """
    block, blocks = tl.program_id(0), tl.num_programs(0)
    tile, batch = tiles - 1 - tl.program_id(1), tl.program_id(2).to(tl.int64)
    group, number = block // blocks_of_group, block % blocks_of_group
    inner = tl.arange(0, T)
    column = group * heads_of_group * P + number * COLUMNS + tl.arange(0, COLUMNS)
    HEADS: tl.constexpr = COLUMNS // P
    first = group * heads_of_group + number * HEADS
    end = min((group + 1) * heads_of_group, H)
    inside = column < end * P
    I = H * P  # noqa: E741
    inputs += batch * L * I
    decays += batch * tiles * H * T
    of_group = batch * G + group
    scores += (of_group * tiles + tile) * tiles * T * T
    at_TT = inner[:, None] * T + inner[None, :]
    past_TC = tl.zeros((T, COLUMNS), tl.float32)
    # Of what lies between: the decay from the end of a tile to the beginning of this one.
    between_H = tl.full((HEADS,), 1.0, tl.float32)
    for back in range(1, tile + 1):
        other = tile - back
        of_tile = decays + other * H * T
        at = inputs + (other * T + inner)[:, None] * I + column[None, :]
        x_TC = tl.load(at, mask=inside[None, :], other=0.0).to(tl.float32)
        weight_TH = of_heads(of_tile + layer, first, end, T, HEADS) * between_H[None, :]
        s_TT = tl.load(scores + other * T * T + at_TT)
        past_TC += product(s_TT, x_TC * to_columns(weight_TH, P), DOT, PRECISION)
        between_H *= tl.exp2(totals(of_tile, first, end, T, HEADS))
    token = tile * T + inner
    of_tile = decays + tile * H * T
    mask = (token < L)[:, None] & inside[None, :]
    x_TC = tl.load(inputs + token[:, None] * I + column[None, :], mask=mask, other=0.0).to(tl.float32)
    weighted_TC = x_TC * to_columns(of_heads(of_tile + layer, first, end, T, HEADS), P)
    s_TT = tl.load(scores + tile * T * T + at_TT)
    own = tl.load(diagonal + of_group * tiles * T + token)
    y_TC = tile_outputs(
        past_TC, s_TT, x_TC, weighted_TC, own, skip, of_tile, layer, first, end, P, T, HEADS, EXACT, DOT,
        PRECISION,
    )  # fmt: skip
    row += batch * L * E
    g += batch * L * I
    sums += batch * L * blocks
    gate_and_store(y_TC, row, g, sums, token, L, E, column, inside, I, block, blocks)
