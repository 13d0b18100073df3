"""What a caller asks with in words: texts, for encoders with a text tower."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matmamba_retrieval import Encoded
from numpy.typing import NDArray

from ..errors import ConfigError
from ..given import require_texts

if TYPE_CHECKING:
    from .embedder import Embedder


@dataclass(frozen=True)
class TextQuery:
    """A text.

    Attributes:
        name: what it says.
    """

    name: str


def read_texts(texts: Any, others: bool) -> tuple[list[TextQuery], list[TextQuery]]:
    """The texts that are queries of their own, and the one, or none, that others are joined with.

    Args:
        texts: one, a sequence of them, or None for none.
        others: whether there are queries of other kinds.

    Raises:
        TypeError: something that is no text.
        ConfigError: an empty text, or several beside other queries.
    """
    found = [] if texts is None else [TextQuery(text) for text in require_texts("text", texts)]
    if any(not one.name.strip() for one in found):
        raise ConfigError("text is empty: it can be what a picture shows")
    if others and len(found) > 1:
        raise ConfigError(f"{len(found)} texts stand beside other queries: one can be joined with them")
    return ([], found) if others else (found, [])


class TextQueries:
    """Texts as queries: encoded once, by the text tower, for whichever width is asked.

    Args:
        embedder: that encodes.
        texts: of the queries.

    Attributes:
        texts: of the queries.
        encoded_by: what computed the widths that were asked for.
    """

    def __init__(self, embedder: Embedder, texts: Sequence[str]) -> None:
        self._embedder, self.texts = embedder, texts
        self._encoded: Encoded | None = None
        self.encoded_by: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.texts)

    def encode(self, width: str) -> Encoded:
        """Their embeddings, with milliseconds per query; what a text tower multiplies is not counted."""
        if self._encoded is None:
            start = time.perf_counter()
            xq = self._embedder.embed_texts(self.texts)
            ms = 1e3 * (time.perf_counter() - start) / max(1, len(xq))
            self._encoded = Encoded(xq, 0.0, ms)
        self.encoded_by[width] = self._embedder.encoded_by(width)
        return self._encoded

    def take(self, which: NDArray[np.int64]) -> TextQueries:
        """Some of them, by position; what was encoded already is not encoded again."""
        taken = TextQueries(self._embedder, [self.texts[place] for place in which])
        taken.encoded_by = self.encoded_by
        if self._encoded is not None:
            taken._encoded = Encoded(self._encoded.xq[which], 0.0, self._encoded.ms)
        return taken
