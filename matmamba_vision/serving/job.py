"""A request on its way: what is known of it from its coming to its reply."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from .asking import Inquiry
from .policy import Ticket
from .question import Question, Reply
from .served_version import IMAGE, ServedVersion

# Stands in a question for an image that nobody needs any more, or that is not decoded yet.
NO_PICTURE = Image.new("RGB", (1, 1))


@dataclass(eq=False, kw_only=True)
class Job(Ticket):
    """A request that was let in.

    Attributes:
        question: as it was asked.
        version: that answers; it is held until then.
        kind: see `ServedVersion.kind_of`.
        position: requests that were before it.
        future: of the reply.
        prepared: its image, as what encodes it wants it; None for none.
        prepare_ms: milliseconds that this took, and what else was looked up.
        inquiry: what it asks of the gallery; None until it is prepared.
        is_done: whether it needs nothing any more.
    """

    question: Question
    version: ServedVersion
    kind: str
    position: int = 0
    future: Future[Reply] = field(default_factory=Future)
    prepared: Any = None
    prepare_ms: float = 0.0
    inquiry: Inquiry | None = None
    is_done: bool = False

    def prepare(self) -> None:
        """Look up what it asks of the gallery, and make of its image what is encoded; that alone is kept.

        Raises:
            MatMambaError: a question that this gallery cannot be asked.
        """
        version, image, start = self.version, self.question.image, time.monotonic()
        version.require_text(self.question)
        self.inquiry = Inquiry(self.question, version.gallery)
        if self.kind == IMAGE and version.encoder is not None and image is not None:
            self.prepared = version.encoder.read(image)
            # An image from a camera takes as much memory as thousands of what is encoded.
            self.question = replace(self.question, image=NO_PICTURE)
            self.inquiry.question = self.question
        self.prepare_ms = 1e3 * (time.monotonic() - start)
