"""The one way to ask a gallery: a strategy and queries in, hits out."""

from __future__ import annotations

import numpy as np
from matmamba_common.words import in_words, shown

from ..gallery.gallery import Gallery
from .engines import AnyGallery
from .gated import gated_hits
from .hits import Hits
from .queries import Queries
from .searchable import Selection
from .stages import staged
from .strategy import Strategy


def search(
    gallery: AnyGallery, strategy: Strategy, queries: Queries, k: int, allowed: Selection | None = None
) -> Hits:
    """The k best images for each query, of those that are allowed.

    Args:
        gallery: open, of a folder or on an engine.
        strategy: how: see `Strategy`.
        queries: vectors in `EncodedQueries`, images of the gallery in `Stored`, or whatever encodes itself.
        k: hits wanted, in 1..number of images.
        allowed: which images may be answered, as `allowed` of the gallery gives them: of a folder's (keys,)
            truth values; by default all that were not deleted.

    Raises:
        TypeError: an argument of another type.
        GalleryError: k is out of range, or strategy or queries do not fit the gallery.
    """
    if not (
        isinstance(gallery, Gallery)
        and isinstance(strategy, Strategy)
        and isinstance(k, int)
        and hasattr(queries, "encode")
    ):
        k = _checked(gallery, strategy, queries, k)
    if strategy.kind == "gated":
        return gated_hits(gallery, strategy, queries, k, allowed)
    return staged(gallery, strategy, queries, k, allowed)


def _checked(gallery: object, strategy: object, queries: object, k: object) -> int:
    """k as Python's own number; `TypeError` naming the argument that is of another type."""
    if not isinstance(gallery, Gallery) and not hasattr(gallery, "staged"):
        raise TypeError(f"gallery is {shown(gallery)}: it can be a Gallery")
    if not isinstance(strategy, Strategy):
        raise TypeError(f"strategy is {shown(strategy)}: it can be a Strategy, such as Strategy.shortlist()")
    if not hasattr(queries, "encode"):
        raise TypeError(f"queries is {shown(queries)}: it can be EncodedQueries, for vectors")
    if not isinstance(k, (int, np.integer)):
        raise TypeError(f"k is {shown(k)}: it can be {in_words(int)}")
    return int(k)
