"""The scan in chunks (arXiv 2405.21060, section 6): products inside a chunk, a recurrence between chunks.

Inside a chunk of Q tokens the scan is a causal attention with decay; across chunks only the (P, N) state of
each head travels. Memory is O(L Q) for Q fixed, so it grows linearly in L.
"""

from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import pad


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
    """Scan of any length; arguments and result as in `ssd_reference`. Accumulates in float32 at least.

    Args:
        chunk_size: largest chunk Q; the length is divided into chunks of equal size, so that padding stays
            short.
    """
    length = x_BLHP.shape[1]
    if length == 0 or x_BLHP.shape[0] == 0:
        return torch.empty_like(x_BLHP)
    dtype = torch.promote_types(x_BLHP.dtype, torch.float32)
    x, dt, A, B, C, D = (t.to(dtype) for t in (x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H))
    chunks = ceil(length / chunk_size)
    x_BCQHP, dt_BCQH, B_BCQN, C_BCQN = (_split(t, chunks) for t in (x, dt, B, C))

    input_BCHQP = (x_BCQHP * dt_BCQH[..., None]).transpose(2, 3)
    log_decay_BCHQ = (dt_BCQH * A).transpose(2, 3).cumsum(-1)
    y_BCHQP = _within_chunks(input_BCHQP, log_decay_BCHQ, B_BCQN, C_BCQN)
    if chunks > 1:
        y_BCHQP = y_BCHQP + _between_chunks(input_BCHQP, log_decay_BCHQ, B_BCQN, C_BCQN)
    y_BLHP = y_BCHQP.transpose(2, 3).flatten(1, 2)[:, :length]
    return (y_BLHP + D[:, None] * x).to(x_BLHP.dtype)


def _split(t_BL: Tensor, chunks: int) -> Tensor:
    """Divide tokens into equal chunks; padding with zeros adds nothing to a state, because dt is 0 there."""
    size = ceil(t_BL.shape[1] / chunks)
    missing = chunks * size - t_BL.shape[1]
    padded = pad(t_BL, [0, 0] * (t_BL.dim() - 2) + [0, missing]) if missing else t_BL
    return padded.unflatten(1, (chunks, size))


def _within_chunks(input_BCHQP: Tensor, log_decay_BCHQ: Tensor, B_BCQN: Tensor, C_BCQN: Tensor) -> Tensor:
    size = log_decay_BCHQ.shape[-1]
    future_QQ = torch.ones(size, size, dtype=torch.bool, device=input_BCHQP.device).triu(1)
    log_decay_BCHQQ = log_decay_BCHQ[..., :, None] - log_decay_BCHQ[..., None, :]
    decay_BCHQQ = log_decay_BCHQQ.masked_fill(future_QQ, -torch.inf).exp()
    scores_BCQQ = C_BCQN @ B_BCQN.transpose(-1, -2)
    return (decay_BCHQQ * scores_BCQQ[:, :, None]) @ input_BCHQP


def _between_chunks(input_BCHQP: Tensor, log_decay_BCHQ: Tensor, B_BCQN: Tensor, C_BCQN: Tensor) -> Tensor:
    to_end_BCHQ = (log_decay_BCHQ[..., -1:] - log_decay_BCHQ).exp()
    states_BCHNP = B_BCQN.transpose(-1, -2)[:, :, None] @ (input_BCHQP * to_end_BCHQ[..., None])
    entering_BCHNP = _states_entering(states_BCHNP, log_decay_BCHQ[..., -1].exp())
    return (C_BCQN[:, :, None] @ entering_BCHNP) * log_decay_BCHQ.exp()[..., None]


def _states_entering(states_BCHNP: Tensor, decay_BCH: Tensor) -> Tensor:
    """State with which each chunk begins: the recurrence over chunks."""
    state_BHNP = torch.zeros_like(states_BCHNP[:, 0])
    entering = [state_BHNP]
    for chunk in range(states_BCHNP.shape[1] - 1):
        state_BHNP = decay_BCH[:, chunk, :, None, None] * state_BHNP + states_BCHNP[:, chunk]
        entering.append(state_BHNP)
    return torch.stack(entering, dim=1)
