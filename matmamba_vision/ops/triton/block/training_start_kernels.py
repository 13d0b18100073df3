"""Kernels where a mixer begins in training: LayerNorm of its tokens and packed weights, and their gradients.

Each is one launch, whose programs do one thing or the other: those of tokens come first. Weights are head
first, so that a width is a view; products want one matrix, of the type of the tokens.
"""

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
def _copy(source, target, D, BLOCK: tl.constexpr):
    """A row of D numbers, to the target's type."""
    for start in range(0, D, BLOCK):
        d = start + tl.arange(0, BLOCK)
        value = tl.load(source + d, mask=d < D, other=0.0)
        tl.store(target + d, value.to(target.dtype.element_ty), mask=d < D)


@triton.jit
def _normalise(x, weight, bias, u, rows, count, D, epsilon, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    normal_RD, _ = _normal(_load_rows(x, rows, count, D, BLOCK_D), D, epsilon, BLOCK_D)
    weight_D = tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)
    bias_D = tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)
    _store_rows(u, normal_RD * weight_D[None, :] + bias_D[None, :], rows, count, D, BLOCK_D)


@triton.jit
def _pack(
    z, x, shared, dt, out, norm, project, folded, row, D, inner, convolved, heads, out_d, BLOCK: tl.constexpr
):  # fmt: skip
    """A row of project (E, D), or behind them one of folded (D, I)."""
    both = inner + convolved
    if row < inner:
        _copy(z + row * D, project + row * D, D, BLOCK)
    elif row < 2 * inner:
        _copy(x + (row - inner) * D, project + row * D, D, BLOCK)
    elif row < both:
        _copy(shared + (row - 2 * inner) * D, project + row * D, D, BLOCK)
    elif row < both + heads:
        _copy(dt + (row - both) * D, project + row * D, D, BLOCK)
    else:
        d = row - both - heads
        for start in range(0, inner, BLOCK):
            i = start + tl.arange(0, BLOCK)
            value = tl.load(out + d * out_d + i, mask=i < inner, other=0.0).to(tl.float32)
            value *= tl.load(norm + i, mask=i < inner, other=0.0).to(tl.float32)
            tl.store(folded + d * inner + i, value.to(folded.dtype.element_ty), mask=i < inner)


@triton.jit
def start_kernel(
    t, weight, bias, u, count, epsilon, of_tokens,
    z, x, shared, dt, out, norm, project, folded, D, inner, convolved, heads, out_d,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """LayerNorm of t (count, D) to u; weights to project (E, D) and folded (D, I).

    Grid: `of_tokens` blocks of rows of t, then rows of both matrices, one after the other.
    """
    program = tl.program_id(0)
    if program < of_tokens:
        rows = program * ROWS + tl.arange(0, ROWS)
        _normalise(t, weight, bias, u, rows, count, D, epsilon, BLOCK_D)
    else:
        row = program - of_tokens
        _pack(z, x, shared, dt, out, norm, project, folded, row, D, inner, convolved, heads, out_d, BLOCK)


@triton.jit
def _normalise_backward(
    t, weight, du, dstream, dt, partial, program, count, D, epsilon,
    SUMMED: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Of SUMMED rows, to dt, plus dstream unless that is None; of weight and bias to partial (sums, 2, D)."""
    d = tl.arange(0, BLOCK_D)
    weight_D = tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)
    dweight_RD, dbias_RD = tl.zeros((ROWS, BLOCK_D), tl.float32), tl.zeros((ROWS, BLOCK_D), tl.float32)
    for start in range(0, SUMMED, ROWS):
        rows = program * SUMMED + start + tl.arange(0, ROWS)
        normal_RD, scale_R = _normal(_load_rows(t, rows, count, D, BLOCK_D), D, epsilon, BLOCK_D)
        du_RD = _load_rows(du, rows, count, D, BLOCK_D)
        dweight_RD += du_RD * normal_RD
        dbias_RD += du_RD
        dnormal_RD = du_RD * weight_D[None, :]
        along_R = tl.sum(dnormal_RD * normal_RD, 1) / D
        dt_RD = dnormal_RD - (tl.sum(dnormal_RD, 1) / D)[:, None] - normal_RD * along_R[:, None]
        dt_RD *= scale_R[:, None]
        if dstream is not None:
            dt_RD += _load_rows(dstream, rows, count, D, BLOCK_D)
        _store_rows(dt, dt_RD, rows, count, D, BLOCK_D)
    at = partial + program * 2 * D + d
    tl.store(at, tl.sum(dweight_RD, 0), mask=d < D)
    tl.store(at + D, tl.sum(dbias_RD, 0), mask=d < D)


@triton.jit
def _unpack(
    dproject, dfolded, out, norm, dz, dx, dshared, ddt, dout, dnorm, row, D, inner, convolved, heads, out_d,
    DEEP: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A row of dproject, or behind them COLUMNS columns of dfolded, DEEP rows at a time."""
    both = inner + convolved
    if row < inner:
        _copy(dproject + row * D, dz + row * D, D, BLOCK)
    elif row < 2 * inner:
        _copy(dproject + row * D, dx + (row - inner) * D, D, BLOCK)
    elif row < both:
        _copy(dproject + row * D, dshared + (row - 2 * inner) * D, D, BLOCK)
    elif row < both + heads:
        _copy(dproject + row * D, ddt + (row - both) * D, D, BLOCK)
    else:
        i = (row - both - heads) * COLUMNS + tl.arange(0, COLUMNS)
        norm_I = tl.load(norm + i, mask=i < inner, other=0.0).to(tl.float32)
        dnorm_I = tl.zeros((COLUMNS,), tl.float32)
        for start in range(0, D, DEEP):
            d = start + tl.arange(0, DEEP)
            inside = (d < D)[:, None] & (i < inner)[None, :]
            at = d[:, None] * inner + i[None, :]
            dfolded_DI = tl.load(dfolded + at, mask=inside, other=0.0).to(tl.float32)
            out_DI = tl.load(out + d[:, None] * out_d + i[None, :], mask=inside, other=0.0).to(tl.float32)
            dnorm_I += tl.sum(dfolded_DI * out_DI, 0)
            value = (dfolded_DI * norm_I[None, :]).to(dout.dtype.element_ty)
            tl.store(dout + at, value, mask=inside)
        tl.store(dnorm + i, dnorm_I.to(dnorm.dtype.element_ty), mask=i < inner)


@triton.jit
def start_backward_kernel(
    t, weight, du, dstream, dtokens, partial, count, epsilon, of_tokens,
    dproject, dfolded, out, norm, dz, dx, dshared, ddt, dout, dnorm, D, inner, convolved, heads, out_d,
    SUMMED: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
    DEEP: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of what `start_kernel` takes, contiguous.

    Grid: `of_tokens` groups of SUMMED rows of t, then rows of dproject, then blocks of columns of out.
    """
    program = tl.program_id(0)
    if program < of_tokens:
        _normalise_backward(
            t, weight, du, dstream, dtokens, partial, program, count, D, epsilon, SUMMED, ROWS, BLOCK_D
        )
    else:
        row = program - of_tokens
        _unpack(
            dproject, dfolded, out, norm, dz, dx, dshared, ddt, dout, dnorm, row, D, inner, convolved, heads,
            out_d, DEEP, COLUMNS, BLOCK,
        )  # fmt: skip
