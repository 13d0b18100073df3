"""Where a mixer begins in training: LayerNorm of its tokens, and its weights packed and cast, in one launch.

The gradients of both are one launch, too, which adds what comes down the residual stream. Either can be had
alone: a step packs weights once for all of its widths, see `step_weights`, and a mixer can be given tokens
that are normalised already. Gradients are those of each width's own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor, nn

from ...step_weights import TypesOfStep, WidthOfStep
from ..launch import on_device_of
from .training_norm import rows_options
from .training_start_kernels import start_backward_kernel, start_kernel

# Rows of tokens whose gradients of weight and bias are one partial sum.
_SUMMED = 64
# Columns of the output projection, and rows read at once, of a program that sums the norm's gradient.
_COLUMNS, _DEEP = 32, 64
# Numbers of a row that are copied at once.
_BLOCK = 512


class Started(NamedTuple):
    """What a mixer goes on with.

    Attributes:
        stream: (B, L, D) the tokens, whose gradients are added where those of their LayerNorm are computed;
            None if they were not asked for.
        u: (B, L, D) their LayerNorm.
        project: (E, D) all input projections.
        folded: (D, I) the output projection, with the norm's weight in it.
    """

    stream: Tensor | None
    u: Tensor
    project: Tensor
    folded: Tensor


def _rows_of(parts: Sequence[Tensor]) -> tuple[int, int, int, int]:
    """D, I, convolved channels and heads of z, x, B and C, dt; 0 for none."""
    if not parts:
        return 0, 0, 0, 0
    z, _, shared, dt = parts[:4]
    return z.shape[1], len(z), len(z) + len(shared), len(dt)


def _options(kernel: str, like: Tensor, dim: int) -> dict[str, int]:
    options = rows_options(kernel, like.dtype, dim, like.device)
    return options | {"BLOCK_D": triton.next_power_of_2(dim), "BLOCK": _BLOCK}


def _aligned(out: Tensor) -> Tensor:
    """Rows may lie apart, but not their numbers."""
    return out if out.stride(1) == 1 else out.contiguous()


@on_device_of
def _launch(
    like: Tensor, tokens: Sequence[Tensor], parts: Sequence[Tensor], results: Sequence[Tensor], epsilon: float
) -> None:
    """results: u if there are tokens, then both matrices if there are parts."""
    t, weight, bias = tokens or (like,) * 3
    *projections, out, norm = parts or (like,) * 6
    u, (project, folded) = (results[0] if tokens else like), (results[-2:] if parts else (like, like))
    dim, inner, convolved, heads = _rows_of(parts)
    dim = dim or t.shape[-1]
    count, options = t.numel() // dim if tokens else 0, _options("start_kernel", results[0], dim)
    of_tokens = ceil(count / options["ROWS"])
    start_kernel[(of_tokens + (len(project) + dim if parts else 0),)](
        t, weight, bias, u, count, epsilon, of_tokens, *projections, out, norm, project, folded, dim,
        inner, convolved, heads, out.stride(0) if parts else 0, **options,
    )  # fmt: skip


def pack(*tensors: Tensor) -> None:
    """Packs the first six, see `start_mixer`, into the last two."""
    *parts, project, folded = tensors
    _launch(project, (), _contiguous(parts), (project, folded), 0.0)


def _contiguous(parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    *projections, out, norm = parts
    return *(part.contiguous() for part in projections), _aligned(out), norm.contiguous()


@torch.library.custom_op("matmamba::start_mixer", mutates_args=())
def start_mixer(
    tokens: Sequence[Tensor], parts: Sequence[Tensor], epsilon: float, dtype: torch.dtype, wide: torch.dtype
) -> list[Tensor]:
    """LayerNorm of tokens, one matrix of all input projections, and the norm in the output projection.

    Args:
        tokens: (..., D) of any type, contiguous; the LayerNorm's weight (D,) and bias (D,). Or nothing.
        parts: projections to the gate (I, D), the input (I, D), B and C of each group (2 N G, D), and the
            steps (H, D); the output projection (D, I); the weight of the norm before it (I,). Or nothing.
        epsilon: added to the variance of tokens.
        dtype: of normalised tokens and of the input projections.
        wide: of the output projection.

    Returns:
        (..., D) if there are tokens; (E, D) and (D, I) if there are parts.
    """
    results = _results_of(tokens, parts, epsilon, dtype, wide)
    _launch(results[0], tokens, _contiguous(parts) if parts else (), results, epsilon)
    return results


@start_mixer.register_fake
def _results_of(
    tokens: Sequence[Tensor], parts: Sequence[Tensor], epsilon: float, dtype: torch.dtype, wide: torch.dtype
) -> list[Tensor]:
    results = [torch.empty_like(tokens[0], dtype=dtype)] if tokens else []
    if parts:
        z, *_, out, _ = parts
        rows = sum(len(part) for part in parts[:4])
        results += [z.new_empty(rows, z.shape[1], dtype=dtype), z.new_empty(out.shape, dtype=wide)]
    return results


@torch.library.custom_op("matmamba::start_mixer_backward", mutates_args=())
def start_mixer_backward(
    tokens: Sequence[Tensor],
    parts: Sequence[Tensor],
    dstream: Tensor | None,
    epsilon: float,
    shared: int,
    heads: int,
) -> list[Tensor]:
    """Gradients of what `start_mixer` takes, of its types.

    Args:
        tokens: gradients of the normalised tokens, the tokens, the LayerNorm's weight; or nothing.
        parts: gradients of both matrices, the output projection, the norm's weight; or nothing.
        dstream: added to the gradient of the tokens.
        epsilon: as there.
        shared: 2 N G.
        heads: H.

    Returns:
        Those of the tokens, and (sums, 2, D) parts of those of the LayerNorm's weight and bias in float32;
        those of the six parts.
    """
    results = _gradients_of(tokens, parts, dstream, epsilon, shared, heads)
    tokens = [tensor.contiguous() for tensor in tokens]
    parts = _contiguous(parts) if parts else ()
    dstream = None if dstream is None else dstream.contiguous()
    _launch_backward(results[0], tokens, parts, dstream, results, epsilon, shared, heads)
    return results


@on_device_of
def _launch_backward(
    like: Tensor, tokens: Sequence[Tensor], parts: Sequence[Tensor], dstream: Tensor | None,
    results: Sequence[Tensor], epsilon: float, shared: int, heads: int,
) -> None:  # fmt: skip
    du, t, weight = tokens or (like,) * 3
    dproject, dfolded, out, norm = parts or (like,) * 4
    dt, partial = results[:2] if tokens else (like, like)
    dim, inner = out.shape if parts else (t.shape[-1], 0)
    of_tokens = len(partial) if tokens else 0
    of_parts = len(dproject) + ceil(inner / _COLUMNS) if parts else 0
    options = _options("start_backward_kernel", du if tokens else dproject, dim)
    options |= {"SUMMED": _SUMMED, "DEEP": _DEEP, "COLUMNS": _COLUMNS}
    start_backward_kernel[(of_tokens + of_parts,)](
        t, weight, du, dstream, dt, partial, t.numel() // dim if tokens else 0, epsilon, of_tokens,
        dproject, dfolded, out, norm, *(results[-6:] if parts else (like,) * 6), dim, inner, inner + shared,
        heads, out.stride(0) if parts else 0, **options,
    )  # fmt: skip


@start_mixer_backward.register_fake
def _gradients_of(
    tokens: Sequence[Tensor],
    parts: Sequence[Tensor],
    dstream: Tensor | None,
    epsilon: float,
    shared: int,
    heads: int,
) -> list[Tensor]:
    results = list[Tensor]()
    if tokens:
        _, t, _ = tokens
        dim = t.shape[-1]
        partial = t.new_empty(-(-t.numel() // (dim * _SUMMED)), 2, dim, dtype=torch.float32)
        results += [torch.empty_like(t), partial]
    if parts:
        *_, out, norm = parts
        dim, inner = out.shape
        shapes = [(inner, dim), (inner, dim), (shared, dim), (heads, dim), (dim, inner)]
        results += [*(out.new_empty(shape) for shape in shapes), torch.empty_like(norm)]
    return results


class _Start(torch.autograd.Function):
    """`start_mixer` with its gradients; what a step has packed already is taken as it is."""

    @staticmethod
    def forward(
        ctx: Any,
        epsilon: float,
        types: tuple[torch.dtype, torch.dtype],
        kept: Sequence[Tensor],
        count: int,
        adds: bool,
        *given: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """given: `count` tensors of tokens, then those of weights; `adds`: whether the stream goes on."""
        tokens, parts = given[:count], given[count:]
        # Written for what compiles Python: it knows no list that grows.
        is_made = count > 0 or not kept
        made = tuple(start_mixer(tokens, () if kept else parts, epsilon, *types)) if is_made else ()
        results = (*made, *(matrix.view_as(matrix) for matrix in kept))
        ctx.epsilon, ctx.count, ctx.adds = epsilon, count, adds
        ctx.sizes = (len(parts[2]), len(parts[3])) if parts else (0, 0)
        ctx.bias_type = tokens[2].dtype if tokens else None
        ctx.save_for_backward(*tokens[:2], *parts[4:])
        return (tokens[0].view_as(tokens[0]), *results) if adds else results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dstream, given = (gradients[0], gradients[1:]) if ctx.adds else (None, gradients)
        saved = ctx.saved_tensors
        tokens, given = ((given[0], *saved[:2]), given[1:]) if ctx.count else ((), given)
        parts = (*given, *saved[-2:]) if given else ()
        results = start_mixer_backward(tokens, parts, dstream, ctx.epsilon, *ctx.sizes)
        nothing = (None,) * 5
        if not ctx.count:
            return *nothing, *results
        dweight, dbias = results[1].sum(0).unbind()
        norm = dweight.to(saved[1].dtype), dbias.to(ctx.bias_type)
        return *nothing, results[0], *norm, *results[2:]


def _type_of(t_BLD: Tensor) -> torch.dtype:
    """Autocast's, or else that of the tokens."""
    device = t_BLD.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else t_BLD.dtype


def types_of(t_BLD: Tensor) -> TypesOfStep:
    """In which products of these tokens are computed."""
    dtype = _type_of(t_BLD)
    # A gated output, which no norm has divided yet, can outgrow float16.
    return TypesOfStep(dtype, torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)


def trained_layer_norm(x_BLD: Tensor, norm: nn.LayerNorm) -> Tensor:
    """What `norm` makes of tokens: in autocast's type, or else that of the tokens."""
    given = x_BLD.contiguous(), norm.weight, norm.bias
    u_BLD: Tensor
    (u_BLD,) = _Start.apply(norm.eps, types_of(x_BLD), (), 3, False, *given)  # type: ignore[no-untyped-call]
    return u_BLD


def packed_once(
    parts: Sequence[Tensor], types: TypesOfStep, width: WidthOfStep | None
) -> tuple[Tensor, Tensor]:
    """Both matrices of `start_mixer`, from what the step has of these weights, if it keeps any.

    Args:
        parts: those of a width.
        types: of both results.
        width: what is kept.
    """
    kept = _kept(parts, types, width)
    packed: tuple[Tensor, Tensor] = _Start.apply(0.0, types, kept, 0, False, *parts)  # type: ignore[no-untyped-call]
    return packed


def _kept(parts: Sequence[Tensor], types: TypesOfStep, width: WidthOfStep | None) -> tuple[Tensor, ...]:
    return () if width is None else width.take(len(parts[0]), types, pack) or ()


def started(
    x_BLD: Tensor,
    norm: nn.LayerNorm,
    parts: Sequence[Tensor],
    types: TypesOfStep,
    width: WidthOfStep | None,
    adds: bool,
) -> Started:
    """LayerNorm of tokens, and both matrices as of `packed_once`.

    Args:
        x_BLD: the residual stream.
        norm: of its tokens.
        parts: as of `packed_once`.
        types: likewise; normalised tokens are of the first.
        width: likewise.
        adds: whether the stream itself is wanted, to be added to.
    """
    given = x_BLD.contiguous(), norm.weight, norm.bias, *parts
    results = _Start.apply(norm.eps, types, _kept(parts, types, width), 3, adds, *given)  # type: ignore[no-untyped-call]
    return Started(*results) if adds else Started(None, *results)
