"""Whether a gallery has something newer than what a reader sees of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matmamba_retrieval import Gallery

from .light_files import light_files


def state_of(gallery: Gallery) -> tuple[Any, ...]:
    """What a newer version differs in from that which a reader sees, as the catalogue has it now.

    Its generation and version, its indexes, its plan and the encoders that it keeps.

    Raises:
        GalleryError: the catalogue cannot be read.
    """
    catalog = gallery.catalog
    generation = catalog.current()
    newest = catalog.newest(generation.number)
    indexes = [record.file for record in catalog.shortlists(generation.number)]
    plan = json.dumps(catalog.plan(generation.number), sort_keys=True)
    encoders = [(file.name, file.stat().st_mtime_ns) for file in _there(gallery, generation.spec.checkpoint)]
    version = newest.number if newest else 0
    return generation.number, generation.spec, version, tuple(indexes), plan, tuple(encoders)


def _there(gallery: Gallery, checkpoint: str) -> list[Path]:
    return [file for file in light_files(gallery.folder, checkpoint) if file.exists()]
