"""Indexes of a gallery: built from its vectors, kept in files, searched together with newer rows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import GalleryError
from ..remedies import REPAIR
from ..storage.files import INDEX, new_file, require_checksum, system_errors
from ..storage.records import ShortlistRecord
from ..storage.segments import Segments
from .adanns import TwoPrefixes, opq_index
from .few_rows import quiet_if_few
from .library import faiss
from .principal import default_dims, principal_index
from .recipes import AUTO, RECIPES, cells, choose, factory_of, more_cells, split
from .rerank import NO_KEY, Floats, Ints, best_of, pair_scores, prefix
from .shortlist_index import Allowed, ShortlistIndex, gpus, tune

log = logging.getLogger(__name__)
# Training takes at most so many vectors and bytes: FAISS uses 256 a centroid, and memory is bounded.
TRAINING_ROWS, TRAINING_BYTES = 262_144, 256 << 20
# The effort of a search is chosen by so many stored vectors: their 10 nearest shall be in a shortlist of 100,
# but for a tenth of what may be lost in all, as the prefix and the codes lose the rest.
TUNING_QUERIES, TUNING_K, TUNING_SHORTLIST, TUNING_LOSS = 256, 10, 100, 0.1
# So few rows that a filter leaves are compared one by one: a graph or cells would mostly meet others.
FEW_ALLOWED = 2_000
CHUNK_ROWS = 4_096
# Of the tables of residual product quantisers (FAISS's precomputed_table_max_bytes).
TABLE_BYTES = 2 << 30


def build_index(
    segments: Segments, rows: int, dim: int, recipe: str, recall: float = 0.99, budget: float = math.inf
) -> ShortlistIndex:
    """An index over the normalised `dim` leading coordinates of the first `rows` keys.

    Args:
        recipe: a name of `RECIPES`, a FAISS factory string, or "auto".
        recall: aimed at by a shortlist long enough: it sets the effort of a search; for "auto", see `choose`.
        budget: bytes, for "auto".

    Raises:
        GalleryError: FAISS does not understand `recipe`, or has too few vectors to train it with.
    """
    recipe = choose(rows, dim, budget, recall) if recipe == AUTO else recipe
    try:
        index = _trained(segments, rows, dim, recipe)
        add = TwoPrefixes(index.faiss_index).add if index.is_two_prefixes else index.faiss_index.add
        for _, xb in segments.blocks(0, rows):
            add(prefix(xb, dim if index.is_two_prefixes else index.faiss_index.d))
        if index.efforts and rows > 1:  # a lone row has no neighbours to judge by
            _tune(index, segments, rows, recall)
        index.use_gpu()
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise GalleryError(
            f"FAISS cannot build {recipe!r} over {rows} vectors of {dim} dims: {reason}"
        ) from error
    return index


def empty_index(dim: int, factory: str) -> faiss.Index:
    """An untrained index by inner product.

    Raises:
        GalleryError: FAISS does not understand `factory`, or its numbers do not go with `dim`.
    """
    if factory == AUTO or factory_of(factory, TRAINING_ROWS, dim) is None:
        name, numbers = split(factory)
        if name == "adanns-ivf":
            _two_dims(factory, numbers, dim)
        if name == "pca-ivfpq":
            _principal(factory, numbers, dim, TRAINING_ROWS)
        if name == "adanns-opq":
            _opq_dims(factory, _opq_bytes(numbers, dim), dim)
        return faiss.IndexLSH(dim, dim, False, False)
    try:
        factory = factory_of(factory, TRAINING_ROWS, dim) or ""
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise GalleryError(
            f"no index over {dim} dims is called {factory!r}: it can be {', '.join(RECIPES)}, or a factory"
            " string of FAISS"
        ) from error


def save_index(
    folder: Path, index: ShortlistIndex, *, name: str, width: str, dim: int, recipe: str
) -> ShortlistRecord:
    """Write an index under a name never used before; it counts when the catalogue knows of it."""
    with new_file(folder, INDEX) as file:
        index.write(file.write)
    return ShortlistRecord(
        name=name,
        width=width,
        dim=dim,
        recipe=recipe,
        rows=index.ntotal,
        file=file.name,
        sha256=file.sha256,
    )


def load_index(folder: Path, record: ShortlistRecord, segments: Segments) -> ShortlistIndex:
    """Read an index; one that is lost, damaged or foreign is built again from the vectors, with a warning."""
    try:
        return _read(folder / record.file, record)
    except (GalleryError, RuntimeError) as error:
        log.warning("%s; building it again from the vectors: %s keeps it", error, REPAIR)
    return build_index(segments, min(record.rows, len(segments)), record.dim, record.recipe)


def _read(file: Path, record: ShortlistRecord) -> ShortlistIndex:
    # First: FAISS's files carry no checksum, and its reader is not made for hostile ones.
    require_checksum(file, record.sha256)
    limit = faiss.get_deserialization_vector_byte_limit()
    # No array in it can be longer than the file; the limit is also one for the tables that FAISS derives.
    with system_errors(f"read {file}"):
        size = file.stat().st_size
    faiss.set_deserialization_vector_byte_limit(size + TABLE_BYTES)
    try:
        index = faiss.read_index(str(file))
    finally:
        faiss.set_deserialization_vector_byte_limit(limit)
    if index.ntotal != record.rows:
        raise GalleryError(f"{file} holds {index.ntotal} rows, not {record.rows}")
    found = ShortlistIndex(index, record.dim, record.recipe)
    found.use_gpu()
    return found


def search_index(
    index: ShortlistIndex,
    segments: Segments,
    xq: Floats,
    shortlist: int,
    allowed: Allowed | None = None,
    effort: int = 0,
) -> Ints:
    """(nq, K) keys of the nearest prefixes that are allowed, best first, equal ones in the order of the keys.

    `shortlist` of them, or as many as are allowed. Rows newer than the index are compared one by one.

    Args:
        xq: (nq, dim) normalised.
        allowed: (key count,) bool; None allows all.
        effort: cells to look into (nprobe) or length of the walk (efSearch); 0 takes what was found right
            when it was built.
    """
    count, rows = len(segments), index.ntotal
    known = rows if allowed is None else int(np.count_nonzero(allowed[:rows]))
    if allowed is not None and known <= max(FEW_ALLOWED, shortlist):
        return _compared(segments, xq, shortlist, np.flatnonzero(allowed[:count]))[1]
    wanted = min(shortlist, known)
    scores, keys = index.search(xq, wanted, effort, allowed)
    if keys.item(-1) == NO_KEY if len(keys) == 1 else (keys[:, -1] == NO_KEY).any():
        _fill(index, segments, xq, scores, keys, allowed, effort or index.effort)
    if rows == count:
        return keys
    newer = np.arange(rows, count)
    newer = newer if allowed is None else newer[allowed[rows:count]]
    return _compared(segments, xq, shortlist, newer, (scores, keys))[1] if len(newer) else keys


@dataclass(frozen=True)
class OpenIndex:
    """An index with all that a search of it takes.

    Attributes:
        record: what the catalogue knows of it.
        index: in memory.
        segments: the vectors that it was built of, and newer ones.
        file_bytes: of its file.
    """

    record: ShortlistRecord
    index: ShortlistIndex
    segments: Segments
    file_bytes: int

    def search(
        self, xq: Floats, shortlist: int, allowed: Allowed | None = None, effort: int | None = None
    ) -> Ints:
        """(nq, K) keys whose prefixes are nearest to (nq, dim) normalised ones: see `search_index`."""
        return search_index(self.index, self.segments, xq, shortlist, allowed, effort or 0)

    def finder(self, shortlist: int, effort: int | None) -> Callable[[Floats], Ints]:
        """`search` without a filter, for many calls: what is the same for all of them is found out once."""
        rows = self.index.ntotal
        if rows != len(self.segments) or not self.index.is_at_once:
            return partial(self.search, shortlist=shortlist, effort=effort)
        wanted, index = (min(shortlist, rows), effort or 0), self.index

        def find(xq: Floats) -> Ints:
            if len(xq) == 1:
                keys = index.one_query(*wanted)(xq)[1]
                # Where its cells or its walk run dry, more is looked at.
                if keys.item(-1) >= 0:
                    return keys
            return self.search(xq, shortlist, None, effort)

        return find


def _fill(
    index: ShortlistIndex,
    segments: Segments,
    xq: Floats,
    scores: Floats,
    keys: Ints,
    allowed: Allowed | None,
    effort: int,
) -> None:
    """Search again, ever wider, where the cells or the walk ran dry; at last compare all that is allowed."""
    for wider in [*(e for e in index.efforts if e == 8 * effort), *index.efforts[-1:], 0]:
        short = keys[:, -1] == NO_KEY
        if short.any() and wider:
            scores[short], keys[short] = index.search(xq[short], keys.shape[1], wider, allowed)
        elif short.any():
            rows = np.arange(index.ntotal) if allowed is None else np.flatnonzero(allowed[: index.ntotal])
            scores[short], keys[short] = _compared(segments, xq[short], keys.shape[1], rows)


def _compared(
    segments: Segments, xq: Floats, shortlist: int, keys: Ints, best: tuple[Floats, Ints] | None = None
) -> tuple[Floats, Ints]:
    """The best of these keys, and of those that are best so far, by exact scores: (nq, K)."""
    D, I = best or (np.empty((len(xq), 0), np.float32), np.empty((len(xq), 0), np.int64))  # noqa: E741
    for first in range(0, len(keys), CHUNK_ROWS):
        chunk = keys[first : first + CHUNK_ROWS]
        places = np.tile(np.arange(len(chunk)), (len(xq), 1))
        found = pair_scores(xq, prefix(segments.read(chunk), xq.shape[1]), places)
        D, I = best_of(np.hstack([D, found]), np.hstack([I, chunk[places]]), shortlist)  # noqa: E741
    return D, I


def _trained(segments: Segments, rows: int, dim: int, recipe: str) -> ShortlistIndex:
    """An empty index that is ready to take vectors."""
    (name, numbers), factory = split(recipe), factory_of(recipe, rows, dim)
    if name == "binary":
        return ShortlistIndex(faiss.IndexLSH(dim, dim, False, False), dim, recipe)
    if factory is not None:
        index = empty_index(dim, factory)
        if not index.is_trained:
            if gpus() and isinstance(index, faiss.IndexIVF):
                # k-means is most of the time that training takes.
                index.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatL2(dim))
            xt = _sample(segments, rows, dim)
            quiet_if_few(index, len(xt))
            index.train(xt)
        return ShortlistIndex(index, dim, recipe)
    if name == "adanns-ivf":
        cluster, compared = _two_dims(recipe, numbers, dim)
        xt = _sample(segments, rows, dim)
        return ShortlistIndex(TwoPrefixes.train(xt, cluster, compared, cells(rows)).index, dim, recipe)
    if name == "pca-ivfpq":
        dims, count = _principal(recipe, numbers, dim, rows)
        return ShortlistIndex(principal_index(_sample(segments, rows, dim), dims, count), dim, recipe)
    return _trained_opq(_sample(segments, rows, dim), dim, recipe, _opq_bytes(numbers, dim))


def _two_dims(recipe: str, numbers: Sequence[int], dim: int) -> tuple[int, int]:
    """Dims of the cells, and of what is compared."""
    cluster, compared = [*numbers, max(1, dim // 4), dim][:2] if len(numbers) != 1 else (numbers[0], dim)
    if max(cluster, compared) != dim:
        raise GalleryError(f"{recipe!r} takes prefixes of {max(cluster, compared)} dims, not of {dim}")
    return cluster, compared


def _principal(recipe: str, numbers: Sequence[int], dim: int, rows: int) -> tuple[int, int]:
    """Principal coordinates, and cells."""
    dims, count = [*numbers, *(default_dims(dim), more_cells(rows))[len(numbers) :]]
    if dims > dim:
        raise GalleryError(f"{recipe!r}: vectors of {dim} dims have no {dims} principal coordinates")
    return dims, count


def _opq_bytes(numbers: Sequence[int], dim: int) -> int:
    return (*numbers, min(8, dim // 2))[0]


def _opq_dims(recipe: str, bytes_a_row: int, dim: int) -> list[int]:
    """Prefixes that can be coded in so many bytes."""
    halves = [dim >> n for n in range(dim.bit_length())]
    dims = [tried for tried in halves if tried >= 2 * bytes_a_row and tried % (2 * bytes_a_row) == 0]
    if not dims:
        raise GalleryError(
            f"{recipe!r}: neither {dim} dims nor a half of them is a multiple of twice its bytes"
        )
    return dims


def _trained_opq(xt: Floats, dim: int, recipe: str, bytes_a_row: int) -> ShortlistIndex:
    dims, xq = _opq_dims(recipe, bytes_a_row, dim), xt[:TUNING_QUERIES]
    exact = faiss.knn(xq, xt, min(TUNING_K, len(xt)), metric=faiss.METRIC_INNER_PRODUCT)[1]
    return ShortlistIndex(opq_index(xt, xq, exact, bytes_a_row, dims), dim, recipe)


def _sample(segments: Segments, rows: int, dim: int) -> Floats:
    """Prefixes of keys drawn at random, as many as training may take; the same ones each time."""
    count = min(rows, TRAINING_ROWS, TRAINING_BYTES // (4 * dim))
    keys = np.sort(np.random.default_rng(0).choice(rows, count, replace=False))
    parts = np.array_split(keys, max(1, count // CHUNK_ROWS))
    return np.concatenate([prefix(segments.read(part), dim) for part in parts])


def _tune(index: ShortlistIndex, segments: Segments, rows: int, recall: float) -> None:
    """By stored vectors, whose nearest others at full length are to be found by their prefixes."""
    keys = np.sort(np.random.default_rng(1).choice(rows, min(rows, TUNING_QUERIES), replace=False))
    xq, dim = segments.read(keys), segments.dim
    nearest = faiss.ResultHeap(len(xq), min(rows, TUNING_K + 1), keep_max=True)
    for first, xb in segments.blocks(0, rows):
        D, I = faiss.knn(  # noqa: E741
            prefix(xq, dim), prefix(xb, dim), nearest.k, metric=faiss.METRIC_INNER_PRODUCT
        )
        nearest.add_result(D, np.where(I >= 0, I + first, I))
    nearest.finalize()
    tune(index, prefix(xq, index.dim), nearest.I[:, 1:], TUNING_SHORTLIST, 1 - TUNING_LOSS * (1 - recall))
