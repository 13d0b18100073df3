"""The scan in chunks (arXiv 2405.21060, section 6): products inside a chunk, a recurrence between chunks.

Inside a chunk of Q tokens the scan is a causal attention with decay; across chunks only the (N, P) state of
each head travels, so time and memory grow linearly in L. Heads of moderate decay, nearly always all of
them, go the fast way of `separable`; the others, and whatever must not look at values, that of `masked`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .masked import ssd_masked
from .separable import LARGEST_SPAN, spans, ssd_separable


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
        chunk_size: largest chunk Q; the length is divided into nearly equal chunks.
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


def _by_decay(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLN: Tensor, C_BLN: Tensor, D_H: Tensor, chunk_size: int
) -> Tensor:
    # Written so that a decay that is not a number counts as strong: it stays with its own head.
    strong_H = ~(spans(dt_BLH.detach(), A_H.detach(), chunk_size) <= LARGEST_SPAN)
    if not strong_H.any():
        return ssd_separable(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, chunk_size)
    if strong_H.all():
        return ssd_masked(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, chunk_size)
    parts = []
    for scan, chosen_H in ((ssd_separable, ~strong_H), (ssd_masked, strong_H)):
        x, dt = x_BLHP[:, :, chosen_H], dt_BLH[:, :, chosen_H]
        parts.append(scan(x, dt, A_H[chosen_H], B_BLN, C_BLN, D_H[chosen_H], chunk_size))
    order_H = torch.cat([(~strong_H).nonzero()[:, 0], strong_H.nonzero()[:, 0]])
    return torch.cat(parts, dim=2)[:, :, order_H.argsort()]
