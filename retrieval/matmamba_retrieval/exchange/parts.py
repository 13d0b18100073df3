"""Images and their vectors in parts: how many at once, and how their texts are written and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..storage.records import Row

Part = tuple[list[Row], NDArray[np.float32]]
# Of vectors that are moved at once, and rows at most.
PART_BYTES, PART_ROWS = 1 << 24, 1 << 17


def part_rows(dim: int) -> int:
    """Rows of `dim` float32 that are moved at once."""
    return int(np.clip(PART_BYTES // (4 * dim), 1, PART_ROWS))


def text_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Columns id, path, label and metadata (JSON) of some images."""
    columns = {name: [getattr(row, name) for row in rows] for name in ("id", "path", "label")}
    return columns | {"metadata": [json.dumps(dict(row.metadata), ensure_ascii=False) for row in rows]}


def parsed_metadata(file: Path, image_id: str, text: str | None) -> dict[str, Any]:
    """Metadata from JSON; `GalleryError` if it is not an object."""
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise GalleryError(f"{file}: the metadata of {image_id!r} are not JSON") from error
    if not isinstance(found, dict):
        raise GalleryError(f"{file}: the metadata of {image_id!r} are no JSON object")
    return found
