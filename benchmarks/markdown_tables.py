"""Tables and numbers as the report writes them."""

from __future__ import annotations

from collections.abc import Iterable


def digits(value: float) -> str:
    """At least three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def markdown(names: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    names = tuple(names)
    lines = [names, ("---",) * len(names), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
