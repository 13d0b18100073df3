"""Values as JSON has them."""

from __future__ import annotations

from typing import Any


def plain_number(value: Any) -> Any:
    """A number of NumPy's as Python's, for JSON; `TypeError` for anything else."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} is neither a number nor a text")
