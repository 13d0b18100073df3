"""How a vector is searched: all compared, by a graph, or by codes; chosen by recall that is measured."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GalleryError
from ..gallery.snapshot import Snapshot
from ..index.recipes import FEW_ROWS
from ..index.rerank import prefix
from .edge import EdgeStore
from .engine import BINARY, FLOAT16, INT8, NO_KEY, Collection, Floats, Ints, Stage, VectorField
from .layout import vector_name
from .wish import RECALL, Wish

# Recall is the share of the NEAREST by a prefix that a list of LISTED holds, as of FAISS's indexes.
NEAREST, LISTED = 10, 100
# Of stored vectors, on which ways are tried, and which ask.
SAMPLE_ROWS, QUERIES = 5_000, 100
SEED = 29
# Where exact answers are slow, fewer ask: so many numbers are compared in all, or so many queries.
EXACT_NUMBERS, LEAST_QUERIES = 20_000_000_000, 10
# Links of a graph, and candidates while it is built and, at most, searched.
LINKS, BUILD_EFFORT, EFFORTS = 16, 128, (64, 128, 256, 512, 1024)
# Of a graph: twice the links at its lowest level, 4 bytes each, and a sixteenth more above.
_GRAPH_BYTES = LINKS * 2 * 4 * 17 / 16


@dataclass(frozen=True)
class Way:
    """A way to search vectors.

    Attributes:
        row_bytes: memory of each row at a dim.
        settings: of the field.
    """

    row_bytes: Callable[[int], float]
    settings: Mapping[str, Any] = field(default_factory=dict)


_GRAPH = {"links": LINKS, "effort": BUILD_EFFORT, "search_effort": EFFORTS[0]}
# By the names that the fields have then.
WAYS = {
    "flat": Way(lambda dim: 4 * dim),
    "hnsw16": Way(lambda dim: 4 * dim + _GRAPH_BYTES, _GRAPH),
    "hnsw16-int8": Way(lambda dim: dim + 4 + _GRAPH_BYTES, {**_GRAPH, "quantisation": INT8, "on_disk": True}),
    "int8": Way(lambda dim: dim + 4, {"quantisation": INT8, "on_disk": True}),
    "float16": Way(lambda dim: 2 * dim, {"datatype": FLOAT16}),
    "binary": Way(lambda dim: dim / 8, {"quantisation": BINARY, "on_disk": True}),
}
# Fastest first; of few rows, comparing all of them is.
_OF_FEW = ("flat", "int8", "float16", "binary", "hnsw16", "hnsw16-int8")
_OF_MANY = ("hnsw16", "hnsw16-int8", "int8", "flat", "float16", "binary")


def memory_of(fields: Sequence[VectorField], rows: int) -> float:
    """Bytes of what queries go through first: of prefixes, or of full vectors where these are alone."""
    return sum(rows * WAYS[each.index].row_bytes(each.dim) for each in first_stage(fields))


def first_stage(fields: Sequence[VectorField]) -> list[VectorField]:
    """Those that whole galleries are searched by; the others rank a few."""
    longest = max(each.dim for each in fields)
    return [each for each in fields if each.dim < longest] or list(fields)


def chosen_fields(
    gallery: Snapshot, vectors: Sequence[tuple[str, int]], wish: Wish
) -> tuple[tuple[VectorField, ...], dict[str, Any]]:
    """The fields of a collection, each with the fastest way that has the recall within the memory.

    Full vectors that only rank lie on the disk, without a graph.

    Returns:
        The fields; and of each way that was tried, by name of the vector, its recall on a sample.

    Raises:
        GalleryError: no way has that recall in so much memory.
    """
    spec, rows = gallery.spec, len(gallery)
    plain = [VectorField(name=vector_name(spec, width, dim), width=width, dim=dim) for width, dim in vectors]
    searched = first_stage(plain)
    only_full = searched == plain
    share = sum(each.dim for each in searched)
    tried: dict[str, Any] = {}
    fields = []
    for each in plain:
        if each not in searched:
            fields.append(replace(each, on_disk=True))
        # Whoever pushes full vectors alone wants exact answers, unless they say how exact.
        elif only_full and not (wish.recall or wish.memory):
            fields.append(each)
        else:
            budget = wish.memory * each.dim / share or math.inf
            fields.append(_chosen(gallery, each, rows, wish.recall or RECALL, budget, tried))
    return tuple(fields), tried


def _chosen(
    gallery: Snapshot, plain: VectorField, rows: int, recall: float, budget: float, tried: dict[str, Any]
) -> VectorField:
    sample: tuple[Floats, Floats] | None = None
    found = tried.setdefault(plain.name, {})
    for name in _OF_FEW if rows <= FEW_ROWS else _OF_MANY:
        way = WAYS[name]
        vector = replace(plain, **way.settings)
        # All of the nearest is what a sample cannot promise.
        if rows * way.row_bytes(plain.dim) > budget or (vector.approximate and recall == 1):
            continue
        if not vector.approximate:
            return vector
        sample = sample or _sample(gallery, plain)
        found[name] = _recall_on(sample, vector)
        if found[name] >= recall:
            return vector
    best = f", at most {max(found.values()):.4f} on a sample" if found else ""
    raise GalleryError(
        f"no way to search {rows:,} rows of {plain.name} has a recall of {recall:g} in"
        f" {budget / 2**20:,.1f} MiB{best}: ask for more memory, a lower recall or fewer dims"
    )


def _sample(gallery: Snapshot, vector: VectorField) -> tuple[Floats, Floats]:
    """Stored vectors of some images, and of others that ask, where there are so many."""
    keys = np.random.default_rng(SEED).permutation(gallery.live_keys())[: SAMPLE_ROWS + QUERIES]
    xb = prefix(gallery.segments_of(vector.width).read(np.sort(keys)), vector.dim)
    xb = xb[np.random.default_rng(SEED).permutation(len(xb))]
    asking = min(QUERIES, len(xb))
    return (xb[asking:] if len(xb) > 2 * asking else xb), xb[:asking]


def _recall_on(sample: tuple[Floats, Floats], vector: VectorField) -> float:
    """Of a way on a sample, by the engine in this process."""
    xb, xq = sample
    with tempfile.TemporaryDirectory(prefix="matmamba-") as folder:
        store = EdgeStore(Path(folder), write=True)
        try:
            # A graph is built of fewer rows than otherwise, so that it is the graph that is tried.
            collection = store.create("sample", [vector], {}, fewest_for_graph=1)
            for first in range(0, len(xb), 1000):
                part = xb[first : first + 1000]
                keys = np.arange(first, first + len(part))
                collection.upsert(keys, {vector.name: part}, [{}] * len(part))
            collection.finish([vector])
            return recall(collection, vector, xq)
        finally:
            store.close()


def nearest(collection: Collection, vector: VectorField, xq: Floats, k: int, *, exact: bool = False) -> Ints:
    """The (nq, k) keys of the nearest points to (nq, dim) queries, -1 where there are fewer."""
    found = np.full((len(xq), k), NO_KEY, dtype=np.int64)
    # One by one: so many lists at once would be large.
    for row in range(len(xq)):
        stage = Stage(field=vector, xq=xq[row : row + 1], length=k, exact=exact)
        points = collection.query([stage], payload=False)[0]
        found[row, : len(points)] = [point.key for point in points]
    return found


def recall(collection: Collection, vector: VectorField, xq: Floats, exact: Ints | None = None) -> float:
    """Share of the nearest that a list holds, of (nq, dim) queries, by the collection's own exact search."""
    if exact is None:
        exact = nearest(collection, vector, xq, NEAREST, exact=True)
    listed = nearest(collection, vector, xq, LISTED)
    held = [np.isin(true, some).mean() for true, some in zip(exact, listed, strict=True)]
    return float(np.mean(held))


def measured_fields(
    gallery: Snapshot, collection: Collection, fields: Sequence[VectorField], wanted: float
) -> tuple[tuple[VectorField, ...], dict[str, float]]:
    """The fields with the least effort of search that has the recall in the collection as it is now.

    Returns:
        The fields, and the recall of each that is searched approximately, by name. Where no effort is enough
        the largest is taken.
    """
    found, recalls = [], dict[str, float]()
    for each in fields:
        if each.approximate:
            most = EXACT_NUMBERS // max(1, len(gallery) * each.dim)
            xq = _sample(gallery, each)[1][: max(LEAST_QUERIES, most)]
            exact = nearest(collection, each, xq, NEAREST, exact=True)
            for effort in EFFORTS if each.links else (0,):
                each = replace(each, search_effort=effort)
                recalls[each.name] = recall(collection, each, xq, exact)
                if recalls[each.name] >= wanted:
                    break
        found.append(each)
    return tuple(found), recalls
