"""The gated strategy: the small width answers, and only doubtful queries pay for the full width."""

from __future__ import annotations

import time
from collections.abc import Collection
from copy import deepcopy

from ..gallery.gallery import Gallery
from ..index.rerank import NO_KEY
from .engines import AnyGallery
from .forecast import Values
from .gate import Gate, depth, margins
from .hits import Cost, Hits
from .queries import Floats, Ints, Paid, Queries
from .searchable import Selection
from .stages import QueryWidths, answerable, last_step, require_k, staged, why_fewer
from .strategy import Strategy


def gated_hits(
    gallery: AnyGallery, strategy: Strategy, queries: Queries, k: int, allowed: Selection | None
) -> Hits:
    """Answers of the small width, and of the full width where these are doubtful; `by_full` says which."""
    require_k(gallery, k, len(gallery))
    small, gate = small_hits(gallery, strategy, queries, k, allowed), strategy.gate or Gate()
    start = time.perf_counter()
    hard = gate.hard(gate.margins(margins_of(gallery, gate.rules, small, k)))
    small.cost.took("gate", start, len(queries))
    return combined(gallery, strategy, queries, small, hard, k, allowed)


def margins_of(gallery: AnyGallery, rules: Collection[str], small: Hits, k: int) -> dict[str, Values]:
    """(nq,) by rule, of what the small width found."""
    return margins(rules, gallery, *(small.nearest or (small.D, small.I)), k)


def small_hits(
    gallery: AnyGallery, strategy: Strategy, queries: Queries, k: int, allowed: Selection | None = None
) -> Hits:
    """What the small width finds: as many hits as the gate looks at for k, where there are."""
    most = min(depth(k), len(gallery), max(k, strategy.lengths[0]))
    return staged(gallery, strategy.by_small_width, queries, most, allowed)


def combined(
    gallery: AnyGallery,
    strategy: Strategy,
    queries: Queries,
    small: Hits,
    hard: Ints,
    k: int,
    allowed: Selection | None = None,
) -> Hits:
    """The answers of the small width, those at `hard` replaced by answers of the full width.

    Args:
        gallery: that is searched.
        strategy: a gated one.
        queries: all of them.
        small: what `small_hits` gave.
        hard: positions of the queries that failed the gate.
        k: hits wanted.
        allowed: see `search`.
    """
    D, I, by_full = small.D[:, :k].copy(), small.I[:, :k].copy(), small.by_full.copy()  # noqa: E741
    # A copy, because the same first answers may meet several gates.
    cost = deepcopy(small.cost)
    if len(hard):
        asked, shortlist = queries.take(hard), small.shortlist[hard]
        D[hard], I[hard], more = _by_full_width(gallery, strategy, asked, shortlist, k, allowed)
        by_full[hard] = True
        cost.add(more, len(hard) / len(queries))
    reason = _reason(gallery, I, k, allowed)
    return Hits(D=D, I=I, shortlist=small.shortlist, cost=cost, by_full=by_full, reason=reason)


def _by_full_width(
    gallery: AnyGallery,
    strategy: Strategy,
    queries: Queries,
    shortlist: Ints,
    k: int,
    allowed: Selection | None,
) -> tuple[Floats, Ints, Cost]:
    if strategy.again:
        hits = staged(gallery, strategy.by_full_width, queries, k, allowed)
        return hits.D, hits.I, hits.cost
    if not isinstance(gallery, Gallery):
        # An engine finds the shortlist of the small query once more, where its vectors are.
        asked = Paid(queries, strategy.query_width)
        hits = gallery.staged(strategy.by_both_widths, asked, k, allowed)
        return hits.D, hits.I, hits.cost
    cost = Cost()
    xq = QueryWidths(queries, gallery.spec.dim, cost).at("full")
    D, I, _ = last_step(gallery.segments, xq, shortlist, k, strategy.expand, cost)  # noqa: E741
    return D, I, cost


def _reason(gallery: AnyGallery, I: Ints, k: int, allowed: Selection | None) -> str:  # noqa: E741
    """Why there are fewer than k hits, if there are: an engine is asked only then."""
    if isinstance(gallery, Gallery):
        return answerable(gallery, k, allowed).reason(k)
    return why_fewer(gallery.total(allowed), k) if (I == NO_KEY).any() else ""
