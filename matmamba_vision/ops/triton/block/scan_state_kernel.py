"""The state form of a block's scan, in Triton's language; `scan_state` launches it."""

import triton
import triton.language as tl

from .tile_parts import gate_and_store, of_heads, product, tile_outputs, to_columns, totals


@triton.jit
def _read(at, of_C, exists, state_NC, N: tl.constexpr, COLUMNS: tl.constexpr, HALVES: tl.constexpr,
          DOT: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """What tokens read of the state; HALVES: of half of its rows after the other, for fewer registers."""
    if HALVES:
        parts = tl.reshape(state_NC, (2, N // 2, COLUMNS))
        first_NC, second_NC = tl.split(tl.permute(parts, (1, 2, 0)))
        C_TN = tl.load(at + of_C + tl.arange(0, N // 2)[None, :], mask=exists[:, None], other=0.0)
        past_TC = product(C_TN, first_NC, DOT, PRECISION)
        C_TN = tl.load(at + of_C + N // 2 + tl.arange(0, N // 2)[None, :], mask=exists[:, None], other=0.0)
        return past_TC + product(C_TN, second_NC, DOT, PRECISION)
    C_TN = tl.load(at + of_C + tl.arange(0, N)[None, :], mask=exists[:, None], other=0.0)
    return product(C_TN, state_NC, DOT, PRECISION)


@triton.jit
def scan_state_kernel(
    row, inputs, decays, layer, diagonal, scores, skip, g, sums, L, E, H, X, G, heads_of_group,
    blocks_of_group, tiles, P: tl.constexpr, N: tl.constexpr, T: tl.constexpr, COLUMNS: tl.constexpr,
    EXACT: tl.constexpr, HALVES: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program takes some columns through all tiles of an image, with their states in registers.

    Columns are whole heads, or a part of one. Grid: blocks of columns of each group, B. inputs: x, then B
    and C of each group (B, L, X), convolved.
    """
    block, blocks, batch = tl.program_id(0), tl.num_programs(0), tl.program_id(1).to(tl.int64)
    group, number = block // blocks_of_group, block % blocks_of_group
    inner, n = tl.arange(0, T), tl.arange(0, N)
    column = group * heads_of_group * P + number * COLUMNS + tl.arange(0, COLUMNS)
    PART: tl.constexpr = P if P < COLUMNS else COLUMNS
    HEADS: tl.constexpr = COLUMNS // PART
    first = group * heads_of_group + number * COLUMNS // P
    end = min((group + 1) * heads_of_group, H)
    inside = column < end * P
    I = H * P  # noqa: E741
    row += batch * L * E
    g += batch * L * I
    sums += batch * L * blocks
    inputs += batch * L * X
    decays += batch * tiles * H * T
    of_group = batch * G + group
    diagonal += of_group * tiles * T
    scores += of_group * tiles * T * T
    of_B = I + group * 2 * N + n
    state_NC = tl.zeros((N, COLUMNS), tl.float32)
    for tile in range(tiles):
        token = tile * T + inner
        exists = token < L
        at = inputs + token[:, None] * X
        mask = exists[:, None] & inside[None, :]
        x_TC = tl.load(at + column[None, :], mask=mask, other=0.0).to(tl.float32)
        weighted_TC = x_TC * to_columns(of_heads(decays + layer, first, end, T, HEADS), PART)
        of_C = I + (2 * group + 1) * N
        past_TC = _read(at, of_C, exists, state_NC, N, COLUMNS, HALVES, DOT, PRECISION)
        s_TT = tl.load(scores + inner[:, None] * T + inner[None, :])
        y_TC = tile_outputs(
            past_TC, s_TT, x_TC, weighted_TC, tl.load(diagonal + token), skip, decays, layer, first, end,
            PART, T, HEADS, EXACT, DOT, PRECISION,
        )  # fmt: skip
        gate_and_store(y_TC, row, g, sums, token, L, E, column, inside, I, block, blocks)
        B_NT = tl.load(inputs + token[None, :] * X + of_B[:, None], mask=exists[None, :], other=0.0)
        decay_H = tl.exp2(totals(decays, first, end, T, HEADS))
        state_NC = state_NC * to_columns(decay_H[None, :], PART) + product(B_NT, weighted_TC, DOT, PRECISION)
        decays += H * T
        scores += T * T
