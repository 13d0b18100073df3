"""Answers of an engine: a strategy as stages of one call, and what comes back as hits."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..index.rerank import NO_KEY, prefix, rerank
from ..strategies.hits import Cost, Hits
from ..strategies.indexes import expanded
from ..strategies.queries import Floats, Ints, Queries
from ..strategies.stages import QueryWidths, flags, put_first, why_fewer
from ..strategies.strategy import Step, Strategy
from .engine import ScoredPoint, Stage
from .matching import Matching
from .pushed_state import FLOAT32_BYTES, PushedState
from .settling import arrays, settled


class Asking:
    """A strategy without a gate, for k hits of one state of a gallery: checked once, asked by every query.

    Args:
        state: that answers.
        strategy: that fits vectors of its dim, and k.
        k: hits wanted.

    Raises:
        GalleryError: the strategy needs vectors that were not pushed, another index, or an effort that
            nothing takes.
    """

    def __init__(self, state: PushedState, strategy: Strategy, k: int) -> None:
        self._state, self._strategy, self._k = state, strategy, k
        contents = state.contents
        self._full = state.field(contents.spec.width, contents.spec.dim)
        widths = [step.gallery_width if place == 0 else "full" for place, step in enumerate(strategy.steps)]
        own = contents.spec.width
        self._fields = [
            state.field(own if width == "full" else width, step.dim)
            for width, step in zip(widths, strategy.steps, strict=True)
        ]
        for step in strategy.steps[:1]:
            self._require_index(step)

    def _require_index(self, step: Step) -> None:
        name, place = self._fields[0].index, self._state.place
        if step.index not in ("", name):
            raise GalleryError(f"the index of {place} over {step.dim} dims is {name!r}, not {step.index!r}")
        if step.effort is not None and not self._fields[0].links:
            raise GalleryError(f"the index {name!r} of {place} takes no effort of {step.effort}")

    def hits(self, queries: Queries, matching: Matching | None) -> tuple[Hits, list[list[ScoredPoint]]]:
        """The k best images for each query, and the same as points with their payload.

        Args:
            queries: at whichever widths the strategy asks for.
            matching: images that may be answered; None for all.
        """
        strategy, cost = self._strategy, Cost()
        encoded = QueryWidths(queries, self._full.dim, cost)
        stages = [self._stage(place, encoded) for place in range(len(strategy.steps))]
        last_width = strategy.rerank_width or "full"
        xq, nearest = encoded.at(last_width), None
        found = self._asked(stages, xq, max(self._k, strategy.expand), matching, cost)
        D, I = arrays(found, self._k)  # noqa: E741
        if strategy.expand:
            nearest = D, I
            D, I, found = self._expanded(stages, xq, found, matching, cost)  # noqa: E741
        by_full = flags(len(D), last_width == "full")
        reason = self._reason(I, matching)
        hits = Hits(D=D, I=I, shortlist=I, cost=cost, by_full=by_full, reason=reason, nearest=nearest)
        return hits, found

    def _stage(self, place: int, encoded: QueryWidths) -> Stage:
        step, field = self._strategy.steps[place], self._fields[place]
        xq = encoded.at(step.width or "full")
        exact = place > 0 or not (field.links or field.quantisation)
        cut = prefix(xq, step.dim)
        return Stage(field=field, xq=cut, length=step.length, exact=exact, effort=step.effort or 0)

    def _asked(
        self, stages: list[Stage], xq: Floats, k: int, matching: Matching | None, cost: Cost
    ) -> list[list[ScoredPoint]]:
        """The best of the candidates by all coordinates; what was compared is counted."""
        start, live = time.perf_counter(), self._state.contents.live
        if matching is not None and matching.condition is None:
            return [[] for _ in xq]
        condition = None if matching is None else matching.condition
        last = Stage(field=self._full, xq=xq, length=k)
        found = settled(self._state.collection, [*stages, last], condition)
        compared, stage = live, "shortlist" if stages else "rerank"
        cost.took(stage, start, len(xq))
        for each in [*stages, last]:
            # Of a graph, the engine does not tell how many it compared.
            if each.exact:
                macs = float(compared * each.field.dim)
                cost.compared(stage, time.perf_counter(), len(xq), macs, macs * FLOAT32_BYTES)
            compared, stage = each.length, "rerank"
        cost.candidates += stages[-1].length if stages else live
        return found

    def _expanded(
        self,
        stages: list[Stage],
        xq: Floats,
        found: list[list[ScoredPoint]],
        matching: Matching | None,
        cost: Cost,
    ) -> tuple[Floats, Ints, list[list[ScoredPoint]]]:
        """D and I (nq, k) by the mean of each query and its nearest, of which the first stays in front."""
        expand = self._strategy.expand
        D, I = arrays(found, expand)  # noqa: E741
        mean = expanded(xq, I, self._halves)
        first = rerank(mean, I[:, :1], self._halves, 1)
        behind = self._asked(stages, mean, self._k, matching, cost)
        D, I = put_first(*first, *arrays(behind, self._k))  # noqa: E741
        return D, I, [[*points[:1], *others] for points, others in zip(found, behind, strict=True)]

    def _halves(self, keys: Ints) -> NDArray[np.floating]:
        """(n, D) stored vectors in half precision, as they are in a folder's gallery."""
        return self._state.vectors(keys).astype(np.float16)

    def _reason(self, I: Ints, matching: Matching | None) -> str:  # noqa: E741
        """Why there are fewer than k hits, if there are: images are counted only then."""
        if matching is None or not (I == NO_KEY).any():
            return ""
        return why_fewer(matching.total(self._state), self._k)
