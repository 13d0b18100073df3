"""The one way to ask a gallery: a strategy and queries in, hits out."""

from __future__ import annotations

import numpy as np

from ..gallery.gallery import Gallery
from .gated import gated_hits
from .hits import Bools, Hits
from .queries import Queries
from .stages import staged
from .strategy import Strategy


def search(
    gallery: Gallery, strategy: Strategy, queries: Queries, k: int, allowed: Bools | None = None
) -> Hits:
    """The k best images for each query, of those that are allowed.

    Args:
        gallery: open.
        strategy: how: see `Strategy`.
        queries: vectors in `EncodedQueries`, images of the gallery in `Stored`, or whatever encodes itself.
        k: hits wanted, in 1..number of images.
        allowed: (keys,) which keys may be answered, as `Gallery.allowed` gives them; by default all that were
            not deleted.

    Raises:
        TypeError: an argument of another type.
        GalleryError: k is out of range, or strategy or queries do not fit the gallery.
    """
    _require_types(gallery, strategy, queries, k)
    answer = gated_hits if strategy.kind == "gated" else staged
    return answer(gallery, strategy, queries, k, allowed)


def _require_types(gallery: object, strategy: object, queries: object, k: object) -> None:
    if not isinstance(gallery, Gallery):
        raise TypeError(f"gallery is {gallery!r}: it has to be a Gallery")
    if not isinstance(strategy, Strategy):
        raise TypeError(f"strategy is {strategy!r}: it has to be a Strategy, such as Strategy.shortlist()")
    if not (hasattr(queries, "encode") and hasattr(queries, "take")):
        raise TypeError(f"queries are {type(queries).__name__}: vectors have to be EncodedQueries, say")
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise TypeError(f"k is {k!r}: it has to be a whole number")
