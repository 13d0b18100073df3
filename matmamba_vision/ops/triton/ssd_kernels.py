"""Kernels of the chunked scan (arXiv 2405.21060, section 6) for a GPU; `ssd` launches them.

Tokens are cut into tiles of T, tiles into chunks of `tiles`. `cum` is the running sum of dt A within each
tile, so that every exponent below is a sum of a few negative numbers: nothing overflows, nothing cancels.
A decay across tiles is exp(cum_i) exp(the tiles between) exp(total_j - cum_j), each factor at most 1.

Layouts: x, dy (B, L, H, P) with strides; B, C (B, L, N) with strides; step, cum and other numbers for each
head and token (B, H, padded L), padded with dt = 0; scores (B, chunks, Q, Q) with Q = tiles T; states
(B, chunks, H, N, P) in float32. A width is nothing but the number of heads H.
"""

import triton
import triton.language as tl


@triton.jit
def _load(pointer, rows, row_stride, row_limit, columns, column_stride, column_limit):
    """A matrix tile; zeros beyond the limits."""
    inside = (rows < row_limit)[:, None] & (columns < column_limit)[None, :]
    return tl.load(
        pointer + rows[:, None] * row_stride + columns[None, :] * column_stride, mask=inside, other=0.0
    )


@triton.jit
def _store(pointer, value, rows, row_stride, row_limit, columns, column_stride, column_limit):
    inside = (rows < row_limit)[:, None] & (columns < column_limit)[None, :]
    tl.store(
        pointer + rows[:, None] * row_stride + columns[None, :] * column_stride,
        value.to(pointer.dtype.element_ty),
        mask=inside,
    )


@triton.jit
def _dot(a, b, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """Matrix product with operands of type DOT, accumulated in float32."""
    return tl.dot(a.to(DOT), b.to(DOT), input_precision=PRECISION)


@triton.jit
def _totals(cum, first_tile, last_tile, T: tl.constexpr, MOST: tl.constexpr):
    """Log decay of the tiles first_tile <= tile < last_tile of one head."""
    tile = tl.arange(0, MOST)
    inside = (tile >= first_tile) & (tile < last_tile)
    return tl.sum(tl.load(cum + tile * T + T - 1, mask=inside, other=0.0))


@triton.jit
def _decay_within(cum_i, cum_j, T: tl.constexpr):
    """(T, T): exp(cum_i - cum_j) for tokens j <= i of one tile, 0 elsewhere; rows are i."""
    token = tl.arange(0, T)
    past = token[:, None] >= token[None, :]
    return tl.exp(tl.where(past, cum_i[:, None] - cum_j[None, :], float("-inf")))


@triton.jit
def _through_state(
    V, rows, V_l, V_n, L, state, N, P, p,
    T: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(T, P): rows of V (L, N) times a state (N, P), block by block of N."""
    acc = tl.zeros((T, BLOCK_P), tl.float32)
    for first_n in range(0, N, BLOCK_N):
        n = first_n + tl.arange(0, BLOCK_N)
        V_TN = _load(V, rows, V_l, L, n, V_n, N)
        acc += _dot(V_TN, _load(state, n, P, N, p, 1, P), DOT, PRECISION)
    return acc


@triton.jit
def decays_kernel(dt, A, step, cum, L, H, padded, dt_b, dt_l, dt_h, T: tl.constexpr, HEADS: tl.constexpr):
    """Transposes dt to (B, H, padded) and sums dt A within each tile. Grid: tiles, groups of heads, B."""
    batch = tl.program_id(2).to(tl.int64)
    tokens = tl.program_id(0) * T + tl.arange(0, T)
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    step_TH = _load(dt + batch * dt_b, tokens, dt_l, L, heads, dt_h, H).to(tl.float32)
    a_TH = step_TH * tl.load(A + heads, mask=heads < H, other=0.0)[None, :]
    at = batch * H * padded
    _store(step + at, step_TH, tokens, 1, padded, heads, padded, H)
    _store(cum + at, tl.cumsum(a_TH, 0), tokens, 1, padded, heads, padded, H)


@triton.jit
def scores_kernel(
    B, C, scores, L, N, tiles, B_b, B_l, B_n, C_b, C_l, C_n,
    T: tl.constexpr, BLOCK_N: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """C B^T of every pair of tiles of a chunk, once for all heads. Grid: tiles^2, chunks, B."""
    batch, chunk = tl.program_id(2).to(tl.int64), tl.program_id(1)
    tile_i, tile_j = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if tile_j > tile_i:
        return
    i = (chunk * tiles + tile_i) * T + tl.arange(0, T)
    j = (chunk * tiles + tile_j) * T + tl.arange(0, T)
    acc = tl.zeros((T, T), tl.float32)
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        C_TN = _load(C + batch * C_b, i, C_l, L, n, C_n, N)
        B_NT = _load(B + batch * B_b, n, B_n, N, j, B_l, L)
        acc += _dot(C_TN, B_NT, DOT, PRECISION)
    size = tiles * T
    at = (batch * tl.num_programs(1) + chunk) * size * size
    inner_i, inner_j = tile_i * T + tl.arange(0, T), tile_j * T + tl.arange(0, T)
    _store(scores + at, acc, inner_i, size, size, inner_j, 1, size)


@triton.jit
def outputs_kernel(
    x, y, C, D, step, cum, scores, states, L, H, P, N, tiles, padded, x_b, x_l, x_h, C_b, C_l, C_n,
    T: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, HEADS: tl.constexpr,
    WITH_STATES: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The outputs of a tile: its own tokens, the tiles before it, the state entering the chunk.

    Grid: groups of HEADS heads, tiles, B. Heads of a tile run side by side and find its scores in the cache.
    """
    batch, chunk = tl.program_id(2).to(tl.int64), tl.program_id(1) // tiles
    tile = tl.program_id(1) % tiles
    chunks = tl.num_programs(1) // tiles
    start = chunk * tiles * T
    inner, p = tl.arange(0, T), tl.arange(0, BLOCK_P)
    i, size = start + tile * T + inner, tiles * T
    scores += (batch * chunks + chunk) * size * size
    y += batch * L * H * P
    first = tl.program_id(0) * HEADS
    for head in range(first, min(first + HEADS, H)):
        at = (batch * H + head) * padded + start
        cum_i = tl.load(cum + at + tile * T + inner)
        x_head = x + batch * x_b + head * x_h
        x_TP = _load(x_head, i, x_l, L, p, 1, P)
        s_TT = _load(scores, tile * T + inner, size, size, tile * T + inner, 1, size)
        weight_TT = s_TT * _decay_within(cum_i, cum_i, T) * tl.load(step + at + tile * T + inner)[None, :]
        own_TP = _dot(weight_TT, x_TP, DOT, PRECISION)
        past_TP, between = tl.zeros((T, BLOCK_P), tl.float32), 0.0
        for back in range(1, tile + 1):
            inner_j = (tile - back) * T + inner
            total = tl.load(cum + at + (tile - back) * T + T - 1)
            weight = tl.exp(total - tl.load(cum + at + inner_j) + between) * tl.load(step + at + inner_j)
            input_TP = _load(x_head, start + inner_j, x_l, L, p, 1, P) * weight[:, None]
            s_TT = _load(scores, tile * T + inner, size, size, inner_j, 1, size)
            past_TP += _dot(s_TT, input_TP, DOT, PRECISION)
            between += total
        if WITH_STATES:
            entering = states + ((batch * chunks + chunk) * H + head) * N * P
            read_TP = _through_state(
                C + batch * C_b, i, C_l, C_n, L, entering, N, P, p, T, BLOCK_P, BLOCK_N, DOT, PRECISION
            )
            past_TP += read_TP * tl.exp(between)
        y_TP = own_TP + past_TP * tl.exp(cum_i)[:, None] + tl.load(D + head) * x_TP
        _store(y + head * P, y_TP, i, H * P, L, p, 1, P)


@triton.jit
def states_kernel(
    t, V, step, cum, states, L, H, P, N, tiles, padded, t_b, t_l, t_h, V_b, V_l, V_n,
    T: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    LEAVING: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a chunk adds to a state: sum over its tokens of weight V t^T, (N, P).

    LEAVING: to the state at its end, with V = B, t = x, weight dt and the decay to the end. Otherwise to the
    gradient of the state at its beginning, with V = C, t = dy, weight the decay from the beginning.
    Grid: heads and blocks of N, chunks, B.
    """
    batch, chunk, head = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0) % H
    n, p = tl.program_id(0) // H * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_P)
    start, inner = chunk * tiles * T, tl.arange(0, T)
    at = (batch * H + head) * padded + start
    acc, between = tl.zeros((BLOCK_N, BLOCK_P), tl.float32), 0.0
    for count in range(tiles):
        tile = tiles - 1 - count if LEAVING else count
        inner_j = tile * T + inner
        cum_j, total = tl.load(cum + at + inner_j), tl.load(cum + at + tile * T + T - 1)
        if LEAVING:
            weight = tl.exp(total - cum_j + between) * tl.load(step + at + inner_j)
        else:
            weight = tl.exp(cum_j + between)
        t_TP = _load(t + batch * t_b + head * t_h, start + inner_j, t_l, L, p, 1, P) * weight[:, None]
        V_NT = _load(V + batch * V_b, n, V_n, N, start + inner_j, V_l, L)
        acc += _dot(V_NT, t_TP, DOT, PRECISION)
        between += total
    states += ((batch * tl.num_programs(1) + chunk) * H + head) * N * P
    _store(states, acc, n, P, N, p, 1, P)


@triton.jit
def carry_kernel(
    states, entering, dlog, cum, H, NP, tiles, chunks, padded,
    T: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """In place, from what each chunk adds to the state that it meets: the recurrence over chunks.

    BACKWARD goes from the last chunk to the first, and writes to dlog (B, chunks, H, blocks) the share that
    this block has in the gradient of the decay through each whole chunk: <gradient of the state that leaves,
    state that enters>, decayed. Grid: blocks of N P, heads, B.
    """
    batch, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    item = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    state = tl.zeros((BLOCK,), tl.float32)
    for count in range(chunks):
        chunk = chunks - 1 - count if BACKWARD else count
        at = ((batch * chunks + chunk) * H + head) * NP + item
        added = tl.load(states + at, mask=item < NP, other=0.0)
        tl.store(states + at, state, mask=item < NP)
        log = _totals(cum + (batch * H + head) * padded + chunk * tiles * T, 0, tiles, T, MOST)
        state *= tl.exp(log)
        if BACKWARD:
            met = tl.load(entering + at, mask=item < NP, other=0.0)
            out = ((batch * chunks + chunk) * H + head) * tl.num_programs(0) + tl.program_id(0)
            tl.store(dlog + out, tl.sum(state * met))
        state += added


@triton.jit
def input_gradients_kernel(
    x, dy, dx, B, D, step, cum, scores, dstates, dstep, dskip,
    L, H, P, N, tiles, padded, x_b, x_l, x_h, dy_b, dy_l, dy_h, B_b, B_l, B_n,
    T: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, HEADS: tl.constexpr,
    WITH_STATES: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dx of a tile; for each token, dt's gradient as a factor of the input, and <dy, x>.

    Grid: groups of HEADS heads, tiles, B.
    """
    batch, chunk = tl.program_id(2).to(tl.int64), tl.program_id(1) // tiles
    tile = tl.program_id(1) % tiles
    chunks = tl.num_programs(1) // tiles
    start = chunk * tiles * T
    inner, p = tl.arange(0, T), tl.arange(0, BLOCK_P)
    own, size = tile * T + inner, tiles * T
    j = start + own
    scores += (batch * chunks + chunk) * size * size
    dx += batch * L * H * P
    first = tl.program_id(0) * HEADS
    for head in range(first, min(first + HEADS, H)):
        at = (batch * H + head) * padded + start
        cum_j, step_j = tl.load(cum + at + own), tl.load(step + at + own)
        dy_head = dy + batch * dy_b + head * dy_h
        dy_TP = _load(dy_head, j, dy_l, L, p, 1, P)
        weight_TT = _load(scores, own, size, size, own, 1, size) * _decay_within(cum_j, cum_j, T)
        dinput_TP = _dot(tl.trans(weight_TT), dy_TP, DOT, PRECISION)
        later_TP, between = tl.zeros((T, BLOCK_P), tl.float32), 0.0
        for tile_i in range(tile + 1, tiles):
            inner_i = tile_i * T + inner
            weight = tl.exp(tl.load(cum + at + inner_i) + between)
            g_TP = _load(dy_head, start + inner_i, dy_l, L, p, 1, P) * weight[:, None]
            s_TT = _load(scores, inner_i, size, size, own, 1, size)
            later_TP += _dot(tl.trans(s_TT), g_TP, DOT, PRECISION)
            between += tl.load(cum + at + tile_i * T + T - 1)
        if WITH_STATES:
            leaving = dstates + ((batch * chunks + chunk) * H + head) * N * P
            read_TP = _through_state(
                B + batch * B_b, j, B_l, B_n, L, leaving, N, P, p, T, BLOCK_P, BLOCK_N, DOT, PRECISION
            )
            later_TP += read_TP * tl.exp(between)
        total = tl.load(cum + at + tile * T + T - 1)
        dinput_TP += later_TP * tl.exp(total - cum_j)[:, None]
        x_TP = _load(x + batch * x_b + head * x_h, j, x_l, L, p, 1, P).to(tl.float32)
        _store(dx + head * P, dinput_TP * step_j[:, None] + tl.load(D + head) * dy_TP, j, H * P, L, p, 1, P)
        tl.store(dstep + at + own, tl.sum(dinput_TP * x_TP, 1))
        tl.store(dskip + at + own, tl.sum(dy_TP * x_TP, 1))


@triton.jit
def score_gradients_kernel(
    x, dy, step, cum, scores, dscores, dend, dbegin, L, H, P, tiles, padded, x_b, x_l, x_h, dy_b, dy_l, dy_h,
    T: tl.constexpr, BLOCK_P: tl.constexpr, MOST: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of the scores of a pair of tiles, summed over the heads, and that of the decays between them.

    The latter comes as sums over rows and columns: dend (tiles j, B, H, padded) for the decays that end at a
    token, dbegin (tiles i, B, H, padded) for those that begin there. Grid: tiles^2, chunks, B.
    """
    batch, chunk, chunks = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    tile_i, tile_j = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if tile_j > tile_i:
        return
    start, size = chunk * tiles * T, tiles * T
    i, j, p = tile_i * T + tl.arange(0, T), tile_j * T + tl.arange(0, T), tl.arange(0, BLOCK_P)
    at_scores = (batch * chunks + chunk) * size * size
    s_TT = _load(scores + at_scores, i, size, size, j, 1, size).to(tl.float32)
    acc = tl.zeros((T, T), tl.float32)
    layer = tl.cast(tl.num_programs(2), tl.int64) * H * padded
    for head in range(H):
        at = (batch * H + head) * padded + start
        cum_i, cum_j = tl.load(cum + at + i), tl.load(cum + at + j)
        if tile_i == tile_j:
            decay_TT = _decay_within(cum_i, cum_j, T)
        else:
            between = _totals(cum + at, tile_j + 1, tile_i, T, MOST)
            total = tl.load(cum + at + tile_j * T + T - 1)
            decay_TT = tl.exp(cum_i + between)[:, None] * tl.exp(total - cum_j)[None, :]
        dy_TP = _load(dy + batch * dy_b + head * dy_h, start + i, dy_l, L, p, 1, P)
        x_PT = _load(x + batch * x_b + head * x_h, p, 1, P, start + j, x_l, L)
        ds_TT = _dot(dy_TP, x_PT, DOT, PRECISION) * decay_TT * tl.load(step + at + j)[None, :]
        acc += ds_TT
        # A token does not decay towards itself: left out, not left to cancel.
        dlog_TT = tl.where(i[:, None] == j[None, :], 0.0, ds_TT * s_TT)
        tl.store(dend + tile_j * layer + at + i, tl.sum(dlog_TT, 1))
        tl.store(dbegin + tile_i * layer + at + j, tl.sum(dlog_TT, 0))
    _store(dscores + at_scores, acc, i, size, size, j, 1, size)


@triton.jit
def shared_gradients_kernel(
    t, V, other, dV, step, cum, dscores, states, dcum, L, H, P, N, tiles, padded,
    t_b, t_l, t_h, V_b, V_l, V_n, other_b, other_l, other_n,
    T: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, MOST: tl.constexpr,
    LEAVING: tl.constexpr, WITH_STATES: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient dV (B, L, N) of C, or if LEAVING of B: from the scores, and from the states of all heads.

    For C: t = dy, V = C, other = B, states those entering. For B: t = x, V = B, other = C, states the
    gradients of those leaving. dcum (blocks of N, B, H, padded): <dV, V> from the state of each head, the
    gradient of the log decay between token and state. Grid: tiles, blocks of N, B.
    """
    batch, chunk, chunks = (
        tl.program_id(2).to(tl.int64),
        tl.program_id(0) // tiles,
        tl.num_programs(0) // tiles,
    )
    tile, start, size = tl.program_id(0) % tiles, chunk * tiles * T, tiles * T
    own, inner, p = tile * T + tl.arange(0, T), tl.arange(0, T), tl.arange(0, BLOCK_P)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    dscores += (batch * chunks + chunk) * size * size
    acc = tl.zeros((T, BLOCK_N), tl.float32)
    for seen in range(tile if LEAVING else 0, tiles if LEAVING else tile + 1):
        there = seen * T + inner
        other_TN = _load(other + batch * other_b, start + there, other_l, L, n, other_n, N)
        if LEAVING:
            ds_TT = tl.trans(_load(dscores, there, size, size, own, 1, size))
        else:
            ds_TT = _load(dscores, own, size, size, there, 1, size)
        acc += _dot(ds_TT, other_TN, DOT, PRECISION)
    if WITH_STATES:
        V_TN = _load(V + batch * V_b, start + own, V_l, L, n, V_n, N).to(tl.float32)
        for head in range(H):
            at = (batch * H + head) * padded + start
            cum_own = tl.load(cum + at + own)
            if LEAVING:
                rest = _totals(cum + at, tile, tiles, T, MOST)
                weight = tl.exp(rest - cum_own) * tl.load(step + at + own)
            else:
                weight = tl.exp(cum_own + _totals(cum + at, 0, tile, T, MOST))
            t_TP = _load(t + batch * t_b + head * t_h, start + own, t_l, L, p, 1, P)
            state_PN = _load(states + ((batch * chunks + chunk) * H + head) * N * P, p, 1, P, n, P, N)
            dV_TN = _dot(t_TP, state_PN, DOT, PRECISION) * weight[:, None]
            acc += dV_TN
            layer = tl.cast(tl.num_programs(2), tl.int64) * H * padded
            tl.store(dcum + tl.program_id(1) * layer + at + own, tl.sum(dV_TN * V_TN, 1))
    _store(dV + batch * L * N, acc, start + own, N, L, n, 1, N)


@triton.jit
def _sum_from(t):
    """(T,): the sum of each element and all behind it."""
    return tl.sum(t) - tl.cumsum(t, 0) + t


@triton.jit
def decay_gradients_kernel(
    A, step, dstep, dskip, dend, dbegin, dentering, dleaving, dlog, ddt, dA, dD,
    L, H, tiles, padded, blocks, log_blocks,
    T: tl.constexpr, WITH_STATES: tl.constexpr,
):  # fmt: skip
    """ddt (B, L, H), and the shares dA, dD (B, chunks, H): a token's decay is part of every decay that begins
    before it and ends at it or behind. They are added tile by tile, so that little cancels.

    What leaves `over` is what entered it, to the bit: products rounded to halves give a decay that ends in a
    state and one that begins there two different numbers, and their difference would stay in the sum for all
    tokens of a chunk. Grid: heads, chunks, B.
    """
    batch, chunk, head = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    at = (batch * H + head) * padded + chunk * tiles * T
    layer = tl.cast(tl.num_programs(2), tl.int64) * H * padded
    out = (batch * tl.num_programs(1) + chunk) * H + head
    A_h, over, dA_h, dD_h = tl.load(A + head), 0.0, 0.0, 0.0
    if WITH_STATES:
        # The decays that end behind the chunk begin before it, or at one of its tokens.
        for block in range(log_blocks):
            over += tl.load(dlog + out * log_blocks + block)
        for tile in range(tiles):
            for block in range(blocks):
                over += tl.sum(tl.load(dleaving + block * layer + at + tile * T + tl.arange(0, T)))
    for count in range(tiles):
        tile = tiles - 1 - count
        inner = tile * T + tl.arange(0, T)
        ending, beginning = tl.zeros((T,), tl.float32), tl.zeros((T,), tl.float32)
        for tile_j in range(tile):
            ending += tl.load(dend + tile_j * layer + at + inner)
        for tile_i in range(tile + 1, tiles):
            beginning += tl.load(dbegin + tile_i * layer + at + inner)
        if WITH_STATES:
            for block in range(blocks):
                ending += tl.load(dentering + block * layer + at + inner)
                beginning += tl.load(dleaving + block * layer + at + inner)
        # From here `over` are the decays that begin before the tile and end behind it.
        over -= tl.sum(beginning)
        own_end = tl.load(dend + tile * layer + at + inner)
        own_begin = tl.load(dbegin + tile * layer + at + inner)
        da = over + _sum_from(ending + own_end - own_begin) + tl.cumsum(beginning, 0) - beginning
        over += tl.sum(ending)
        dA_h += tl.sum(da * tl.load(step + at + inner))
        dD_h += tl.sum(tl.load(dskip + at + inner))
        token = chunk * tiles * T + inner
        ddt_T = tl.load(dstep + at + inner) + da * A_h
        tl.store(ddt + (batch * L + token) * H + head, ddt_T, mask=token < L)
    tl.store(dA + out, dA_h)
    tl.store(dD + out, dD_h)
