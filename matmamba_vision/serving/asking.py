"""What a question asks of a gallery, and its answer by one strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matmamba_common.settings import require
from matmamba_retrieval import Queries, Strategy
from matmamba_retrieval.strategies.engines import AnyGallery
from matmamba_retrieval.strategies.examples import Stored, Towards
from matmamba_retrieval.strategies.hits import Cost
from matmamba_retrieval.strategies.searchable import Searchable
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError
from ..galleries.answers import Answer
from ..galleries.image_queries import ImageQueries
from ..galleries.queries import stored_queries, unit_vectors
from ..galleries.search_pass import SearchPass, VectorQueries, hits_wanted, require_search, why_few
from ..galleries.text_queries import TextQueries
from ..given import require_type
from .question import Question

NO_IMAGES = "there are no images yet"
# What a question's own vector, and images of the gallery, are called in answers.
VECTOR, EXAMPLES, IMAGE = "vector", "like", "image"

# What is asked in numbers and texts.
PLAIN: dict[str, Any] = {
    **dict.fromkeys(("gallery", "id", "text", "strategy", "width", "min_width", "request_id"), str),
    **dict.fromkeys(("like", "unlike"), Sequence[str]),
    **dict.fromkeys(("k", "offset"), int),
    "deadline": float,
}


def require_question(question: Question, max_k: int) -> None:
    """Raise `MatMambaError` or `TypeError` if a question cannot be answered by any gallery.

    Args:
        question: as it was asked.
        max_k: hits that can be asked for, those of earlier pages included.
    """
    require_type("question", question, Question, "a Question")
    for name, hint in PLAIN.items():
        # Every request comes by here: what is of the very type takes no time.
        if type(value := getattr(question, name)) is not hint:
            require(name, value, hint)
    if question.image is not None:
        require_type("image", question.image, Image.Image, "a PIL image, or left out")
    if question.vector is not None:
        require_type("vector", question.vector, np.ndarray, "an array (D,) of floats, or left out")
    require_search(question.k, 0.5, question.where, question.min_score, None)
    if question.k < 1 or question.offset < 0:
        raise ConfigError(f"k is {question.k}, offset {question.offset}: they can be 1 and 0, or more")
    if question.k + question.offset > max_k:
        raise ConfigError(
            f"k and offset are {question.k} and {question.offset}: together they can be {max_k:,} at most"
        )
    given = [name for name in ("image", "id", "vector") if _is_given(getattr(question, name))]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} ask in two ways: give one of them, and others as `like`")
    if not (given or question.text.strip() or question.like):
        raise ConfigError("nothing is asked: give an image, an id, a text, a vector, or ids that it is like")


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and value == "")


class Inquiry:
    """A question, made of what a gallery knows: which of its images are meant, and which may be answered.

    Args:
        question: checked by `require_question`.
        gallery: that is asked, and stays what it is meanwhile.

    Raises:
        MatMambaError: ids that the gallery does not have, a condition that cannot be understood, or a vector
            that does not fit.
    """

    def __init__(self, question: Question, gallery: AnyGallery) -> None:
        self.question, self.gallery = question, gallery
        self._id = _keys("id", (question.id,) if question.id else (), gallery)
        self._like, unlike = (_keys(name, getattr(question, name), gallery) for name in ("like", "unlike"))
        self._vector = (
            None if question.vector is None else unit_vectors(VECTOR, question.vector, gallery.spec.dim, 1)
        )
        self._unlike = Stored(gallery, unlike) if len(unlike) else None
        self._allowed = gallery.allowed(question.where or None, np.concatenate([self._excluded, unlike]))

    @property
    def _excluded(self) -> NDArray[np.int64]:
        """Keys of images that are asked with; a single one is left out by who answers it."""
        return self._like if self._alone else np.concatenate([self._id, self._like])

    @property
    def _alone(self) -> bool:
        """Whether it asks with one image of the gallery, and perhaps a text."""
        return len(self._id) == 1 and not len(self._like)

    @property
    def wanted(self) -> int:
        """Hits that have to be found, those of earlier pages included."""
        return self.question.k + self.question.offset

    @property
    def answerable(self) -> int:
        """How many images may be hits."""
        alone = self._alone if self._allowed is None else 0
        return self.gallery.total(self._allowed) - alone

    def answer(
        self, strategy: Strategy, images: ImageQueries | None = None, text: TextQueries | None = None
    ) -> Answer:
        """The hits of all pages up to the one that is asked for.

        Args:
            strategy: how.
            images: the question's image, which encodes itself.
            text: the question's text, which encodes itself.
        """
        if not len(self.gallery):
            return Answer(query=self.name, strategy=strategy, reason=NO_IMAGES, cost=Cost())
        search = SearchPass(
            gallery=self.gallery,
            strategy=strategy,
            plan=None,
            k=hits_wanted(self.wanted, self.gallery),
            allowed=self._allowed,
            negatives=self._unlike,
            min_score=self.question.min_score,
            few=why_few(self.wanted, self.gallery),
        )
        base = self._base(images)
        if base is None and not len(self._like):
            assert text is not None
            return replace(search.one(self.name, text), text=self.question.text)
        search = replace(search, text=text)
        if self._alone:
            return next(search.more_like(self._id))
        return search.one(self.name, self._towards(base))

    @property
    def name(self) -> str:
        """What answers call it."""
        question = self.question
        if question.image is not None:
            return IMAGE
        return question.id or (VECTOR if question.vector is not None else question.text or EXAMPLES)

    def _base(self, images: ImageQueries | None) -> Queries | None:
        """What is asked with, but for texts and further examples."""
        if images is not None:
            return images
        if self._vector is not None:
            return VectorQueries(self._vector)
        return Stored(self.gallery, self._id) if len(self._id) else None

    def _towards(self, base: Queries | None) -> Queries:
        """The query, joined with the mean of the examples that answers should be like."""
        if not len(self._like):
            assert base is not None
            return base
        mean = Stored(self.gallery, self._like).encode("full").xq.mean(0, keepdims=True)
        examples = VectorQueries(mean / max(float(np.linalg.norm(mean)), 1e-6))
        return examples if base is None else Towards(base, examples)


def _keys(name: str, ids: Sequence[str], gallery: Searchable) -> NDArray[np.int64]:
    return np.array([one.key for one in stored_queries(name, ids, gallery)], dtype=np.int64)


def page_of(answer: Answer, question: Question, answerable: int) -> tuple[Answer, bool]:
    """The page that is asked for, and whether there may be hits behind it.

    Args:
        answer: hits of all pages up to it.
        question: says where it begins, and how long it is.
        answerable: how many images may be hits.
    """
    hits = answer.hits[question.offset : question.offset + question.k]
    more = len(hits) == question.k and question.offset + question.k < answerable
    return replace(answer, hits=hits), more
