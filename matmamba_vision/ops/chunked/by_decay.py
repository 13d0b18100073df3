"""The scan in chunks (arXiv 2405.21060, section 6): products inside a chunk, a recurrence between chunks.

Inside a chunk of Q tokens the scan is a causal attention with decay; across chunks only the (N, P) state of
each head travels, so time and memory grow linearly in L. Heads of moderate decay, nearly always all of
them, go the fast way of `separable`, or in short sequences that of `quadratic`; the others, and whatever
must not look at values, that of `masked`.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import accumulate

import torch
from torch import Tensor

from .elementwise import BY_PYTORCH, Passes
from .masked import ssd_masked
from .quadratic import is_short, ssd_quadratic
from .separable import LARGEST_SPAN, chunk_slices, running_steps, spans, ssd_separable

# Chunk sizes over the one asked for, the fastest first: calls cost more than what a large chunk multiplies in
# vain, its products with later tokens. The first is taken for which the decays of all heads are moderate.
_SHORT_SIZES, _LONG_SIZES = (2.0, 1.5, 1.0, 0.75, 0.5), (1.5, 1.0, 0.75, 0.5)


def ssd_chunked(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    chunk_size: int = 64,
    passes: Passes = BY_PYTORCH,
) -> Tensor:
    """Scan of any length; arguments and result as in `ssd_reference`. Computes in float32 at least.

    Args:
        chunk_size: largest chunk Q where some decays are strong. Where all are moderate, it is half to twice
            that, as the decays allow. The length is divided into nearly equal chunks.
        passes: who makes the passes over tokens between the products.
    """
    if x_BLHP.numel() == 0:
        return torch.empty_like(x_BLHP)
    dtype = torch.promote_types(x_BLHP.dtype, torch.float32)
    x, dt, A, B, C, D = (tensor.to(dtype) for tensor in (x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H))
    # Autocast would do the products in half precision, whose range the decays do not fit.
    with nullcontext() if x_BLHP.is_meta else torch.autocast(x_BLHP.device.type, enabled=False):
        if not may_look_at_values(x_BLHP):
            return ssd_masked(x, dt, A, B, C, D, chunk_size).to(x_BLHP.dtype)
        return _by_decay(x, dt, A, B, C, D, chunk_size, passes).to(x_BLHP.dtype)


def may_look_at_values(tensor: Tensor) -> bool:
    """Whether the way taken may depend on the data: not where the computation is recorded for other data."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    recorded = torch.compiler.is_compiling() or traced or tensor.is_meta
    return not recorded and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def scan_macs(length: int, channels: int, state_dim: int, chunk_size: int) -> int:
    """Multiply-adds of one sequence by all heads, `channels` together, decays being slow."""
    short = is_short(length, state_dim, channels)
    chunks = chunk_slices(length, _sizes(chunk_size, short)[0])
    sizes = [tokens.stop - tokens.start for tokens in chunks]
    if short:
        seen = sum(size * stop for size, stop in zip(sizes, accumulate(sizes), strict=True))
        return seen * (state_dim + channels)
    # The first chunk reads no state, the last one leaves none.
    between = (2 * length - sizes[0] - sizes[-1]) * state_dim * channels
    return sum(size**2 for size in sizes) * (state_dim + channels) + between


def _sizes(chunk_size: int, short: bool) -> list[int]:
    return [max(1, int(chunk_size * factor)) for factor in (_SHORT_SIZES if short else _LONG_SIZES)]


def _by_decay(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    chunk_size: int,
    passes: Passes,
) -> Tensor:
    short = is_short(x_BLHP.shape[1], B_BLN.shape[-1], x_BLHP.shape[2] * x_BLHP.shape[3])
    scan, steps_BLH = ssd_quadratic if short else ssd_separable, running_steps(dt_BLH.detach())
    strong = {}
    for size in _sizes(chunk_size, short):
        # Written so that a decay that is not a number counts as strong: it stays with its own head.
        strong[size] = ~(spans(steps_BLH, A_H.detach(), size) <= LARGEST_SPAN)
        if not strong[size].any():
            return scan(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, size, passes)
    strong_H = strong[chunk_size]
    if strong_H.all():
        return ssd_masked(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, chunk_size)
    # In the large products the strong heads take part with a step and a skip of 0, which adds nothing.
    moderate_H = [torch.where(strong_H, 0, tensor_H) for tensor_H in (A_H, D_H)]
    moderate_BLH = torch.where(strong_H, 0, dt_BLH)
    y_BLHP = scan(x_BLHP, moderate_BLH, moderate_H[0], B_BLN, C_BLN, moderate_H[1], chunk_size, passes)
    heads = strong_H.nonzero()[:, 0]
    x, dt, A, D = (t.index_select(d, heads) for t, d in ((x_BLHP, 2), (dt_BLH, 2), (A_H, 0), (D_H, 0)))
    y_strong_BLHP = ssd_masked(x, dt, A, B_BLN, C_BLN, D, chunk_size)
    if y_BLHP.requires_grad or y_strong_BLHP.requires_grad:
        return y_BLHP.index_copy(2, heads, y_strong_BLHP)
    return y_BLHP.index_copy_(2, heads, y_strong_BLHP)
