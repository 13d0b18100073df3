"""What files of vectors are read into: images and their vectors, in parts, with metadata checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..storage.records import Row

Part = tuple[list[Row], NDArray[np.float32]]


def parsed_metadata(file: Path, image_id: str, text: str | None) -> dict[str, Any]:
    """Metadata from JSON; `GalleryError` if it is not an object."""
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise GalleryError(f"{file}: the metadata of {image_id!r} are not JSON") from error
    if not isinstance(found, dict):
        raise GalleryError(f"{file}: the metadata of {image_id!r} are no JSON object")
    return found
