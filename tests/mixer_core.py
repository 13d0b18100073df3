"""What a mixer computes between its products, as defined."""

from collections.abc import Sequence

import torch
from matmamba_vision.ops import reference
from torch import Tensor
from torch.nn import functional as F


def defined(inputs: Sequence[Tensor], head_dim: int, state: int, group_size: int) -> tuple[Tensor, Tensor]:
    """Gated outputs and the sum of their squares, by the recurrence."""
    packed, taps, conv_bias, dt_bias, A_log, D = inputs
    heads, inner = len(D), len(D) * head_dim
    z, convolved, dt = packed.split([inner, len(taps), heads], dim=-1)
    convolved = reference.conv_silu_reference(convolved, taps, conv_bias)
    x = convolved[..., :inner].unflatten(-1, (heads, head_dim))
    step, A, parts = F.softplus(dt + dt_bias), -A_log.exp(), []
    for group, shared in enumerate(convolved[..., inner:].split(2 * state, dim=-1)):
        h = slice(group * group_size, (group + 1) * group_size)
        B, C = shared.chunk(2, dim=-1)
        parts.append(reference.ssd_reference(x[:, :, h], step[..., h], A[h], B, C, D[h]))
    gated = torch.cat(parts, dim=2).flatten(2) * F.silu(z)
    return gated, gated.square().sum(-1)
