"""What a server can do to a push: be down, be too old, be somebody else's, or go away in the middle."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row
from matmamba_retrieval.backends import pushing
from matmamba_retrieval.backends.address import open_store
from pushed_places import Places, compared, push
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.models import Distance, VectorParams
from small import unit_vectors

DIM = 8


@contextmanager
def answering(version: str, *, then: str = "") -> Iterator[str]:
    """The address of something that says it is a Qdrant server, and closes every connection after that."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/":
                self.connection.close()
                return
            body = json.dumps({"title": "qdrant", "version": version}).encode() if version else b"<html>"
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"qdrant://127.0.0.1:{server.server_port}/photos"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_that_is_too_old_is_named_with_the_oldest_that_can() -> None:
    with answering("1.9.7") as address, pytest.raises(GalleryError) as raised:
        open_store(address)
    assert str(raised.value) == f"{address} is a Qdrant server of version 1.9.7: 1.16 is the oldest that does"


def test_what_is_no_qdrant_server_is_one_line() -> None:
    with answering("") as address, pytest.raises(GalleryError, match=f"^{address}: ") as raised:
        open_store(address)
    assert "\n" not in str(raised.value)


def test_a_server_that_goes_away_is_one_line() -> None:
    with answering("1.18.0") as address:
        store = open_store(address)
        try:
            with pytest.raises(GalleryError, match="the server cannot be reached, or went away") as raised:
                store.current()
        finally:
            store.close()
    assert "\n" not in str(raised.value)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Gallery]:
    """Forty images."""
    with Gallery.create(tmp_path / "gallery", EmbeddingSpec("a" * 64, "full", DIM)) as gallery:
        gallery.add([Row(f"id{n}", "", None, {"n": n}) for n in range(40)], unit_vectors(40, DIM))
        yield gallery


def refusal(kind: str) -> Exception:
    """As qdrant-client raises it."""
    if kind == "cut":
        return ResponseHandlingException(ConnectionResetError("Connection reset by peer"))
    content = b'{"status":{"error":"Service internal error: No space left on device: WAL buffer"}}'
    return UnexpectedResponse(500, "Internal Server Error", content, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "words"), [("cut", "went away"), ("full", "No space left on device")])
def test_a_push_that_a_server_ends_goes_on(
    stored: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    """What was acknowledged is there, and the next push puts in the rest."""
    monkeypatch.setattr(pushing, "BATCH_ROWS", 8)
    places, put, left = Places("local", tmp_path), QdrantClient.upsert, [2]

    def refuse(self: Any, *args: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise refusal(kind)
        return put(self, *args, **more)

    monkeypatch.setattr(QdrantClient, "upsert", refuse)
    with pytest.raises(GalleryError, match=words) as raised:
        push(stored, places)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("qdrant://local/")
    with places.open() as store:
        assert store.current() is None
        name = store.client.get_collections().collections[0].name  # type: ignore[attr-defined]
        assert store.client.count(name).count == 16  # type: ignore[attr-defined]
    left[0] = 100
    assert push(stored, places).images == 40
    assert compared(stored, places).faults == []


def test_a_collection_that_is_not_ours_is_left_alone(stored: Gallery, tmp_path: Path) -> None:
    places = Places("local", tmp_path)
    with places.open() as store:
        client, name = store.client, store.collection  # type: ignore[attr-defined]
        client.create_collection(name, VectorParams(size=3, distance=Distance.DOT))
    for replace in (False, True):
        with pytest.raises(GalleryError, match="is a collection that no push has made: name another"):
            push(stored, places, replace=replace)
    with places.open() as store:
        assert [each.name for each in store.client.get_collections().collections] == [name]  # type: ignore[attr-defined]


def test_collections_of_others_that_are_called_alike_stay(stored: Gallery, tmp_path: Path) -> None:
    """A push removes what pushes have left of its name, and nothing else."""
    places = Places("local", tmp_path)
    push(stored, places)
    with places.open() as store:
        client, name = store.client, store.collection  # type: ignore[attr-defined]
        client.create_collection(f"{name}--backup", VectorParams(size=3, distance=Distance.DOT))
        there = {each.name for each in client.get_collections().collections}
    assert push(stored, places, replace=True).anew
    with places.open() as store:
        left = {each.name for each in store.client.get_collections().collections}  # type: ignore[attr-defined]
    assert left & there == {f"{name}--backup"}
    assert len(left) == 2


def test_what_others_remember_with_a_collection_stays(stored: Gallery, tmp_path: Path) -> None:
    places = Places("local", tmp_path)
    push(stored, places)
    with places.open() as store:
        current = store.current()
        assert current is not None
        current.note({"owner": "archive"})
    stored.delete(["id7"])
    push(stored, places)
    with places.open() as store:
        current = store.current()
        assert current is not None
        assert current.about()["owner"] == "archive"
        assert len(current.retrieve(np.array([7, 8]))) == 1
