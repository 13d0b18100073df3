"""The scan in chunks (arXiv 2405.21060, section 6): products inside a chunk, a recurrence between chunks.

Inside a chunk of Q tokens the scan is a causal attention with decay; across chunks only the (N, P) state of
each head travels, so time and memory grow linearly in L. Heads of moderate decay, nearly always all of
them, go the fast way of `separable`, or in short sequences that of `quadratic`; the others, and whatever
must not look at values, that of `masked`.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .masked import ssd_masked
from .quadratic import is_short, ssd_quadratic
from .separable import LARGEST_SPAN, chunk_slices, spans, ssd_separable

# In a short sequence larger chunks: the calls saved cost more than the products with later tokens of a chunk.
_SHORT_FACTOR = 2


def ssd_chunked(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    chunk_size: int = 64,
) -> Tensor:
    """Scan of any length; arguments and result as in `ssd_reference`. Computes in float32 at least.

    Args:
        chunk_size: largest chunk Q; the length is divided into nearly equal chunks. Short sequences of
            moderate decay take chunks of up to twice that.
    """
    if x_BLHP.numel() == 0:
        return torch.empty_like(x_BLHP)
    dtype = torch.promote_types(x_BLHP.dtype, torch.float32)
    x, dt, A, B, C, D = (tensor.to(dtype) for tensor in (x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H))
    # Autocast would do the products in half precision, whose range the decays do not fit.
    with torch.autocast(x_BLHP.device.type, enabled=False):
        if not _may_look_at_values(x_BLHP):
            return ssd_masked(x, dt, A, B, C, D, chunk_size).to(x_BLHP.dtype)
        return _by_decay(x, dt, A, B, C, D, chunk_size).to(x_BLHP.dtype)


def _may_look_at_values(tensor: Tensor) -> bool:
    """Whether the way taken may depend on the data: not where the computation is recorded for other data."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    recorded = torch.compiler.is_compiling() or traced or tensor.is_meta
    return not recorded and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def scan_macs(length: int, channels: int, state_dim: int, chunk_size: int) -> int:
    """Multiply-adds of one sequence by all heads, `channels` together, decays being moderate."""
    short = is_short(length, state_dim, channels)
    chunks = chunk_slices(length, _SHORT_FACTOR * chunk_size if short else chunk_size)
    sizes = [tokens.stop - tokens.start for tokens in chunks]
    if short:
        seen = sum(size * stop for size, stop in zip(sizes, accumulate(sizes), strict=True))
        return seen * (state_dim + channels)
    # The first chunk reads no state, the last one leaves none.
    between = (2 * length - sizes[0] - sizes[-1]) * state_dim * channels
    return sum(size**2 for size in sizes) * (state_dim + channels) + between


def _moderate(x_BLHP: Tensor, *rest: Any) -> Tensor:
    scan = ssd_quadratic if _is_short(x_BLHP, rest[2]) else ssd_separable
    return scan(x_BLHP, *rest)


def _is_short(x_BLHP: Tensor, B_BLN: Tensor) -> bool:
    return is_short(x_BLHP.shape[1], B_BLN.shape[-1], x_BLHP.shape[2] * x_BLHP.shape[3])


def _strong(dt_BLH: Tensor, A_H: Tensor, chunk_size: int) -> Tensor:
    """(H,) bool. A decay that is not a number counts as strong, so it stays with its own head."""
    return ~(spans(dt_BLH.detach(), A_H.detach(), chunk_size) <= LARGEST_SPAN)


def _by_decay(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLN: Tensor, C_BLN: Tensor, D_H: Tensor, chunk_size: int
) -> Tensor:
    large = _SHORT_FACTOR * chunk_size
    if _is_short(x_BLHP, B_BLN) and not _strong(dt_BLH, A_H, large).any():
        return ssd_quadratic(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, large)
    strong_H = _strong(dt_BLH, A_H, chunk_size)
    if not strong_H.any():
        return _moderate(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, chunk_size)
    if strong_H.all():
        return ssd_masked(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, chunk_size)
    # In the large products the strong heads take part with a step and a skip of 0, which adds nothing.
    calm_H = [torch.where(strong_H, 0, tensor_H) for tensor_H in (A_H, D_H)]
    calm_BLH = torch.where(strong_H, 0, dt_BLH)
    y_BLHP = _moderate(x_BLHP, calm_BLH, calm_H[0], B_BLN, C_BLN, calm_H[1], chunk_size)
    heads = strong_H.nonzero()[:, 0]
    x, dt, A, D = (t.index_select(d, heads) for t, d in ((x_BLHP, 2), (dt_BLH, 2), (A_H, 0), (D_H, 0)))
    return y_BLHP.index_copy(2, heads, ssd_masked(x, dt, A, B_BLN, C_BLN, D, chunk_size))
