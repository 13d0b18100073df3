"""The published block by its sequence of calls to mamba-ssm and causal-conv1d, with our weights.

Weights are packed as [z | x | B | C | dt]; a width cuts its rows out and joins them in every forward, as the
published model does. Then come mamba-ssm's fused function where causal-conv1d is there, otherwise PyTorch's
convolution, mamba-ssm's scan and its gated norm.
"""

from __future__ import annotations

import copy

import torch
from matmamba_vision import MatMamba
from matmamba_vision.layers import Mixer
from matmamba_vision.layers.mixer import NORM_EPSILON
from matmamba_vision.ops import mamba_ssm
from peers import mixer_of, pack_mixer
from torch import Tensor, nn
from torch.nn import functional as F


class PublishedMixer(nn.Module):
    """A drop-in for `Mixer` whose forward takes tokens (B, L, D) and the number of active heads."""

    in_proj_weight: Tensor
    conv1d_weight: Tensor
    conv1d_bias: Tensor
    dt_bias: Tensor
    A_log: Tensor
    D: Tensor
    norm_weight: Tensor
    out_proj_weight: Tensor

    def __init__(self, mixer: Mixer) -> None:
        super().__init__()
        self.heads, self.head_dim = mixer.norm.shape
        self.state_dim = mixer.in_BC.shape[0] // 2
        for name, tensor in pack_mixer(mixer.weights()).items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(tensor.clone()))

    def forward(self, u_BLD: Tensor, heads: int | None = None, *_: object) -> Tensor:
        """Update (B, L, D); it knows one order of tokens, and no smaller state."""
        heads = self.heads if heads is None else heads
        inner, shared = heads * self.head_dim, 2 * self.state_dim
        z, x, BC, dt = self._parts(self.in_proj_weight)
        packed = F.linear(u_BLD, torch.cat([z[:inner], x[:inner], BC, dt[:heads]]))
        kernel = _leading(self.conv1d_weight[:, 0], inner, shared)
        bias = _leading(self.conv1d_bias, inner, shared)
        rest = (self.dt_bias[:heads], -self.A_log[:heads].float().exp(), self.D[:heads])
        between = (
            _fused
            if mamba_ssm.inner_where_it_fits(kernel.shape[1], len(kernel), packed.shape[-1])
            else _apart
        )
        y_BLI = between(packed, kernel, bias, *rest, self.norm_weight[:inner])
        return F.linear(y_BLI, self.out_proj_weight[:, :inner])

    def takes_norm(self, *_: object) -> bool:
        """It leaves norm and residual add to the block, as the published model does."""
        return False

    def normalised(self, x_BLD: Tensor, norm: nn.LayerNorm) -> Tensor:
        """What `norm` makes of tokens, by PyTorch, as in the published model."""
        result: Tensor = norm(x_BLD)
        return result

    def _parts(self, packed: Tensor) -> tuple[Tensor, ...]:
        inner = self.heads * self.head_dim
        return packed.split([inner, inner, 2 * self.state_dim, self.heads])


def _leading(t: Tensor, inner: int, shared: int) -> Tensor:
    """The rows of the leading heads, and those that all heads share."""
    return torch.cat([t[:inner], t[-shared:]])


def _fused(
    packed: Tensor, kernel: Tensor, bias: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, norm: Tensor
) -> Tensor:
    return mamba_ssm.inner_mamba_ssm(packed, kernel, bias, dt_bias, A, D, norm, NORM_EPSILON)


def _apart(
    packed: Tensor, kernel: Tensor, bias: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, norm: Tensor
) -> Tensor:
    inner, heads = len(norm), len(A)
    state = (len(kernel) - inner) // 2
    z, xBC, dt = packed.split([inner, len(kernel), heads], dim=-1)
    length = xBC.shape[1]
    convolved = F.conv1d(
        xBC.mT,
        kernel[:, None].to(xBC.dtype),
        bias.to(xBC.dtype),
        padding=kernel.shape[1] - 1,
        groups=len(kernel),
    )
    x, B, C = F.silu(convolved[..., :length]).mT.split([inner, state, state], dim=-1)
    x_BLHP = x.unflatten(-1, (heads, -1)).contiguous()
    y_BLHP = mamba_ssm.ssd_mamba_ssm(x_BLHP, F.softplus(dt + dt_bias), A, B, C, D)
    return mamba_ssm.gated_rms_norm_mamba_ssm(y_BLHP.flatten(2), z.contiguous(), norm, NORM_EPSILON)


def published(model: MatMamba) -> MatMamba:
    """A copy of the model whose mixers are the published ones."""
    twin = copy.deepcopy(model)
    for block in twin.stack:
        block.mixer = PublishedMixer(mixer_of(block))  # type: ignore[assignment]
    return twin
