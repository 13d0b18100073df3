"""Synthetic embeddings with the structure that Matryoshka training (MRL, arXiv 2205.13147) gives real ones.

A vector is its class's centre plus a residual of its own, both Gaussian with a standard deviation that falls
along the coordinates, steeply for centres and gently for residuals; then it is L2-normalised:

    x = normalise(c_class * s_centre + 0.8 * g * s_residual),
    s_centre[i]^2 ~ (1 + i / 8)^-1.5, s_residual[i]^2 ~ (1 + i / 8)^-0.75, each of unit sum.

So a prefix names the class early, and orders the neighbours within it late. What was to be met is what is
published of a real MRL embedding (text-embedding-3-large, 1M DBpedia texts, by
supabase.com/blog/matryoshka-embeddings): with an HNSW index, 1/6 of the dims and a shortlist of 8 k lead to
0.99 of the exact k nearest, half the dims alone to 0.89. Here, with 1M rows and exact search by the prefix,
it is 0.97 and 0.70: somewhat harder. results/million.json has the measured shares (`prefix_recall`).

Not modelled: classes of unequal size, and that a query encoded at a small width is another vector than at
full width. There are about as many classes as an inverted file has cells, which suits every side that has
cells.

Blocks are drawn from seeds of their own: any rows can be made alone, and the number of rows changes none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
BLOCK_ROWS = 50_000
# Queries are drawn like the rows, from blocks that no gallery reaches.
QUERY_BLOCK = 1 << 40


@dataclass(frozen=True)
class Structured:
    """The distribution: rows of `dim` coordinates in `classes` classes."""

    dim: int = 512
    classes: int = 1000
    seed: int = 0

    def _spectrum(self, power: float) -> Floats:
        variance = (1 + np.arange(self.dim) / 8) ** -power
        return np.sqrt(variance / variance.sum()).astype(np.float32)

    @cached_property
    def _centres(self) -> Floats:
        rng = np.random.default_rng(self.seed)
        return rng.standard_normal((self.classes, self.dim), dtype=np.float32) * self._spectrum(1.5)

    def block(self, number: int, rows: int = BLOCK_ROWS) -> Floats:
        """(rows, dim) unit vectors, drawn from the seed of this block."""
        rng = np.random.default_rng((self.seed, number))
        x = rng.standard_normal((rows, self.dim), dtype=np.float32)
        x *= np.float32(0.8) * self._spectrum(0.75)
        x += self._centres[rng.integers(self.classes, size=rows)]
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x

    def blocks(self, rows: int, start: int = 0) -> Iterator[tuple[int, Floats]]:
        """The vectors `start` to `rows` as (key of the first, rows), in blocks of bounded size."""
        for number in range(start // BLOCK_ROWS, -(-rows // BLOCK_ROWS)):
            first, last = max(start, number * BLOCK_ROWS), min(rows, (number + 1) * BLOCK_ROWS)
            yield first, self.block(number)[first - number * BLOCK_ROWS : last - number * BLOCK_ROWS]

    def queries(self, nq: int) -> Floats:
        """(nq, dim) unit vectors that no gallery holds."""
        return self.block(QUERY_BLOCK, nq)


def exact_keys(blocks: Iterator[Floats], xq: Floats, k: int) -> NDArray[np.int64]:
    """(nq, k) keys of the nearest of all rows, which come in blocks."""
    found = faiss.ResultHeap(len(xq), k, keep_max=True)
    first = 0
    for xb in blocks:
        D, I = faiss.knn(xq, xb, min(k, len(xb)), metric=faiss.METRIC_INNER_PRODUCT)  # noqa: E741
        found.add_result(D, I + first)
        first += len(xb)
    found.finalize()
    return found.I


def overlap(I: NDArray[np.int64], exact: NDArray[np.int64]) -> float:  # noqa: E741
    """ann_recall: the share of the exact keys (nq, k) that was found among (nq, K)."""
    return float(np.mean([np.isin(truth, row).mean() for row, truth in zip(I, exact, strict=True)]))
