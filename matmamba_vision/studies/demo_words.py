"""Figures of a demonstration as people read them."""

from __future__ import annotations

from typing import Any


def width_words(width: str) -> str:
    """A width by its name: "1/8 width", "full width"."""
    return f"{width} width"


def full_width() -> str:
    """The widest."""
    return width_words("full")


def share(value: float) -> str:
    """A share in per cent, to a tenth; 100 % is all of them."""
    return "100 %" if value == 1 else f"{100 * value:.1f} %"


def million(gmacs: float) -> str:
    """Thousands of millions of multiply-adds, in millions."""
    return f"{1e3 * gmacs:,.1f}"


def milliseconds(ms: float) -> str:
    """Two digits behind the point: those of a small network are fractions."""
    return f"{ms:.2f} ms"


def times(ratio: float) -> str:
    """A ratio to the reference."""
    return f"{ratio:.2f} x"


def way_words(row: dict[str, Any]) -> str:
    """What a strategy does, from its row of results."""
    width = width_words(row["query_width"])
    if row["strategy"] == "single-shot":
        return f"{width} alone"
    return f"{row['strategy']} by {width}, reranked"
