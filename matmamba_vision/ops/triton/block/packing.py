"""The weights of a block as its kernels read them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

# What kernels are written for.
HEAD_DIMS, STATES = (16, 32, 64), (16, 32, 64, 128)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Rows begin at multiples of so many numbers, so that they are read 16 bytes at once.
ALIGNED = 16


@dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """Weights of one block at one width, contiguous and on its device; see `pack_block`.

    Attributes:
        project: (E, D) what makes a row of z, x, B and C of each group, dt, and zeros.
        project_bias: (E,) 0 for dt.
        taps: (K, X) float32, the last one for the token itself.
        conv_bias: (X,) float32.
        dt_bias: (H,) float32.
        rates: (H,) float32, A log2(e).
        skip: (H,) float32, the weight of x in a scan's output.
        out: (D, I) output projection, with the norm's weight in it, of the type of `wide`.
        out_bias: (D,) float32, or None.
        heads: H.
        head_dim: P.
        state: N.
        heads_per_group: consecutive heads that share B and C.
        gate_epsilon: of the norm of the gated output.
    """

    project: Tensor
    project_bias: Tensor
    taps: Tensor
    conv_bias: Tensor
    dt_bias: Tensor
    rates: Tensor
    skip: Tensor
    out: Tensor
    out_bias: Tensor | None
    heads: int
    head_dim: int
    state: int
    heads_per_group: int
    gate_epsilon: float

    def to(self, device: torch.device) -> BlockWeights:
        """The same there."""
        tensors = (name for name, value in vars(self).items() if isinstance(value, Tensor))
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in tensors}
        return replace(self, **moved)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of what outgrows float16's range: scores, and gated outputs that no norm has divided yet."""
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def refusal(head_dim: int, state: int, dtype: torch.dtype) -> str | None:
    """Why the kernels do not take such a block, or None."""
    if dtype not in DTYPES:
        return f"they take float32, bfloat16 and float16, not {str(dtype).removeprefix('torch.')}"
    if head_dim not in HEAD_DIMS:
        return f"they take head dims of {', '.join(map(str, HEAD_DIMS))}, not {head_dim}"
    if state not in STATES:
        return f"they take states of {', '.join(map(str, STATES))}, not {state}"
    return None


def pack_block(
    *,
    project: Tensor,
    project_bias: Tensor,
    conv: Tensor,
    conv_bias: Tensor,
    rates: Tensor,
    skip: Tensor,
    out: Tensor,
    out_bias: Tensor | None,
    heads: int,
    head_dim: int,
    state: int,
    heads_per_group: int,
    gate_epsilon: float,
    dtype: torch.dtype,
) -> BlockWeights:
    """Weights of any type, in the layout of the kernels, on the device where they are.

    Args:
        project: (2 I + 2 N G + H, D) rows of z, x, B and C of each group in turn, and dt.
        project_bias: (2 I + 2 N G + H,) for dt it is what goes into softplus.
        conv: (I + 2 N G, K) taps of the convolution of x, B and C, the last one for the token itself.
        conv_bias: (I + 2 N G,)
        rates: (H,) A, negative.
        skip: (H,) weight of x in a scan's output.
        out: (D, I) output projection, with the norm's weight in it.
        out_bias: (D,), or None.
        heads: H.
        head_dim: P.
        state: N.
        heads_per_group: consecutive heads that share B and C.
        gate_epsilon: of the norm of the gated output.
        dtype: of the tokens.
    """
    bias = project_bias.clone()
    # Steps are small numbers that come of large ones: the bias is added in float32, by the kernel.
    bias[len(bias) - heads :] = 0
    missing = -len(project) % ALIGNED
    return BlockWeights(
        project=_rows(project, missing).to(dtype),
        project_bias=_rows(bias, missing).to(dtype),
        taps=conv.T.float().contiguous(),
        conv_bias=conv_bias.float().contiguous(),
        dt_bias=project_bias[len(bias) - heads :].float().clone(),
        rates=(rates.double() * math.log2(math.e)).float(),
        skip=skip.float().contiguous(),
        out=out.to(wide(dtype)).contiguous(),
        out_bias=None if out_bias is None else out_bias.float().contiguous(),
        heads=heads,
        head_dim=head_dim,
        state=state,
        heads_per_group=heads_per_group,
        gate_epsilon=gate_epsilon,
    )


def _rows(tensor: Tensor, missing: int) -> Tensor:
    """The tensor with so many rows of zeros behind it."""
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])
