"""One FAISS index over a prefix: how it is searched, filtered, and how much effort a search takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .adanns import TwoPrefixes
from .library import faiss, load_faiss
from .rerank import NO_KEY, Floats, Ints, best_of, prefix
from .threads import one_thread

Allowed = NDArray[np.bool_]
# From one query (1, d) to scores and keys (1, K).
OneQuery = Callable[[Floats], tuple[Floats, Ints]]
log = logging.getLogger(__name__)
# From 20 queries on FAISS takes matrix products, whose last bits depend on the number of queries.
FLAT_QUERIES = 19
# How many times as many candidates are asked for, at most, to see all that tie with the last.
MOST_TIES = 16
PART_BYTES = 1 << 20
# Lengths of lists with efforts whose searches by one query are kept.
MOST_KEPT = 64


class ShortlistIndex:
    """A built index.

    Attributes:
        faiss_index: FAISS's own.
        dim: of the queries that it takes.
        recipe: what it was built by.
        takes_effort: whether a search can be told how much of it to look at.
        compared: gives the distances that FAISS has computed so far in inverted lists and graphs; 0 of other
            kinds. FAISS counts in the whole process: the difference over a search is exact while one thread
            searches.
    """

    def __init__(self, faiss_index: Any, dim: int, recipe: str) -> None:
        self.faiss_index, self.dim, self.recipe = faiss_index, dim, recipe
        self._core = _core(faiss_index)
        self.takes_effort = isinstance(self._core, (faiss.IndexIVF, faiss.IndexHNSW))
        self.compared = _count_of(_counters(self._core))
        self._on_gpu: Any = None
        self._one_query: dict[tuple[int, int], OneQuery] = {}
        # Than FAISS's own search of one query; and before or behind it.
        self._takes_more = self.is_two_prefixes or isinstance(self._core, faiss.IndexLSH)
        self._nothing_to_do = not (self._takes_more or self._ties_are_exact)

    @property
    def is_at_once(self) -> bool:
        """Whether FAISS's own answer to one query without a filter is that of `search`."""
        return self._nothing_to_do and self._on_gpu is None

    @property
    def ntotal(self) -> int:
        """Rows in it: the keys below."""
        return int(self.faiss_index.ntotal)

    @cached_property
    def is_two_prefixes(self) -> bool:
        """Whether it makes its cells by another prefix than it compares."""
        return isinstance(self.faiss_index, faiss.IndexIVFIndependentQuantizer)

    @cached_property
    def filters(self) -> bool:
        """Whether FAISS can leave out rows while it searches this kind."""
        exhaustive = (faiss.IndexFlat, faiss.IndexScalarQuantizer, faiss.IndexRaBitQ)
        return isinstance(self._core, (faiss.IndexIVF, faiss.IndexHNSW, *exhaustive))

    @cached_property
    def _ties_are_exact(self) -> bool:
        """Whether equal scores mean equal vectors or codes, all of which a search meets.

        Fast scan adds up bytes, so that many scores are equal by chance; and a walk through a graph does not
        meet all that tie.
        """
        graphs_and_bytes = (faiss.IndexHNSW, faiss.IndexFastScan, faiss.IndexIVFFastScan)
        return not isinstance(self._core, graphs_and_bytes)

    @property
    def efforts(self) -> list[int]:
        """Sensible efforts, ascending: cells to look into (nprobe) or length of the walk (efSearch)."""
        if isinstance(self._core, faiss.IndexIVF):
            return [effort for effort in (2**n for n in range(20)) if effort < self._core.nlist] + [
                self._core.nlist
            ]
        return [16, 32, 64, 128, 256, 512, 1024] if isinstance(self._core, faiss.IndexHNSW) else []

    @property
    def effort(self) -> int:
        """The effort of a search unless told otherwise, kept in FAISS's file; 0 where there is none."""
        if isinstance(self._core, faiss.IndexIVF):
            return int(self._core.nprobe)
        return int(self._core.hnsw.efSearch) if isinstance(self._core, faiss.IndexHNSW) else 0

    @effort.setter
    def effort(self, effort: int) -> None:
        self._one_query.clear()
        if isinstance(self._core, faiss.IndexIVF):
            self._core.nprobe = effort
        elif isinstance(self._core, faiss.IndexHNSW):
            self._core.hnsw.efSearch = effort

    @cached_property
    def memory(self) -> int:
        """Bytes that it takes in memory, near enough those of its file."""
        sizes: list[int] = []
        self.write(lambda part: sizes.append(len(part)))
        return sum(sizes)

    def write(self, write: Callable[[bytes], None]) -> None:
        """Give its file to `write`, in parts: all at once would take its memory a second time."""
        faiss.write_index(self.faiss_index, faiss.PyCallbackIOWriter(write, PART_BYTES))

    def use_gpu(self) -> bool:
        """Search on all GPUs that FAISS sees, if it was built for them and knows this kind there."""
        if self._on_gpu is None and gpus():
            try:
                self._on_gpu = faiss.index_cpu_to_all_gpus(self.faiss_index)
            except RuntimeError as error:
                log.info("FAISS searches %s on the CPU: %s", self.recipe, str(error).splitlines()[-1])
        return self._on_gpu is not None

    def search(
        self, xq: Floats, shortlist: int, effort: int = 0, allowed: Allowed | None = None
    ) -> tuple[Floats, Ints]:
        """The nearest allowed keys of (nq, dim) normalised prefixes: scores and keys (nq, K), best first.

        Equal scores are in the order of the keys, but in graphs and fast scan, where they are no sign of
        equal vectors and the order is FAISS's. Where fewer were found, -inf and `NO_KEY`.

        Args:
            effort: see `efforts`.
            allowed: (ntotal or more,) which keys may be found.
        """
        wanted = min(shortlist, self.ntotal)
        if allowed is None and len(xq) == 1 and self.is_at_once:
            return self.one_query(wanted, effort)(xq)
        if not self.filters and allowed is not None:
            return self._search_and_drop(xq, wanted, effort, allowed)
        if not self._ties_are_exact:
            return self._search(xq, wanted, effort, allowed)
        asked = min(wanted + 1, self.ntotal)
        while True:
            D, I = self._search(xq, asked, effort, allowed)  # noqa: E741
            tied = asked > wanted and (D[:, wanted - 1] == D[:, -1]).any() and D[:, -1].max() > -np.inf
            if not tied or asked == self.ntotal or asked >= MOST_TIES * wanted:
                return best_of(D, I, wanted)
            asked = min(4 * asked, self.ntotal, MOST_TIES * wanted)

    def _search_and_drop(self, xq: Floats, wanted: int, effort: int, allowed: Allowed) -> tuple[Floats, Ints]:
        """As many as are needed for enough to be left over when the others are dropped."""
        share = max(1e-9, float(allowed[: self.ntotal].mean()))
        D, I = self.search(xq, min(self.ntotal, int(2 * wanted / share) + 16), effort)  # noqa: E741
        D[~allowed[I] | (I == NO_KEY)] = -np.inf
        return best_of(D, I, wanted)

    def _search(
        self, xq: Floats, shortlist: int, effort: int, allowed: Allowed | None
    ) -> tuple[Floats, Ints]:
        """FAISS's own answer as cosine similarities, or what stands for them."""
        if allowed is None and len(xq) == 1 and not self._takes_more and self._on_gpu is None:
            return self.one_query(shortlist, effort)(xq)
        selector, bits = None, None
        if allowed is not None:
            bits = np.packbits(allowed[: self.ntotal], bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
        xq = np.ascontiguousarray(xq, dtype=np.float32)
        if self.is_two_prefixes:
            return TwoPrefixes(self.faiss_index).search(xq, shortlist, effort or self.effort, selector)
        # The prefix may be shorter than the queries: AdANNS-OPQ has chosen it.
        if self.faiss_index.d != xq.shape[1]:
            xq = prefix(xq, self.faiss_index.d)
        parameters = self._parameters(effort, selector)
        # FAISS filters on the CPU alone.
        searched = self.faiss_index if selector is not None or self._on_gpu is None else self._on_gpu
        step = FLAT_QUERIES if isinstance(self._core, faiss.IndexFlat) else max(1, len(xq))
        parts = [
            searched.search(xq[first : first + step], shortlist, params=parameters)
            for first in range(0, max(1, len(xq)), step)
        ]
        D, I = (np.concatenate(found) for found in zip(*parts, strict=True))  # noqa: E741
        if isinstance(self._core, faiss.IndexLSH):
            # The expected cosine of two vectors that differ in so many signs (Charikar 2002).
            D = np.cos(np.pi * D / self._core.nbits).astype(np.float32)
        D[I == NO_KEY] = -np.inf
        return D, I

    def one_query(self, shortlist: int, effort: int) -> OneQuery:
        """What searches by one query (1, d) without a filter: FAISS's own answer, by its function itself."""
        known = self._one_query.get((shortlist, effort))
        if known is None:
            if len(self._one_query) >= MOST_KEPT:
                self._one_query.clear()
            known = _one_query(self.faiss_index, shortlist, self._parameters(effort, None))
            self._one_query[shortlist, effort] = known
        return known

    def _parameters(self, effort: int, selector: Any) -> Any:
        """FAISS's parameters of one search; None if this kind takes none."""
        if isinstance(self._core, faiss.IndexIVF):
            return faiss.SearchParametersIVF(nprobe=effort or self.effort, sel=selector)
        if isinstance(self._core, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(efSearch=effort or self.effort, sel=selector)
        return faiss.SearchParameters(sel=selector) if selector is not None else None


def _one_query(index: Any, shortlist: int, parameters: Any) -> OneQuery:
    """A function: looking up the same of an index of FAISS for every query takes as long as some work."""
    search, address, dim, shape = index.search_c, load_faiss().swig_ptr, index.d, (1, shortlist)

    def found(xq: Floats) -> tuple[Floats, Ints]:
        xq = np.ascontiguousarray(xq, dtype=np.float32)
        if xq.shape[1] != dim:
            xq = prefix(xq, dim)
        D, I = np.empty(shape, np.float32), np.empty(shape, np.int64)  # noqa: E741
        with one_thread():
            search(1, address(xq), shortlist, address(D), address(I), parameters)
        if I.item(-1) < 0:
            D[I == NO_KEY] = -np.inf
        return D, I

    return found


def gpus() -> int:
    """How many GPUs FAISS sees; 0 if it was built without."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "index_cpu_to_all_gpus") else 0


def _core(index: Any) -> Any:
    """What searches, behind rotations."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return _core(index.index)
    if isinstance(index, faiss.IndexIVFIndependentQuantizer):
        return faiss.downcast_index(index.index_ivf)
    return index


def _counters(core: Any) -> tuple[Any, ...]:
    """FAISS's own of what a search of this kind compares."""
    if isinstance(core, faiss.IndexIVF):
        cells = _core(core.quantizer)
        return faiss.cvar.indexIVF_stats, *([faiss.cvar.hnsw_stats] * isinstance(cells, faiss.IndexHNSW))
    return (faiss.cvar.hnsw_stats,) if isinstance(core, faiss.IndexHNSW) else ()


def _count_of(counters: tuple[Any, ...]) -> Callable[[], int]:
    """What adds them up: asked before and behind every search, and so by SWIG's functions in C themselves."""
    counts = [partial(type(counter).ndis.fget, counter.this) for counter in counters]
    return counts[0] if len(counts) == 1 else lambda: sum(count() for count in counts)


def tune(index: ShortlistIndex, xq: Floats, exact: Ints, shortlist: int, recall: float) -> None:
    """Set the effort to the least that finds a share `recall` of what the greatest effort finds.

    Args:
        xq: (nq, dim) queries.
        exact: (nq, k) keys to be found in shortlists of this length.
    """
    shares = {}
    for effort in index.efforts:
        _, found = index.search(xq, shortlist, effort)
        shares[effort] = np.mean(
            [np.isin(truth, row).mean() for row, truth in zip(found, exact, strict=True)]
        )
    index.effort = min(
        effort for effort, share in shares.items() if share >= recall * shares[index.efforts[-1]]
    )
