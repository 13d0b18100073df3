"""Queries and conditions as qdrant-edge has them: of its own types, made of those that the server takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from matmamba_common.lazy import Deferred

from .engine import OVERSAMPLING, Condition, Stage

qe = Deferred("qdrant_edge")


def edge_filter(condition: Condition | None) -> Any:
    """A filter of the engine; None for none."""
    if condition is None:
        return None
    found = _condition(condition)
    return found if isinstance(found, qe.Filter) else qe.Filter(must=[found])


def _condition(known: Condition) -> Any:
    if "has_id" in known:
        return qe.HasIdCondition(set(known["has_id"]))
    if "is_empty" in known:
        return qe.IsEmptyCondition(known["is_empty"]["key"])
    if "range" in known:
        return qe.FieldCondition(known["key"], range=qe.RangeFloat(**known["range"]))
    if "match" in known:
        match = known["match"]
        values = qe.MatchAny(match["any"]) if "any" in match else qe.MatchValue(match["value"])
        return qe.FieldCondition(known["key"], match=values)
    return qe.Filter(**{clause: [_condition(part) for part in parts] for clause, parts in known.items()})


def edge_request(stages: Sequence[Stage], row: int, condition: Any, payload: bool) -> Any:
    """One query, each stage but the last inside of the one that compares what it keeps."""
    inner: list[Any] = []
    for place, stage in enumerate(stages[:-1]):
        inner = [qe.Prefetch(**_values(stage, row, inner, condition if place == 0 else None))]
    of_last = _values(stages[-1], row, inner, None if inner else condition)
    return qe.QueryRequest(**of_last, with_payload=payload, with_vector=False)


def _values(stage: Stage, row: int, inner: list[Any], condition: Any) -> dict[str, Any]:
    return {
        "limit": stage.length,
        "query": qe.Query.Nearest(stage.xq[row].tolist(), using=stage.field.name),
        "prefetches": inner,
        "filter": condition,
        "params": _params(
            stage.exact, stage.effort or stage.field.search_effort, bool(stage.field.quantisation)
        ),
    }


@lru_cache(maxsize=64)
def _params(exact: bool, effort: int, quantised: bool) -> Any:
    """How a stage is searched: an exact one by no graph, and by no codes; made once, not by each query."""
    codes = qe.QuantizationSearchParams(ignore=exact, rescore=True, oversampling=OVERSAMPLING)
    effort = 0 if exact else effort
    return qe.SearchParams(exact=exact, hnsw_ef=effort or None, quantization=codes if quantised else None)
