"""Kernels of a mixer's forward in training: states, and the scan with skip and gate.

Layouts as in `training_parts`. Only states go from tile to tile; all else is computed for all tiles at once.
"""

import triton
import triton.language as tl

from .training_parts import (
    first_head,
    last_head,
    load,
    per_column,
    product,
    scan_outputs,
    store,
)


@triton.jit
def states_of_tiles_kernel(
    t, shared, step, cum, states, L, H, HP, X, group_size, blocks, tiles, padded, t_row,
    T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr, N: tl.constexpr, LEAVING: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The states that enter each tile, or if LEAVING the gradients of those that leave it.

    For states t (B, L, t_row) is x, and `shared` B of the first group; for gradients, from the last tile to
    the first, dy and C. Grid: places, B.
    """
    batch, place = tl.program_id(1).to(tl.int64), tl.program_id(0)
    first, last = first_head(place, blocks, group_size, HB), last_head(place, blocks, group_size, H)
    heads, c, n = first + tl.arange(0, HB), first * P + tl.arange(0, HB * P), tl.arange(0, N)
    t += batch * L * t_row
    step += batch * H * padded
    cum += batch * H * padded
    shared += batch * L * X + place // blocks * 2 * N
    states += (batch * tl.num_programs(0) + place) * tiles * N * (HB * P)
    state_NC = tl.zeros((N, HB * P), tl.float32)
    for count in range(tiles):
        tile = tiles - 1 - count if LEAVING else count
        tokens = tile * T + tl.arange(0, T)
        store(states + tile * N * HB * P, state_NC, n, HB * P, N, tl.arange(0, HB * P), 1, HB * P)
        cum_TH = load(cum, tokens, 1, padded, heads, padded, last)
        total_C = tl.load(cum + c // P * padded + tile * T + T - 1, mask=c < last * P, other=0.0)
        if LEAVING:
            weight_TH = tl.exp(cum_TH)
        else:
            step_TH = load(step, tokens, 1, padded, heads, padded, last)
            total_H = tl.load(cum + heads * padded + tile * T + T - 1, mask=heads < last, other=0.0)
            weight_TH = tl.exp(total_H[None, :] - cum_TH) * step_TH
        t_TC = load(t, tokens, t_row, L, c, 1, last * P).to(tl.float32) * per_column(weight_TH, T, P, HB)
        shared_NT = load(shared, n, 1, N, tokens, X, L)
        state_NC = state_NC * tl.exp(total_C)[None, :] + product(shared_NT, t_TC, DOT, PRECISION)


@triton.jit
def scan_kernel(
    packed, conv, step, cum, scores, diagonal, states, D, gated, sums,
    L, H, HP, X, group_size, blocks, tiles, padded, packed_b, packed_l, SPAN,
    T: tl.constexpr, P: tl.constexpr, HB: tl.constexpr, N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y SiLU(z) to gated (B, L, I), and the sums of its squares over a program's columns, (B, places, L).

    Grid: places, tiles, B.
    """
    batch, place, tile = tl.program_id(2).to(tl.int64), tl.program_id(0), tl.program_id(1)
    places, group = tl.num_programs(0), place // blocks
    first, last = first_head(place, blocks, group_size, HB), last_head(place, blocks, group_size, H)
    heads, c = first + tl.arange(0, HB), first * P + tl.arange(0, HB * P)
    tokens = tile * T + tl.arange(0, T)
    y_TC, _, _, _, _ = scan_outputs(
        conv + batch * L * X, step + batch * H * padded, cum + batch * H * padded,
        scores, diagonal, (batch * (places // blocks) + group) * padded,
        states, (batch * places + place) * tiles + tile, D, tile, heads, c, last, L, HP + group * 2 * N, X,
        padded, SPAN, T, P, HB, N, DOT, PRECISION,
    )  # fmt: skip
    z_TC = load(packed + batch * packed_b, tokens, packed_l, L, c, 1, last * P).to(tl.float32)
    g_TC = y_TC * z_TC * tl.sigmoid(z_TC)
    store(gated + batch * L * HP, g_TC, tokens, HP, L, c, 1, last * P)
    tl.store(sums + (batch * places + place) * L + tokens, tl.sum(g_TC * g_TC, 1), mask=tokens < L)
