"""Packed weights that all widths of a step share.

A step trains several widths on the same weights, and may run each of them more than once: on further batches,
or where blocks are computed again in backward. What is cast and packed for products is made of all heads at
once, when a width first asks in a step; a narrower one copies its rows, and reads its columns in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# The first row of some that lie side by side, and the one behind the last.
Rows = tuple[tuple[int, int], ...]
# Writes packed weights into two matrices: input projections (E, D), and the output projection (D, I).
Pack = Callable[..., Any]


class TypesOfStep(NamedTuple):
    """Of the input projections, and of the output projection."""

    project: torch.dtype
    out: torch.dtype


@dataclass
class _Packed:
    """Of all heads.

    Attributes:
        project: (E, D).
        out: (D, I).
        narrow: some rows of `project`, by which.
    """

    project: Tensor
    out: Tensor
    narrow: dict[Rows, Tensor] = field(default_factory=dict)

    def refresh_narrow(self) -> None:
        for rows, narrow in self.narrow.items():
            torch.cat([self.project[first:last] for first, last in rows], out=narrow)


class StepWeights:
    """Of one mixer; whoever takes steps calls `forget` after each, and nobody else may have one.

    That weights were changed is seen by their version counters as well, which do not count what is written
    through `Tensor.data`. Memory stays where it is, so that CUDA graphs can read it.
    """

    def __init__(self) -> None:
        self._made: dict[TypesOfStep, _Packed] = {}
        self._sources: tuple[Tensor, ...] = ()
        self._state: tuple[tuple[int, int], ...] | None = None
        self._pack: Pack | None = None

    def __deepcopy__(self, memo: Any) -> None:
        # A copy of a model takes no steps by itself.
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    @property
    def places(self) -> int:
        """How many matrices are kept."""
        return sum(2 + len(packed.narrow) for packed in self._made.values())

    @property
    def is_fresh(self) -> bool:
        """Whether what is kept is what the weights are."""
        return not self._made or self._state == _state_of(self._sources)

    def forget(self) -> None:
        """The weights were changed, or may have been."""
        self._state = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Pack again what was packed before, into the same memory."""
        assert self._pack is not None
        for packed in self._made.values():
            self._pack(*self._sources, packed.project, packed.out)
            packed.refresh_narrow()
        self.note_fresh()

    def note_fresh(self) -> None:
        """What `refresh` does was done by somebody else, such as a CUDA graph of it."""
        self._state = _state_of(self._sources)

    @torch.no_grad()
    def take(
        self, sources: Sequence[Tensor], rows: Rows, channels: int, types: TypesOfStep, pack: Pack
    ) -> tuple[Tensor, Tensor] | None:
        """The packed weights of a width, without gradients.

        Args:
            sources: what is packed, of all heads; the last but one is the output projection (D, I).
            rows: those of the width, of the rows of all heads.
            channels: the leading columns of the output projection that the width has.
            types: of both.
            pack: does it, see `triton.block.training_start.pack`.

        Returns:
            (E, D) and (D, I), the latter with rows that may lie apart; None if it would have to be made while
            a CUDA graph is captured.
        """
        self._sources, self._pack = tuple(sources), pack
        if self._made and next(iter(self._made.values())).project.device != sources[0].device:
            self._made.clear()
        packed = self._made.get(types)
        is_ready = packed is not None and (rows in packed.narrow or _count(rows) == len(packed.project))
        if not is_ready and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return None
        if not self.is_fresh:
            self.refresh()
        if packed is None:
            packed = self._made[types] = _room_for(sources, types)
            pack(*sources, packed.project, packed.out)
            self.note_fresh()
        return _narrowed(packed, rows), packed.out[:, :channels]


class WidthOfStep(NamedTuple):
    """What a width takes of a mixer's `StepWeights`; attributes as of `StepWeights.take`."""

    kept: StepWeights
    sources: tuple[Tensor, ...]
    rows: Rows

    def take(self, channels: int, types: TypesOfStep, pack: Pack) -> tuple[Tensor, Tensor] | None:
        """See `StepWeights.take`."""
        return self.kept.take(self.sources, self.rows, channels, types, pack)


def _state_of(sources: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    return tuple((tensor.data_ptr(), tensor._version) for tensor in sources)


def _count(rows: Rows) -> int:
    return sum(last - first for first, last in rows)


def _room_for(sources: Sequence[Tensor], types: TypesOfStep) -> _Packed:
    *projections, out, _ = sources
    dim = projections[0].shape[1]
    return _Packed(
        project=out.new_empty(sum(map(len, projections)), dim, dtype=types.project),
        out=out.new_empty(out.shape, dtype=types.out),
    )


def _narrowed(packed: _Packed, rows: Rows) -> Tensor:
    if _count(rows) == len(packed.project):
        return packed.project
    if rows not in packed.narrow:
        packed.narrow[rows] = torch.cat([packed.project[first:last] for first, last in rows])
    return packed.narrow[rows]


def share_in_steps(module: nn.Module) -> None:
    """From now on the widths of a step share packed weights: its caller says when a step is over.

    Args:
        module: whose mixers have an attribute for it.
    """
    part: Any
    for part in module.modules():
        if hasattr(part, "step_weights"):
            part.step_weights = StepWeights()


def step_weights(module: nn.Module) -> Iterator[StepWeights]:
    """All that a module and those in it have."""
    for part in module.modules():
        kept = getattr(part, "step_weights", None)
        if isinstance(kept, StepWeights):
            yield kept
