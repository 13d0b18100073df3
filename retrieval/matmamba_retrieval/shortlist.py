"""FAISS indexes over embedding prefixes: the cheap first stage."""

from __future__ import annotations

import logging
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from .errors import GalleryError
from .files import require_checksum, write_new
from .records import ShortlistRecord
from .rerank import NO_KEY, prefix
from .segments import Segments

log = logging.getLogger(__name__)
# FAISS asks for at most this many training vectors a centroid.
TRAINING_ROWS = 262_144


def build_index(segments: Segments, rows: int, dim: int, factory: str) -> faiss.Index:
    """A FAISS index over the normalised `dim` leading coordinates of the first `rows` keys.

    Raises:
        GalleryError: FAISS does not understand `factory`, or has too few vectors to train it with.
    """
    index = empty_index(dim, factory)
    try:
        if not index.is_trained:
            sample = np.random.default_rng(0).choice(rows, min(rows, TRAINING_ROWS), replace=False)
            index.train(prefix(segments.read(np.sort(sample)), dim))
        for first, xb in segments.blocks():
            index.add(prefix(xb[: rows - first], dim))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise GalleryError(
            f"FAISS cannot build {factory!r} over {rows} vectors of {dim} dims: {reason}"
        ) from error
    return index


def empty_index(dim: int, factory: str) -> faiss.Index:
    """An untrained index by inner product; `GalleryError` if FAISS does not understand `factory`."""
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise GalleryError(f"FAISS knows no index {factory!r} over {dim} dims") from error


def save_index(
    folder: Path, index: faiss.Index, name: str, width: str, dim: int, factory: str
) -> ShortlistRecord:
    """Write an index under a name never used before; it counts when the catalogue knows of it."""
    file, sha256 = write_new(folder, ".faiss", [faiss.serialize_index(index).data])
    return ShortlistRecord(name, width, dim, factory, int(index.ntotal), file, sha256)


def load_index(folder: Path, record: ShortlistRecord, segments: Segments) -> faiss.Index:
    """Read an index; one that is lost or damaged is built again from the vectors, with a warning."""
    try:
        require_checksum(folder / record.file, record.sha256)
        return faiss.read_index(str(folder / record.file))
    except GalleryError as error:
        log.warning("%s; building it again from the vectors (`matmamba gallery repair` keeps it)", error)
    return build_index(segments, min(record.rows, len(segments)), record.dim, record.recipe)


def search_index(
    index: faiss.Index, segments: Segments, xq: NDArray[np.float32], shortlist: int
) -> NDArray[np.int64]:
    """(nq, K) keys of the nearest prefixes, `NO_KEY` where FAISS found fewer.

    Rows newer than the index are compared one by one.
    """
    scores, keys = index.search(np.ascontiguousarray(xq), min(shortlist, int(index.ntotal)))
    for first, xb in segments.blocks(int(index.ntotal)):
        newer = np.broadcast_to(np.arange(first, first + len(xb)), (len(xq), len(xb)))
        scores = np.hstack([scores, xq @ prefix(xb, xq.shape[1]).T])
        keys = np.hstack([keys, newer])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :shortlist]
        scores, keys = np.take_along_axis(scores, best, 1), np.take_along_axis(keys, best, 1)
    return keys if keys.size else np.full((len(xq), 1), NO_KEY, dtype=np.int64)
