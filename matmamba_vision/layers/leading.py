"""Leading parts of several tensors at once, whose gradients go back by few operations, not two for each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

# Gradients begin at multiples of so many numbers, so that they are read and written 16 bytes at once.
_ALIGNED = 64


def leading_parts(tensors: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    """The leading part of each tensor that has this shape, as a view.

    Autograd's own gradient of a part is a tensor of zeros and a copy, for each: here zeros are one tensor,
    and the copies one operation.
    """
    parts: tuple[Tensor, ...] = _LeadingParts.apply(shapes, *tensors)  # type: ignore[no-untyped-call]
    return parts


def part(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The leading part of this shape, as a view."""
    return tensor[tuple(slice(size) for size in shape)]


class _LeadingParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shapes: Sequence[Sequence[int]], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.shapes = [tensor.shape for tensor in tensors]
        # What is not used, or not trained, gets no gradient rather than one of zeros.
        ctx.set_materialize_grads(False)
        parts = tuple(part(tensor, shape) for tensor, shape in zip(tensors, shapes, strict=True))
        ctx.mark_non_differentiable(
            *(one for one, wanted in zip(parts, ctx.needs_input_grad[1:], strict=True) if not wanted)
        )
        return parts

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [(shape, one) for shape, one in zip(ctx.shapes, gradients, strict=True) if one is not None]
        wholes = _zeros([shape for shape, _ in given], [one for _, one in given])
        pairs = [(part(whole, one.shape), one) for whole, (_, one) in zip(wholes, given, strict=True)]
        # What lies apart in memory would slow down all that goes with it.
        together = [pair for pair in pairs if pair[0].is_contiguous() and pair[1].is_contiguous()]
        if together:
            torch._foreach_copy_([into for into, _ in together], [one for _, one in together])
        for into, one in pairs:
            if not (into.is_contiguous() and one.is_contiguous()):
                into.copy_(one)
        found = iter(wholes)
        return None, *(None if one is None else next(found) for one in gradients)


def _zeros(shapes: Sequence[torch.Size], like: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of these shapes; in one piece of memory, if all are of one type."""
    if len({one.dtype for one in like}) != 1:
        return [one.new_zeros(shape) for one, shape in zip(like, shapes, strict=True)]
    sizes = [shape.numel() + -shape.numel() % _ALIGNED for shape in shapes]
    memory = like[0].new_zeros(sum(sizes))
    starts = [0, *accumulate(sizes)]
    return [
        memory[start : start + shape.numel()].view(shape)
        for start, shape in zip(starts, shapes, strict=False)
    ]
