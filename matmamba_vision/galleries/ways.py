"""How a query of one width is answered: it ranks what it finds itself, or the full width does."""

from __future__ import annotations

from dataclasses import replace

from matmamba_retrieval import Plan, Strategy
from matmamba_retrieval.planning.planner import funnel_schedule
from matmamba_retrieval.strategies.searchable import Searchable

from ..errors import ConfigError
from .strategies import KINDS, SHORTLIST, SMALL_GALLERY

FULL = "full"


def way(gallery: Searchable, kind: str, width: str, k: int, *, send_on: bool) -> Strategy:
    """The strategy for k hits of a query that a width encodes.

    Args:
        gallery: that is searched.
        kind: auto, single-shot, shortlist or funnel, as for `search`; auto follows the indexes of the
            gallery's plan, if it has one, and its gate where that was calibrated for this width.
        width: label of the width that encodes the query first.
        k: hits.
        send_on: whether the full width may encode the query as well, to rank what a narrower one found, or
            where the gate doubts it; else the width ranks what it finds itself.

    Raises:
        ConfigError: there is no such kind.
        GalleryError: the plan was made for other vectors.
    """
    if kind not in KINDS:
        raise ConfigError(f"strategy is {kind!r}: it can be one of {', '.join(KINDS)}")
    planned = _planned(gallery, k) if kind == "auto" else None
    if planned is not None and _fits(planned, width):
        return _at_width(planned, width, send_on)
    dims = gallery.shortlist_dims()
    if kind == "single-shot" or not dims or (kind == "auto" and len(gallery) <= SMALL_GALLERY):
        return Strategy.single_shot(width=width)
    rerank = FULL if send_on or width == FULL else width
    length = min(len(gallery), max(SHORTLIST, 10 * k))
    if kind != "funnel":
        return Strategy.shortlist(width=width, dim=min(dims), length=length, rerank_width=_plain(rerank))
    steps, lengths = funnel_schedule(min(dims), gallery.spec.dim, length, k, gallery.step_dims())
    later = () if rerank == FULL else (rerank,) * len(steps)
    return Strategy.funnel(width=width, dims=steps, lengths=lengths, widths=later)


def _plain(width: str) -> str:
    return "" if width == FULL else width


def _planned(gallery: Searchable, k: int) -> Strategy | None:
    """The strategy of the gallery's plan, if it keeps enough candidates for k hits."""
    if not (stored := gallery.plan):
        return None
    plan = Plan.from_json(stored)
    strategy = plan.require(gallery)
    return strategy if min(strategy.lengths, default=k) >= k else None


def _fits(planned: Strategy, width: str) -> bool:
    """Whether its index is of vectors that a query of this width may be compared with."""
    return not planned.steps or planned.steps[0].gallery_width == FULL or width == planned.query_width


def _at_width(planned: Strategy, width: str, send_on: bool) -> Strategy:
    """A planned strategy with another width in front."""
    if planned.kind == "single-shot":
        return Strategy.single_shot(width=width)
    if planned.kind == "gated" and send_on and width == planned.query_width:
        return planned
    first = replace(planned.steps[0], width=width)
    own = "" if send_on or width == FULL else width
    later = tuple(replace(step, width=own) for step in planned.steps[1:])
    kind = "shortlist" if planned.kind == "gated" else planned.kind
    rerank = width if planned.kind == "gated" and width != FULL else own
    return Strategy(kind=kind, steps=(first, *later), rerank_width=rerank, expand=planned.expand)
