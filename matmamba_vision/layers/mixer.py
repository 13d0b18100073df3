"""The Mamba2 mixer with nested heads. This is the only place that slices weights.

Weights are stored head first, so that the leading heads of every tensor are a view of it: a width costs no
copy, and a narrow model is the same tensors cut short. B and C are shared by all heads and never cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import linear, require_known, resolve_for

NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class MixerWeights:
    """The tensors of one mixer. Their shapes say how many heads; the arithmetic in `mix` knows no widths."""

    in_z: Tensor  # (H, P, D): gate
    in_x: Tensor  # (H, P, D): input
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
        return MixerWeights(**{name: self._cut(name, heads) for name in _NAMES})

    def _cut(self, name: str, heads: int) -> Tensor:
        tensor: Tensor = getattr(self, name)
        if name in _SHARED:
            return tensor
        return tensor[:, :heads] if name == "out" else tensor[:heads]


# A tuple, because torch.compile does not follow `fields`.
_NAMES = tuple(field.name for field in fields(MixerWeights))
_SHARED = ("in_BC", "conv_BC", "conv_BC_bias")


def mix(u_BLD: Tensor, weights: MixerWeights, backend: str, chunk_size: int) -> Tensor:
    """Mamba2's mixer (arXiv 2405.21060, section 7): project, convolve, scan, gate, normalise, project back.

    Args:
        u_BLD: normalised tokens.
        weights: as many heads as are to be active.
        backend: name of the scan, see `ops.resolve`.

    Returns:
        (B, L, D) update to the residual stream.
    """
    ops = resolve_for(backend, u_BLD, weights.norm.shape[1], state_dim=weights.in_BC.shape[0] // 2)
    if ops.gpu and _can_pack(u_BLD) and (inner := ops.inner(*_packed_layout(weights))):
        return _mix_packed(u_BLD, weights, inner)
    x_BLHP = _per_head(u_BLD, weights.in_x)
    BC_BLN = linear(u_BLD, weights.in_BC)
    dt_BLH = F.softplus(linear(u_BLD, weights.in_dt, weights.dt_bias))
    B_BLN, C_BLN = ops.conv_silu(BC_BLN, weights.conv_BC, weights.conv_BC_bias).chunk(2, dim=-1)
    x_BLHP = ops.conv_silu(x_BLHP, weights.conv_x, weights.conv_x_bias)
    A_H = -weights.A_log.float().exp()
    y_BLHP = ops.scan(x_BLHP, dt_BLH, A_H, B_BLN, C_BLN, weights.D, chunk_size=chunk_size)
    # Projected late: the gate is still in the cache when it is used.
    z_BLHP = _per_head(u_BLD, weights.in_z)
    y_BLHP = ops.gated_rms_norm(y_BLHP, z_BLHP, weights.norm, NORM_EPSILON)
    return linear(y_BLHP.flatten(2), weights.out.flatten(1))


def _can_pack(u_BLD: Tensor) -> bool:
    # Autograd cannot follow products that write into parts of one tensor, nor can autocast.
    return (
        not torch.is_grad_enabled() and not torch.is_autocast_enabled(u_BLD.device.type) and u_BLD.numel() > 0
    )


def _packed_parts(weights: MixerWeights) -> tuple[Tensor, ...]:
    return weights.in_z.flatten(0, 1), weights.in_x.flatten(0, 1), weights.in_BC, weights.in_dt


def _packed_layout(weights: MixerWeights) -> tuple[int, int, int]:
    """Taps, convolved channels, and numbers of a token in the packed projection."""
    z, *rest = map(len, _packed_parts(weights))
    return weights.conv_x.shape[-1], rest[0] + rest[1], z + sum(rest)


def _mix_packed(u_BLD: Tensor, weights: MixerWeights, inner: Callable[..., Tensor]) -> Tensor:
    """As `mix`, by a kernel that takes the published packed projection z, x, B, C, dt, written in place."""
    parts, row = _packed_parts(weights), _packed_layout(weights)[-1]
    packed_BLE = u_BLD.new_empty(*u_BLD.shape[:2], row)
    slices = packed_BLE.flatten(0, 1).split([len(part) for part in parts], dim=1)
    for part, into in zip(parts, slices, strict=True):
        torch.mm(u_BLD.flatten(0, 1), part.T, out=into)
    kernel_XK = torch.cat([weights.conv_x.flatten(0, 1), weights.conv_BC])
    bias_X = torch.cat([weights.conv_x_bias.flatten(), weights.conv_BC_bias])
    A_H, norm_I = -weights.A_log.float().exp(), weights.norm.flatten()
    y_BLI = inner(packed_BLE, kernel_XK, bias_X, weights.dt_bias, A_H, weights.D, norm_I, NORM_EPSILON)
    return linear(y_BLI, weights.out.flatten(1))


def _per_head(u_BLD: Tensor, projection_HPD: Tensor) -> Tensor:
    """(B, L, H, P): one matrix product for all heads; flattening leading heads copies nothing."""
    return linear(u_BLD, projection_HPD.flatten(0, 1)).unflatten(-1, projection_HPD.shape[:2])


class Mixer(nn.Module):
    """Parameters of a Mamba2 mixer of which any leading heads can be used.

    Args:
        dim: D, size of the residual stream. heads: H. head_dim: P. state_dim: N. conv_size: K, taps of the
            causal convolution. backend: name of the scan, see `ops.resolve`. chunk_size: largest chunk of
            the scan, in tokens.
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
        backend: str,
        chunk_size: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.backend, self.chunk_size = heads, require_known(backend), chunk_size
        shapes = {
            "in_z": (heads, head_dim, dim),
            "in_x": (heads, head_dim, dim),
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
        return MixerWeights(**{name: getattr(self, name) for name in _NAMES})

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
        for projection in (weights.in_z, weights.in_x, weights.in_dt, weights.in_BC):
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
