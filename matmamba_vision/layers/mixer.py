"""The Mamba2 mixer with nested heads. This is the only place that slices weights.

Weights are stored head first, so that the leading heads of every tensor are a view of it: a width costs no
copy, and a narrow model is the same tensors cut short. B and C are shared by all heads and never cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import Backend

NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class MixerWeights:
    """The tensors of one mixer. Their shapes say how many heads; the arithmetic in `mix` knows no widths."""

    in_zx: Tensor  # (H, 2P, D): gate z, then input x, of each head
    in_dt: Tensor  # (H, D)
    conv_x: Tensor  # (H, P, K)
    conv_x_bias: Tensor  # (H, P)
    dt_bias: Tensor  # (H,)
    A_log: Tensor  # (H,)
    D: Tensor  # (H,)
    norm: Tensor  # (H, P)
    out: Tensor  # (D, H, P)
    in_BC: Tensor  # (2N, D)
    conv_BC: Tensor  # (2N, K)
    conv_BC_bias: Tensor  # (2N,)

    def first(self, heads: int) -> MixerWeights:
        """The weights of the leading `heads` heads, as views."""
        return MixerWeights(**{field.name: self._cut(field.name, heads) for field in fields(self)})

    def _cut(self, name: str, heads: int) -> Tensor:
        tensor: Tensor = getattr(self, name)
        if name in _SHARED:
            return tensor
        return tensor[:, :heads] if name == "out" else tensor[:heads]


_SHARED = ("in_BC", "conv_BC", "conv_BC_bias")


def mix(u_BLD: Tensor, weights: MixerWeights, backend: Backend, chunk_size: int) -> Tensor:
    """Mamba2's mixer (arXiv 2405.21060, section 7): project, convolve, scan, gate, normalise, project back.

    Args:
        u_BLD: normalised tokens.
        weights: as many heads as are to be active.

    Returns:
        (B, L, D) update to the residual stream.
    """
    heads, double_dim, _ = weights.in_zx.shape
    zx_BLHGP = F.linear(u_BLD, weights.in_zx.flatten(0, 1)).unflatten(-1, (heads, 2, double_dim // 2))
    z_BLHP, x_BLHP = zx_BLHGP.unbind(-2)
    dt_BLH = F.softplus(F.linear(u_BLD, weights.in_dt) + weights.dt_bias)
    BC_BLN = _causal_conv(F.linear(u_BLD, weights.in_BC), weights.conv_BC, weights.conv_BC_bias)
    B_BLN, C_BLN = BC_BLN.chunk(2, dim=-1)
    x_BLHP = _causal_conv(x_BLHP, weights.conv_x, weights.conv_x_bias)
    A_H = -weights.A_log.float().exp()
    y_BLHP = backend.scan(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, weights.D, chunk_size=chunk_size)
    y_BLI = _gated_rms_norm(y_BLHP.flatten(-2), z_BLHP.flatten(-2), weights.norm.flatten())
    return F.linear(y_BLI, weights.out.flatten(1))


def _causal_conv(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
    """Depthwise causal convolution over tokens, then SiLU; X stands for any channel dimensions.

    Shifted multiply-adds: on a CPU faster than the grouped convolution for short kernels.
    """
    taps, length = kernel_XK.shape[-1], t_BLX.shape[1]
    padded_BLX = F.pad(t_BLX, [0, 0] * (t_BLX.dim() - 2) + [taps - 1, 0])
    y_BLX = torch.addcmul(bias_X, padded_BLX[:, :length], kernel_XK[..., 0])
    for tap in range(1, taps):
        y_BLX = torch.addcmul(y_BLX, padded_BLX[:, tap : tap + length], kernel_XK[..., tap])
    return F.silu(y_BLX)


def _gated_rms_norm(y_BLI: Tensor, z_BLI: Tensor, weight_I: Tensor) -> Tensor:
    """Gate, then normalise over the active heads (Mamba2's norm after the gate)."""
    return F.rms_norm(y_BLI * F.silu(z_BLI), (y_BLI.shape[-1],), weight_I, NORM_EPSILON)


class Mixer(nn.Module):
    """Parameters of a Mamba2 mixer of which any leading heads can be used.

    Args:
        dim: D, size of the residual stream. heads: H. head_dim: P. state_dim: N. conv_size: K, taps of the
            causal convolution. backend: the scan to use. chunk_size: largest chunk of the scan, in tokens.
    """

    norm: Tensor
    in_BC: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        state_dim: int,
        conv_size: int,
        backend: Backend,
        chunk_size: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.backend, self.chunk_size = heads, backend, chunk_size
        shapes = {
            "in_zx": (heads, 2 * head_dim, dim),
            "in_dt": (heads, dim),
            "conv_x": (heads, head_dim, conv_size),
            "conv_x_bias": (heads, head_dim),
            "dt_bias": (heads,),
            "A_log": (heads,),
            "D": (heads,),
            "norm": (heads, head_dim),
            "out": (dim, heads, head_dim),
            "in_BC": (2 * state_dim, dim),
            "conv_BC": (2 * state_dim, conv_size),
            "conv_BC_bias": (2 * state_dim,),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def weights(self) -> MixerWeights:
        """All weights, full width."""
        return MixerWeights(**{field.name: getattr(self, field.name) for field in fields(MixerWeights)})

    def forward(self, u_BLD: Tensor, heads: int | None = None) -> Tensor:
        """Update for tokens (B, L, D), computed by the leading `heads` heads (all by default)."""
        weights = self.weights()
        if heads is not None and heads < self.heads:
            weights = weights.first(heads)
        return mix(u_BLD, weights, self.backend, self.chunk_size)

    @torch.no_grad()
    def reset_parameters(self, out_scale: float = 1.0) -> None:
        """Mamba2's initialisation: A in [1, 16], dt in [0.001, 0.1], uniform projections.

        Args:
            out_scale: factor on the output projection; 1/sqrt(depth) keeps the residual stream's variance
                bounded.
        """
        weights = self.weights()
        for projection in (weights.in_zx, weights.in_dt, weights.in_BC):
            _uniform_(projection, fan_in=projection.shape[-1])
        for kernel in (weights.conv_x, weights.conv_x_bias, weights.conv_BC, weights.conv_BC_bias):
            _uniform_(kernel, fan_in=weights.conv_x.shape[-1])
        _uniform_(weights.out, fan_in=weights.norm.numel())
        weights.out.mul_(out_scale)
        nn.init.ones_(weights.D)
        nn.init.ones_(weights.norm)
        weights.A_log.uniform_(1, 16).log_()
        step_H = torch.empty_like(weights.dt_bias).uniform_(math.log(1e-3), math.log(1e-1)).exp_()
        weights.dt_bias.copy_(step_H + torch.log(-torch.expm1(-step_H)))


def _uniform_(tensor: Tensor, fan_in: int) -> None:
    nn.init.uniform_(tensor, -(fan_in**-0.5), fan_in**-0.5)
