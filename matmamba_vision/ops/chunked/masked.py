"""The chunked scan with a matrix of decays for each head of a chunk: decays of any strength.

Slower and larger than `separable`, but nothing in it can overflow, and no branch depends on the data.
"""

from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import pad


def ssd_masked(
    x_BLHP: Tensor, dt_BLH: Tensor, A_H: Tensor, B_BLN: Tensor, C_BLN: Tensor, D_H: Tensor, chunk_size: int
) -> Tensor:
    """Scan of any decay; arguments and result as in `ssd_reference`, all of one dtype, float32 at least."""
    length = x_BLHP.shape[1]
    chunks = ceil(length / chunk_size)
    input_BCQHP = _split(x_BLHP * dt_BLH[..., None], chunks)
    log_decay_BCQH = _split(dt_BLH * A_H, chunks).cumsum(2)
    B_BCQN, C_BCQN = _split(B_BLN, chunks), _split(C_BLN, chunks)

    y_BCQHP = _within_chunks(input_BCQHP, log_decay_BCQH, B_BCQN, C_BCQN)
    if chunks > 1:
        y_BCQHP = y_BCQHP + _between_chunks(input_BCQHP, log_decay_BCQH, B_BCQN, C_BCQN)
    return torch.addcmul(y_BCQHP.flatten(1, 2)[:, :length], x_BLHP, D_H[:, None])


def _split(t_BL: Tensor, chunks: int) -> Tensor:
    """Divide tokens into equal chunks; padding with zeros adds nothing to a state, because dt is 0 there."""
    size = ceil(t_BL.shape[1] / chunks)
    missing = chunks * size - t_BL.shape[1]
    padded = pad(t_BL, [0, 0] * (t_BL.dim() - 2) + [0, missing]) if missing else t_BL
    return padded.unflatten(1, (chunks, size))


def _within_chunks(input_BCQHP: Tensor, log_decay_BCQH: Tensor, B_BCQN: Tensor, C_BCQN: Tensor) -> Tensor:
    size = log_decay_BCQH.shape[2]
    future_QQ = torch.ones(size, size, dtype=torch.bool, device=input_BCQHP.device).triu(1)
    log_decay_BCHQ = log_decay_BCQH.transpose(2, 3)
    decay_BCHQQ = log_decay_BCHQ[..., :, None] - log_decay_BCHQ[..., None, :]
    # In place, because fresh memory costs more than the arithmetic.
    decay_BCHQQ = decay_BCHQQ.masked_fill_(future_QQ, -torch.inf).exp_()
    scores_BCQQ = C_BCQN @ B_BCQN.transpose(-1, -2)
    y_BCHQP = (decay_BCHQQ * scores_BCQQ[:, :, None]) @ input_BCQHP.transpose(2, 3)
    return y_BCHQP.transpose(2, 3)


def _between_chunks(input_BCQHP: Tensor, log_decay_BCQH: Tensor, B_BCQN: Tensor, C_BCQN: Tensor) -> Tensor:
    heads = input_BCQHP.shape[-2:]
    to_end_BCQH = (log_decay_BCQH[:, :, -1:] - log_decay_BCQH).exp()
    gathered_BCQI = (input_BCQHP * to_end_BCQH[..., None]).flatten(-2)
    states_BCNHP = (B_BCQN.transpose(-1, -2) @ gathered_BCQI).unflatten(-1, heads)
    entering_BCNHP = _states_entering(states_BCNHP, log_decay_BCQH[:, :, -1].exp())
    y_BCQHP = (C_BCQN @ entering_BCNHP.flatten(-2)).unflatten(-1, heads)
    return y_BCQHP * log_decay_BCQH.exp()[..., None]


def _states_entering(states_BCNHP: Tensor, decay_BCH: Tensor) -> Tensor:
    """State with which each chunk begins: the recurrence over chunks."""
    state_BNHP = torch.zeros_like(states_BCNHP[:, 0])
    entering = [state_BNHP]
    for states, decay in zip(states_BCNHP.unbind(1)[:-1], decay_BCH.unbind(1)[:-1], strict=True):
        state_BNHP = torch.addcmul(states, decay[:, None, :, None], state_BNHP)
        entering.append(state_BNHP)
    return torch.stack(entering, dim=1)
