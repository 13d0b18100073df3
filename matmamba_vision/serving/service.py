"""The service without HTTP: questions in, replies out, for several galleries."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..errors import ConfigError
from ..galleries.gallery_model import ModelLike
from ..galleries.given_images import ImageLike
from ..upkeep.image_gallery import ImageGallery
from .asking import Inquiry, page_of, require_question
from .question import OverloadedError, Question, Reply
from .settings import Settings
from .ways import FULL, way


class Service:
    """Answers questions about galleries.

    Args:
        galleries: their folders, by the names that questions call them.
        settings: how it answers.
        model: what made the galleries, if that was moved; by default from where it was.
        device: that encodes queries.

    Attributes:
        ready: whether it answers.
    """

    def __init__(
        self,
        galleries: Mapping[str, str | os.PathLike[str]],
        settings: Settings,
        *,
        model: ModelLike | None = None,
        device: str = "cpu",
    ) -> None:
        if not galleries:
            raise ConfigError("galleries is empty: a service has one or more")
        self.settings, self.ready = settings, False
        self._folders, self._model, self._device = dict(galleries), model, device
        self._galleries: dict[str, ImageGallery] = {}
        self._pool = ThreadPoolExecutor(max(1, settings.workers))
        self._listeners: list[Callable[[Any], None]] = []
        self._waiting, self._counting, self._started = 0, threading.Lock(), time.monotonic()

    def start(self) -> None:
        """Open all galleries, and load what encodes their queries."""
        for name, folder in self._folders.items():
            self._galleries[name] = ImageGallery.open(folder, model=self._model, device=self._device)
        self.ready = True

    def submit(self, question: Question) -> Future[Reply]:
        """A reply to come.

        Raises:
            OverloadedError: it cannot be answered in time.
            MatMambaError: a question that cannot be.
        """
        require_question(question, self.settings.max_k)
        self.gallery(question.gallery)
        with self._counting:
            if self._waiting >= self.settings.max_queue:
                raise OverloadedError("too many requests are waiting", 1.0)
            position, self._waiting = self._waiting, self._waiting + 1
        return self._pool.submit(self._answer, question, position, time.monotonic())

    def _answer(self, question: Question, position: int, start: float) -> Reply:
        opened, begun = self.gallery(question.gallery), time.monotonic()
        try:
            with opened.reading() as gallery:
                inquiry, width = Inquiry(question, gallery), question.width or FULL
                images = None
                if question.image is not None:
                    encoder = opened.encoder()
                    images = encoder.queries([encoder.read(question.image)])
                text = opened._texts([question.text]) if question.text else None
                strategy = way(gallery, question.strategy, width, inquiry.wanted, send_on=True)
                answer = inquiry.answer(strategy, images, text)
                page, more = page_of(answer, question, inquiry.answerable)
                version = f"{gallery.generation.number}.{gallery.version.number}"
        finally:
            with self._counting:
                self._waiting -= 1
        ms = {"queue": 1e3 * (begun - start), **page.cost.ms, "total": 1e3 * (time.monotonic() - start)}
        return Reply(
            answer=page,
            more=more,
            width=width if images is not None else "",
            sent_on=images is not None and width != FULL and answer.by_full_width,
            version=version,
            queue_position=position,
            ms=ms,
        )

    def names(self) -> list[str]:
        """Of the galleries."""
        return list(self._folders)

    def gallery(self, name: str) -> ImageGallery:
        """A gallery at the version that is answered from now.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self._galleries:
            raise ConfigError(f"there is no gallery {name!r}: there are {', '.join(self._folders)}")
        return self._galleries[name]

    def describe(self, name: str) -> dict[str, Any]:
        """What a gallery is, and what its widths cost."""
        opened = self.gallery(name)
        with opened.reading() as gallery:
            return {
                "name": name,
                "images": len(gallery),
                "version": f"{gallery.generation.number}.{gallery.version.number}",
                "dim": gallery.spec.dim,
                "model": gallery.checkpoint_path,
                "takes_text": bool(opened.takes_text()),
                "writable": self.settings.writable,
                "labels": bool((gallery.class_numbers() >= 0).any()),
                "fields": gallery.fields(),
                "max_k": self.settings.max_k,
                "widths": [],
                "strategies": ["auto", "single-shot", "shortlist", "funnel"],
                "plan": None,
            }

    def status(self) -> dict[str, Any]:
        """How it is doing."""
        versions = {}
        for name, opened in self._galleries.items():
            with opened.reading() as gallery:
                versions[name] = f"{gallery.generation.number}.{gallery.version.number}"
        return {
            "ready": self.ready,
            "uptime_s": time.monotonic() - self._started,
            "slo_ms": self.settings.slo_ms,
            "queue": self._waiting,
            "in_flight": 0,
            "per_second": 0.0,
            "p50_ms": None,
            "p95_ms": None,
            "p99_ms": None,
            "in_time": None,
            "shed": 0,
            "widths": {},
            "min_width": "",
            "notices": [],
            "recall": {},
            "table": {},
            "galleries": versions,
        }

    def refresh(self, name: str | None = None) -> None:
        """See what was added, deleted or planned since.

        Args:
            name: of a gallery, None for all.
        """
        for known in [name] if name is not None else self.names():
            self.gallery(known).refresh()

    def add(
        self,
        name: str,
        images: Sequence[ImageLike],
        ids: Sequence[str],
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        upsert: bool = False,
    ) -> None:
        """Add images; nothing here yet."""
        raise ConfigError("images cannot be added yet")

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Delete images; nothing here yet."""
        raise ConfigError("images cannot be deleted yet")

    def on_event(self, listener: Callable[[Any], None]) -> None:
        """Tell a listener of what happens."""
        self._listeners.append(listener)

    def close(self, drain_s: float = 10.0) -> None:
        """Answer what was accepted, then release everything."""
        self.ready = False
        self._pool.shutdown(wait=True)
        for opened in self._galleries.values():
            opened.close()
