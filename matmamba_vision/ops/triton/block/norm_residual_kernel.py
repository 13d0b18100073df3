"""Norm factor, residual stream and next LayerNorm, in Triton's language; `norm_residual` launches it."""

import triton
import triton.language as tl


@triton.jit
def norm_residual_kernel(
    x, update, sums, bias, order, out, u, rows, L_in, L, D, blocks, inner, gate_epsilon, epsilon,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCKS: tl.constexpr, UPDATE: tl.constexpr,
    BIAS: tl.constexpr, ORDER: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Grid: blocks of ROWS tokens, of all images.

    UPDATE: whether there is one to be added, times its norm's factor. ORDER: whether a place takes its token
    from another. NORM: whether u is wanted.
    """
    place = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    exists, d = place < rows, tl.arange(0, BLOCK_D)
    source = place
    if ORDER:
        source = place // L * L_in + tl.load(order + place % L, mask=exists, other=0)
    mask = exists[:, None] & (d < D)[None, :]
    at = source[:, None] * D + d[None, :]
    t_RD = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    if UPDATE:
        block = tl.arange(0, BLOCKS)
        within = exists[:, None] & (block < blocks)[None, :]
        squares = tl.load(sums + source[:, None] * blocks + block[None, :], mask=within, other=0.0)
        factor_R = tl.rsqrt(tl.sum(squares, 1) / inner + gate_epsilon)
        t_RD += tl.load(update + at, mask=mask, other=0.0).to(tl.float32) * factor_R[:, None]
    if BIAS:
        t_RD += tl.load(bias + d, mask=d < D, other=0.0)[None, :]
    to = place[:, None] * D + d[None, :]
    if UPDATE or BIAS or ORDER:
        tl.store(out + to, t_RD.to(out.dtype.element_ty), mask=mask)
    if NORM:
        mean_R = tl.sum(t_RD, 1) / D
        centred_RD = tl.where((d < D)[None, :], t_RD - mean_R[:, None], 0.0)
        scale_R = tl.rsqrt(tl.sum(centred_RD * centred_RD, 1) / D + epsilon)
        tl.store(u + to, (centred_RD * scale_R[:, None]).to(u.dtype.element_ty), mask=mask)
