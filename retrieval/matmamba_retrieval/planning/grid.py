"""Experiments: a grid of strategies as a file gives it, and the list of strategies that it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ..errors import GalleryError
from ..strategies.strategy import Strategy
from .planner import EXPAND, funnel_schedule
from .trials import FOLDS

# In a schedule, and of a rerank: the width of the first step.
SAME = "same"
FULL = "full"


@dataclass
class FunnelSteps:
    """A schedule of a funnel.

    Attributes:
        dims: of each step but the last.
        lengths: candidates that each of these keeps.
        widths: query widths of the steps after the first, the last included; "same" for the width of the
            first; by default all full.
        expand: nearest candidates that the query of the last step is averaged with.
    """

    dims: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    widths: list[str] = field(default_factory=list)
    expand: int = 0


@dataclass
class IndexSettings:
    """An index to build: its name or FAISS factory string, and the efforts to search it with.

    Attributes:
        efforts: nprobe or efSearch; by default what the index has.
    """

    index: str = ""
    efforts: list[int] = field(default_factory=list)


@dataclass
class Grid:
    """What an evaluation tries. Every combination that makes sense is one row.

    Attributes:
        k: hits wanted.
        query_widths: labels; empty for the trained ones.
        gallery_widths: labels; empty for the full one.
        dims: of the first stage.
        shortlists: lengths of the first stage.
        strategies: which are tried.
        funnels: schedules.
        indexes: of the first stage.
        gate_dims: of gated strategies; by default the last of dims.
        gate_shortlists: of gated strategies; by default the last of shortlists.
        gate_losses: targets that gates are calibrated to, in points of each quality.
        gate_qualities: whose losses count, see `Bench.qualities`.
        gate_sure: whether the targets are to be met with 95 % certainty.
        rerank_widths: query widths that rank a shortlist: full, or "same" for that which found it, whose
            query then is encoded once.
        expands: nearest candidates that a query of a shortlist is averaged with.
        gate_expands: the same, of what the small width of a gate answers.
        folds: into which queries are dealt; the gate that one fold passes is calibrated on the others.
    """

    k: int = 10
    query_widths: list[str] = field(default_factory=list)
    gallery_widths: list[str] = field(default_factory=lambda: ["full"])
    dims: list[int] = field(default_factory=lambda: [16, 32, 64])
    shortlists: list[int] = field(default_factory=lambda: [50, 200, 1000])
    strategies: list[str] = field(default_factory=lambda: ["single-shot", "shortlist", "funnel", "gated"])
    funnels: list[FunnelSteps] = field(default_factory=list)
    indexes: list[IndexSettings] = field(default_factory=lambda: [IndexSettings()])
    gate_dims: list[int] = field(default_factory=list)
    gate_shortlists: list[int] = field(default_factory=list)
    gate_losses: list[float] = field(default_factory=lambda: [0.1])
    gate_qualities: list[str] = field(default_factory=lambda: ["knn1", "map"])
    gate_sure: bool = False
    rerank_widths: list[str] = field(default_factory=lambda: [FULL])
    expands: list[int] = field(default_factory=lambda: [0])
    gate_expands: list[int] = field(default_factory=lambda: [0, EXPAND])
    folds: int = FOLDS


def strategies_of(grid: Grid, widths: Sequence[str], dim: int, rows: int) -> list[tuple[Strategy, float]]:
    """The strategies of a grid, each once, with the loss that its gate may have in points, 0 without one.

    Args:
        grid: of all of them.
        widths: of the queries, full first.
        dim: of full-length embeddings.
        rows: of the gallery; longer shortlists are cut to them.
    """
    found: dict[tuple[Strategy, float], None] = {}
    for kind in grid.strategies:
        if kind not in _MAKERS:
            raise GalleryError(f"unknown strategy {kind!r}: one of {', '.join(_MAKERS)}")
        found |= dict.fromkeys(_MAKERS[kind](grid, widths, dim, rows))
    return list(found)


Tried = Iterator[tuple[Strategy, float]]


def _single_shots(grid: Grid, widths: Sequence[str], dim: int, rows: int) -> Tried:
    for width in widths:
        yield Strategy.single_shot(width=width), 0.0


def _first_stages(grid: Grid, widths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What the constructors of all strategies share: width and index of the first step."""
    for width, stored, index in product(widths, grid.gallery_widths, grid.indexes):
        efforts: list[int | None] = [*index.efforts] or [None]
        for effort in efforts:
            yield {"width": width, "gallery_width": stored, "index": index.index, "effort": effort}


def _shortlists(grid: Grid, widths: Sequence[str], dim: int, rows: int) -> Tried:
    for first in _first_stages(grid, widths):
        stages = _stages(grid.dims, grid.shortlists, dim, rows)
        for (d, length), expand, rerank in product(stages, grid.expands, grid.rerank_widths):
            width = first["width"] if rerank == SAME else rerank
            # "" stands for the full width wherever strategies are compared.
            more = {"rerank_width": "" if width == FULL else width, "expand": expand, **first}
            yield Strategy.shortlist(dim=d, length=length, **more), 0.0


def _gates(grid: Grid, widths: Sequence[str], dim: int, rows: int) -> Tried:
    dims, lengths = grid.gate_dims or grid.dims[-1:], grid.gate_shortlists or grid.shortlists[-1:]
    stages = _stages(dims, lengths, dim, rows)
    for first in _first_stages(grid, [width for width in widths if width != "full"]):
        tried = product(stages, grid.gate_expands, (False, True), grid.gate_losses)
        for (d, length), expand, again, loss in tried:
            yield Strategy.gated(dim=d, length=length, again=again, expand=expand, **first), loss


def _funnels(grid: Grid, widths: Sequence[str], dim: int, rows: int) -> Tried:
    for first in _first_stages(grid, widths):
        for steps in grid.funnels:
            if steps.dims and max(steps.dims) <= dim:
                lengths = [min(length, rows) for length in steps.lengths]
                later = [first["width"] if width == SAME else width for width in steps.widths]
                more = {"widths": later, "expand": steps.expand, **first}
                yield Strategy.funnel(dims=steps.dims, lengths=lengths, **more), 0.0
        if not grid.funnels:
            for d, length in _stages(grid.dims, grid.shortlists, dim, rows):
                schedule = funnel_schedule(d, dim, length, grid.k)
                if len(schedule[0]) > 1:
                    yield Strategy.funnel(dims=schedule[0], lengths=schedule[1], **first), 0.0


def _stages(dims: Sequence[int], lengths: Sequence[int], longest: int, rows: int) -> list[tuple[int, int]]:
    return [(dim, min(length, rows)) for dim, length in product(dims, lengths) if dim <= longest]


_MAKERS = {"single-shot": _single_shots, "shortlist": _shortlists, "funnel": _funnels, "gated": _gates}
