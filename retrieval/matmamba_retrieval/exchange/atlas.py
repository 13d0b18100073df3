"""A gallery for Embedding Atlas: a Parquet file with a map of the images and their nearest neighbours.

Embedding Atlas (github.com/apple/embedding-atlas, read at version 0.26) takes two columns as coordinates, one
of structs {ids, distances} as neighbours, where ids are row numbers from 0 and lists are equally long, and
one of structs {bytes} as pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..gallery.gallery import Gallery
from ..index.rerank import prefix
from ..storage.records import Row
from ..strategies.neighbours import neighbours
from ..strategies.strategy import Strategy
from .gallery_parquet import complete
from .parts import text_columns

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
_AT_ONCE = 4096
_NEIGHBOURS = pa.struct({"ids": pa.list_(pa.int64()), "distances": pa.list_(pa.float32())})


def export_atlas(
    gallery: Gallery,
    strategy: Strategy,
    file: Path,
    keys: Ints,
    k: int = 15,
    picture: Callable[[str], bytes | None] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write id, path, label, metadata (JSON), x, y, neighbors and, where asked for, image; returns the rows.

    x and y are the two principal components of the vectors. Neighbours are the k nearest, the image itself
    first among them; distances are 1 - cosine similarity.

    Args:
        keys: which images, ascending; neighbours are looked for among these.
        picture: encoded picture of a path, None if there is none.

    Raises:
        GalleryError: the file is there already, or cannot be written. It is complete or not there.
    """
    schema = _schema(picture is not None)
    allowed = np.zeros(gallery.key_count, dtype=bool)
    allowed[keys] = True
    k = min(k, len(keys))
    mean, axes = principal_axes(gallery, keys)
    with complete(file) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for part, D, I in neighbours(gallery, strategy, keys, k - 1, allowed):  # noqa: E741
            rows = gallery.rows(part)
            xy = (prefix(gallery.segments.read(part), gallery.spec.dim) - mean) @ axes.T
            columns = _texts(rows) | {"x": xy[:, 0], "y": xy[:, 1]}
            columns["neighbors"] = _lists(part, D, I, keys)
            if picture is not None:
                columns["image"] = [_image(picture(row.path)) for row in rows]
            writer.write_table(pa.table(columns, schema))
            progress(len(part))
    return len(keys)


def principal_axes(gallery: Gallery, keys: Ints) -> tuple[Floats, Floats]:
    """Mean (D,) and the two principal axes (2, D) of some vectors, read in blocks.

    The sign of an axis is such that its largest coordinate is positive.
    """
    dim = gallery.spec.dim
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for start in range(0, len(keys), _AT_ONCE):
        xb = prefix(gallery.segments.read(keys[start : start + _AT_ONCE]), dim).astype(np.float64)
        total += xb.sum(0)
        products += xb.T @ xb
    mean = total / len(keys)
    axes = np.linalg.eigh(products / len(keys) - np.outer(mean, mean))[1].T[::-1][:2]
    if len(axes) < 2:
        axes = np.vstack([axes, np.zeros(dim)])
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], axis=1)
    return mean.astype(np.float32), (axes * np.where(largest < 0, -1, 1)).astype(np.float32)


def _schema(pictures: bool) -> pa.Schema:
    texts = {name: pa.string() for name in ("id", "path", "label", "metadata")}
    image = {"image": pa.struct({"bytes": pa.binary()})} if pictures else {}
    return pa.schema(texts | {"x": pa.float32(), "y": pa.float32(), "neighbors": _NEIGHBOURS} | image)


def _texts(rows: Sequence[Row]) -> dict[str, Any]:
    """The columns of texts; images without metadata have none."""
    columns = text_columns(rows)
    return columns | {"metadata": [None if text == "{}" else text for text in columns["metadata"]]}


def _lists(part: Ints, D: Floats, I: Ints, keys: Ints) -> list[dict[str, list[float]]]:  # noqa: E741
    """Row numbers and distances, each image itself first, at distance 0."""
    own = np.searchsorted(keys, part)[:, None]
    ids = np.hstack([own, np.searchsorted(keys, I)])
    distances = np.hstack([np.zeros_like(own, dtype=np.float32), np.maximum(0, 1 - D)])
    return [
        {"ids": near.tolist(), "distances": far.tolist()} for near, far in zip(ids, distances, strict=True)
    ]


def _image(content: bytes | None) -> dict[str, bytes] | None:
    return None if content is None else {"bytes": content}
