"""The chunked scan by Triton kernels, forward and backward; what they compute stands in `ssd_kernels`.

Short sequences are one chunk: every token looks back at all before it, and there are no states. In longer
ones a chunk of a few tiles looks back, and a state of (N, P) for each head travels from chunk to chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any

import torch
import triton
from torch import Tensor

from . import ssd_kernels as kernels
from .candidates import Shapes, class_of_tokens, name_of
from .chosen import Options, launch_of
from .launch import on_device_of, precision_of

# Tokens of a tile, the edge of every matrix product; exact float32 needs more registers and takes fewer, and
# so do heads wider than those of a block's kernels.
TILE, SMALL_TILE, WIDEST_OF_TILE = 64, 32, 64
# Up to this many tokens are one chunk: 1,024 patches and a few more tokens.
LARGEST_SINGLE_CHUNK = 1088
# Tokens of a chunk of longer sequences.
CHUNK = 256
# Numbers of a block that `carry_kernel` takes through the chunks.
CARRIED = 1024


def ssd_triton(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    chunk_size: int = 64,
) -> Tensor:
    """Scan of any length; arguments and result as in `ssd_reference`. Accumulates in float32.

    Args:
        chunk_size: unused, part of the common signature: the kernels have their own.
    """
    if x_BLHP.numel() == 0:
        return torch.empty_like(x_BLHP)
    B_BLN, C_BLN = B_BLN.to(x_BLHP.dtype), C_BLN.to(x_BLHP.dtype)
    inputs = (x_BLHP, dt_BLH, A_H.float().contiguous(), B_BLN, C_BLN, D_H.float().contiguous())
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        result: Tensor = _Scan.apply(*inputs)  # type: ignore[no-untyped-call]
        return result
    return outputs(*inputs)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        # Nothing else is kept: scores and states are large, and quickly computed again.
        ctx.save_for_backward(*inputs)
        return outputs(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy_BLHP: Tensor) -> tuple[Tensor, ...]:
        return gradients(dy_BLHP, *ctx.saved_tensors)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Sizes of one scan, and the constants that its kernels share."""

    batch: int
    length: int
    heads: int
    head_dim: int
    state_dim: int
    tile: int
    tiles: int
    chunks: int
    shapes: Shapes
    device: torch.device
    options: dict[str, Any]

    @property
    def padded(self) -> int:
        return self.chunks * self.tiles * self.tile

    @property
    def block_n(self) -> int:
        """Rows of a state taken at once."""
        return min(_power_of_two(self.state_dim), 64)

    @property
    def blocks_n(self) -> int:
        return ceil(self.state_dim / self.block_n)

    @property
    def heads_at_once(self) -> int:
        """Narrow heads share a program, so that it has something to do."""
        return max(1, 64 // self.options["BLOCK_P"])

    @property
    def with_states(self) -> bool:
        return self.chunks > 1

    @property
    def most(self) -> int:
        """A power of two not below the tiles of a chunk."""
        return _power_of_two(self.tiles)

    def launch(self, kernel: str) -> Options:
        """Constants, warps and stages of a kernel."""
        return launch_of(kernel, self.shapes, self.device)


def _power_of_two(number: int) -> int:
    """The next power of two, at least 16: the least that a matrix product takes."""
    return max(16, int(triton.next_power_of_2(number)))


def _plan(x_BLHP: Tensor, B_BLN: Tensor) -> _Plan:
    batch, length, heads, head_dim = x_BLHP.shape
    dot, precision = precision_of(x_BLHP.dtype)
    block = _power_of_two(head_dim)
    exact = precision == "ieee" and dot.is_fp32()
    tile = SMALL_TILE if exact or block > WIDEST_OF_TILE else TILE
    tiles = ceil((length if length <= LARGEST_SINGLE_CHUNK else CHUNK) / tile)
    options = {"T": tile, "BLOCK_P": block, "DOT": dot, "PRECISION": precision}
    chunks = ceil(length / (tiles * tile))
    return _Plan(
        batch=batch,
        length=length,
        heads=heads,
        head_dim=head_dim,
        state_dim=B_BLN.shape[-1],
        tile=tile,
        tiles=tiles,
        chunks=chunks,
        shapes=shapes_of(x_BLHP.dtype, precision, head_dim, B_BLN.shape[-1], length),
        device=x_BLHP.device,
        options=options,
    )


@cache
def shapes_of(dtype: torch.dtype, precision: str, head_dim: int, state_dim: int, length: int) -> Shapes:
    """The class of a scan."""
    as_tf32 = dtype == torch.float32 and precision != "ieee"
    return Shapes(
        dtype="tf32" if as_tf32 else name_of(dtype),
        head_dim=_power_of_two(head_dim),
        state_dim=_power_of_two(state_dim),
        tokens=class_of_tokens(length),
    )


def _rows(t_BLHP: Tensor) -> Tensor:
    """The tensor, or a copy whose last dimension is contiguous."""
    return t_BLHP if t_BLHP.stride(-1) == 1 else t_BLHP.contiguous()


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """What every later kernel reads.

    Attributes:
        step_BHL: steps by head.
        cum_BHL: running sums of dt A within each tile, by head.
        scores: C B^T of each chunk.
        entering: states entering the chunks; anything where there is one chunk.
    """

    step_BHL: Tensor
    cum_BHL: Tensor
    scores: Tensor
    entering: Tensor


def _prepare(plan: _Plan, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> _Prepared:
    step, cum = dt.new_empty(2, plan.batch, plan.heads, plan.padded, dtype=torch.float32)
    heads = 16
    grid = (plan.padded // plan.tile, ceil(plan.heads / heads), plan.batch)
    kernels.decays_kernel[grid](
        dt, A, step, cum, plan.length, plan.heads, plan.padded, *dt.stride(), T=plan.tile, HEADS=heads,
        **plan.launch("decays_kernel"),
    )  # fmt: skip
    size = plan.tiles * plan.tile
    scores_type = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
    scores = x.new_empty(plan.batch, plan.chunks, size, size, dtype=scores_type)
    options = {name: option for name, option in plan.options.items() if name != "BLOCK_P"}
    kernels.scores_kernel[(plan.tiles**2, plan.chunks, plan.batch)](
        B, C, scores, plan.length, plan.state_dim, plan.tiles, *B.stride(), *C.stride(),
        BLOCK_N=plan.block_n, **options, **plan.launch("scores_kernel"),
    )  # fmt: skip
    entering = scores
    if plan.with_states:
        entering = _added(plan, x, B, step, cum, leaving=True)
        _carry(plan, entering, entering, None, cum)
    return _Prepared(step_BHL=step, cum_BHL=cum, scores=scores, entering=entering)


def _added(plan: _Plan, t: Tensor, V: Tensor, step: Tensor, cum: Tensor, leaving: bool) -> Tensor:
    """(B, chunks, H, N, P): what a chunk adds to the state after it, or to the gradient of that before it."""
    shape = (plan.batch, plan.chunks, plan.heads, plan.state_dim, plan.head_dim)
    states = t.new_empty(shape, dtype=torch.float32)
    kernels.states_kernel[(plan.heads * plan.blocks_n, plan.chunks, plan.batch)](
        t, V, step, cum, states, plan.length, plan.heads, plan.head_dim, plan.state_dim, plan.tiles,
        plan.padded, *t.stride()[:3], *V.stride(), BLOCK_N=plan.block_n, LEAVING=leaving, **plan.options,
        **plan.launch("states_kernel"),
    )  # fmt: skip
    return states


def _carry(plan: _Plan, states: Tensor, entering: Tensor, dlog: Tensor | None, cum: Tensor) -> None:
    size = plan.state_dim * plan.head_dim
    kernels.carry_kernel[(ceil(size / CARRIED), plan.heads, plan.batch)](
        states, entering, cum if dlog is None else dlog, cum, plan.heads, size, plan.tiles, plan.chunks,
        plan.padded, T=plan.tile, MOST=plan.most, BLOCK=CARRIED, BACKWARD=dlog is not None,
        **plan.launch("carry_kernel"),
    )  # fmt: skip


@on_device_of
def outputs(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The scan; arguments as `ssd_triton` prepares them."""
    x, plan = _rows(x), _plan(x, B)
    ready = _prepare(plan, x, dt, A, B, C)
    y_BLHP = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grid = (ceil(plan.heads / plan.heads_at_once), plan.tiles * plan.chunks, plan.batch)
    kernels.outputs_kernel[grid](
        x, y_BLHP, C, D, ready.step_BHL, ready.cum_BHL, ready.scores, ready.entering, plan.length, plan.heads,
        plan.head_dim, plan.state_dim, plan.tiles, plan.padded, *x.stride()[:3], *C.stride(),
        BLOCK_N=plan.block_n, HEADS=plan.heads_at_once, WITH_STATES=plan.with_states, **plan.options,
        **plan.launch("outputs_kernel"),
    )  # fmt: skip
    return y_BLHP


@on_device_of
def gradients(
    dy: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of x, dt, A, B, C, D."""
    x, dy, plan = _rows(x), _rows(dy), _plan(x, B)
    ready = _prepare(plan, x, dt, A, B, C)
    dstates, dlog = _state_gradients(plan, dy, C, ready)
    dx, dstep, dskip = _input_gradients(plan, x, dy, B, D, ready, dstates)
    dscores, dend, dbegin = _score_gradients(plan, x, dy, ready)
    dC, dentering = _shared_gradients(plan, dy, C, B, ready, dscores, ready.entering, leaving=False)
    dB, dleaving = _shared_gradients(plan, x, B, C, ready, dscores, dstates, leaving=True)
    ddt = torch.empty(dt.shape, dtype=torch.float32, device=dt.device)
    dA, dD = x.new_empty(2, plan.batch, plan.chunks, plan.heads, dtype=torch.float32)
    kernels.decay_gradients_kernel[(plan.heads, plan.chunks, plan.batch)](
        A, ready.step_BHL, dstep, dskip, dend, dbegin, dentering, dleaving, dlog, ddt, dA, dD,
        plan.length, plan.heads, plan.tiles, plan.padded, plan.blocks_n, dlog.shape[-1],
        T=plan.tile, WITH_STATES=plan.with_states, **plan.launch("decay_gradients_kernel"),
    )  # fmt: skip
    return dx, ddt.to(dt.dtype), dA.sum((0, 1)), dB, dC, dD.sum((0, 1))


def _state_gradients(plan: _Plan, dy: Tensor, C: Tensor, ready: _Prepared) -> tuple[Tensor, Tensor]:
    """Gradients of the states leaving each chunk, and of the decays through it (B, chunks, H, blocks)."""
    if not plan.with_states:
        return ready.scores, ready.cum_BHL
    dstates = _added(plan, dy, C, ready.step_BHL, ready.cum_BHL, leaving=False)
    blocks = ceil(plan.state_dim * plan.head_dim / CARRIED)
    dlog = ready.cum_BHL.new_empty(plan.batch, plan.chunks, plan.heads, blocks)
    _carry(plan, dstates, ready.entering, dlog, ready.cum_BHL)
    return dstates, dlog


def _input_gradients(
    plan: _Plan, x: Tensor, dy: Tensor, B: Tensor, D: Tensor, ready: _Prepared, dstates: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dstep, dskip = torch.empty_like(ready.cum_BHL), torch.empty_like(ready.cum_BHL)
    grid = (ceil(plan.heads / plan.heads_at_once), plan.tiles * plan.chunks, plan.batch)
    kernels.input_gradients_kernel[grid](
        x, dy, dx, B, D, ready.step_BHL, ready.cum_BHL, ready.scores, dstates, dstep, dskip, plan.length,
        plan.heads, plan.head_dim, plan.state_dim, plan.tiles, plan.padded, *x.stride()[:3], *dy.stride()[:3],
        *B.stride(), BLOCK_N=plan.block_n, HEADS=plan.heads_at_once, WITH_STATES=plan.with_states,
        **plan.options, **plan.launch("input_gradients_kernel"),
    )  # fmt: skip
    return dx, dstep, dskip


def _score_gradients(plan: _Plan, x: Tensor, dy: Tensor, ready: _Prepared) -> tuple[Tensor, Tensor, Tensor]:
    dscores = torch.empty_like(ready.scores)
    dend, dbegin = ready.cum_BHL.new_empty(2, plan.tiles, *ready.cum_BHL.shape)
    kernels.score_gradients_kernel[(plan.tiles**2, plan.chunks, plan.batch)](
        x, dy, ready.step_BHL, ready.cum_BHL, ready.scores, dscores, dend, dbegin, plan.length, plan.heads,
        plan.head_dim, plan.tiles, plan.padded, *x.stride()[:3], *dy.stride()[:3],
        MOST=plan.most, **plan.options, **plan.launch("score_gradients_kernel"),
    )  # fmt: skip
    return dscores, dend, dbegin


def _shared_gradients(
    plan: _Plan, t: Tensor, V: Tensor, other: Tensor, ready: _Prepared, dscores: Tensor, states: Tensor,
    leaving: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dV = torch.empty(V.shape, dtype=V.dtype, device=V.device)
    dcum = ready.cum_BHL
    if plan.with_states:
        dcum = dcum.new_empty(plan.blocks_n, *dcum.shape)
    kernels.shared_gradients_kernel[(plan.tiles * plan.chunks, plan.blocks_n, plan.batch)](
        t, V, other, dV, ready.step_BHL, ready.cum_BHL, dscores, states, dcum, plan.length, plan.heads,
        plan.head_dim, plan.state_dim, plan.tiles, plan.padded, *t.stride()[:3], *V.stride(), *other.stride(),
        BLOCK_N=plan.block_n, MOST=plan.most, LEAVING=leaving, WITH_STATES=plan.with_states, **plan.options,
        **plan.launch("shared_gradients_kernel"),
    )  # fmt: skip
    return dV, dcum
