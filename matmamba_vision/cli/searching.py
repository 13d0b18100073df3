"""Search in batches: queries of all kinds in, answers with what they cost out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from matmamba_retrieval import Encoded, EncodedQueries, Gallery, Hits, Queries, Row, Strategy, search
from matmamba_retrieval.index.rerank import NO_KEY
from matmamba_retrieval.strategies.examples import Away, Stored
from matmamba_retrieval.strategies.hits import Cost
from matmamba_retrieval.strategies.neighbours import without
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .asked import Asked, read_batch

# Queries that are decoded, encoded and searched for at once.
BATCH = 256
Encode = Callable[[Tensor], Queries]


@dataclass(frozen=True)
class Answer:
    """To one query.

    Attributes:
        name: of the query. source: path or bytes of its image. hits: scores and images, best first. reason:
            why there are fewer than asked for, "" if there are not. error: why it could not be asked, or "".
            by_full: whether the scores are of the full-width query; a gate can let the small one answer.
    """

    name: str
    source: str | bytes
    hits: list[tuple[float, Row]] = field(default_factory=list)
    reason: str = ""
    error: str = ""
    by_full: bool = True


@dataclass
class Search:
    """A way to answer queries from one gallery, and what it has spent.

    Attributes:
        k: hits wanted. allowed: (keys,) which images may be answered; None for all. negatives: what to keep
            away from, None for nothing; weight: how much. min_score: hits below are left out.
        few: why there can be no more than k hits, "" if there can. answered: queries so far. spent: by all of
            them together.
    """

    gallery: Gallery
    strategy: Strategy
    k: int
    allowed: NDArray[np.bool_] | None = None
    negatives: Queries | None = None
    weight: float = 0.5
    min_score: float | None = None
    few: str = ""
    answered: int = 0
    spent: Cost = field(default_factory=Cost)

    @property
    def cost(self) -> Cost:
        """Spent per query."""
        mean = Cost()
        mean.add(self.spent, 1 / max(1, self.answered))
        return mean

    def images(
        self, asked: Sequence[Asked], transform: Callable[[Image.Image], Tensor], encode: Encode
    ) -> Iterator[Answer]:
        """Answers in the order of the queries; one that cannot be read says so, the others are answered."""
        for start in range(0, len(asked), BATCH):
            part = asked[start : start + BATCH]
            readable, images, broken = read_batch(part, transform)
            answers = {
                position: Answer(query.name, _shown(query), error=broken[position])
                for position, query in enumerate(part)
                if position in broken
            }
            if readable:
                hits = self._search(encode(images), self.k)
                for place, position in enumerate(readable):
                    query = part[position]
                    answers[position] = self._answer(query.name, _shown(query), hits, place)
            yield from (answers[position] for position in range(len(part)))

    def vectors(self, names: Sequence[str], xq: NDArray[np.float32]) -> Iterator[Answer]:
        """Answers to (n, D) vectors that need no encoding."""
        for start in range(0, len(names), BATCH):
            part = xq[start : start + BATCH]
            hits = self._search(EncodedQueries({"full": Encoded(part, 0.0, 0.0)}), self.k)
            for place in range(len(part)):
                yield self._answer(names[start + place], "", hits, place)

    def more_like(self, keys: NDArray[np.int64]) -> Iterator[Answer]:
        """Answers to images of the gallery, each without the image itself."""
        others = len(self.gallery) - 1
        few = self.few or f"the gallery has {others} other images: fewer than k = {self.k}"
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            hits = self._search(Stored(self.gallery, part), min(self.k + 1, len(self.gallery)))
            D, I = without(hits.D, hits.I, part, self.k)  # noqa: E741
            hits = replace(hits, D=D, I=I, reason=few if others < self.k else hits.reason)
            for place, row in enumerate(self.gallery.rows(part)):
                yield self._answer(row.id, row.path, hits, place)

    def _search(self, queries: Queries, k: int) -> Hits:
        count = len(queries)
        self.answered += count
        if self.allowed is not None and not self.allowed.any():
            none = np.full((count, k), NO_KEY, dtype=np.int64)
            D = np.full((count, k), -np.inf, dtype=np.float32)
            return Hits(D, none, none, Cost(), np.ones(count, dtype=bool), "no image fulfils the condition")
        if self.negatives is not None:
            queries = Away(queries, self.negatives, self.weight)
        hits = search(self.gallery, self.strategy, queries, k, self.allowed)
        self.spent.add(hits.cost, count)
        return hits

    def _answer(self, name: str, source: str | bytes, hits: Hits, place: int) -> Answer:
        scores, keys = hits.D[place], hits.I[place]
        found = keys != NO_KEY
        reason = self.few if found.all() else hits.reason or f"the strategy found only {found.sum()} images"
        if self.min_score is not None:
            enough = found & (scores >= self.min_score)
            if enough.sum() < found.sum():
                reason = f"{enough.sum()} of {found.sum()} hits have a score of {self.min_score:g} or more"
            found = enough
        rows = self.gallery.rows(keys[found])
        # Vectors are rounded: those of one image can come out a little longer than 1.
        pairs = list(zip(map(float, np.minimum(scores[found], 1)), rows, strict=True))
        return Answer(name, source, pairs, reason, by_full=bool(hits.by_full[place]))


def _shown(query: Asked) -> str | bytes:
    return query.source if isinstance(query.source, bytes) else str(Path(query.source).absolute())
