"""The definitions: Mamba2's recurrence, token by token (arXiv 2405.21060, section 2), and its neighbours."""

import torch
from torch import Tensor
from torch.nn import functional as F


def ssd_reference(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    chunk_size: int = 64,
) -> Tensor:
    """Scan in the precision of its inputs (pass float64 for the definition to test against).

    State of a head: S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T; output y_t = S_t C_t + D x_t.

    Args:
        x_BLHP: inputs.
        dt_BLH: step sizes, positive.
        A_H: decay rates, negative.
        B_BLN: input projections, shared by all heads.
        C_BLN: output projections, shared by all heads.
        D_H: skip weights.
        chunk_size: unused, part of the common signature.

    Returns:
        y_BLHP, dtype of `x_BLHP`.
    """
    start_BHPN = x_BLHP.new_zeros(x_BLHP.shape[0], *x_BLHP.shape[2:], B_BLN.shape[-1])
    return ssd_reference_from(start_BHPN, x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, D_H)[0]


def ssd_reference_from(
    state_BHPN: Tensor,
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
) -> tuple[Tensor, Tensor]:
    """Scan from a state: y_BLHP, and the state behind the last token; the rest as in `ssd_reference`."""
    outputs = []
    for t in range(x_BLHP.shape[1]):
        decay_BH11 = torch.exp(dt_BLH[:, t] * A_H)[..., None, None]
        update_BHPN = (dt_BLH[:, t, :, None] * x_BLHP[:, t])[..., None] * B_BLN[:, t, None, None, :]
        state_BHPN = decay_BH11 * state_BHPN + update_BHPN
        outputs.append((state_BHPN * C_BLN[:, t, None, None, :]).sum(-1) + D_H[:, None] * x_BLHP[:, t])
    return torch.stack(outputs, dim=1) if outputs else torch.empty_like(x_BLHP), state_BHPN


def conv_silu_reference(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
    """Depthwise causal convolution over tokens, then SiLU; X stands for any channel dimensions."""
    taps, length = kernel_XK.shape[-1], t_BLX.shape[1]
    padded_BLX = F.pad(t_BLX, [0, 0] * (t_BLX.dim() - 2) + [taps - 1, 0])
    shifted = [padded_BLX[:, tap : tap + length] * kernel_XK[..., tap] for tap in range(taps)]
    return F.silu(torch.stack(shifted).sum(0) + bias_X)


def gated_rms_norm_reference(y_BLX: Tensor, z_BLX: Tensor, weight_X: Tensor, epsilon: float) -> Tensor:
    """RMSNorm of y SiLU(z) over all channels X, times weight."""
    gated_BLX = y_BLX * F.silu(z_BLX)
    mean_square = gated_BLX.square().flatten(2).mean(-1).view(*y_BLX.shape[:2], *[1] * weight_X.dim())
    return gated_BLX * (mean_square + epsilon).rsqrt() * weight_X
