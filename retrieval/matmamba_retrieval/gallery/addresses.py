"""Places of galleries that are no folders: addresses of engines that galleries were pushed to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import GalleryError

EDGE = "edge:"
SCHEMES = {"qdrant": "http", "qdrants": "https"}
_SERVER = re.compile(rf"({'|'.join(SCHEMES)}):/+")


def address_of(place: str | os.PathLike[str]) -> str:
    """The address that a text or a path means, well formed or not; "" for a folder's.

    Where it went through a path, it has lost a slash: here it gets it back.
    """
    text = os.fspath(place)
    if found := _SERVER.match(text):
        return f"{found[1]}://{text[found.end() :]}"
    return text if text.startswith(EDGE) else ""


def as_written(place: str | os.PathLike[str]) -> str:
    """A place for messages, as whoever named it wrote it."""
    return address_of(place) or os.fspath(place)


def require_folder(place: Path | str) -> Path:
    """The folder of a gallery; `GalleryError` for an address, where this cannot be done."""
    if address := address_of(place):
        raise GalleryError(
            f"{address} is a place for pushed galleries, which can be searched: do this with the gallery in"
            " its folder, and push it again"
        )
    return Path(place)
