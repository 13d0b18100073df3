"""RMSNorm behind the product that follows it: a token's factor commutes with the projection."""

import triton
import triton.language as tl


@triton.jit
def _scale(sums, rows, L, places, width, epsilon):
    """1 / sqrt(mean square + epsilon) of tokens, from sums (places, L) of squares."""
    total = tl.zeros(rows.shape, tl.float32)
    for place in range(places):
        total += tl.load(sums + place * L + rows, mask=rows < L, other=0.0)
    return tl.rsqrt(total / width + epsilon)


@triton.jit
def scale_rows_kernel(
    t, sums, stream, out, L, D, places, width, epsilon, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """t (B, L, D) times each token's factor, added to the stream unless that is None. Grid: tokens, B."""
    batch = tl.program_id(1).to(tl.int64)
    rows, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    scale = _scale(sums + batch * places * L, rows, L, places, width, epsilon)
    at = batch * L * D + rows[:, None] * D + d[None, :]
    inside = (rows < L)[:, None] & (d < D)[None, :]
    value = tl.load(t + at, mask=inside, other=0.0).to(tl.float32) * scale[:, None]
    if stream is not None:
        value += tl.load(stream + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def scale_rows_backward_kernel(
    t, sums, dout, dt, dsums, L, D, places, width, epsilon, dout_b, dout_l,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """To dt (B, L, D), and dsums (B, L): the gradient of each sum of a token. Grid: blocks of tokens, B."""
    batch = tl.program_id(1).to(tl.int64)
    rows, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    scale = _scale(sums + batch * places * L, rows, L, places, width, epsilon)
    at = batch * L * D + rows[:, None] * D + d[None, :]
    inside = (rows < L)[:, None] & (d < D)[None, :]
    t_RD = tl.load(t + at, mask=inside, other=0.0).to(tl.float32)
    dout_at = dout + batch * dout_b + rows[:, None] * dout_l + d[None, :]
    dout_RD = tl.load(dout_at, mask=inside, other=0.0).to(tl.float32)
    tl.store(dt + at, (dout_RD * scale[:, None]).to(dt.dtype.element_ty), mask=inside)
    dscale = tl.sum(t_RD * dout_RD, 1)
    tl.store(dsums + batch * L + rows, -0.5 * dscale * scale * scale * scale / width, mask=rows < L)
