"""What all routes share: the service, what it holds at once, and what it is told about itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from matmamba_retrieval import GalleryError
from matmamba_retrieval.strategies.searchable import Searchable
from starlette.requests import Request

from ...errors import MatMambaError
from .backend import Answering
from .limits import CrowdedError, MemoryBudget, WorkPool
from .options import HttpOptions
from .refusals import RequestError, refusal_of
from .service_metrics import ServiceMetrics

# Jobs that may wait for a thread: each holds an upload that was counted, or nothing.
MOST_DECODING, MOST_READING = 512, 256
READERS = 4
# Versions that may take each other's place while one is opened to be read.
MOST_SWAPS = 5


@dataclass
class RequestNote:
    """What is known about a request while it is answered: for its log line and its metrics.

    Attributes:
        request_id: that the client gave, or was given.
        arrived: in seconds of `time.monotonic`.
        gallery: asked.
        width: that encoded the query.
        strategy: that found the hits.
        more: whatever else its log line says.
    """

    request_id: str
    arrived: float = field(default_factory=time.monotonic)
    gallery: str = ""
    width: str = ""
    strategy: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(request: Request) -> RequestNote:
        """That of a request."""
        note = request.scope["matmamba.note"]
        assert isinstance(note, RequestNote)
        return note


class Front:
    """The service as its routes see it.

    Args:
        service: that answers.
        options: how requests are taken.

    Attributes:
        memory: of all uploads and decoded images.
        decoders: threads that decode images, as many as there are processors.
        readers: threads that read rows and pictures.
        metrics: of all requests.
        draining: whether it stops: what is under way is answered, and nothing else comes.
    """

    def __init__(self, service: Answering, options: HttpOptions) -> None:
        self.service, self.options = service, options
        self.memory = MemoryBudget(int(options.memory_mb * 1e6))
        self.decoders = WorkPool("decode", os.cpu_count() or 1, MOST_DECODING)
        self.readers = WorkPool("read", READERS, MOST_READING)
        self.metrics = ServiceMetrics(service, self.memory)
        self.draining = False
        service.on_event(self.metrics.heard)

    def require_gallery(self, name: str) -> str:
        """The name of a gallery that is served.

        Raises:
            RequestError: there is none, or it cannot be asked yet.
        """
        if name not in self.service.names():
            raise RequestError("not_found", f"there is no gallery {name!r} here")
        self.require_ready()
        return name

    def require_ready(self) -> None:
        """Raise `RequestError` if no question can be answered yet."""
        if not self.service.ready:
            later = {"Retry-After": "1"}
            raise RequestError("not_ready", f"not ready yet: {self.waiting_for}", headers=later)

    @contextmanager
    def reading(self, name: str) -> Iterator[Searchable]:
        """Rows and vectors of a gallery in its present version, for the block.

        Raises:
            GalleryError: it is damaged.
        """
        with ExitStack() as held:
            gallery = self._held(name, held)
            yield gallery

    def _held(self, name: str, held: ExitStack) -> Searchable:
        for _ in range(MOST_SWAPS):
            opened = self.service.gallery(name)
            try:
                return held.enter_context(opened.reading())
            except GalleryError:
                # Another version took its place in between.
                if self.service.gallery(name) is opened:
                    raise
        raise CrowdedError("swaps", f"{name} changes faster than it can be read")

    @property
    def waiting_for(self) -> str:
        """What is missing until requests are answered, "" for nothing."""
        if self.draining:
            return "the requests under way, before it stops"
        return "" if self.service.ready else "its widths to be measured, and each to answer once"

    def refusal_of(self, error: Exception) -> RequestError:
        """What a request is told of an error, counted where there are too many requests."""
        if isinstance(error, CrowdedError):
            self.metrics.shed(error.where)
        refusal = refusal_of(error)
        shown = self._without_folders(str(refusal))
        return RequestError(refusal.code, shown, status=refusal.status, headers=refusal.headers)

    def _without_folders(self, message: str) -> str:
        """A message that calls galleries by their names here: where they lie is nobody's business."""
        for name in self.service.names():
            # One that is not open yet is not named either.
            with suppress(MatMambaError):
                message = message.replace(str(self.service.gallery(name).folder), name)
        return message

    def close(self) -> None:
        """Stop its threads."""
        self.decoders.close()
        self.readers.close()
