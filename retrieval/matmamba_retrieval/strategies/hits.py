"""What a search answers, and what it spent."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .queries import Encoded, Floats, Ints

Bools = NDArray[np.bool_]


@dataclass
class Cost:
    """What a search spent, per query.

    A vector of d dims that is compared with a query counts d multiply-adds: a flat index compares all rows
    that it holds; of IVF and HNSW, FAISS counts the comparisons itself (in the whole process: exact while
    one thread searches); a compressed vector counts as many as the vector that it stands for.

    Attributes:
        macs: encoder multiply-adds.
        candidates: vectors scored at full length.
        bytes_read: of vectors, and of the index by its mean row.
        search_macs: multiply-adds by stage: shortlist, rerank.
        ms: milliseconds by stage: encode, shortlist, gate, rerank.
    """

    macs: float = 0.0
    candidates: float = 0.0
    bytes_read: float = 0.0
    search_macs: dict[str, float] = field(default_factory=dict)
    ms: dict[str, float] = field(default_factory=dict)

    @property
    def search_ms(self) -> float:
        """Milliseconds per query, without the encoder."""
        return sum(ms for stage, ms in self.ms.items() if stage != "encode")

    def took(self, stage: str, start: float, queries: int) -> None:
        """Add the time since `start` (`time.perf_counter`), divided by the number of queries, to a stage."""
        _add(self.ms, stage, 1e3 * (time.perf_counter() - start) / max(1, queries))

    def compared(self, stage: str, start: float, queries: int, macs: float, bytes_read: float) -> None:
        """Add what a stage took that compared queries with vectors.

        Args:
            stage: shortlist or rerank.
            start: when it began, by `time.perf_counter`.
            queries: how many it compared.
            macs: multiply-adds of each.
            bytes_read: of the vectors that each was compared with.
        """
        ms, macs_by_stage = self.ms, self.search_macs
        ms[stage] = ms.get(stage, 0.0) + 1e3 * (time.perf_counter() - start) / (queries or 1)
        macs_by_stage[stage] = macs_by_stage.get(stage, 0.0) + macs
        self.bytes_read += bytes_read

    def add_encoder(self, encoded: Encoded) -> None:
        """Count one encoding of each query."""
        self.macs += encoded.macs
        _add(self.ms, "encode", encoded.ms)

    def add(self, other: Cost, share: float) -> None:
        """Add what a share of the queries spent besides."""
        self.macs += share * other.macs
        self.candidates += share * other.candidates
        self.bytes_read += share * other.bytes_read
        for sums, more in ((self.search_macs, other.search_macs), (self.ms, other.ms)):
            for stage, value in more.items():
                _add(sums, stage, share * value)


_ONE = np.float32(1)


def _add(sums: dict[str, float], name: str, value: float) -> None:
    sums[name] = sums.get(name, 0.0) + value


@dataclass(frozen=True, kw_only=True)
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

    def __post_init__(self) -> None:
        """Vectors are stored in half precision: what is rounded up is no more than alike."""
        D = self.D
        # The best of one query stand first, or behind the first where it was expanded.
        if len(D) != 1 or any(score > 1 for score in D[0, :2].tolist()):
            object.__setattr__(self, "D", np.minimum(D, _ONE))
