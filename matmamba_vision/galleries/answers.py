"""What a gallery answers, as values."""

from __future__ import annotations

from typing import Any

from matmamba_retrieval import Row


def row_of(row: Row) -> dict[str, Any]:
    """An image of a gallery, for JSON."""
    shown = {"id": row.id, "path": row.path, "label": row.label}
    return shown | ({"metadata": dict(row.metadata)} if row.metadata else {})
