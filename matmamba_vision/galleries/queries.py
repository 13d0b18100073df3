"""What a caller asks with: images, ids of the gallery, and vectors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matmamba_common.words import shown
from matmamba_datasets import Limits
from matmamba_datasets.frame_names import frame_of
from matmamba_retrieval import GalleryError
from matmamba_retrieval.gallery.gallery import UNIT_TOLERANCE
from matmamba_retrieval.remedies import LIST
from matmamba_retrieval.strategies.searchable import Searchable
from numpy.typing import NDArray
from PIL import Image

from ..given import require_path, require_texts
from .given_images import ALLOWED, ImageLike, require_image
from .given_vectors import GivenVectors
from .query_images import Asked, local_path
from .text_queries import TextQuery

Floats = NDArray[np.float32]
# One query.
QueryLike: TypeAlias = "ImageLike | Asked | NDArray[np.floating]"
_ONE = (str, os.PathLike, Image.Image, np.ndarray, bytes, bytearray, memoryview, Asked)


@dataclass(frozen=True)
class StoredQuery:
    """An image that the gallery has.

    Attributes:
        name: its id.
        key: of it.
    """

    name: str
    key: int


@dataclass(frozen=True)
class VectorQuery:
    """A vector.

    Attributes:
        name: what answers call it.
        xq: (D,) float32, of length 1.
    """

    name: str
    xq: Floats


Query: TypeAlias = Asked | StoredQuery | VectorQuery | TextQuery


def is_one(query: Any) -> bool:
    """Whether a caller asks with one query, and not with several."""
    return isinstance(query, _ONE)


def read_queries(query: Any, gallery: Searchable, reading: Limits, name: str = "query") -> list[Query]:
    """The queries that a caller hands over.

    Args:
        query: one, a sequence of them, or None for none.
        gallery: that is asked.
        reading: limits that files are read within.
        name: of the argument.

    Raises:
        TypeError: something that is no query.
        GalleryError: a text that is neither a file nor an id, a folder, or a vector that does not fit.
    """
    if query is None:
        return []
    if is_one(query):
        return [_read(name, query, gallery, reading)]
    if not isinstance(query, Sequence):
        raise TypeError(f"{name} is {shown(query)}: it can be an id, a vector (D,), {ALLOWED}, or a list")
    return [_read(f"{name}[{place}]", one, gallery, reading) for place, one in enumerate(query)]


def _read(name: str, value: Any, gallery: Searchable, reading: Limits) -> Query:
    if isinstance(value, Asked):
        return value
    if isinstance(value, str):
        return _named(name, value, gallery, reading)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        if value.ndim == 3:
            raise TypeError(
                f"{name} is an array of {value.dtype}, shape {value.shape}: it can be an image, (H, W, 3) of"
                " uint8, or a vector (D,)"
            )
        return VectorQuery(name, unit_vectors(name, value, gallery.spec.dim, 1)[0])
    require_image(name, value)
    return Asked.of(str(value) if isinstance(value, os.PathLike) else name, value, reading)


def _named(name: str, value: str, gallery: Searchable, reading: Limits) -> Query:
    """A file that is there, or else an image of the gallery, or a frame of a video that is there."""
    path = Path() if "://" in value and not value.lower().startswith("file:") else local_path(value)
    if path.is_file():
        return Asked(value, path, reading)
    if value in (known := gallery.keys_of([value])):
        return StoredQuery(value, known[value])
    if (frame := frame_of(str(path))) is not None and Path(frame[0]).is_file():
        return Asked(value, path, reading)
    if value and path.is_dir() and path != Path():
        raise GalleryError(f"{name} {value} is a folder: give a list of its images")
    raise GalleryError(f"{name} {value!r} is neither a file nor an id of {gallery.folder}")


def stored_queries(name: str, ids: Any, gallery: Searchable) -> list[StoredQuery]:
    """Images of the gallery as queries.

    Args:
        name: of the argument.
        ids: of the images, one or several.
        gallery: that has them.

    Raises:
        TypeError: ids that are no texts.
        GalleryError: it does not have one.
    """
    ids = require_texts(name, ids)
    if not ids:
        return []
    known = gallery.keys_of(ids)
    for one in ids:
        if one not in known:
            raise GalleryError(f"{name}: {gallery.folder} has no image of id {one!r}: {LIST} tells them")
    return [StoredQuery(one, known[one]) for one in ids]


def vector_parts(vectors: Any, gallery: Searchable) -> tuple[int, Iterator[tuple[list[str], Floats]]]:
    """How many query vectors there are, and their names and themselves (n, D) in parts of bounded size.

    Args:
        vectors: an array (n, D), the path of a file, a file with the name of its model, or None for none.
        gallery: that is asked.

    Raises:
        TypeError: none of these.
        GalleryError: no such file, vectors not of length 1, of other dims, or of another model.
    """
    if vectors is None:
        return 0, iter(())
    if isinstance(vectors, np.ndarray):
        xq = unit_vectors("vectors", vectors, gallery.spec.dim, 2)
        return len(xq), iter([([f"vectors[{place}]" for place in range(len(xq))], xq)])
    if not isinstance(vectors, GivenVectors):
        vectors = GivenVectors(require_path("vectors", vectors))
    opened = vectors.opened(gallery)
    return len(opened), (([row.id for row in rows], xq) for rows, xq in vectors.parts(opened))


def unit_vectors(name: str, vectors: NDArray[np.generic], dim: int, axes: int) -> Floats:
    """(n, D) float32 of an array (D,) or (n, D) of vectors that have length 1.

    Args:
        name: of the argument.
        vectors: as they were given.
        dim: D, of the gallery.
        axes: how many the array has to have, 1 or 2.

    Raises:
        TypeError: no floats, or another number of axes.
        GalleryError: another D, or a vector of another length.
    """
    shape = "(D,)" if axes == 1 else "(n, D)"
    if vectors.dtype.kind != "f" or vectors.ndim != axes:
        raise TypeError(
            f"{name} is an array of {vectors.dtype}, shape {vectors.shape}: it can be floats {shape}"
        )
    if vectors.shape[-1] != dim:
        raise GalleryError(f"{name} has {vectors.shape[-1]} dims: vectors of this gallery have {dim}")
    xq = np.array(vectors, dtype=np.float32, ndmin=2)
    # Of one vector it takes a third of the time of NumPy's norm.
    lengths = np.sqrt(np.einsum("nd,nd->n", xq, xq))
    # Written so that NaN counts as bad.
    if not (good := np.abs(lengths - 1) <= UNIT_TOLERANCE).all():
        bad = int(np.flatnonzero(~good)[0])
        raise GalleryError(
            f"{name}: vector {bad} has length {lengths[bad]:g}: divide it by that, for it has to be 1"
        )
    return xq
