"""Training with few vectors: FAISS complains once for each part of a code, this library once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from .library import faiss
from .recipes import ROWS_PER_CELL

log = logging.getLogger(__name__)


def quiet_if_few(index: Any, rows: int) -> None:
    """Say once that an index is trained with few vectors, and keep FAISS from saying so.

    Args:
        index: FAISS's, not yet trained.
        rows: that it is trained with.
    """
    clusterings = list(_clusterings(index))
    wanted = ROWS_PER_CELL * max((count for _, count in clusterings), default=0)
    if rows < wanted:
        log.info("%d images train an index for which FAISS asks for %d or more", rows, wanted)
    for parameters, _ in clusterings:
        parameters.min_points_per_centroid = 1


def _clusterings(index: Any) -> Iterator[tuple[Any, int]]:
    """The parameters of each k-means of an index, with the number of its centroids."""
    core = faiss.downcast_index(index)
    if isinstance(core, faiss.IndexPreTransform | faiss.IndexIDMap):
        yield from _clusterings(core.index)
    elif isinstance(core, faiss.IndexRefine):
        yield from _clusterings(core.base_index)
    if isinstance(core, faiss.IndexIVF):
        yield core.cp, core.nlist
    if hasattr(core, "pq"):
        yield core.pq.cp, core.pq.ksub
