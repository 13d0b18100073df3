"""Kernels of a mixer's backward in training: through gate and skip, and through the scan.

Layouts as in `training_parts`. What a matrix product takes rounded is summed rounded, too: the decays that
end at a token and those that begin there are then sums of the very same numbers, of which all that cancels
does so to float32's digits.
"""

import triton
import triton.language as tl

from .training_parts import (
    first_head,
    last_head,
    load,
    own_decay,
    per_column,
    per_head,
    per_row,
    product,
    rounded,
    scan_outputs,
    step_gradients,
    store,
    through_scores,
    tile_total,
)


@triton.jit
def gate_backward_kernel(
    packed, conv, step, cum, scores, diagonal, states, dgated, dsums, D, dpacked, dy, ending,
    L, H, HP, X, group_size, blocks, tiles, padded, packed_b, packed_l, dsums_b, dsums_p, dsums_l, SPAN,
    T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr, N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From gradients of gated outputs those of z, to dpacked (B, L, E), and of the scan, to dy (B, L, I).

    Computes the outputs of the scan again; `ending` (B, H, padded L) gets the gradients of the log decays
    that end at each token. Grid: places, tiles, B.
    """
    batch, place, tile = tl.program_id(2).to(tl.int64), tl.program_id(0), tl.program_id(1)
    places, group = tl.num_programs(0), place // blocks
    first, last = first_head(place, blocks, group_size, HB), last_head(place, blocks, group_size, H)
    heads, c = first + tl.arange(0, HB), first * P + tl.arange(0, HB * P)
    end_c, tokens = last * P, tile * T + tl.arange(0, T)
    y_TC, read_TC, past_TC, to_own_TC, from_past_TC = scan_outputs(
        conv + batch * L * X, step + batch * H * padded, cum + batch * H * padded,
        scores, diagonal, (batch * (places // blocks) + group) * padded,
        states, (batch * places + place) * tiles + tile, D, tile, heads, c, last, L, HP + group * 2 * N, X,
        padded, SPAN, T, P, HB, N, DOT, PRECISION,
    )  # fmt: skip

    z_TC = load(packed + batch * packed_b, tokens, packed_l, L, c, 1, end_c).to(tl.float32)
    sigmoid_TC = tl.sigmoid(z_TC)
    dsums += batch * dsums_b + place * dsums_p
    dsum_T = tl.load(dsums + tokens * dsums_l, mask=tokens < L, other=0.0)
    dg_TC = load(dgated + batch * L * HP, tokens, HP, L, c, 1, end_c).to(tl.float32)
    dg_TC += 2.0 * dsum_T[:, None] * y_TC * z_TC * sigmoid_TC
    dz_TC = dg_TC * y_TC * sigmoid_TC * (1.0 + z_TC * (1.0 - sigmoid_TC))
    store(dpacked + batch * packed_b, dz_TC, tokens, packed_l, L, c, 1, end_c)
    dy_TC = (dg_TC * z_TC * sigmoid_TC).to(dy.dtype.element_ty)
    store(dy + batch * L * HP, dy_TC, tokens, HP, L, c, 1, end_c)
    dy_TC = dy_TC.to(tl.float32)
    ending_TC = rounded(dy_TC * to_own_TC, DOT).to(tl.float32) * read_TC
    ending_TC += rounded(dy_TC * from_past_TC, DOT).to(tl.float32) * past_TC
    ending_TH = per_head(ending_TC, T, P, HB)
    store(ending + batch * H * padded, ending_TH, tokens, 1, padded, heads, padded, last)


@triton.jit
def _later_tiles(
    dy, x, cum, scores, crossing, weight_TH, tile, heads, c, last, L, HP, X, tiles, padded,
    T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(T, C): gradients of a tile's inputs by all tiles behind it, as decays have left them where it ends.

    x (L, X): the inputs. weight_TH: their steps, and decays to the end of the tile. crossing (H, tiles,
    tiles) gets what they and the gradients of a tile and all behind it make together, but for the decays of
    the tiles between.
    """
    inner = tl.arange(0, T)
    acc = tl.zeros((T, HB * P), tl.float32)
    for count in range(tiles - 1 - tile):
        other = tiles - 1 - count
        tokens = other * T + inner
        cum_TH = load(cum, tokens, 1, padded, heads, padded, last)
        dy_TC = load(dy, tokens, HP, L, c, 1, last * P).to(tl.float32)
        dy_TC *= per_column(tl.exp(cum_TH), T, P, HB)
        total_C = tl.load(cum + c // P * padded + other * T + T - 1, mask=c < last * P, other=0.0)
        scores_TT = load(scores, tile * T + inner, 1, padded, tokens, padded, padded)
        acc = acc * tl.exp(total_C)[None, :] + product(scores_TT, dy_TC, DOT, PRECISION)
        # Read again for each tile: kept, they would take registers from the products.
        x_TC = load(x, tile * T + inner, X, L, c, 1, last * P).to(tl.float32)
        x_TC = rounded(x_TC * per_column(weight_TH, T, P, HB), DOT).to(tl.float32)
        crossing_H = tl.sum(tl.reshape(tl.sum(x_TC * acc, 0), (HB, P)), 1)
        tl.store(crossing + (heads * tiles + tile) * tiles + other, crossing_H, mask=heads < last)
    return acc


@triton.jit
def _input_gradients(
    packed, conv, step, cum, scores, diagonal, states, dstates, dy, ending, A_log, D, dt_bias,
    dpacked, dconv, of_heads, dlogs, dinputs, crossing, batch, place, places, tile, L, H, HP, X, group_size,
    blocks, tiles, padded, packed_b, packed_l, dt_at, SPAN,
    T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr, N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of x, to dconv (B, L, X), and of dt, to dpacked (B, L, E), from those of the scan.

    of_heads (B, tiles, 3, H) gets gradients of A_log, D and dt_bias.
    """
    group = place // blocks
    first, last = first_head(place, blocks, group_size, HB), last_head(place, blocks, group_size, H)
    heads, c, n = first + tl.arange(0, HB), first * P + tl.arange(0, HB * P), tl.arange(0, N)
    inner, end_c, column = tl.arange(0, T), last * P, tl.arange(0, HB * P)
    tokens = tile * T + inner
    cum += batch * H * padded
    conv += batch * L * X
    row = (batch * (places // blocks) + group) * padded
    step_TH = load(step + batch * H * padded, tokens, 1, padded, heads, padded, last)
    cum_TH = load(cum, tokens, 1, padded, heads, padded, last)
    total_H = tl.load(cum + heads * padded + tile * T + T - 1, mask=heads < last, other=0.0)
    separable = tl.min(total_H) >= -SPAN
    middle_TH = tl.where(separable, cum_TH - 0.5 * total_H[None, :], 0.0)

    # Within the tile: the inputs' gradients, and decays that begin at a token and end at a later one.
    dy_TC = load(dy + batch * L * HP, tokens, HP, L, c, 1, end_c).to(tl.float32)
    to_tile_TC = rounded(dy_TC * per_column(tl.exp(middle_TH), T, P, HB), DOT)
    if states is None:
        scores_TT = load(scores + row * padded, tokens, 1, padded, tokens, padded, padded)
    else:
        scores_TT = load(scores + row * T, inner, 1, T, tokens, T, padded)
    back_TC = through_scores(scores_TT, to_tile_TC, cum_TH, separable, True, T, P, HB, DOT, PRECISION)
    x_TC = load(conv, tokens, X, L, c, 1, end_c).to(tl.float32)
    before_TH = tl.exp(-middle_TH)
    own_TC = rounded(x_TC * per_column(step_TH * before_TH, T, P, HB), DOT).to(tl.float32)
    inside_TH = load(ending + batch * H * padded, tokens, 1, padded, heads, padded, last)
    inside_TH -= per_head(own_TC * back_TC, T, P, HB)

    # To behind the tile.
    left_TH = tl.exp(total_H[None, :] - cum_TH)
    offset = ((batch * places + place) * tiles + tile) * N * (HB * P)
    if states is None:
        ahead_TC = _later_tiles(
            dy + batch * L * HP, conv, cum, scores + row * padded, crossing + batch * H * tiles * tiles,
            left_TH * step_TH, tile, heads, c, last, L, HP, X, tiles, padded, T, P, HB, DOT, PRECISION,
        )  # fmt: skip
    else:
        dstate_NC = load(dstates + offset, n, HB * P, N, column, 1, HB * P)
        B_TN = load(conv + HP + group * 2 * N, tokens, X, L, n, 1, N)
        ahead_TC = product(B_TN, dstate_NC, DOT, PRECISION)
    weighted_TC = rounded(x_TC * per_column(left_TH * step_TH, T, P, HB), DOT).to(tl.float32)
    beginning_TH = per_head(weighted_TC * ahead_TC, T, P, HB)

    # A token reads itself, too.
    diagonal_TH = tl.broadcast_to(tl.load(diagonal + row + tokens)[:, None], (T, HB))
    D_C = tl.load(D + c // P, mask=c < end_c, other=0.0).to(tl.float32)
    dinput_TC = back_TC * per_column(before_TH, T, P, HB) + ahead_TC * per_column(left_TH, T, P, HB)
    dinput_TC += dy_TC * per_column(diagonal_TH, T, P, HB)
    dx_TC = dinput_TC * per_column(step_TH, T, P, HB) + dy_TC * D_C[None, :]
    store(dconv + batch * L * X, dx_TC, tokens, X, L, c, 1, end_c)

    of_heads += (batch * tiles + tile) * 3 * H + heads
    tl.store(of_heads + H, tl.sum(per_head(dy_TC * x_TC, T, P, HB), 0), mask=heads < last)
    dinput_TH = per_head(dinput_TC * x_TC, T, P, HB)
    # A token's decay is part of all that begin before it and end at it or behind.
    da_TH = tl.cumsum(inside_TH, 0, reverse=True) + tl.cumsum(beginning_TH, 0) - beginning_TH
    if states is None:
        # Those that begin before the tile and end behind it wait: see `training_conv_kernel`.
        at = batch * H * padded
        store(dlogs + at, da_TH, tokens, 1, padded, heads, padded, last)
        store(dinputs + at, dinput_TH, tokens, 1, padded, heads, padded, last)
    else:
        state_NC = load(states + offset, n, HB * P, N, column, 1, HB * P).to(tl.float32)
        through_C = tl.sum(state_NC * dstate_NC.to(tl.float32), 0)
        through_H = tl.sum(tl.reshape(through_C, (HB, P)), 1) * tl.exp(total_H)
        da_TH += through_H[None, :]
        step_gradients(
            packed + batch * packed_b + dt_at, dpacked + batch * packed_b + dt_at, of_heads, A_log, dt_bias,
            da_TH, dinput_TH, step_TH, tokens, heads, last, L, H, packed_l,
        )  # fmt: skip


@triton.jit
def _of_pair(
    weighted, seen, step, cum, tile, other, L, H, row, row_seen, first, last, blocks, padded,
    FROM_LATER: tl.constexpr, T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(T, T): gradients of the scores between a tile, its rows, and another; arguments as of the next."""
    inner, column = tl.arange(0, T), tl.arange(0, HB * P)
    tokens, others = tile * T + inner, other * T + inner
    dscores_TT = tl.zeros((T, T), tl.float32)
    for block in range(blocks):
        heads, c = first + block * HB + tl.arange(0, HB), (first + block * HB) * P + column
        between_H = tl.zeros((HB,), tl.float32)
        for passed in range(tl.minimum(tile, other) + 1, tl.maximum(tile, other)):
            between_H += tile_total(cum, heads, last, passed, padded, T)
        cum_TH = load(cum, tokens, 1, padded, heads, padded, last)
        cum_HT = load(cum, heads, padded, last, others, 1, padded)
        if FROM_LATER:
            total_H = tile_total(cum, heads, last, tile, padded, T)
            here_TH = tl.exp(total_H[None, :] - cum_TH) * load(step, tokens, 1, padded, heads, padded, last)
            there_HT = tl.exp(cum_HT + between_H[:, None])
        else:
            total_H = tile_total(cum, heads, last, other, padded, T)
            here_TH = tl.exp(cum_TH + between_H[None, :])
            there_HT = tl.exp(total_H[:, None] - cum_HT) * load(step, heads, padded, last, others, 1, padded)
        t_TC = load(weighted, tokens, row, L, c, 1, last * P).to(tl.float32)
        seen_CT = load(seen, c, 1, last * P, others, row_seen, L).to(tl.float32)
        here_TC = t_TC * per_column(here_TH, T, P, HB)
        dscores_TT += product(here_TC, seen_CT * per_row(there_HT, T, P, HB), DOT, PRECISION)
    return dscores_TT


@triton.jit
def _shared_gradient(
    other, out, weighted, seen, step, cum, states,
    tile, L, H, X, row, row_seen, first, last, blocks, tiles, padded, SPAN,
    FROM_LATER: tl.constexpr, T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr, N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of C of a tile, or if FROM_LATER of B: by the states, and by the scores within the tile.

    Rows of `weighted` (L, row) are this tensor's tokens, of `seen` those at the other end: dy and x for C,
    where `other` is B and states those that enter; x and dy for B, where `other` is C and states the
    gradients of those that leave. Without states scores of other tiles take their place.
    """
    inner, n, column = tl.arange(0, T), tl.arange(0, N), tl.arange(0, HB * P)
    tokens = tile * T + inner
    acc_TN, dscores_TT = tl.zeros((T, N), tl.float32), tl.zeros((T, T), tl.float32)
    for block in range(blocks):
        heads, c = first + block * HB + tl.arange(0, HB), (first + block * HB) * P + column
        cum_TH = load(cum, tokens, 1, padded, heads, padded, last)
        cum_HT = load(cum, heads, padded, last, tokens, 1, padded)
        total_H = tl.load(cum + heads * padded + tile * T + T - 1, mask=heads < last, other=0.0)
        separable = tl.min(total_H) >= -SPAN
        middle_TH = tl.where(separable, cum_TH - 0.5 * total_H[None, :], 0.0)
        middle_HT = tl.where(separable, cum_HT - 0.5 * total_H[:, None], 0.0)
        t_TC = load(weighted, tokens, row, L, c, 1, last * P).to(tl.float32)
        seen_CT = load(seen, c, 1, last * P, tokens, row_seen, L).to(tl.float32)
        if FROM_LATER:
            step_TH = load(step, tokens, 1, padded, heads, padded, last)
            here_TH, there_HT = tl.exp(-middle_TH) * step_TH, tl.exp(middle_HT)
            outside_TH = tl.exp(total_H[None, :] - cum_TH) * step_TH
        else:
            step_HT = load(step, heads, padded, last, tokens, 1, padded)
            here_TH, there_HT = tl.exp(middle_TH), tl.exp(-middle_HT) * step_HT
            outside_TH = tl.exp(cum_TH)
        here_TC = rounded(t_TC * per_column(here_TH, T, P, HB), DOT)
        seen_CT = rounded(seen_CT * per_row(there_HT, T, P, HB), DOT)
        if separable:
            dscores_TT += product(here_TC, seen_CT, DOT, PRECISION)
        else:
            for head in range(HB):
                own_TC = tl.where((column // P == head)[None, :], here_TC, 0.0)
                decay_TT = own_decay(cum_TH, head, FROM_LATER, T, HB)
                dscores_TT += product(own_TC, seen_CT, DOT, PRECISION) * decay_TT
        if states is not None:
            at = states + (block * tiles + tile).to(tl.int64) * N * (HB * P)
            state_CN = load(at, column, 1, HB * P, n, HB * P, N)
            acc_TN += product(t_TC * per_column(outside_TH, T, P, HB), state_CN, DOT, PRECISION)
    # A token reads itself, too; what is not separable has zeros here already.
    first_T1, second_1T = inner[:, None], inner[None, :]
    inside = first_T1 <= second_1T if FROM_LATER else first_T1 >= second_1T
    dscores_TT = tl.where(inside, dscores_TT, 0.0)
    acc_TN += product(dscores_TT, load(other, tokens, X, L, n, 1, N), DOT, PRECISION)
    if states is None:
        if FROM_LATER:
            start, stop = tile + 1, tiles
        else:
            start, stop = 0, tile
        for pair in range(start, stop):
            dpair_TT = _of_pair(
                weighted, seen, step, cum, tile, pair, L, H, row, row_seen, first, last, blocks, padded,
                FROM_LATER, T, P, HB, DOT, PRECISION,
            )  # fmt: skip
            others = pair * T + inner
            acc_TN += product(dpair_TT, load(other, others, X, L, n, 1, N), DOT, PRECISION)
    store(out, acc_TN, tokens, X, L, n, 1, N)


@triton.jit
def scan_backward_kernel(
    packed, conv, step, cum, scores, diagonal, states, dstates, dy, ending, A_log, D, dt_bias,
    dpacked, dconv, of_heads, dlogs, dinputs, crossing, L, H, HP, X, group_size, blocks, tiles, padded,
    packed_b, packed_l, dt_at, SPAN, T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr, N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of what the scan reads, behind convolution and SiLU: to dconv, dpacked and of_heads.

    In the quadratic form, where states and dstates are None, steps wait for what goes through whole tiles:
    `dlogs` and `dinputs` (B, H, padded L) get the other gradients of log decays, and those of steps by the
    inputs, and `crossing` (B, H, tiles, tiles) what begins in one tile and ends in another or behind it.

    Programs do one of three things, none of which waits for another. Grid: B and C of each group, which go
    through all of its heads and so take longest, then places; tiles; B.
    """
    batch, task, tile = tl.program_id(2).to(tl.int64), tl.program_id(0), tl.program_id(1)
    groups = tl.num_programs(0) // (blocks + 2)
    places = groups * blocks
    if task >= 2 * groups:
        _input_gradients(
            packed, conv, step, cum, scores, diagonal, states, dstates, dy, ending, A_log, D, dt_bias,
            dpacked, dconv, of_heads, dlogs, dinputs, crossing, batch, task - 2 * groups, places, tile, L, H,
            HP, X, group_size, blocks, tiles, padded, packed_b, packed_l, dt_at, SPAN, T, P, HB, N, DOT,
            PRECISION,
        )  # fmt: skip
    else:
        group = task // 2
        first, last = group * group_size, tl.minimum((group + 1) * group_size, H)
        at = batch * L * X + HP + group * 2 * N
        leaving, entering = dstates, states
        if states is not None:
            of_group = (batch * places + group * blocks) * tiles * N * (HB * P)
            leaving, entering = dstates + of_group, states + of_group
        step += batch * H * padded
        cum += batch * H * padded
        x, dy = conv + batch * L * X, dy + batch * L * HP
        if task % 2 == 0:
            _shared_gradient(
                conv + at + N, dconv + at, x, dy, step, cum, leaving, tile, L, H, X, X, HP,
                first, last, blocks, tiles, padded, SPAN, True, T, P, HB, N, DOT, PRECISION,
            )  # fmt: skip
        else:
            _shared_gradient(
                conv + at, dconv + at + N, dy, x, step, cum, entering, tile, L, H, X, HP, X,
                first, last, blocks, tiles, padded, SPAN, False, T, P, HB, N, DOT, PRECISION,
            )  # fmt: skip
