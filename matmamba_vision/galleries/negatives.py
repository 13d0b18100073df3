"""What answers should not be like: ids of the gallery, vectors, and images to be encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from matmamba_datasets import BrokenImageError, Limits
from matmamba_retrieval import GalleryError, Queries
from matmamba_retrieval.storage.spec import made_elsewhere
from matmamba_retrieval.strategies.examples import Joined, Stored
from matmamba_retrieval.strategies.searchable import Searchable
from numpy.typing import NDArray

from .queries import StoredQuery, VectorQuery, read_queries
from .query_images import Asked, read_batch
from .search_pass import VectorQueries

if TYPE_CHECKING:
    from .image_queries import QueryEncoder

# Queries to keep away from, and keys of those that the gallery has.
Away: TypeAlias = tuple[Queries | None, NDArray[np.int64]]


def read_negatives(
    unlike: Any, gallery: Searchable, limits: Limits, encoder: Callable[[], QueryEncoder]
) -> Away:
    """What queries are moved away from, and keys of those in the gallery.

    Args:
        unlike: one, a sequence of them, or none.
        gallery: that is asked.
        limits: that files are read within.
        encoder: gives what encodes images; called where there is one.

    Raises:
        GalleryError: as `read_queries`; or images for vectors that were made elsewhere.
        BrokenImageError: an image that cannot be read.
    """
    read = read_queries(unlike, gallery, limits, "unlike")
    if not read:
        return None, np.empty(0, np.int64)
    found = np.array([one.key for one in read if isinstance(one, StoredQuery)], dtype=np.int64)
    vectors = [one.xq for one in read if isinstance(one, VectorQuery)]
    parts: list[Queries] = [Stored(gallery, found)] if len(found) else []
    parts += [VectorQueries(np.stack(vectors))] if vectors else []
    parts += _encoded([one for one in read if isinstance(one, Asked)], gallery, encoder)
    return Joined(parts), found


def _encoded(
    asked: Sequence[Asked], gallery: Searchable, encoder: Callable[[], QueryEncoder]
) -> list[Queries]:
    """Images that answers should not be like, to be encoded; none for none."""
    if not asked:
        return []
    if made_elsewhere(gallery.spec):
        raise GalleryError(f"unlike {asked[0].name}: {gallery.folder} has no model for images; give an id")
    known = encoder()
    _, images, broken = read_batch(asked, known.read)
    for position, reason in broken.items():
        raise BrokenImageError(asked[position].name, reason)
    return [known.queries(images)]
