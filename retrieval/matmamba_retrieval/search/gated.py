"""The gated strategy: the small width answers, and only doubtful queries pay for the full width."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..gallery.gallery import Gallery
from .forecast import Values
from .gate import Classes, Gate, depth, margins
from .hits import Bools, Cost, Hits
from .queries import Floats, Ints, Queries
from .strategies import Encoder, Shortlist, last_step, select


@dataclass(frozen=True)
class Gated:
    """The small width finds a shortlist and reranks it; queries that fail the gate do that at full width too.

    Attributes:
        query_width, dim, shortlist, gallery_width, index, effort: of the first stage, as in `Shortlist`.
        gate: by default all queries fail it. again: whether a query that fails searches the index once more,
            by its full-width embedding, instead of reranking the shortlist of the small one. expand: of all
            answers, as in `Shortlist`; the gate looks at what the small query itself finds.
    """

    gallery: Gallery
    query_width: str = "1/8"
    dim: int = 32
    shortlist: int = 200
    gallery_width: str = "full"
    index: str = ""
    effort: int | None = None
    gate: Gate = field(default_factory=Gate)
    again: bool = False
    expand: int = 0

    def search(self, queries: Queries, k: int, allowed: Bools | None = None) -> Hits:
        """Answer by the small width, then the doubtful ones by the full width; `by_full` says which."""
        select(self.gallery, k, allowed)
        small = self.small(queries, k, allowed)
        with small.cost.timed("gate", len(queries)):
            hard = self.gate.hard(self.gate.margins(self.margins(self.gate.rules, small, k)))
        return self.combine(queries, small, hard, k, allowed)

    @cached_property
    def classes(self) -> Classes:
        """Of the gallery's images."""
        return Classes(self.gallery)

    def margins(self, rules: Collection[str], small: Hits, k: int) -> dict[str, Values]:
        """(nq,) by rule, of what the small width found."""
        return margins(rules, self.classes, *(small.nearest or (small.D, small.I)), k)

    def small(self, queries: Queries, k: int, allowed: Bools | None = None) -> Hits:
        """What the small width finds: as many hits as the gate looks at for k, where there are."""
        most = min(depth(k), len(self.gallery), max(k, self.shortlist))
        return self._first().with_widths(self.query_width).search(queries, most, allowed)

    def combine(
        self, queries: Queries, small: Hits, hard: Ints, k: int, allowed: Bools | None = None
    ) -> Hits:
        """The answers of the small width, those at `hard` replaced by answers of the full width."""
        D, I, by_full = small.D[:, :k].copy(), small.I[:, :k].copy(), small.by_full.copy()  # noqa: E741
        # A copy, because the same first answers may meet several gates.
        cost = deepcopy(small.cost)
        if len(hard):
            D[hard], I[hard], more = self._full(queries.take(hard), small.shortlist[hard], k, allowed)
            by_full[hard] = True
            cost.add(more, len(hard) / len(queries))
        reason = select(self.gallery, k, allowed).reason(k)
        return Hits(D, I, small.shortlist, cost, by_full, reason)

    def _first(self) -> Shortlist:
        return Shortlist(
            self.gallery,
            self.query_width,
            self.dim,
            self.shortlist,
            self.gallery_width,
            self.index,
            self.effort,
            self.expand,
        )

    def _full(
        self, queries: Queries, shortlist: Ints, k: int, allowed: Bools | None
    ) -> tuple[Floats, Ints, Cost]:
        if self.again:
            first = replace(self._first(), query_width="full", gallery_width="full")
            hits = first.search(queries, k, allowed)
            return hits.D, hits.I, hits.cost
        cost = Cost()
        xq = Encoder(self.gallery, queries, cost).at("full")
        D, I, _ = last_step(self.gallery, xq, shortlist, k, self.expand, cost)  # noqa: E741
        return D, I, cost
