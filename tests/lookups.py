"""What an index of a gallery finds, before anything is reranked."""

from __future__ import annotations

import numpy as np
from matmamba_retrieval import Gallery, Step
from matmamba_retrieval.strategies.indexes import require_index


def by_index(
    gallery: Gallery,
    xq: np.ndarray,
    length: int,
    *,
    allowed: np.ndarray | None = None,
    effort: int | None = None,
    gallery_width: str = "full",
) -> np.ndarray:
    """(nq, K) keys whose prefixes are nearest to (nq, dim) normalised ones, by the index over that dim."""
    step = Step(dim=xq.shape[1], length=length, gallery_width=gallery_width, effort=effort)
    return require_index(gallery, step).search(xq, length, allowed, effort)
