"""Strategies side by side on one gallery and one set of labelled queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import truediv
from typing import Any

import numpy as np
from matmamba_retrieval import (
    EncodedQueries,
    Gallery,
    Hits,
    Queries,
    Strategy,
    metrics,
    rerank,
    search,
)
from matmamba_retrieval.planning.planner import funnel_schedule
from numpy.typing import NDArray
from torch import Tensor

from ..galleries.embedder import Embedder

K = 10
REPEATS = 5


@dataclass(frozen=True)
class Compared:
    """What a strategy reached.

    Attributes:
        row: as in results.json.
        hits: its answers.
        relevant: (nq, K) whether a hit has the query's class.
    """

    row: dict[str, Any]
    hits: Hits
    relevant: NDArray[np.bool_]


def compare_strategies(
    gallery: Gallery, embedder: Embedder, images: Tensor, labels: Sequence[str]
) -> list[Compared]:
    """Single-shot first, then shortlists and a funnel for each smaller trained width, then that width alone.

    Args:
        gallery: with images of known classes.
        embedder: encodes the queries.
        images: (nq, C, S, S) queries.
        labels: their class names.
    """
    widths = list(embedder.widths)
    queries = _encode(embedder, images, widths)
    stored, asked = np.array(gallery.labels(), dtype=object), np.array(labels, dtype=object)
    exact = search(gallery, Strategy.single_shot(), queries, K)
    compared: list[Compared] = []
    for strategy in _strategies(gallery, widths):
        hits, search_ms = _search(gallery, strategy, queries)
        relevant = (stored[hits.I] == asked[:, None]).astype(bool)
        full = rerank(queries.encode("full").xq, hits.I, gallery.segments.read, K)[0]
        row = _settings(strategy, gallery) | {
            "top1": metrics.top1(relevant),
            "map10": metrics.map_at_k(relevant),
            "ann_recall10": metrics.ann_recall(full, exact.D),
            "encode_ms": hits.cost.ms["encode"],
            "search_ms": search_ms,
            "encoder_gmacs": hits.cost.macs / 1e9,
            "candidates": hits.cost.candidates,
            "bytes_read": hits.cost.bytes_read,
        }
        first = compared[0] if compared else Compared(row, hits, relevant)
        compared.append(Compared(row | _over(row, hits, first), hits, relevant))
    return compared


def _over(row: dict[str, Any], hits: Hits, single_shot: Compared) -> dict[str, float]:
    """Cost over single-shot's: above 1 a strategy costs more. Both encodings of a rerank are counted."""
    ms = (known["encode_ms"] + known["search_ms"] for known in (row, single_shot.row))
    macs = (cost.macs + sum(cost.search_macs.values()) for cost in (hits.cost, single_shot.hits.cost))
    return {"ms_over_single_shot": truediv(*ms), "macs_over_single_shot": truediv(*macs)}


def _strategies(gallery: Gallery, widths: list[str]) -> list[Strategy]:
    length, dims = min(200, len(gallery)), gallery.shortlist_dims()
    schedule = funnel_schedule(dims[0], gallery.spec.dim, length, K)
    return [
        Strategy.single_shot(),
        *(Strategy.shortlist(width=width, dim=dims[-1], length=length) for width in reversed(widths)),
        Strategy.funnel(width=widths[-1], dims=schedule[0], lengths=schedule[1]),
        *(Strategy.single_shot(width=width) for width in reversed(widths[1:])),
    ]


def _settings(strategy: Strategy, gallery: Gallery) -> dict[str, Any]:
    row: dict[str, Any] = {"strategy": strategy.kind, "query_width": strategy.query_width}
    if not strategy.steps:
        return row | {"dim": gallery.spec.dim, "shortlist": None}
    row |= {"dim": strategy.dims[0], "shortlist": strategy.lengths[0]}
    steps = {"dims": list(strategy.dims), "lengths": list(strategy.lengths)}
    return row | (steps if strategy.kind == "funnel" else {})


def _encode(embedder: Embedder, images: Tensor, widths: list[str]) -> EncodedQueries:
    """Queries at all widths, each with its median time over some repeats, the widths taken in turn."""
    repeats = [
        {width: embedder.queries(images).encode(width) for width in widths} for _ in range(1 + REPEATS)
    ][1:]
    ms = {width: float(np.median([repeat[width].ms for repeat in repeats])) for width in widths}
    return EncodedQueries({width: replace(repeats[0][width], ms=ms[width]) for width in widths})


def _search(gallery: Gallery, strategy: Strategy, queries: Queries) -> tuple[Hits, float]:
    """Answers, and the median search time per query in ms over some repeats, all queries in one batch."""
    repeats = [search(gallery, strategy, queries, K) for _ in range(REPEATS)]
    return repeats[0], float(np.median([hits.cost.search_ms for hits in repeats]))
