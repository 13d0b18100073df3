"""A service that stands for the real one in tests of HTTP, and ways to ask it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_vision import open_gallery
from matmamba_vision.errors import MatMambaError
from matmamba_vision.serving.events import Shed
from matmamba_vision.serving.http.app import make_application
from matmamba_vision.serving.http.options import HttpOptions
from matmamba_vision.serving.http.server import ServedHttp
from matmamba_vision.serving.http.work import Front
from matmamba_vision.serving.question import LiveRecall, OverloadedError, Question, Reply
from matmamba_vision.upkeep.image_gallery import ImageGallery
from numpy.typing import NDArray
from PIL import Image
from small import unit_vectors
from starlette.testclient import TestClient

DIM = 16
# Names that a page or a terminal would trip over if it took them for more than data.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>.jpg',
    "../../etc/passwd",
    "a b&c=d?e#f%2e",
    "line\nend\x1b[2J",
    "naïve/日本.jpg",
)
SEARCH = "/v1/galleries/photos/search"


def made_gallery(folder: Path, count: int = 12) -> Path:
    """Pictures of one colour each in files, and a gallery of random vectors that knows them."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    rows = []
    for number in range(count):
        path = pictures / f"{number}.jpg"
        Image.new("RGB", (60 + number, 40), (20 * number, 90, 160)).save(path)
        name = HOSTILE[number] if number < len(HOSTILE) else f"id{number}"
        rows.append(Row(name, str(path), ("cat", "dog")[number % 2], {"year": 2015 + number}))
    with Gallery.create(folder / "gallery", EmbeddingSpec("vectors:by-hand", "full", DIM)) as gallery:
        if rows:
            gallery.add(rows, unit_vectors(count, DIM))
    return folder / "gallery"


def vector_of(image: Image.Image) -> NDArray[np.float32]:
    """(DIM,) of length 1: what stands for an encoder."""
    x = np.asarray(image.resize((4, 4)), dtype=np.float32).reshape(3, -1).mean(0)[:DIM] + 1
    return x / np.linalg.norm(x)


def jpeg(size: tuple[int, int] = (32, 32), seed: int = 0, kind: str = "JPEG") -> bytes:
    """The file of a picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


class FakeService:
    """Answers from galleries of vectors; what it is asked is kept, and tests decide when it answers.

    Args:
        folders: of galleries, by name.

    Attributes:
        ready: whether it answers.
        asked: all questions.
        overloaded: whether it turns everybody away.
        go: answers wait for it.
        changes: what it was told to add and delete.
        failure: raised when it is started, or asked.
        refreshed: how often it was told to look for newer versions.
        closed: how it was ended.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.ready, self.overloaded = True, False
        self.asked, self.changes = list[Question](), list[tuple[Any, ...]]()
        self.go = threading.Event()
        self.failure: Exception | None = None
        self._listeners = list[Callable[[Any], None]]()
        self.refreshed, self.closed = 0, -1.0
        self.recall: LiveRecall | None = None
        self._opened = {name: open_gallery(folder) for name, folder in folders.items()}
        self.go.set()

    def start(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.ready = True

    def require_room(self, gallery: str, deadline: float, width: str = "", min_width: str = "") -> None:
        if self.overloaded:
            self._turn_away(gallery)

    def _turn_away(self, gallery: str) -> None:
        for listener in self._listeners:
            listener(Shed(gallery=gallery, where="entry", retry_after=2.5))
        raise OverloadedError("the queue is full", 2.5)

    def submit(self, question: Question) -> Future[Reply]:
        self.asked.append(question)
        if self.failure is not None:
            raise self.failure
        if self.overloaded:
            self._turn_away(question.gallery)
        future = Future[Reply]()
        threading.Thread(target=self._answer, args=(question, future), daemon=True).start()
        return future

    def _answer(self, question: Question, future: Future[Reply]) -> None:
        assert self.go.wait(60)
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self._reply(question))
        except Exception as error:
            future.set_exception(error)

    def _reply(self, question: Question) -> Reply:
        vector = question.vector if question.image is None else vector_of(question.image)
        # An id is never taken for a file, whatever it is called.
        asked: Any = {"like": question.id} if question.id else {"query": None if vector is None else [vector]}
        (answer,) = self.gallery(question.gallery).search(
            **asked,
            k=question.offset + question.k + 1,
            where=question.where,
            min_score=question.min_score,
        )
        hits = answer.hits[question.offset : question.offset + question.k]
        more = len(answer.hits) > question.offset + question.k
        answer = type(answer)(query=answer.query, hits=hits, strategy=answer.strategy, cost=answer.cost)
        encoded = question.image is not None
        return Reply(
            answer=answer,
            more=more,
            width=(question.width or "1/2") if encoded else "",
            sent_on=encoded,
            version="1.1",
            queue_position=len(self.asked) - 1,
            ms={"queue": 0.5, "encode": 1.5, "rerank": 0.25, "total": 2.25},
            recall=self.recall,
        )

    def names(self) -> list[str]:
        return list(self._opened)

    def gallery(self, name: str) -> ImageGallery:
        return self._opened[name]

    def describe(self, name: str) -> dict[str, Any]:
        about = {"name": name, "images": len(self._opened[name]), "version": "1.1", "widths": []}
        return about | {"model": "/home/me/runs/RUN/model.safetensors"}

    def status(self) -> dict[str, Any]:
        live = {
            "full": None,
            "1/2": vars(LiveRecall(estimate=0.9, low=0.8, high=0.95, same_first=1, samples=40)),
        }
        known = {"ready": self.ready, "queue": 3, "in_flight": 1, "recall": live}
        return {**known, "galleries": dict.fromkeys(self._opened, "1.1")}

    def refresh(self, name: str | None = None) -> None:
        self.refreshed += 1

    def add(
        self,
        name: str,
        images: Sequence[Any],
        ids: Sequence[str],
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        upsert: bool = False,
    ) -> None:
        self.changes.append(("add", name, list(images), list(ids), labels, metadata, upsert))

    def delete(self, name: str, ids: Sequence[str]) -> int:
        self.changes.append(("delete", name, list(ids)))
        return len(ids)

    def on_event(self, listener: Callable[[Any], None]) -> None:
        self._listeners.append(listener)

    def close(self, drain_s: float = 10.0) -> None:
        self.closed = drain_s
        for gallery in self._opened.values():
            gallery.close()


def client_of(service: Any, options: HttpOptions | None = None, **more: Any) -> TestClient:
    """A client in this process, that asks by a name of loopback."""
    app = make_application(Front(service, options or HttpOptions(slo_ms=10_000)))
    return TestClient(app, base_url="http://127.0.0.1", **more)


def multipart(image: bytes | None = None, **request: Any) -> dict[str, Any]:
    """What a client sends as a search."""
    files: list[tuple[str, Any]] = [] if image is None else [("image", ("q.jpg", image, "image/jpeg"))]
    if request:
        files.append(("request", (None, json.dumps(request), "application/json")))
    return {"files": files}


@contextmanager
def listening(service: Any, options: HttpOptions | None = None) -> Iterator[ServedHttp]:
    """A server that listens at a free port, in a thread of this process."""
    served = ServedHttp(service, options or HttpOptions(slo_ms=10_000), host="127.0.0.1", port=0)
    ready, failed = threading.Event(), list[BaseException]()

    def serve() -> None:
        try:
            served.run(lambda _: ready.set())
        except MatMambaError as error:
            failed.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield served
    finally:
        served.stop()
        thread.join(30)
        assert not thread.is_alive()
        assert not failed
