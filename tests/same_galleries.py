"""When two galleries are the same: all that a search, an export or another job can see of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matmamba_retrieval import Gallery
from matmamba_retrieval.storage.sources import known_facts


def content(folder: Path) -> dict[str, Any]:
    """Of a gallery to the bit: what made it, rows in their order, files, vectors, indexes by checksum.

    How rows are spread over files of vectors is not in it: that depends on the time that a run takes.
    """
    with Gallery(folder) as gallery:
        keys = gallery.live_keys()
        rows = gallery.rows(keys)
        widths = (gallery.spec.width, *gallery.generation.widths)
        return {
            "spec": gallery.spec,
            "checkpoint": gallery.checkpoint_path,
            "keys": keys.tolist(),
            "rows": rows,
            "files": known_facts(gallery.catalog, [row.id for row in rows]),
            "vectors": {width: gallery.segments_of(width).read(keys).tobytes() for width in widths},
            "indexes": [(one.name, one.sha256) for one in gallery.shortlists()],
        }
