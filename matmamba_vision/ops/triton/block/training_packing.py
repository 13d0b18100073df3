"""The weights of a mixer for one step: packed and cast by one launch, their gradients unpacked by another.

What all widths of a step share is packed once, see `step_weights`; gradients are those of each width's own.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor

from ...step_weights import TypesOfStep, WidthOfStep
from ..launch import on_device_of
from . import training_packing_kernels

# Columns of the output projection, and rows read at once, of a program that sums the norm's gradient.
_COLUMNS, _ROWS = 32, 64
# Numbers of a row that are copied at once.
_BLOCK = 512


@on_device_of
def pack(
    z: Tensor,
    x: Tensor,
    shared: Tensor,
    dt: Tensor,
    out: Tensor,
    norm: Tensor,
    project: Tensor,
    folded: Tensor,
) -> None:
    """Launches the kernel, which writes to the last two; see `pack_mixer`."""
    z, x, shared, dt, norm = (tensor.contiguous() for tensor in (z, x, shared, dt, norm))
    out = out if out.stride(1) == 1 else out.contiguous()
    (inner, dim), heads = z.shape, len(dt)
    convolved = inner + len(shared)
    training_packing_kernels.pack_kernel[(len(project) + dim,)](
        z,
        x,
        shared,
        dt,
        out,
        norm,
        project,
        folded,
        dim,
        inner,
        convolved,
        heads,
        out.stride(0),
        BLOCK=_BLOCK,
    )


@on_device_of
def unpack(
    dproject: Tensor, dfolded: Tensor, out: Tensor, norm: Tensor, shared: int, heads: int
) -> list[Tensor]:
    """Launches the kernel; see `unpack_mixer`."""
    out, norm = out if out.stride(1) == 1 else out.contiguous(), norm.contiguous()
    dim, inner = out.shape
    rows = (inner, inner, shared, heads)
    gradients = [out.new_empty(count, dim) for count in rows]
    dout, dnorm = out.new_empty(dim, inner), torch.empty_like(norm)
    training_packing_kernels.unpack_kernel[(len(dproject) + ceil(inner / _COLUMNS),)](
        dproject, dfolded, out, norm, *gradients, dout, dnorm, dim, inner, inner + shared, heads,
        out.stride(0), ROWS=_ROWS, COLUMNS=_COLUMNS, BLOCK=_BLOCK,
    )  # fmt: skip
    return [*gradients, dout, dnorm]


@torch.library.custom_op("matmamba::pack_mixer", mutates_args=())
def pack_mixer(
    z: Tensor,
    x: Tensor,
    shared: Tensor,
    dt: Tensor,
    out: Tensor,
    norm: Tensor,
    dtype: torch.dtype,
    wide: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """One matrix of all input projections, and the output projection with the norm's weight in it.

    Args:
        z: (I, D) gate, contiguous, as all but `out`.
        x: (I, D) input.
        shared: (2 N G, D) B and C of each group.
        dt: (H, D)
        out: (D, I) output projection, with contiguous rows.
        norm: (I,) weight of the norm.
        dtype: of the packed input projections.
        wide: of the output projection.

    Returns:
        (E, D) and (D, I).
    """
    project = z.new_empty(len(z) + len(x) + len(shared) + len(dt), z.shape[1], dtype=dtype)
    folded = z.new_empty(out.shape, dtype=wide)
    pack(z, x, shared, dt, out, norm, project, folded)
    return project, folded


@torch.library.custom_op("matmamba::unpack_mixer", mutates_args=())
def unpack_mixer(
    dproject: Tensor, dfolded: Tensor, out: Tensor, norm: Tensor, shared: int, heads: int
) -> list[Tensor]:
    """Gradients of what `pack_mixer` takes, from those of what it gives; of the weights' types."""
    return unpack(dproject.contiguous(), dfolded.contiguous(), out, norm, shared, heads)


@pack_mixer.register_fake
def _packed_shapes(
    z: Tensor,
    x: Tensor,
    shared: Tensor,
    dt: Tensor,
    out: Tensor,
    norm: Tensor,
    dtype: torch.dtype,
    wide: torch.dtype,
) -> tuple[Tensor, Tensor]:
    rows = len(z) + len(x) + len(shared) + len(dt)
    return z.new_empty(rows, z.shape[1], dtype=dtype), z.new_empty(z.shape[1], len(z), dtype=wide)


@unpack_mixer.register_fake
def _unpacked_shapes(
    dproject: Tensor, dfolded: Tensor, out: Tensor, norm: Tensor, shared: int, heads: int
) -> list[Tensor]:
    dim, inner = out.shape
    shapes = [(inner, dim), (inner, dim), (shared, dim), (heads, dim), (dim, inner), (inner,)]
    return [out.new_empty(shape) for shape in shapes]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, shared, dt, out, norm, _, _ = inputs
    ctx.shared, ctx.heads = len(shared), len(dt)
    ctx.save_for_backward(out, norm)


def _gradients(ctx: Any, dproject: Tensor, dfolded: Tensor) -> tuple[Tensor | None, ...]:
    out, norm = ctx.saved_tensors
    return *unpack_mixer(dproject, dfolded, out, norm, ctx.shared, ctx.heads), None, None


pack_mixer.register_autograd(_gradients, setup_context=_keep)


class _OfStep(torch.autograd.Function):
    """Packed weights that are there already, with the gradients that `pack_mixer` has."""

    @staticmethod
    def forward(ctx: Any, project: Tensor, folded: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
        _, _, shared, dt, out, norm = parts
        ctx.shared, ctx.heads = len(shared), len(dt)
        ctx.save_for_backward(out, norm)
        return project.view_as(project), folded.view_as(folded)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dproject: Tensor, dfolded: Tensor) -> tuple[Tensor | None, ...]:
        out, norm = ctx.saved_tensors
        return None, None, *unpack_mixer(dproject, dfolded, out, norm, ctx.shared, ctx.heads)


def packed_once(
    parts: tuple[Tensor, ...], types: TypesOfStep, width: WidthOfStep | None
) -> tuple[Tensor, Tensor]:
    """As `pack_mixer`, from what the step has of these weights, if it keeps any.

    Args:
        parts: those of a width, as `pack_mixer` takes them.
        types: of both results.
        width: what is kept.
    """
    if width is not None and (kept := width.take(len(parts[0]), types, pack)):
        packed: tuple[Tensor, Tensor] = _OfStep.apply(*kept, *parts)  # type: ignore[no-untyped-call]
        return packed
    return pack_mixer(*parts, types.project, types.out)
