"""The definition of the scan: Mamba2's recurrence, token by token (arXiv 2405.21060, section 2)."""

import torch
from torch import Tensor


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
        x_BLHP: inputs. dt_BLH: step sizes, positive. A_H: decay rates, negative. B_BLN, C_BLN: input and
            output projections, shared by all heads. D_H: skip weights. chunk_size: unused, part of the common
            signature.

    Returns:
        y_BLHP, dtype of `x_BLHP`.
    """
    batch, length, heads, head_dim = x_BLHP.shape
    state_BHPN = x_BLHP.new_zeros(batch, heads, head_dim, B_BLN.shape[-1])
    outputs = []
    for t in range(length):
        decay_BH11 = torch.exp(dt_BLH[:, t] * A_H)[..., None, None]
        update_BHPN = (dt_BLH[:, t, :, None] * x_BLHP[:, t])[..., None] * B_BLN[:, t, None, None, :]
        state_BHPN = decay_BH11 * state_BHPN + update_BHPN
        outputs.append((state_BHPN * C_BLN[:, t, None, None, :]).sum(-1) + D_H[:, None] * x_BLHP[:, t])
    return torch.stack(outputs, dim=1) if outputs else torch.empty_like(x_BLHP)
