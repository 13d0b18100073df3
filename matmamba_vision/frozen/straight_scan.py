"""The scan of inference: right for decays of any strength, by the same calls whatever the values are.

Chunks look back at all tokens before them, as in `ops.chunked.quadratic`; images are so short that no state
is needed. Within a chunk the decay exp(cum_i - cum_j) from token j to token i, cum the running sum of dt A,
is split so that one product serves all heads: exp(cum_i + m) / exp(cum_j + m). In float32 that overflows
where decays are strong. In float64, with the decay of one token bounded at `STRONGEST`, it cannot in chunks
of up to `CHUNK` tokens; the bound leaves of the past what float32 would round away. Tokens before the chunk
are weighted relative to its beginning: both factors are at most 1, and float32 serves.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from ..ops.chunked import may_look_at_values, ssd_chunked

# Logarithm of the strongest decay of a token: it leaves 1.5e-8 of the past.
STRONGEST = -18.0
# Tokens of a chunk: so many of the strongest decays, split in the middle, stay within float64's range.
CHUNK = 72
# Images from which it pays to ask how strong the decays are, and to compute in float32 what allows it.
ASKED_FROM = 8


def scan(
    x_BLHP: Tensor,
    dt_BLH1: Tensor,
    rates_H1: Tensor,
    states_BLX: Tensor,
    skip_H1: Tensor,
    groups: tuple[int, ...],
) -> Tensor:
    """(B, L, H, P) outputs, as `ops.ssd` gives them.

    Args:
        x_BLHP: inputs.
        dt_BLH1: steps, positive.
        rates_H1: A, negative.
        states_BLX: B and C of each group in turn, X = 2 N G.
        skip_H1: weights of the inputs in the outputs.
        groups: heads of each group.
    """
    # First, because whether the batch is large is no question while a graph of any batch is recorded.
    asks = may_look_at_values(x_BLHP) and len(x_BLHP) >= ASKED_FROM
    scan_group = _scan_asking if asks else _scan_group
    if len(groups) == 1:
        B_BLN, C_BLN = states_BLX.chunk(2, dim=-1)
        return scan_group(x_BLHP, dt_BLH1, rates_H1, B_BLN, C_BLN, skip_H1)
    parts = (x_BLHP.split(groups, 2), dt_BLH1.split(groups, 2), rates_H1.split(groups))
    pairs = (states.chunk(2, dim=-1) for states in states_BLX.chunk(len(groups), dim=-1))
    of_groups = zip(*parts, pairs, skip_H1.split(groups), strict=True)
    return torch.cat([scan_group(x, dt, A, B, C, skip) for x, dt, A, (B, C), skip in of_groups], dim=2)


def last_of_scan(
    x_BLHP: Tensor,
    dt_BLH1: Tensor,
    rates_H1: Tensor,
    states_BLX: Tensor,
    skip_H1: Tensor,
    groups: tuple[int, ...],
) -> Tensor:
    """(B, 1, H, P) the outputs of the last token alone; arguments as of `scan`."""
    cum_BLH1 = (dt_BLH1 * rates_H1).cumsum(1, dtype=torch.float64)
    # At most 1, whatever the decays are.
    weight_BLH1 = (cum_BLH1[:, -1:] - cum_BLH1).exp_().to(x_BLHP.dtype).mul_(dt_BLH1)
    B_BLGN, C_BLGN = states_BLX.unflatten(-1, (len(groups), 2, -1)).unbind(-2)
    scores_BLG = (B_BLGN * C_BLGN[:, -1:]).sum(-1)
    if len(groups) > 1:
        of_heads = [
            scores_BL1.expand(-1, -1, heads)
            for scores_BL1, heads in zip(scores_BLG.split(1, -1), groups, strict=True)
        ]
        scores_BLG = torch.cat(of_heads, dim=-1)
    y_B1HP = (weight_BLH1.mul_(scores_BLG[..., None]) * x_BLHP).sum(1, keepdim=True)
    return y_B1HP.addcmul_(x_BLHP[:, -1:], skip_H1)


def _scan_asking(
    x_BLHP: Tensor, dt_BLH1: Tensor, rates_H1: Tensor, B_BLN: Tensor, C_BLN: Tensor, skip_H1: Tensor
) -> Tensor:
    return ssd_chunked(x_BLHP, dt_BLH1[..., 0], rates_H1[:, 0], B_BLN, C_BLN, skip_H1[:, 0])


def _scan_group(
    x_BLHP: Tensor, dt_BLH1: Tensor, rates_H1: Tensor, B_BLN: Tensor, C_BLN: Tensor, skip_H1: Tensor
) -> Tensor:
    length = x_BLHP.shape[1]
    size = ceil(length / ceil(length / CHUNK))
    cum_BLH1 = (dt_BLH1 * rates_H1).clamp_(min=STRONGEST).cumsum(1, dtype=torch.float64)
    if size == length:
        return _within(x_BLHP, dt_BLH1, cum_BLH1, torch.bmm(C_BLN, B_BLN.mT), skip_H1)
    outputs = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        x, dt, C = (t[:, start:stop] for t in (x_BLHP, dt_BLH1, C_BLN))
        begin_B1H1 = cum_BLH1[:, start : start + 1]
        cum_BQH1, scores_BQS = cum_BLH1[:, start:stop] - begin_B1H1, torch.bmm(C, B_BLN[:, :stop].mT)
        y_BQHP = _within(x, dt, cum_BQH1, scores_BQS[..., start:], skip_H1)
        if start:
            weight_BSH1 = (begin_B1H1 - cum_BLH1[:, :start]).exp_().to(x.dtype).mul_(dt_BLH1[:, :start])
            weighted_BSI = (x_BLHP[:, :start] * weight_BSH1).flatten(2)
            past_BQHP = torch.bmm(scores_BQS[..., :start], weighted_BSI).view(x.shape)
            y_BQHP.addcmul_(past_BQHP, cum_BQH1.exp_().to(x.dtype))
        outputs.append(y_BQHP)
    return torch.cat(outputs, dim=1)


def _within(x_BQHP: Tensor, dt_BQH1: Tensor, cum_BQH1: Tensor, scores_BQQ: Tensor, skip_H1: Tensor) -> Tensor:
    """What the tokens of a chunk read of each other, and of themselves.

    Args:
        x_BQHP: inputs.
        dt_BQH1: steps.
        cum_BQH1: float64 running sum of the logarithms of decays, from anywhere in the chunk.
        scores_BQQ: C B^T.
        skip_H1: weights of the inputs in the outputs.
    """
    after_BQH1 = (cum_BQH1 - x_BQHP.shape[1] * STRONGEST / 2).exp_()
    weighted_BQHP = x_BQHP.double().mul_(dt_BQH1 / after_BQH1)
    y_BQI = torch.bmm(scores_BQQ.double().tril_(), weighted_BQHP.flatten(2))
    y_BQHP = y_BQI.view(x_BQHP.shape).mul_(after_BQH1).to(x_BQHP.dtype)
    return y_BQHP.addcmul_(x_BQHP, skip_H1)
