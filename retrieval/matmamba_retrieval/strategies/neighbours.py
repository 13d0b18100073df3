"""The nearest other images of each image of a gallery, by a search over the gallery's own vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..index.rerank import NO_KEY
from .engines import AnyGallery
from .examples import Stored
from .search import search
from .searchable import Selection
from .strategy import Strategy

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
# Images that are searched for at once.
AT_ONCE = 1024


def neighbours(
    gallery: AnyGallery, strategy: Strategy, keys: Ints, k: int, allowed: Selection | None = None
) -> Iterator[tuple[Ints, Floats, Ints]]:
    """For some images of a gallery their k nearest others, in blocks of bounded size.

    Args:
        keys: the images.
        k: neighbours of each, the image itself not counted.
        allowed: (keys,) which images may be neighbours.

    Yields:
        Keys (n,), D (n, k) and I (n, k) as in `Hits`: -inf and `NO_KEY` where an image has fewer others.
    """
    asked = min(k + 1, len(gallery))
    for start in range(0, len(keys), AT_ONCE):
        part = keys[start : start + AT_ONCE]
        hits = search(gallery, strategy, Stored(gallery, part), asked, allowed)
        yield part, *without(hits.D, hits.I, part, k)


def without(D: Floats, I: Ints, keys: Ints, k: int) -> tuple[Floats, Ints]:  # noqa: E741
    """The k best hits of each query but one key, for (nq, k + 1 or fewer) hits; (nq,) `keys` to leave out."""
    # A stable sort moves the unwanted hit, or else the worst one, to the end.
    order = np.argsort(keys[:, None] == I, axis=1, kind="stable")[:, :k]
    kept_D, kept = np.take_along_axis(D, order, axis=1), np.take_along_axis(I, order, axis=1)
    unwanted = kept == keys[:, None]
    kept_D, kept = np.where(unwanted, np.float32(-np.inf), kept_D), np.where(unwanted, NO_KEY, kept)
    missing = ((0, 0), (0, k - kept.shape[1]))
    return np.pad(kept_D, missing, constant_values=-np.inf), np.pad(kept, missing, constant_values=NO_KEY)
