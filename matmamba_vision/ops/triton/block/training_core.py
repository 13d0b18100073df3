"""What a mixer computes between its products in training, forward and backward, as one custom operation each.

| launch | forward |
| --- | --- |
| `prepare_kernel` | convolution and SiLU of x, B and C; steps, decays and scores of each tile |
| `states_of_tiles_kernel` | the states that enter each tile, in longer sequences |
| `scan_kernel` | outputs, skip, gate, sums of squares for the norm |

| launch | backward |
| --- | --- |
| `gate_backward_kernel` | outputs again, gradients of z and of the scan |
| `states_of_tiles_kernel` | the gradients of the states that leave each tile, in longer sequences |
| `scan_backward_kernel` | gradients of x, B and C, dt and what belongs to heads |
| `conv_backward_kernel` | through the convolution; in the quadratic form dt and decays, too |

Short sequences take the quadratic form, in which each tile reads all before it by their scores, and decays
wait for all tiles; in longer ones it reads a state.

Backward reads what forward computed on its way: to compute it again would cost more traffic, and more
launches. Where memory is short, blocks are computed again as a whole.

Nothing is added by atomic operations: a repeated run gives the same bits. Kernels stand in
`training_prepare_kernel`, `training_scan_kernels`, `training_backward_kernels` and `training_conv_kernel`;
layouts in `training_parts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..launch import on_device_of, tensor_core_precision
from . import (
    training_backward_kernels,
    training_conv_kernel,
    training_prepare_kernel,
    training_scan_kernels,
)
from .chosen_configs import chosen_training_config
from .training_configs import COLUMNS, LaunchConfig, TrainingConfig, default_training_config

# Heads whose decays a program sums, channels of one that convolves, and states taken at once for scores.
_HEADS, _CHANNELS, _CHUNK = 16, 64, 64
# Heads whose steps a program ends.
_ENDED = 4


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Of one mixer's core, and the options of its kernels."""

    batch: int
    length: int
    heads: int
    head_dim: int
    state: int
    group_size: int
    dtype: torch.dtype
    config: TrainingConfig

    @property
    def inner(self) -> int:
        """I, channels of all heads."""
        return self.heads * self.head_dim

    @property
    def groups(self) -> int:
        """G."""
        return ceil(self.heads / self.group_size)

    @property
    def convolved(self) -> int:
        """X: x, then B and C of each group."""
        return self.inner + 2 * self.state * self.groups

    @property
    def row(self) -> int:
        """E."""
        return self.inner + self.convolved + self.heads

    @property
    def heads_at_once(self) -> int:
        return max(1, COLUMNS // self.head_dim)

    @property
    def columns(self) -> int:
        """C, channels of a program."""
        return self.heads_at_once * self.head_dim

    @property
    def blocks(self) -> int:
        """Programs of a group."""
        return ceil(min(self.group_size, self.heads) / self.heads_at_once)

    @property
    def places(self) -> int:
        """Programs of an image."""
        return self.groups * self.blocks

    @property
    def tiles(self) -> int:
        return ceil(self.length / self.config.tile)

    @property
    def padded(self) -> int:
        return self.tiles * self.config.tile

    @property
    def quadratic(self) -> bool:
        """Whether each tile reads all before it, rather than a state."""
        return self.length <= self.config.longest_quadratic

    @property
    def seen(self) -> int:
        """Tokens of a row of scores."""
        return self.padded if self.quadratic else self.config.tile

    @property
    def summed(self) -> int:
        """Tokens whose gradients of a convolution's taps are one partial sum."""
        return self.config.tile if self.quadratic else self.config.summed

    @property
    def wide(self) -> torch.dtype:
        """The type of what outgrows float16's range."""
        return torch.bfloat16 if self.dtype == torch.bfloat16 else torch.float32

    @property
    def scan(self) -> tuple[int, ...]:
        """Numbers that all kernels of a scan take."""
        return (
            self.length, self.heads, self.inner, self.convolved, self.group_size, self.blocks, self.tiles,
            self.padded,
        )  # fmt: skip

    def options(self, launch: LaunchConfig, *, by_columns: bool = True) -> dict[str, Any]:
        """Constants of a kernel, and how it is launched."""
        dot, precision = tensor_core_precision(self.dtype)
        options = {"T": self.config.tile, "N": self.state, "DOT": dot, "PRECISION": precision}
        if by_columns:
            options |= {"P": self.head_dim, "HB": self.heads_at_once}
        return options | launch.options()


class KeptScan(NamedTuple):
    """What forward computes on its way, for backward.

    Attributes:
        conv: (B, L, X) x, B and C behind convolution and SiLU.
        decays: (2, B, H, padded L) float32: steps, and running sums of dt A within each tile.
        scores: (B, G, padded L, T), or padded L instead of T in the quadratic form.
        diagonal: (B, G, padded L) float32.
        states: (B, places, tiles, N, C) those that enter each tile; none in the quadratic form.
    """

    conv: Tensor
    decays: Tensor
    scores: Tensor
    diagonal: Tensor
    states: Tensor


def sizes_of(
    packed: Tensor, heads: int, head_dim: int, state: int, group_size: int, config: TrainingConfig | None
) -> _Sizes:
    """Of a packed projection (B, L, E).

    Raises:
        ValueError: its rows have another length.
    """
    sizes = _Sizes(
        batch=packed.shape[0],
        length=packed.shape[1],
        heads=heads,
        head_dim=head_dim,
        state=state,
        group_size=group_size,
        dtype=packed.dtype,
        config=config
        or chosen_training_config(default_training_config(packed.dtype), packed, head_dim, state),
    )
    if packed.shape[2] != sizes.row:
        raise ValueError(f"rows of {packed.shape[2]} numbers where z, x, B, C and dt are {sizes.row}")
    return sizes


def _outputs_of(packed: Tensor, sizes: _Sizes) -> tuple[Tensor, Tensor, KeptScan]:
    """Gated outputs, sums of squares, and what is kept; all empty."""
    batch, groups, padded = sizes.batch, sizes.groups, sizes.padded
    places = 0 if sizes.quadratic else sizes.places
    states = batch, places, sizes.tiles, sizes.state, sizes.columns
    kept = KeptScan(
        conv=packed.new_empty(batch, sizes.length, sizes.convolved),
        decays=packed.new_empty(2, batch, sizes.heads, padded, dtype=torch.float32),
        scores=packed.new_empty(batch, groups, padded, sizes.seen, dtype=sizes.wide),
        diagonal=packed.new_empty(batch, groups, padded, dtype=torch.float32),
        states=packed.new_empty(states, dtype=sizes.wide),
    )
    gated = packed.new_empty(batch, sizes.length, sizes.inner, dtype=sizes.wide)
    return gated, packed.new_empty(batch, sizes.places, sizes.length, dtype=torch.float32), kept


@on_device_of
def core_forward(
    packed: Tensor, taps: Tensor, conv_bias: Tensor, dt_bias: Tensor, A_log: Tensor, D: Tensor, sizes: _Sizes
) -> tuple[Tensor, Tensor, KeptScan]:
    """Launches the forward; see `mixer_core`."""
    gated, sums, kept = _outputs_of(packed, sizes)
    head_blocks = ceil(sizes.heads / _HEADS)
    tasks = sizes.groups + head_blocks + ceil(sizes.convolved / _CHANNELS)
    training_prepare_kernel.prepare_kernel[(sizes.tiles, tasks, sizes.batch)](
        packed, taps.contiguous(), conv_bias, dt_bias, A_log, *_read(kept), sizes.length, sizes.heads,
        sizes.inner, sizes.convolved, sizes.groups, head_blocks, sizes.padded, *packed.stride()[:2],
        CHUNK=min(_CHUNK, sizes.state), HEADS=_HEADS, CHANNELS=_CHANNELS, QUADRATIC=sizes.quadratic,
        **sizes.options(sizes.config.prepare, by_columns=False),
    )  # fmt: skip
    states = None if sizes.quadratic else _through_tiles(sizes, kept, kept.conv, kept.states, 0)
    training_scan_kernels.scan_kernel[(sizes.places, sizes.tiles, sizes.batch)](
        packed, *_read(kept), states, D, gated, sums, *sizes.scan, *packed.stride()[:2],
        sizes.config.span, **sizes.options(sizes.config.scan),
    )  # fmt: skip
    return gated, sums, kept


def _read(kept: KeptScan) -> tuple[Tensor, ...]:
    """What the first kernel writes, and scans read."""
    return kept.conv, *kept.decays, kept.scores, kept.diagonal


@on_device_of
def core_backward(
    dgated: Tensor, dsums: Tensor, packed: Tensor, taps: Tensor, conv_bias: Tensor, dt_bias: Tensor,
    A_log: Tensor, D: Tensor, kept: KeptScan, sizes: _Sizes,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Launches the backward; see `mixer_core_backward`."""
    config, dt_at = sizes.config, sizes.inner + sizes.convolved
    dpacked, dy = torch.empty_like(packed), torch.empty_like(dgated)
    states = None if sizes.quadratic else kept.states
    dconv, ending = torch.empty_like(kept.conv, dtype=sizes.wide), torch.empty_like(kept.decays[0])
    grid, strides = (sizes.places, sizes.tiles, sizes.batch), packed.stride()[:2]
    training_backward_kernels.gate_backward_kernel[grid](
        packed, *_read(kept), states, dgated, dsums, D, dpacked, dy, ending, *sizes.scan, *strides,
        *dsums.stride(), config.span, **sizes.options(config.gate_backward),
    )  # fmt: skip
    dstates = (
        None if states is None else _through_tiles(sizes, kept, dy, torch.empty_like(states), sizes.state)
    )
    waiting = _waiting(kept, sizes)
    of_heads = packed.new_empty(sizes.batch, sizes.tiles, 3, sizes.heads, dtype=torch.float32)
    tasks = sizes.places + 2 * sizes.groups
    training_backward_kernels.scan_backward_kernel[(tasks, sizes.tiles, sizes.batch)](
        packed, *_read(kept), states, dstates, dy, ending, A_log, D, dt_bias, dpacked, dconv, of_heads,
        *waiting, *sizes.scan, *strides, dt_at, config.span, **sizes.options(config.scan_backward),
    )  # fmt: skip
    of_steps = *waiting, *kept.decays, A_log, dt_bias, of_heads
    return (
        dpacked,
        _through_conv(sizes, packed, dpacked, dconv, taps, conv_bias, of_steps),
        of_heads.sum((0, 1)),
    )


def _waiting(kept: KeptScan, sizes: _Sizes) -> tuple[Tensor | None, ...]:
    """Gradients by token of log decays and of steps, and those between tiles that the former wait for."""
    if not sizes.quadratic:
        return None, None, None
    between = sizes.batch, sizes.heads, sizes.tiles, sizes.tiles
    return *torch.empty_like(kept.decays), kept.decays.new_empty(between)


def _through_tiles(sizes: _Sizes, kept: KeptScan, t: Tensor, states: Tensor, of_C: int) -> Tensor:
    """`states` (B, places, tiles, N, C), filled with those of x, or their gradients of dy.

    of_C: where C begins behind B, or 0 for B.
    """
    training_scan_kernels.states_of_tiles_kernel[(sizes.places, sizes.batch)](
        t, kept.conv[..., sizes.inner + of_C :], *kept.decays, states, *sizes.scan, t.shape[-1],
        LEAVING=of_C > 0, **sizes.options(sizes.config.states),
    )  # fmt: skip
    return states


def _through_conv(
    sizes: _Sizes, packed: Tensor, dpacked: Tensor, dconv: Tensor, taps: Tensor, conv_bias: Tensor,
    of_steps: tuple[Tensor | None, ...],
) -> Tensor:  # fmt: skip
    """(5, X): gradients of 4 taps and the bias; those of what is convolved go to `dpacked`."""
    config, X, summed = sizes.config, sizes.convolved, sizes.summed
    convolved = slice(sizes.inner, sizes.inner + X)
    partial = packed.new_empty(sizes.batch, ceil(sizes.length / summed), 5, X, dtype=torch.float32)
    channels, heads = ceil(X / config.channels), ceil(sizes.heads / _ENDED) if sizes.quadratic else 0
    training_conv_kernel.conv_backward_kernel[(channels + heads, partial.shape[1], sizes.batch)](
        packed[..., convolved], taps, conv_bias, dconv, dpacked[..., convolved], partial, *of_steps,
        sizes.length, X, sizes.heads, sizes.padded, *packed.stride()[:2], taps.stride(0),
        *dconv.stride()[:2], channels, SUMMED=summed, CHANNELS=config.channels, HEADS=_ENDED,
        **config.conv.options(),
    )  # fmt: skip
    return partial.sum((0, 1))


def mixer_core(
    packed: Tensor,
    taps: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    head_dim: int,
    state: int,
    group_size: int,
) -> tuple[Tensor, Tensor]:
    """Convolution, scan, skip and gate of a Mamba2 mixer (arXiv 2405.21060, section 7), with their gradients.

    Args:
        packed: (B, L, E) projections of each token, contiguous: z (I), x (I), B and C of each group (2 N
            each), dt (H).
        taps: (X, 4) of the convolution over x, B and C, the last one for the token itself; contiguous.
        conv_bias: (X,)
        dt_bias: (H,) added to dt before softplus.
        A_log: (H,) logarithms of the rates of decay.
        D: (H,) skip weights.
        head_dim: P.
        state: N.
        group_size: consecutive heads that share B and C.

    Returns:
        The gated outputs (B, L, I), in float32 where tokens are float16; and (B, places, L) float32, whose
        sums over places are the sums of squares of each token's gated outputs.
    """
    found = mixer_core_kept(packed, taps, conv_bias, dt_bias, A_log, D, head_dim, state, group_size)
    return found[0], found[1]


@torch.library.custom_op("matmamba::mixer_core", mutates_args=())
def mixer_core_kept(
    packed: Tensor,
    taps: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    head_dim: int,
    state: int,
    group_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `mixer_core`, and behind its results those of `KeptScan`."""
    sizes = sizes_of(packed, len(dt_bias), head_dim, state, group_size, None)
    gated, sums, kept = core_forward(packed, taps, conv_bias, dt_bias, A_log, D, sizes)
    return gated, sums, *kept


@torch.library.custom_op("matmamba::mixer_core_backward", mutates_args=())
def mixer_core_backward(
    dgated: Tensor,
    dsums: Tensor,
    packed: Tensor,
    taps: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    kept: Sequence[Tensor],
    head_dim: int,
    state: int,
    group_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `packed`; (5, X) of the taps and the bias; (3, H) of A_log, D and dt_bias."""
    sizes = sizes_of(packed, len(dt_bias), head_dim, state, group_size, None)
    given = packed, taps, conv_bias, dt_bias, A_log, D
    return core_backward(dgated.contiguous(), dsums, *given, KeptScan(*kept), sizes)


@mixer_core_kept.register_fake
def _core_shapes(
    packed: Tensor, taps: Tensor, conv_bias: Tensor, dt_bias: Tensor, A_log: Tensor, D: Tensor,
    head_dim: int, state: int, group_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    sizes = sizes_of(packed, len(dt_bias), head_dim, state, group_size, None)
    gated, sums, kept = _outputs_of(packed, sizes)
    return gated, sums, *kept


@mixer_core_backward.register_fake
def _gradient_shapes(
    dgated: Tensor, dsums: Tensor, packed: Tensor, taps: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    of_conv = packed.new_empty(5, taps.shape[0], dtype=torch.float32)
    of_heads = packed.new_empty(3, len(rest[1]), dtype=torch.float32)
    return torch.empty_like(packed), of_conv, of_heads


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.head_dim, ctx.state, ctx.group_size = inputs
    ctx.save_for_backward(*tensors, *output[2:])
    ctx.mark_non_differentiable(*output[2:])
    # No zeros are made for what has no gradients.
    ctx.set_materialize_grads(False)


def _core_gradients(
    ctx: Any, dgated: Tensor | None, dsums: Tensor | None, *none: None
) -> tuple[Tensor | None, ...]:
    # Taken once: where blocks are computed again, that is all there is.
    *given, conv, decays, scores, diagonal, states = ctx.saved_tensors
    packed, taps, conv_bias, dt_bias, A_log, D = given
    if dgated is None:
        dgated = states.new_zeros(*packed.shape[:2], len(D) * ctx.head_dim)
    if dsums is None:
        dsums = diagonal.new_zeros(1, 1, 1).expand(*packed.shape[:1], 1, packed.shape[1])
    kept = [conv, decays, scores, diagonal, states]
    sizes = ctx.head_dim, ctx.state, ctx.group_size
    dpacked, of_conv, of_heads = mixer_core_backward(dgated, dsums, *given, kept, *sizes)
    dA_log, dD, ddt_bias = of_heads.unbind()
    return (
        dpacked, of_conv[:4].T.to(taps.dtype), of_conv[4].to(conv_bias.dtype), ddt_bias.to(dt_bias.dtype),
        dA_log.to(A_log.dtype), dD.to(D.dtype), None, None, None,
    )  # fmt: skip


mixer_core_kept.register_autograd(_core_gradients, setup_context=_keep)
