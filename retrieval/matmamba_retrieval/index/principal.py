"""Indexes over the principal coordinates of a gallery: a rotation learned from it, then cells and codes.

Training with nested prefixes (MRL) puts what matters most into the leading coordinates; the directions in
which a gallery varies most put still more into as many. The rotation is kept in FAISS's file of the index,
with its checksum: stored vectors are those of the encoder, and the rerank compares these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .few_rows import quiet_if_few
from .library import faiss

Floats = NDArray[np.float32]
# Fewer coordinates save little time, and short embeddings need most of theirs.
LEAST = 32


def default_dims(dim: int) -> int:
    """How many of `dim` principal coordinates are compared, unless told otherwise."""
    return max(min(dim, LEAST), dim // 4)


def rotation(xt: Floats, dims: int) -> Any:
    """The transform to the `dims` directions in which (n, D) vectors have most of their squared length.

    FAISS's PCAMatrix moves the mean to the origin as well, which changes the order of inner products.
    """
    moments = xt.T @ xt
    _, directions = np.linalg.eigh(moments.astype(np.float64))
    leading = np.ascontiguousarray(directions[:, ::-1][:, :dims].T, dtype=np.float32)
    transform = faiss.LinearTransform(xt.shape[1], dims, False)
    faiss.copy_array_to_vector(leading.ravel(), transform.A)
    transform.set_is_orthonormal()
    transform.is_trained = True
    return transform


def principal_index(xt: Floats, dims: int, cells: int) -> Any:
    """The trained, empty index: cells, and codes of the residuals of 4 bits for each principal coordinate.

    Args:
        xt: (n, D) vectors to train with.
        dims: principal coordinates.
        cells: of the inverted file.
    """
    codes = faiss.index_factory(dims, f"IVF{cells},PQ{dims}x4fsr", faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexPreTransform(codes)
    index.prepend_transform(rotation(xt, dims))
    quiet_if_few(codes, len(xt))
    codes.train(index.chain.at(0).apply(xt))
    index.is_trained = True
    return index
