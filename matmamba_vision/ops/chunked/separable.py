"""The chunked scan with separable decays: every product runs over all heads side by side.

The decay between tokens j <= i of a chunk is exp(cum_i - cum_j), with cum the running sum of dt A. It is
split at the middle m of the chunk's total: exp(cum_i - m) exp(m - cum_j). So the inputs are weighted once,
multiplied by the scores C B^T that all heads share, and the result is weighted once more: no matrix of decays
for each head. Chunks follow each other in time: a few buffers of one chunk are reused and stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .elementwise import BY_PYTORCH, Passes

# Largest total log decay of a chunk: both halves of it, and products with them, are normal float32 numbers.
LARGEST_SPAN = 100.0
# Channels of a group of heads below which its products are too small for a thread of its own.
_GROUP_CHANNELS = 128


class _Decays(NamedTuple):
    """Factors of all chunks relative to the middle m of each.

    Attributes:
        after_BCQH: exp(cum - m).
        before_BCQH: exp(m - cum).
        between_BCH: decay from the middle of each chunk but the last to the middle of the next.
    """

    after_BCQH: Tensor
    before_BCQH: Tensor
    between_BCH: Tensor


def chunk_slices(length: int, chunk_size: int) -> Iterator[slice]:
    """Slices of at most `chunk_size` tokens, of nearly equal length."""
    size = ceil(length / ceil(length / chunk_size))
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def running_steps(dt_BLH: Tensor) -> Tensor:
    """(B, L + 1, H): the sum of the steps before each token, and of all."""
    return pad(dt_BLH.cumsum(1), (0, 0, 1, 0))


def spans(steps_BLH: Tensor, A_H: Tensor, chunk_size: int) -> Tensor:
    """(H,) largest total log decay of any chunk, as a positive number; steps as of `running_steps`."""
    length = steps_BLH.shape[1] - 1
    size = next(chunk_slices(length, chunk_size)).stop
    bounds_BCH = torch.cat([steps_BLH[:, :length:size], steps_BLH[:, length:]], dim=1)
    return bounds_BCH.diff(dim=1).amax((0, 1)) * -A_H


def ssd_separable(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    chunk_size: int,
    passes: Passes = BY_PYTORCH,
) -> Tensor:
    """Scan of heads whose `spans` are at most `LARGEST_SPAN`; all of one dtype, float32 at least.

    Arguments and result as in `ssd_reference`.
    """
    x_BLHP = x_BLHP.contiguous()
    inputs = (x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        result: Tensor = _Separable.apply(*inputs, chunk_size, passes)  # type: ignore[no-untyped-call]
        return result
    return by_head_groups(partial(_scan, chunk_size=chunk_size, passes=passes, entering=None), *inputs)


class _Separable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        entering: list[Tensor] = []
        x, dt, A, B, C, D, *setting = inputs
        ctx.setting = dict(zip(("chunk_size", "passes"), setting, strict=True))
        y_BLHP = _scan(x, dt, A, B, C, D, torch.empty_like(x), **ctx.setting, entering=entering)
        # The output is kept for the gradient of the decays; whatever follows keeps it anyway.
        ctx.save_for_backward(x, dt, A, B, C, D, y_BLHP, *entering)
        return y_BLHP

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy_BLHP: Tensor) -> tuple[Tensor | None, ...]:
        x, dt, A, B, C, D, y, *entering = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            dy = dy_BLHP.contiguous()
            kept: dict[str, Any] = {"y_BLHP": y, "entering": entering, **ctx.setting}
            gradients = _gradients(dy, x, dt, A, B, C, D, **kept)
        return *gradients, None, None


def _decays(dt_BLH: Tensor, A_H: Tensor, chunk_size: int) -> _Decays:
    chunks = list(chunk_slices(dt_BLH.shape[1], chunk_size))
    size, length = chunks[0].stop, dt_BLH.shape[1]
    # A step of 0 decays nothing: the last chunk is filled up with it.
    filled_BLH = pad(dt_BLH, (0, 0, 0, len(chunks) * size - length))
    # Summed in float64, because exponentials turn a sum's rounding into relative error.
    cum_BCQH = (filled_BLH * A_H).unflatten(1, (len(chunks), size)).cumsum(2, dtype=torch.float64)
    middle_BC1H = cum_BCQH[:, :, -1:] / 2
    from_middle_BCQH = (cum_BCQH - middle_BC1H).to(dt_BLH.dtype)
    middle_BCH = middle_BC1H[:, :, 0].to(dt_BLH.dtype)
    between_BCH = (middle_BCH[:, :-1] + middle_BCH[:, 1:]).exp_()
    return _Decays(from_middle_BCQH.exp(), from_middle_BCQH.neg().exp_(), between_BCH)


def by_head_groups(scan: Callable[..., Tensor], x_BLHP: Tensor, *rest: Tensor) -> Tensor:
    """The scan of contiguous `x_BLHP`; of a single image, groups of heads as if they were images of a batch.

    Then a thread keeps to the states of its own group, in every product and every sum: they stay in its
    cache, and no thread waits for what another one has written.

    Args:
        scan: takes x, dt, A, B, C, D and where the outputs go; A and D (H,), or (B, 1, H) one for each image.
        x_BLHP: inputs.
        rest: dt, A, B, C, D.
    """
    y_BLHP, groups = torch.empty_like(x_BLHP), _head_groups(x_BLHP)
    if groups == 1:
        return scan(x_BLHP, *rest, y_BLHP)
    dt_BLH, A_H, B_BLN, C_BLN, D_H = rest
    x, dt, y = (t[0].unflatten(1, (groups, -1)).transpose(0, 1) for t in (x_BLHP, dt_BLH, y_BLHP))
    A, D = (t_H.view(groups, 1, -1) for t_H in (A_H, D_H))
    scan(x, dt, A, B_BLN.expand(groups, -1, -1), C_BLN.expand(groups, -1, -1), D, y)
    return y_BLHP


def _head_groups(x_BLHP: Tensor) -> int:
    batch, _, heads, head_dim = x_BLHP.shape
    most = min(torch.get_num_threads(), heads * head_dim // _GROUP_CHANNELS) if batch == 1 else 1
    return next(groups for groups in range(max(1, most), 0, -1) if heads % groups == 0)


def scores_of(B_BSN: Tensor, C_BQN: Tensor, diagonal: int = 0) -> Tensor:
    """(B, Q, S): C B^T of tokens that are seen, once where all images share B and C."""
    shared = B_BSN.stride(0) == 0
    seen = torch.bmm(C_BQN[:1], B_BSN[:1].mT) if shared else torch.bmm(C_BQN, B_BSN.mT)
    return seen.tril_(diagonal).expand(len(B_BSN), -1, -1)


def _scan(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    y_BLHP: Tensor,
    *,
    chunk_size: int,
    passes: Passes,
    entering: list[Tensor] | None,
) -> Tensor:
    """Fills in the outputs and returns them; appends to `entering` the states entering all chunks but one.

    A state between chunks is (B, N, HP), and is scaled to the middle of the chunk that it enters.
    """
    decays, state_BNI, buffer = _decays(dt_BLH, A_H, chunk_size), None, None
    for index, tokens in enumerate(chunk_slices(x_BLHP.shape[1], chunk_size)):
        x_BQHP, B_BQN, C_BQN = x_BLHP[:, tokens], B_BLN[:, tokens], C_BLN[:, tokens]
        size = x_BQHP.shape[1]
        weight_BQH = decays.before_BCQH[:, index, :size].mul_(dt_BLH[:, tokens])
        buffer = x_BQHP.new_empty(x_BQHP.shape) if buffer is None else buffer[:, :size]
        weighted_BQI = passes.weigh(x_BQHP, weight_BQH, buffer).flatten(2)
        if state_BNI is None:
            y_BQI = torch.bmm(scores_of(B_BQN, C_BQN), weighted_BQI)
        else:
            state_BNI = _decayed(state_BNI, decays.between_BCH[:, index - 1], in_place=entering is None)
            if entering is not None:
                entering.append(state_BNI)
            y_BQI = torch.bmm(C_BQN, state_BNI).baddbmm_(scores_of(B_BQN, C_BQN), weighted_BQI)
        after_BQH = decays.after_BCQH[:, index, :size]
        y_BQHP = y_BLHP[:, tokens]
        passes.weigh(y_BQI.view(y_BQHP.shape), after_BQH, y_BQHP, more_BSHP=x_BQHP, skip_H=D_H)
        if tokens.stop < x_BLHP.shape[1]:
            state_BNI = _updated(state_BNI, B_BQN, weighted_BQI, in_place=entering is None)
    return y_BLHP


def _decayed(state_BNI: Tensor, decay_BH: Tensor, in_place: bool) -> Tensor:
    decay_B1H1 = decay_BH[:, None, :, None]
    state_BNHP = state_BNI.unflatten(-1, (decay_B1H1.shape[2], -1))
    return (state_BNHP.mul_(decay_B1H1) if in_place else state_BNHP * decay_B1H1).flatten(2)


def _updated(state_BNI: Tensor | None, B_BQN: Tensor, weighted_BQI: Tensor, in_place: bool) -> Tensor:
    B_BNQ = B_BQN.transpose(1, 2)
    if state_BNI is None:
        return torch.bmm(B_BNQ, weighted_BQI)
    return torch.baddbmm(state_BNI, B_BNQ, weighted_BQI, out=state_BNI if in_place else None)


class _Chunk(NamedTuple):
    """What belongs to the Q tokens of one chunk: views, and the factors of `_Decays`."""

    x_BQHP: Tensor
    dy_BQHP: Tensor
    y_BQHP: Tensor
    dt_BQH: Tensor
    B_BQN: Tensor
    C_BQN: Tensor
    after_BQH: Tensor
    before_BQH: Tensor


def _gradients(
    dy_BLHP: Tensor,
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    y_BLHP: Tensor,
    entering: list[Tensor],
    chunk_size: int,
    passes: Passes,
) -> tuple[Tensor, ...]:
    """Gradients of x, dt, A, B, C, D: the chunks backwards, with the gradient of the state between them."""
    dx_BLHP, dB_BLN, dC_BLN = map(torch.empty_like, (x_BLHP, B_BLN, C_BLN))
    ddt_BLH, da_BLH = torch.empty_like(dt_BLH), torch.empty_like(dt_BLH)
    dD_H = torch.zeros_like(D_H)
    decays, chunks = _decays(dt_BLH, A_H, chunk_size), list(chunk_slices(dt_BLH.shape[1], chunk_size))
    # Of the chunk that follows: gradient of the state entering it, and of the log of that state's decay.
    dstate_BNI: Tensor | None = None
    dlog_B1H: Tensor | float = 0.0
    buffers = x_BLHP.new_empty(3, *x_BLHP[:, chunks[0]].shape)
    for index, tokens in reversed([*enumerate(chunks)]):
        views = [t[:, tokens] for t in (x_BLHP, dy_BLHP, y_BLHP, dt_BLH, B_BLN, C_BLN)]
        size = views[0].shape[1]
        chunk = _Chunk(*views, *(factors[:, index, :size] for factors in decays[:2]))
        free, state_BNI, dmiddle_B1H = buffers[:, :, :size], entering[index - 1] if index else None, dlog_B1H
        if dstate_BNI is not None:
            dstate_BNI = _decayed(dstate_BNI, decays.between_BCH[:, index], in_place=True)
        weight_BQH = chunk.before_BQH * chunk.dt_BQH
        of_products = _product_gradients(chunk, weight_BQH, state_BNI, dstate_BNI, free, passes)
        dg_BQI, dB_BLN[:, tokens], dC_BLN[:, tokens], dstate_BNI = of_products
        if state_BNI is not None and dstate_BNI is not None:
            dlog_B1H = _dot(state_BNI, dstate_BNI, heads=len(D_H)).sum(1, keepdim=True)
            dmiddle_B1H = dmiddle_B1H + dlog_B1H
        dx, ddt, da = dx_BLHP[:, tokens], ddt_BLH[:, tokens], da_BLH[:, tokens]
        dD_H += _token_gradients(chunk, weight_BQH, dg_BQI, dmiddle_B1H, D_H, (dx, ddt, da), free[0])
    dA_H = (dt_BLH * da_BLH).sum((0, 1))
    return dx_BLHP, ddt_BLH.addcmul_(da_BLH, A_H), dA_H, dB_BLN, dC_BLN, dD_H


def _product_gradients(
    chunk: _Chunk,
    weight_BQH: Tensor,
    state_BNI: Tensor | None,
    dstate_BNI: Tensor | None,
    free: Tensor,
    passes: Passes,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of a chunk's weighted inputs (B, Q, I), of its B and C, and of the state entering it.

    Args:
        chunk: the chunk.
        weight_BQH: factors of its inputs.
        state_BNI: the state that entered it, unless it is the first.
        dstate_BNI: gradient of the state that it leaves, unless it is the last; overwritten.
        free: (3, B, Q, H, P) memory to use; the first result lies in the last of it.
        passes: who makes the passes over tokens.
    """
    B_BQN, C_BQN = chunk.B_BQN, chunk.C_BQN
    du_BQI = passes.weigh(chunk.dy_BQHP, chunk.after_BQH, free[0]).flatten(2)
    weighted_BQI = passes.weigh(chunk.x_BQHP, weight_BQH, free[1]).flatten(2)
    dg_BQI = torch.bmm(scores_of(B_BQN, C_BQN).transpose(1, 2), du_BQI, out=free[2].flatten(2))
    dscores_BQQ = torch.bmm(du_BQI, weighted_BQI.transpose(1, 2)).tril_()
    dB_BQN, dC_BQN = torch.bmm(dscores_BQQ.transpose(1, 2), C_BQN), torch.bmm(dscores_BQQ, B_BQN)
    if dstate_BNI is not None:
        dg_BQI.baddbmm_(B_BQN, dstate_BNI)
        dB_BQN.baddbmm_(weighted_BQI, dstate_BNI.transpose(1, 2))
    if state_BNI is not None:
        dC_BQN.baddbmm_(du_BQI, state_BNI.transpose(1, 2))
        dstate_BNI = _updated(dstate_BNI, C_BQN, du_BQI, in_place=True)
    return dg_BQI, dB_BQN, dC_BQN, dstate_BNI


def _token_gradients(
    chunk: _Chunk,
    weight_BQH: Tensor,
    dg_BQI: Tensor,
    dmiddle_B1H: Tensor | float,
    D_H: Tensor,
    into: tuple[Tensor, Tensor, Tensor],
    free: Tensor,
) -> Tensor:
    """Fills in the gradients of a chunk's x, dt and dt A, and returns that of D, (H,).

    Args:
        chunk: the chunk.
        weight_BQH: factors of its inputs.
        dg_BQI: gradient of its weighted inputs.
        dmiddle_B1H: gradient of the logs of the decays from and to its middle by the states.
        D_H: skip weights.
        into: where the gradients of x (B, Q, H, P), dt and dt A (B, Q, H) go.
        free: (B, Q, H, P) memory to use.
    """
    x, dy, dg = chunk.x_BQHP, chunk.dy_BQHP, dg_BQI.view_as(chunk.x_BQHP)
    dx, ddt, da = into
    dweight_BQH = torch.mul(dg, x, out=free).sum(-1)
    torch.mul(dg, weight_BQH[..., None], out=dx).addcmul_(dy, D_H[:, None])
    dskip_BQH = torch.mul(dy, x, out=free).sum(-1)
    # <dy, y> without the skip is the gradient of cum in after_BQH; that of cum in before_BQH is negative.
    dcum_BQH = torch.mul(dy, chunk.y_BQHP, out=free).sum(-1)
    dcum_BQH.addcmul_(D_H, dskip_BQH, value=-1).addcmul_(dweight_BQH, weight_BQH, value=-1)
    dmiddle_B1H = dmiddle_B1H - dcum_BQH.sum(1, keepdim=True)
    dcum_BQH[:, -1:].add_(dmiddle_B1H, alpha=0.5)
    torch.mul(dweight_BQH, chunk.before_BQH, out=ddt)
    da[:] = dcum_BQH.flip(1).cumsum(1).flip(1)
    return dskip_BQH.sum((0, 1))


def _dot(a_BNI: Tensor, b_BNI: Tensor, heads: int) -> Tensor:
    return (a_BNI * b_BNI).unflatten(-1, (heads, -1)).sum(-1)
