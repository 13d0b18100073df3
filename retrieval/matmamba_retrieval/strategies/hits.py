"""What a search answers, and what it spent."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .queries import Floats, Ints

Bools = NDArray[np.bool_]


class Cost:
    """What a search spent, per query.

    A vector of d dims that is compared with a query counts d multiply-adds: a flat index compares all rows
    that it holds; of IVF and HNSW, FAISS counts the comparisons itself (in the whole process: exact while
    one thread searches); a compressed vector counts as many as the vector that it stands for.

    A search only notes what it does: sums are made when they are asked for, which few callers do.

    Attributes:
        macs: encoder multiply-adds.
        candidates: vectors scored at full length.
    """

    __slots__ = ("_notes", "candidates", "macs")

    def __init__(self) -> None:
        self.macs = self.candidates = 0.0
        # Stage, milliseconds, multiply-adds (None where nothing was compared), bytes read.
        self._notes: list[tuple[str, float, float | None, float]] = []

    @property
    def bytes_read(self) -> float:
        """Bytes of vectors, and of the index by its mean row."""
        return sum((read for *_, read in self._notes), 0.0)

    @property
    def search_macs(self) -> dict[str, float]:
        """Multiply-adds by stage: shortlist, rerank."""
        return _sums((stage, macs) for stage, _, macs, _ in self._notes if macs is not None)

    @property
    def ms(self) -> dict[str, float]:
        """Milliseconds by stage: encode, shortlist, gate, rerank."""
        return _sums((stage, ms) for stage, ms, *_ in self._notes)

    @property
    def search_ms(self) -> float:
        """Milliseconds per query, without the encoder."""
        return sum(ms for stage, ms in self.ms.items() if stage != "encode")

    def took(self, stage: str, start: float, queries: int) -> None:
        """Add the time since `start` (`time.perf_counter`), divided by the number of queries, to a stage."""
        self._notes.append((stage, 1e3 * (time.perf_counter() - start) / max(1, queries), None, 0.0))

    def compared(self, stage: str, start: float, queries: int, macs: float, bytes_read: float) -> None:
        """Add what a stage took that compared queries with vectors.

        Args:
            stage: shortlist or rerank.
            start: when it began, by `time.perf_counter`.
            queries: how many it compared.
            macs: multiply-adds of each.
            bytes_read: of the vectors that each was compared with.
        """
        self._notes.append((stage, 1e3 * (time.perf_counter() - start) / (queries or 1), macs, bytes_read))

    def encoded(self, macs: float, ms: float) -> None:
        """Count one encoding of each query."""
        self.macs += macs
        self._notes.append(("encode", ms, None, 0.0))

    def add(self, other: Cost, share: float) -> None:
        """Add what a share of the queries spent besides."""
        self.macs += share * other.macs
        self.candidates += share * other.candidates
        macs, read = other.search_macs, other.bytes_read
        for stage, ms in other.ms.items():
            spent = share * macs[stage] if stage in macs else None
            self._notes.append((stage, share * ms, spent, share * read))
            read = 0.0


def _sums(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, value in values:
        sums[name] = sums.get(name, 0.0) + value
    return sums


_ONE = np.float32(1)


@dataclass(kw_only=True, init=False, slots=True)
class Hits:
    """Answers, best first.

    Attributes:
        D: (nq, k) cosine similarities of full-length embeddings, at most 1, -inf where there is no hit; of an
            expanded query, which can exceed that of the first hit.
        I: (nq, k) keys of the gallery, `NO_KEY` where there is none.
        shortlist: (nq, K) keys found by the first stage.
        cost: per query.
        by_full: (nq,) whether the full width gave the query's scores; where a gate let the small width
            answer, they are those of the small-width query.
        reason: why there are fewer than k hits, else "".
        nearest: D and I by the query itself, of an answer that was expanded.
    """

    D: Floats
    I: Ints  # noqa: E741
    shortlist: Ints
    cost: Cost
    by_full: Bools
    reason: str = ""
    nearest: tuple[Floats, Ints] | None = None

    def __init__(
        self,
        *,
        D: Floats,
        I: Ints,  # noqa: E741
        shortlist: Ints,
        cost: Cost,
        by_full: Bools,
        reason: str = "",
        nearest: tuple[Floats, Ints] | None = None,
    ) -> None:
        # Vectors are stored in half precision: what is rounded up is no more than alike. The best of one
        # query stand first, or behind the first where it was expanded.
        if len(D) != 1 or D.item(0) > 1 or (D.shape[1] > 1 and D.item(1) > 1):
            D = np.minimum(D, _ONE)
        self.D, self.I, self.shortlist, self.cost = D, I, shortlist, cost
        self.by_full, self.reason, self.nearest = by_full, reason, nearest
