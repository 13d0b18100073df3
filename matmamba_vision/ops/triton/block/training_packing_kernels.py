"""Kernels that pack the weights of a mixer, and unpack their gradients: each is one launch.

Weights are head first, so that a width is a view; products want one matrix, of the type of the tokens.
"""

import triton
import triton.language as tl


@triton.jit
def _copy(source, target, D, BLOCK: tl.constexpr):
    """A row of D numbers, to the target's type."""
    for start in range(0, D, BLOCK):
        d = start + tl.arange(0, BLOCK)
        value = tl.load(source + d, mask=d < D, other=0.0)
        tl.store(target + d, value.to(target.dtype.element_ty), mask=d < D)


@triton.jit
def pack_kernel(
    z, x, shared, dt, out, norm, project, folded, D, inner, convolved, heads, out_d, BLOCK: tl.constexpr
):  # fmt: skip
    """To project (E, D) and folded (D, I). Grid: rows of both, one after the other."""
    row = tl.program_id(0)
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
def unpack_kernel(
    dproject, dfolded, out, norm, dz, dx, dshared, ddt, dout, dnorm, D, inner, convolved, heads, out_d,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of what `pack_kernel` takes, contiguous. Grid: rows of project, blocks of columns of out."""
    row = tl.program_id(0)
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
        for start in range(0, D, ROWS):
            d = start + tl.arange(0, ROWS)
            inside = (d < D)[:, None] & (i < inner)[None, :]
            at = d[:, None] * inner + i[None, :]
            dfolded_DI = tl.load(dfolded + at, mask=inside, other=0.0).to(tl.float32)
            out_DI = tl.load(out + d[:, None] * out_d + i[None, :], mask=inside, other=0.0).to(tl.float32)
            dnorm_I += tl.sum(dfolded_DI * out_DI, 0)
            value = (dfolded_DI * norm_I[None, :]).to(dout.dtype.element_ty)
            tl.store(dout + at, value, mask=inside)
        tl.store(dnorm + i, dnorm_I.to(dnorm.dtype.element_ty), mask=i < inner)
