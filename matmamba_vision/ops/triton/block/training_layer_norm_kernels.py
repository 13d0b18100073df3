"""LayerNorm, its result in the type that products take, and its gradient."""

import triton
import triton.language as tl


@triton.jit
def _load_rows(pointer, rows, count, D, BLOCK: tl.constexpr):
    d = tl.arange(0, BLOCK)
    inside = (rows < count)[:, None] & (d < D)[None, :]
    return tl.load(pointer + rows.to(tl.int64)[:, None] * D + d[None, :], mask=inside, other=0.0).to(
        tl.float32
    )


@triton.jit
def _store_rows(pointer, value, rows, count, D, BLOCK: tl.constexpr):
    d = tl.arange(0, BLOCK)
    inside = (rows < count)[:, None] & (d < D)[None, :]
    at = pointer + rows.to(tl.int64)[:, None] * D + d[None, :]
    tl.store(at, value.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def _normal(x_RD, D, epsilon, BLOCK: tl.constexpr):
    """Rows of zero mean and of variance 1, and the factors (R,) that made them so."""
    inside = (tl.arange(0, BLOCK) < D)[None, :]
    centred_RD = tl.where(inside, x_RD - (tl.sum(x_RD, 1) / D)[:, None], 0.0)
    scale_R = tl.rsqrt(tl.sum(centred_RD * centred_RD, 1) / D + epsilon)
    return centred_RD * scale_R[:, None], scale_R


@triton.jit
def layer_norm_kernel(
    x, weight, bias, out, count, D, epsilon, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Of rows (count, D). Grid: blocks of rows."""
    rows, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    normal_RD, _ = _normal(_load_rows(x, rows, count, D, BLOCK), D, epsilon, BLOCK)
    weight_D = tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)
    bias_D = tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)
    _store_rows(out, normal_RD * weight_D[None, :] + bias_D[None, :], rows, count, D, BLOCK)


@triton.jit
def layer_norm_backward_kernel(
    x, weight, dout, dx, partial, count, D, epsilon,
    SUMMED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """To dx, and partial (sums, 2, D): of weight and bias. Grid: groups of SUMMED rows."""
    d = tl.arange(0, BLOCK)
    weight_D = tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)
    dweight_RD, dbias_RD = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, SUMMED, ROWS):
        rows = tl.program_id(0) * SUMMED + start + tl.arange(0, ROWS)
        normal_RD, scale_R = _normal(_load_rows(x, rows, count, D, BLOCK), D, epsilon, BLOCK)
        dout_RD = _load_rows(dout, rows, count, D, BLOCK)
        dweight_RD += dout_RD * normal_RD
        dbias_RD += dout_RD
        dnormal_RD = dout_RD * weight_D[None, :]
        along_R = tl.sum(dnormal_RD * normal_RD, 1) / D
        dx_RD = dnormal_RD - (tl.sum(dnormal_RD, 1) / D)[:, None] - normal_RD * along_R[:, None]
        _store_rows(dx, dx_RD * scale_R[:, None], rows, count, D, BLOCK)
    at = partial + tl.program_id(0) * 2 * D + d
    tl.store(at, tl.sum(dweight_RD, 0), mask=d < D)
    tl.store(at + D, tl.sum(dbias_RD, 0), mask=d < D)
