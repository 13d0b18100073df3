"""The Mamba2 mixer with nested heads and a nested state.

Weights are stored head first, so that the leading heads of every tensor are a view of it: fewer heads cost no
copy, and a narrow model is the same tensors cut short. B and C belong to groups of heads, by default to one
group of all heads: a group's stay as long as one head of it is active. A smaller state takes the leading rows
of each B and each C; these do not lie side by side, so that they are copied. `Mixer.leading` is what cuts;
`mix` takes every size from the weights that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import Backend, InTraining, linear, require_known, resolve_for, scan_macs
from ..ops.step_weights import Rows, StepWeights, WidthOfStep
from .leading import leading_parts
from .nested import Nested, register, uniform_
from .order import Orders, TokenOrder

NORM_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class MixerWeights:
    """The tensors of one mixer. Their shapes say how many heads; the arithmetic in `mix` knows no widths.

    G groups of consecutive heads have a B and a C each; the rows of a group are B, then C.
    """

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
    in_BC: Tensor  # (G 2N, D)
    conv_BC: Tensor  # (G 2N, K)
    conv_BC_bias: Tensor  # (G 2N,)
    in_z_bias: Tensor | None = None  # (H, P)
    in_x_bias: Tensor | None = None  # (H, P)
    in_BC_bias: Tensor | None = None  # (G 2N,)
    out_bias: Tensor | None = None  # (D,)


# A tuple, because torch.compile does not follow `fields`.
_NAMES = tuple(field.name for field in fields(MixerWeights))
_OF_GROUPS = ("in_BC", "conv_BC", "conv_BC_bias", "in_BC_bias")


@dataclass(frozen=True)
class MixerSetting:
    """How a mixer computes.

    Attributes:
        backend: name of the scan, see `ops.resolve`.
        chunk_size: largest chunk of the scan, in tokens.
        heads_per_group: consecutive heads that share B and C.
    """

    backend: str
    chunk_size: int
    heads_per_group: int

    def groups(self, heads: int) -> list[slice]:
        """The heads of each group, of the leading `heads`."""
        size = self.heads_per_group
        return [slice(first, min(first + size, heads)) for first in range(0, heads, size)]


def mix(
    u_BLD: Tensor,
    weights: MixerWeights,
    setting: MixerSetting,
    orders: Orders = (None,),
    width: Callable[[], WidthOfStep | None] = lambda: None,
) -> Tensor:
    """Mamba2's mixer (arXiv 2405.21060, section 7): project, convolve, scan, gate, normalise, project back.

    Args:
        u_BLD: normalised tokens.
        weights: as many heads as are to be active.
        setting: how it is computed.
        orders: convolution and scan run once in each, and their outputs are added.
        width: gives what is kept of these weights for a step.

    Returns:
        (B, L, D) update to the residual stream.
    """
    if len(orders) == 1 and orders[0] is not None:
        # Before the projections, because there are fewer channels than behind them.
        return orders[0].restore(mix(orders[0].arrange(u_BLD), weights, setting, width=width))
    groups = setting.groups(len(weights.in_z))
    state = weights.in_BC.shape[0] // (2 * len(groups))
    sizes = weights.norm.shape[1], state, weights.conv_x.shape[-1]
    ops = resolve_for(setting.backend, u_BLD, *sizes)
    packs = ops.gpu and len(orders) == len(groups) == 1 and _can_pack(u_BLD, weights)
    if packs and (inner := ops.inner(*_packed_layout(weights))):
        return _mix_packed(u_BLD, weights, inner)
    if len(orders) == 1 and _is_trained(u_BLD, weights) and (trained := ops.trained(*sizes)):
        return _mix_trained(u_BLD, weights, setting, partial(trained.mix, width=width()))
    x_BLHP, BC_BLX, dt_BLH = project(u_BLD, weights)
    y_BLHP = _scan_in(orders[0], x_BLHP, BC_BLX, dt_BLH, weights, setting, ops)
    for order in orders[1:]:
        y_BLHP = y_BLHP + _scan_in(order, x_BLHP, BC_BLX, dt_BLH, weights, setting, ops)
    return project_back(y_BLHP, u_BLD, weights, ops)


def project(u_BLD: Tensor, weights: MixerWeights) -> tuple[Tensor, Tensor, Tensor]:
    """What convolution and scan take of tokens: x_BLHP, B and C of all groups BC_BLX, steps dt_BLH."""
    x_BLHP = _per_head(u_BLD, weights.in_x, weights.in_x_bias)
    BC_BLX = linear(u_BLD, weights.in_BC, weights.in_BC_bias)
    return x_BLHP, BC_BLX, F.softplus(linear(u_BLD, weights.in_dt, weights.dt_bias))


def project_back(y_BLHP: Tensor, u_BLD: Tensor, weights: MixerWeights, ops: Backend) -> Tensor:
    """(B, L, D): gate and normalise what the scan gave, and project it back."""
    # Projected late: the gate is still in the cache when it is used.
    z_BLHP = _per_head(u_BLD, weights.in_z, weights.in_z_bias)
    y_BLHP = ops.gated_rms_norm(y_BLHP, z_BLHP, weights.norm, NORM_EPSILON)
    return linear(y_BLHP.flatten(2), weights.out.flatten(1), weights.out_bias)


def _scan_in(
    order: TokenOrder | None,
    x_BLHP: Tensor,
    BC_BLX: Tensor,
    dt_BLH: Tensor,
    weights: MixerWeights,
    setting: MixerSetting,
    ops: Backend,
) -> Tensor:
    """Convolution and scan in one order, all groups."""
    if order is not None:
        x_BLHP, BC_BLX, dt_BLH = order.arrange(x_BLHP), order.arrange(BC_BLX), order.arrange(dt_BLH)
    BC_BLX = ops.conv_silu(BC_BLX, weights.conv_BC, weights.conv_BC_bias)
    x_BLHP = ops.conv_silu(x_BLHP, weights.conv_x, weights.conv_x_bias)
    given = of_groups(x_BLHP, BC_BLX, dt_BLH, weights, setting)
    parts = [ops.scan(*of_group, chunk_size=setting.chunk_size) for of_group in given]
    y_BLHP = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    return y_BLHP if order is None else order.restore(y_BLHP)


def of_groups(
    x_BLHP: Tensor, BC_BLX: Tensor, dt_BLH: Tensor, weights: MixerWeights, setting: MixerSetting
) -> list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """The scan's x, dt, A, B, C and D for each group of heads, from convolved x, B and C."""
    A_H = _rates(weights)
    groups = setting.groups(len(A_H))
    given = []
    for h, BC_BLN in zip(groups, BC_BLX.chunk(len(groups), dim=-1), strict=True):
        B_BLN, C_BLN = BC_BLN.chunk(2, dim=-1)
        of_group = (x_BLHP, dt_BLH, A_H, weights.D)
        x, dt, A, D = (
            of_group if len(groups) == 1 else (x_BLHP[:, :, h], dt_BLH[..., h], A_H[h], weights.D[h])
        )
        given.append((x, dt, A, B_BLN, C_BLN, D))
    return given


def _can_pack(u_BLD: Tensor, weights: MixerWeights) -> bool:
    # Autograd cannot follow products that write into parts of one tensor, nor can autocast.
    recorded = torch.is_grad_enabled() or torch.is_autocast_enabled(u_BLD.device.type)
    return not recorded and u_BLD.numel() > 0 and weights.in_z_bias is None


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
    A_H, norm_I = _rates(weights), weights.norm.flatten()
    y_BLI = inner(packed_BLE, kernel_XK, bias_X, weights.dt_bias, A_H, weights.D, norm_I, NORM_EPSILON)
    return linear(y_BLI, weights.out.flatten(1))


def _is_trained(u_BLD: Tensor, weights: MixerWeights) -> bool:
    return _wants_gradients(u_BLD, weights.in_x) and weights.in_z_bias is None


def _wants_gradients(tokens: Tensor, weight: Tensor) -> bool:
    return torch.is_grad_enabled() and (tokens.requires_grad or weight.requires_grad) and tokens.numel() > 0


def _mix_trained(
    u_BLD: Tensor, weights: MixerWeights, setting: MixerSetting, trained: Callable[..., Tensor]
) -> Tensor:
    """As `mix`, by kernels with gradients, which pack and cast the weights in one place."""
    groups = setting.groups(len(weights.in_z))
    return trained(
        u_BLD,
        *_packed_parts(weights),
        torch.cat([weights.conv_x.flatten(0, 1), weights.conv_BC]),
        torch.cat([weights.conv_x_bias.flatten(), weights.conv_BC_bias]),
        weights.dt_bias,
        weights.A_log,
        weights.D,
        weights.norm.flatten(),
        weights.out.flatten(1),
        head_dim=weights.norm.shape[1],
        state=len(weights.in_BC) // (2 * len(groups)),
        group_size=groups[0].stop,
        epsilon=NORM_EPSILON,
    )


def _rates(weights: MixerWeights) -> Tensor:
    """A, in float32 at least: halves are too coarse for the decay over many tokens."""
    return -weights.A_log.to(torch.promote_types(weights.A_log.dtype, torch.float32)).exp()


def _per_head(u_BLD: Tensor, projection_HPD: Tensor, bias_HP: Tensor | None) -> Tensor:
    """(B, L, H, P): one matrix product for all heads; flattening leading heads copies nothing."""
    bias_I = None if bias_HP is None else bias_HP.flatten()
    return linear(u_BLD, projection_HPD.flatten(0, 1), bias_I).unflatten(-1, projection_HPD.shape[:2])


class Mixer(Nested):
    """Parameters of a Mamba2 mixer of which any leading heads, and any leading state, can be used.

    Args:
        dim: D, size of the residual stream.
        heads: H.
        head_dim: P.
        state_dim: N.
        conv_size: K, taps of the causal convolution.
        setting: how it computes.
        bias: whether the projections have biases.
        device: of the parameters.
        dtype: of the parameters.
    """

    writes, reads, of_layer = "out", ("in_x", "in_z", "norm"), ("out_bias",)
    of_groups = _OF_GROUPS
    norm: Tensor
    in_BC: Tensor
    in_x: Tensor
    conv_x: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        head_dim: int,
        state_dim: int,
        conv_size: int,
        setting: MixerSetting,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        require_known(setting.backend)
        self.heads, self.state_dim, self.setting = heads, state_dim, setting
        self.group_size = setting.heads_per_group
        # What all widths of a step share; whoever takes steps sets it.
        self.step_weights: StepWeights | None = None
        rows = 2 * state_dim * len(setting.groups(heads))
        shapes: dict[str, tuple[int, ...]] = {
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
            "in_BC": (rows, dim),
            "conv_BC": (rows, conv_size),
            "conv_BC_bias": (rows,),
        }
        if bias:
            shapes |= {"in_z_bias": (heads, head_dim), "in_x_bias": (heads, head_dim)}
            shapes |= {"in_BC_bias": (rows,), "out_bias": (dim,)}
        self._names = tuple(name for name in _NAMES if name in shapes)
        register(self, shapes, device, dtype)
        self.reset_parameters()

    def leading(self, heads: int, state: int) -> dict[str, Tensor]:
        """The tensors of the leading heads and states by name: views, but for B and C of a smaller state."""
        return {name: self._cut(name, heads, state) for name in self._names}

    def _cut(self, name: str, heads: int, state: int) -> Tensor:
        tensor: Tensor = getattr(self, name)
        if name == "out_bias":
            return tensor
        if name not in _OF_GROUPS:
            return tensor[:, :heads] if name == "out" else tensor[:heads]
        groups = len(self.setting.groups(heads))
        if state == self.state_dim:
            return tensor[: groups * 2 * state]
        return tensor.unflatten(0, (-1, 2, self.state_dim))[:groups, :, :state].flatten(0, 2)

    def weights(self, heads: int | None = None, state: int | None = None) -> MixerWeights:
        """The weights of the leading heads and of the leading state, all by default."""
        heads, state = self.heads if heads is None else heads, state or self.state_dim
        if (heads, state) == (self.heads, self.state_dim):
            return MixerWeights(**{name: getattr(self, name) for name in self._names})
        leading = self.leading(heads, state)
        if state == self.state_dim and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            wholes, shapes = [getattr(self, name) for name in leading], [t.shape for t in leading.values()]
            leading = dict(zip(leading, leading_parts(wholes, shapes), strict=True))
        return MixerWeights(**leading)

    def forward(
        self,
        u_BLD: Tensor,
        heads: int | None = None,
        state: int | None = None,
        orders: Orders = (None,),
        *,
        before: nn.LayerNorm | None = None,
        adds: bool = False,
    ) -> Tensor:
        """Update for tokens (B, L, D).

        Args:
            u_BLD: normalised tokens, or those that `before` is to normalise.
            heads: leading heads to compute with, all by default.
            state: leading states, all by default.
            orders: in which convolution and scan read the tokens, see `mix`.
            before: norm of the tokens, where `takes_norm`.
            adds: whether the update is added to the tokens that `before` normalises.
        """
        width, weights = partial(self._of_step, heads, state), self.weights(heads, state)
        if before is None:
            return mix(u_BLD, weights, self.setting, orders, width)
        trained = self._trained(u_BLD, state)
        assert trained is not None
        (order,) = orders
        t_BLD = u_BLD if order is None else order.arrange(u_BLD)
        by_kernels = partial(trained.mix, width=width(), before=before, adds=adds)
        t_BLD = _mix_trained(t_BLD, weights, self.setting, by_kernels)
        return t_BLD if order is None else order.restore(t_BLD)

    def takes_norm(self, x_BLD: Tensor, state: int | None, orders: Orders) -> bool:
        """Whether the mixer can normalise the stream's tokens itself, and add its update to them."""
        wanted = len(orders) == 1 and _wants_gradients(x_BLD, self.in_x) and "in_z_bias" not in self._names
        return wanted and self._trained(x_BLD, state) is not None

    def _trained(self, x_BLD: Tensor, state: int | None = None) -> InTraining | None:
        sizes = self.norm.shape[1], state or self.state_dim, self.conv_x.shape[-1]
        return resolve_for(self.setting.backend, x_BLD, *sizes).trained(*sizes)

    def _of_step(self, heads: int | None, state: int | None) -> WidthOfStep | None:
        # What compiles Python would take what is kept for a constant.
        if self.step_weights is None or torch.compiler.is_compiling():
            return None
        with torch.no_grad():
            weights = self.weights()
            sources = *_packed_parts(weights), weights.out.flatten(1), weights.norm.flatten()
        rows = self._packed_rows(heads or self.heads, state or self.state_dim)
        return WidthOfStep(self.step_weights, sources, rows)

    def _packed_rows(self, heads: int, state: int) -> Rows:
        """Where the rows of a width lie in the packed projections of all heads: z, x, B and C, dt."""
        z, x, shared, _ = map(len, _packed_parts(self.weights()))
        first, inner, groups = z + x, heads * self.norm.shape[1], len(self.setting.groups(heads))
        if state == self.state_dim:
            of_groups = [(first, first + groups * 2 * state)]
        else:
            starts = range(first, first + groups * 2 * self.state_dim, self.state_dim)
            of_groups = [(start, start + state) for start in starts]
        return (0, inner), (z, z + inner), *of_groups, (first + shared, first + shared + heads)

    def normalised(self, x_BLD: Tensor, norm: nn.LayerNorm) -> Tensor:
        """What `norm` makes of tokens, in training in one launch and in the type that products take."""
        trained = self._trained(x_BLD)
        if trained and _wants_gradients(x_BLD, norm.weight):
            return trained.layer_norm(x_BLD, norm)
        result: Tensor = norm(x_BLD)
        return result

    def use_backend(self, name: str) -> None:
        """Compute the scan by another backend from now on, see `ops.resolve`."""
        self.setting = replace(self.setting, backend=require_known(name))

    def macs(self, tokens: int, heads: int, state: int, scans: int = 1) -> int:
        """Multiply-adds of one sequence.

        Args:
            tokens: L.
            heads: active heads.
            state: active states.
            scans: how often convolution and scan run.
        """
        weights = self.weights(heads, state)
        dim, head_dim = self.in_BC.shape[1], self.norm.shape[1]
        projections = dim * (3 * weights.norm.numel() + len(weights.in_BC) + heads)
        convolutions = weights.conv_x.numel() + weights.conv_BC.numel()
        of_groups = [head_dim * (group.stop - group.start) for group in self.setting.groups(heads)]
        scan = sum(scan_macs(tokens, channels, state, self.setting.chunk_size) for channels in of_groups)
        return tokens * projections + scans * (tokens * convolutions + scan)

    @torch.no_grad()
    def reset_parameters(self, out_scale: float = 1.0) -> None:
        """Mamba2's initialisation: A in [1, 16], dt in [0.001, 0.1], uniform projections.

        Args:
            out_scale: factor on the output projection; 1/sqrt(branches) keeps the residual stream's variance
                bounded.
        """
        weights = self.weights()
        if weights.A_log.is_meta:
            # Shapes without numbers: torch would load its compiler to draw none.
            return
        for projection in (weights.in_z, weights.in_x, weights.in_dt, weights.in_BC):
            uniform_(projection, fan_in=projection.shape[-1])
        for kernel in (weights.conv_x, weights.conv_x_bias, weights.conv_BC, weights.conv_BC_bias):
            uniform_(kernel, fan_in=weights.conv_x.shape[-1])
        uniform_(weights.out, fan_in=weights.norm.numel())
        weights.out.mul_(out_scale)
        for bias in (weights.in_z_bias, weights.in_x_bias, weights.in_BC_bias, weights.out_bias):
            if bias is not None:
                nn.init.zeros_(bias)
        nn.init.ones_(weights.D)
        nn.init.ones_(weights.norm)
        weights.A_log.uniform_(1, 16).log_()
        step_H = torch.empty_like(weights.dt_bias).uniform_(math.log(1e-3), math.log(1e-1)).exp_()
        weights.dt_bias.copy_(step_H + torch.log(-torch.expm1(-step_H)))
