"""Indexes that use several prefixes of one embedding: AdANNS (arXiv 2305.19435)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .few_rows import quiet_if_few
from .library import faiss
from .rerank import Floats, Ints, prefix

# k-means passes, as FAISS's own inverted files do.
PASSES = 10
# The rotation hardly changes after so many steps, and needs no more rows.
ROTATIONS, ROTATION_ROWS = 10, 16_384


class TwoPrefixes:
    """Cells by one prefix, compared by another, which may be shorter or longer: AdANNS-IVF, section 4.1.

    FAISS's IndexIVFIndependentQuantizer keeps both parts in one file; its own search takes neither filters
    nor a prefix that is normalised again, so its parts are called one by one.
    """

    def __init__(self, index: Any) -> None:
        self.index, self._cells = index, faiss.downcast_index(index.quantizer)
        self._lists = faiss.downcast_index(index.index_ivf)

    @staticmethod
    def train(xt: Floats, cluster: int, compared: int, cells: int) -> TwoPrefixes:
        """An empty index, trained by (n, D) vectors, of 8 bits for each coordinate compared."""
        kmeans = faiss.Kmeans(cluster, cells, niter=PASSES, spherical=True, seed=0, min_points_per_centroid=1)
        kmeans.train(prefix(xt, cluster))
        quantizer = faiss.IndexFlatIP(cluster)
        quantizer.add(kmeans.centroids)
        # Its own quantizer stays empty: cells are always given to it.
        unused, bits = faiss.IndexFlatIP(compared), faiss.ScalarQuantizer.QT_8bit
        lists = faiss.IndexIVFScalarQuantizer(
            unused, compared, cells, bits, faiss.METRIC_INNER_PRODUCT, False
        )
        lists.sq.train(prefix(xt, compared))
        lists.is_trained = True
        index = faiss.IndexIVFIndependentQuantizer(
            quantizer, lists, faiss.RemapDimensionsTransform(cluster, compared, False)
        )
        index.is_trained = True
        return TwoPrefixes(index)

    def add(self, xb: Floats) -> None:
        """Add (n, max(cluster, compared) or more) vectors."""
        cells = self._nearest_cells(xb, 1)[1]
        keys = np.arange(self.index.ntotal, self.index.ntotal + len(xb))
        codes = prefix(xb, self._lists.d)
        self._lists.add_core(len(xb), *map(faiss.swig_ptr, (codes, keys, cells)))
        self.index.ntotal = self._lists.ntotal

    def search(self, xq: Floats, shortlist: int, effort: int, selector: Any) -> tuple[Floats, Ints]:
        """Scores and keys (nq, K) of the nearest among `effort` cells."""
        nearness, cells = self._nearest_cells(xq, effort)
        codes = prefix(xq, self._lists.d)
        D = np.empty((len(xq), shortlist), dtype=np.float32)
        I = np.empty((len(xq), shortlist), dtype=np.int64)  # noqa: E741
        # FAISS's Python function of this name takes no parameters, and so no filter.
        codes_, cells_, nearness_, D_, I_ = map(faiss.swig_ptr, (codes, cells, nearness, D, I))
        parameters = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        self._lists.search_preassigned_c(
            len(xq), codes_, shortlist, cells_, nearness_, D_, I_, False, parameters
        )
        D[I < 0] = -np.inf
        return D, I

    def _nearest_cells(self, x: Floats, count: int) -> tuple[Floats, Ints]:
        return self._cells.search(prefix(x, self._cells.d), count)


def opq_index(xt: Floats, xq: Floats, exact: Ints, bytes_a_row: int, dims: list[int]) -> Any:
    """The trained, empty OPQ index over the prefix that serves a byte budget best: AdANNS-OPQ, section 4.2.

    Codes are of 4 bits, for fast scan; the paper's, of 8 bits, take minutes to train.

    Args:
        xt: (n, D) vectors to train with and to judge by.
        xq: (nq, D) queries.
        exact: (nq, k) rows of `xt` that are nearest to them.
        dims: prefixes to try, multiples of twice `bytes_a_row`.
    """
    best, most = None, -1.0
    for dim in dims:
        index, base = _opq(dim, 2 * bytes_a_row), prefix(xt, dim)
        quiet_if_few(index, len(base))
        index.train(base)
        index.add(base)
        _, found = index.search(prefix(xq, dim), 10 * exact.shape[1])
        share = float(np.mean([np.isin(truth, row).mean() for row, truth in zip(found, exact, strict=True)]))
        if share > most:
            best, most = index, share
    assert best is not None
    best.reset()
    return best


def _opq(dim: int, parts: int) -> Any:
    """A rotation, then product quantisation with 4 bits a part."""
    rotation = faiss.OPQMatrix(dim, parts)
    rotation.niter, rotation.max_train_points = ROTATIONS, ROTATION_ROWS
    # It takes 8 bits unless given a quantizer to train with.
    rotation.pq = faiss.ProductQuantizer(dim, parts, 4)
    rotation.pq.cp.min_points_per_centroid = 1
    index = faiss.IndexPreTransform(faiss.index_factory(dim, f"PQ{parts}x4fs", faiss.METRIC_INNER_PRODUCT))
    index.prepend_transform(rotation)
    return index
