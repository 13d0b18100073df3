"""Search in batches: queries of all kinds in, answers with what they cost out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_common.counts import counted
from matmamba_common.settings import require
from matmamba_datasets import Limits
from matmamba_retrieval import Encoded, Gallery, GalleryError, Hits, Plan, Queries, Row, Strategy, search
from matmamba_retrieval.index.library import load_faiss
from matmamba_retrieval.index.rerank import NO_KEY
from matmamba_retrieval.strategies.engines import AnyGallery
from matmamba_retrieval.strategies.examples import Away, Stored, Towards
from matmamba_retrieval.strategies.hits import Cost
from matmamba_retrieval.strategies.neighbours import without
from matmamba_retrieval.strategies.searchable import Searchable, Selection
from matmamba_retrieval.strategies.stages import NONE_FULFILS
from numpy.typing import NDArray
from PIL import Image

from ..given import require_number
from .answers import Answer, Hit
from .image_queries import QueryEncoder
from .query_images import Asked, read_batch
from .text_queries import TextQueries

# Queries that are decoded, encoded and searched for at once.
BATCH = 256
# The same of images that are kept as they were decoded: 36 MB each from a camera.
ORIGINALS = 16
DEFAULT_K = 10
# Checked once, not by each query.
DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class VectorQueries:
    """Vectors as queries: nothing is encoded, at any width they are asked with as they are.

    Attributes:
        xq: (nq, D) float32, L2-normalised.
    """

    xq: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.xq)

    def encode(self, width: str) -> Encoded:
        """The vectors."""
        return Encoded(self.xq, 0.0, 0.0)

    def take(self, which: NDArray[np.int64]) -> VectorQueries:
        """Some of them, by position."""
        return VectorQueries(self.xq[which])


@dataclass(frozen=True, kw_only=True)
class SearchPass:
    """A way to answer queries from one gallery.

    Attributes:
        gallery: that answers.
        strategy: how.
        plan: stored with the gallery, if the strategy is that one's.
        k: hits wanted.
        allowed: which images may be answered, as `allowed` of the gallery gave it; None for all.
        text: that queries are joined with, None for none.
        negatives: what to keep away from, None for nothing.
        weight: how much.
        min_score: hits below are left out.
        few: why there can be no more than k hits, "" if there can.
    """

    gallery: AnyGallery
    strategy: Strategy
    plan: Plan | None
    k: int
    allowed: Selection | None = None
    text: TextQueries | None = None
    negatives: Queries | None = None
    weight: float = 0.5
    min_score: float | None = None
    few: str = ""

    def images(
        self,
        asked: Sequence[Asked],
        encoder: Callable[[], QueryEncoder],
        most: int = BATCH,
    ) -> Iterator[Answer]:
        """Answers in the order of the queries; one that cannot be read says so, the others are answered.

        Args:
            asked: the images.
            encoder: gives what encodes; called when there is something to encode.
            most: images that are kept at once.
        """
        for start in range(0, len(asked), most):
            part = asked[start : start + most]
            readable, images, broken = read_batch(part, lambda image: encoder().read(image))
            encoded = encoder().queries(images) if readable else None
            hits = None if encoded is None else self._search(encoded, self.k)
            places = {position: place for place, position in enumerate(readable)}
            for position, query in enumerate(part):
                if hits is None or encoded is None or position in broken:
                    yield self._unread(query, broken[position])
                else:
                    found = self._answer(query.name, _shown(query), hits, places[position])
                    yield replace(found, encoded_by=encoded.encoded_by)

    def _unread(self, query: Asked, error: str) -> Answer:
        return Answer(
            query=query.name,
            strategy=self.strategy,
            plan=self.plan,
            error=error,
            source=_shown(query),
            text=self._words,
        )

    def texts(self, texts: Sequence[str], encode: Callable[[Sequence[str]], TextQueries]) -> Iterator[Answer]:
        """Answers to texts, in this order."""
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            encoded = encode(part)
            hits = self._search(encoded, self.k)
            for place, text in enumerate(part):
                found = self._answer(text, "", hits, place)
                yield replace(found, encoded_by=encoded.encoded_by, text=text)

    def vectors(self, names: Sequence[str], xq: NDArray[np.float32]) -> Iterator[Answer]:
        """Answers to (n, D) vectors that need no encoding."""
        for start in range(0, len(names), BATCH):
            part = xq[start : start + BATCH]
            hits = self._search(VectorQueries(part), self.k)
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

    def one(self, name: str, query: Queries) -> Answer:
        """The answer to a single query that encodes itself."""
        return self._answer(name, "", self._search(query, self.k), 0)

    def _search(self, queries: Queries, k: int) -> Hits:
        count = len(queries)
        if self.allowed is not None and not self.allowed.any():
            none = np.full((count, k), NO_KEY, dtype=np.int64)
            D = np.full((count, k), -np.inf, dtype=np.float32)
            by_full = np.ones(count, dtype=bool)
            return Hits(D=D, I=none, shortlist=none, cost=Cost(), by_full=by_full, reason=NONE_FULFILS)
        if self.text is not None:
            queries = Towards(queries, self.text)
        if self.negatives is not None:
            queries = Away(queries, self.negatives, self.weight)
        if isinstance(self.gallery, Gallery):
            # No query is told that it took as long as loading it.
            load_faiss()
        return search(self.gallery, self.strategy, queries, k, self.allowed)

    def _answer(self, name: str, source: str | bytes | Image.Image, hits: Hits, place: int) -> Answer:
        scores, keys = hits.D[place], hits.I[place]
        found = keys != NO_KEY
        reason = (
            self.few
            if found.all()
            else hits.reason or f"the strategy found only {counted(int(found.sum()), 'image')}"
        )
        if self.min_score is not None:
            enough = found & (scores >= self.min_score)
            if enough.sum() < found.sum():
                reason = f"{enough.sum()} of {found.sum()} hits have a score of {self.min_score:g} or more"
            found = enough
        pairs = zip(scores[found].tolist(), self.gallery.rows(keys[found]), strict=True)
        return Answer(
            query=name,
            hits=tuple(_hit(row, score, rank) for rank, (score, row) in enumerate(pairs, 1)),
            strategy=self.strategy,
            plan=self.plan,
            cost=hits.cost,
            reason=reason,
            by_full_width=bool(hits.by_full[place]),
            source=source,
            text=self._words,
        )

    @property
    def _words(self) -> str:
        """Of the text that queries are joined with."""
        return "" if self.text is None else self.text.texts[0]


def _hit(row: Row, score: float, rank: int) -> Hit:
    return Hit(id=row.id, path=row.path, label=row.label, score=score, rank=rank, metadata=row.metadata)


def _shown(query: Asked) -> str | bytes | Image.Image:
    return str(Path(query.source).absolute()) if isinstance(query.source, Path) else query.source


def require_search(k: Any, weight: Any, where: Any, min_score: Any, reading: Any) -> None:
    """Raise `TypeError` or `ConfigError` if an argument of a search cannot be."""
    if k is not None:
        require("k", k, int)
    require_number("unlike_weight", weight)
    require("where", where, str)
    if min_score is not None:
        require_number("min_score", min_score)
    if reading is not None:
        require("reading", reading, Limits)


def hits_wanted(k: int | None, gallery: Searchable) -> int:
    """How many hits are searched for; `GalleryError` for none, or of a gallery without images."""
    wanted = DEFAULT_K if k is None else int(k)
    if wanted < 1:
        raise GalleryError(f"k is {wanted}: it can be 1 or more")
    if not len(gallery):
        raise GalleryError(f"{gallery.folder} has no images to search")
    return min(wanted, len(gallery))


def why_few(k: int | None, gallery: Searchable) -> str:
    """Why there are fewer hits than were asked for, if the gallery has too few images."""
    few = k is not None and len(gallery) < k
    return f"the gallery has {counted(len(gallery), 'image')}: fewer than k = {k}" if few else ""
