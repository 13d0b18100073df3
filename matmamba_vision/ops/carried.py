"""Scan and convolution that go on where earlier tokens stopped.

Both are linear in what they carry. So any backend's own scan, which begins with nothing, is a part of the
result, kernels and gradients included, and what the entering state gives is added: no backend has to know
of states. A whole sequence of tokens goes through at once; nothing is done token by token.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import pad


def scan_carried(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    state_BHPN: Tensor | None,
    *,
    scan: Callable[..., Tensor],
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Scan from a state; meaning as in `ssd_reference_from`, whose result this is up to rounding.

    Every decay that is taken lies between 0 and 1, so that decays of any strength are exact.

    Args:
        x_BLHP: inputs, as the others of the scan.
        dt_BLH: step sizes.
        A_H: decay rates.
        B_BLN: input projections.
        C_BLN: output projections.
        D_H: skip weights.
        state_BHPN: what earlier tokens left; None: nothing, and the outputs are those of `scan` to the bit.
        scan: a backend's.
        chunk_size: of `scan`.

    Returns:
        y_BLHP, dtype of `x_BLHP`, and the state that is left, float32 at least.
    """
    y_BLHP = scan(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H, chunk_size=chunk_size)
    dtype = torch.promote_types(x_BLHP.dtype, torch.float32)
    x, dt, A, B, C = (tensor.to(dtype) for tensor in (x_BLHP, dt_BLH, A_H, B_BLN, C_BLN))
    heads = x.shape[2:]
    # Halves, which autocast would take for the products, are too coarse to be carried on and on.
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        # Summed in float64, because exponentials turn a sum's rounding into relative error; from either end,
        # because a difference of two sums has the rounding of the larger one.
        log_BLH = (dt * A).double()
        to_end_BLH = pad(log_BLH[:, 1:].flip(1).cumsum(1).flip(1), (0, 0, 0, 1))[:, : x.shape[1]]
        weight_BLH = to_end_BLH.exp().to(dtype) * dt
        left_BIN = torch.bmm((x * weight_BLH[..., None]).flatten(2).mT, B)
        left_BHPN = left_BIN.unflatten(1, heads)
        if state_BHPN is None:
            return y_BLHP, left_BHPN
        state = state_BHPN.to(dtype)
        after_BLH = log_BLH.cumsum(1).exp().to(dtype)
        read_BLHP = torch.bmm(C, state.flatten(1, 2).mT).unflatten(2, heads)
        y_BLHP = y_BLHP + (read_BLHP * after_BLH[..., None]).to(y_BLHP.dtype)
        whole_BH11 = log_BLH.sum(1).exp().to(dtype)[..., None, None]
        return y_BLHP, torch.addcmul(left_BHPN, whole_BH11, state)


def carried_macs(length: int, channels: int, state_dim: int) -> int:
    """Multiply-adds that carrying adds to a scan: each token reads a state, and adds to the next one."""
    return 2 * length * channels * state_dim


def convolve_carried(
    t_BLX: Tensor,
    kernel_XK: Tensor,
    bias_X: Tensor,
    before_BKX: Tensor | None,
    *,
    convolve: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Causal convolution and SiLU of tokens behind others.

    Args:
        t_BLX: tokens; X stands for any channel dimensions.
        kernel_XK: K taps.
        bias_X: added before SiLU.
        before_BKX: the last K - 1 tokens before these; None: there were none, and the result is that of
            `convolve` to the bit.
        convolve: a backend's.

    Returns:
        What becomes of the tokens, and the last K - 1 of all, filled up with zeros if there were fewer.
    """
    carried = kernel_XK.shape[-1] - 1
    if before_BKX is None:
        before_BKX = t_BLX.new_zeros(t_BLX.shape[0], carried, *t_BLX.shape[2:])
        result_BLX = convolve(t_BLX, kernel_XK, bias_X)
        all_BLX = torch.cat([before_BKX, t_BLX], dim=1)
    else:
        all_BLX = torch.cat([before_BKX.to(t_BLX.dtype), t_BLX], dim=1)
        result_BLX = convolve(all_BLX, kernel_XK, bias_X)[:, carried:]
    # A copy, so that a whole frame is not kept for its end.
    return result_BLX, all_BLX[:, all_BLX.shape[1] - carried :].clone()
