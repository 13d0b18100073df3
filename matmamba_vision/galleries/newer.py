"""Whether a gallery has something newer than what a reader sees of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matmamba_retrieval.strategies.searchable import Searchable

from .light_files import light_files


def state_of(gallery: Searchable) -> tuple[Any, ...]:
    """What a newer version differs in from that which a reader sees, as it is there now.

    What the gallery says, and the encoders that it keeps.

    Raises:
        GalleryError: its catalogue cannot be read, or its engine does not answer.
    """
    # A gallery that was pushed has no folder, and keeps none.
    files = light_files(Path(gallery.folder), gallery.spec.checkpoint)
    encoders = [(file.name, file.stat().st_mtime_ns) for file in files if file.exists()]
    return *gallery.newest(), tuple(encoders)
