"""What a strategy costs against single-shot at full width, what it saves, and when it falls back to that.

A rerank and a gate may encode a query twice: both encodings count, and all that the search compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]
# What is compared, as rows name it: milliseconds of one query asked alone, and multiply-adds of one query.
COSTS = {"ms": "milliseconds", "macs": "multiply-adds"}
SENDS_ALL = "sends every query to the full width"


def spent(row: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds of one query asked alone, and its multiply-adds: all encodings, and the search.

    Args:
        row: a measured strategy; of a gate, the share that it sends to the full width is that of all queries,
            not of the few that were asked alone.
    """
    return {
        "ms": row["encode_ms"] + row["one_search_ms"],
        "macs": row["encoder_macs"] + row["search_macs"],
    }


def is_reference(row: Mapping[str, Any]) -> bool:
    """Whether it is single-shot at full width, which others are compared with."""
    return bool(row["strategy"] == "single-shot" and row["query_width"] == "full")


def compared(row: Row, reference: Mapping[str, Any], asked: Sequence[str] = tuple(COSTS)) -> Row:
    """The row with what it costs over single-shot.

    Args:
        row: a measured strategy.
        reference: that of single-shot at full width.
        asked: costs that count for a gate, of `COSTS`; one that saves none of these falls back.

    Returns:
        The same with `ms_over_single_shot` and `macs_over_single_shot` (ratios: above 1 it costs more),
        `saves` (the costs that are lower) and `falls_back` (why it is not to be used, and single-shot answers
        instead; "" if it is).
    """
    own, against = spent(row), spent(reference)
    over = {cost: own[cost] / against[cost] for cost in COSTS}
    found = row | {f"{cost}_over_single_shot": ratio for cost, ratio in over.items()}
    saves = [cost for cost, ratio in over.items() if ratio < 1]
    return found | {"saves": saves, "falls_back": _why(row, {cost: over[cost] for cost in asked})}


def _why(row: Mapping[str, Any], over: Mapping[str, float]) -> str:
    """Why a gate is no saving; a strategy without one does not claim to be."""
    if row["strategy"] != "gated":
        return ""
    if row["by_full"] >= 1:
        return SENDS_ALL
    if min(over.values()) < 1:
        return ""
    times = [f"{ratio:.2f} times the {COSTS[cost]}" for cost, ratio in over.items()]
    return f"costs {' and '.join(times)} of single-shot"


def fallen_back(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many gates fall back to single-shot, and why, in a sentence; "" if none does."""
    gates = [row for row in rows if row["strategy"] == "gated"]
    all_sent = sum(row["falls_back"] == SENDS_ALL for row in gates)
    costly = sum(bool(row["falls_back"]) for row in gates) - all_sent
    why = [f"{all_sent} would send every query to the full width"] * bool(all_sent)
    why += [f"{costly} would cost more than single-shot"] * bool(costly)
    if not why:
        return ""
    return f"{all_sent + costly} of {len(gates)} gates fall back to single-shot: {', '.join(why)}"


def notes_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What has to be said of rows that are compared: gates that save nothing, and reranks that cost more."""
    notes = [text] if (text := fallen_back(rows)) else []
    twice = [row for row in rows if row["strategy"] in ("shortlist", "funnel") and _encodes_twice(row)]
    costly = sum(not row["saves"] for row in twice)
    if costly:
        notes.append(
            f"{costly} of {len(twice)} shortlists and funnels that encode a query twice cost more than"
            " single-shot at full width: no saving"
        )
    return notes


def _encodes_twice(row: Mapping[str, Any]) -> bool:
    """Whether a query is encoded at more widths than one."""
    return len({row["query_width"], *(row["widths"] or ["full"])}) > 1
