"""Galleries on a server over HTTP whose network, proxy or disk gives way: one line, what was done stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_qdrant import CUT, FULL, HALF, PROXY, UNSAID, FakeServer, fake_server
from matmamba_retrieval import (
    EmbeddingSpec,
    Encoded,
    EncodedQueries,
    Gallery,
    GalleryError,
    Row,
    Strategy,
    search,
)
from matmamba_retrieval.backends import pushing
from matmamba_retrieval.backends.address import open_store
from matmamba_retrieval.backends.comparison import PushCheck, compare
from matmamba_retrieval.backends.layout import Contents
from matmamba_retrieval.backends.pushed_gallery import PushedGallery
from matmamba_retrieval.backends.pushing import Pushed, Pushing
from matmamba_retrieval.backends.wish import Wish
from small import unit_vectors

IMAGES, DIM, PUT = 40, 8, "PUT /collections/"


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gallery]:
    """Forty images, to be pushed in batches of eight, each of which is noted."""
    monkeypatch.setattr(pushing, "BATCH_ROWS", 8)
    monkeypatch.setattr(pushing, "NOTE_SECONDS", 0.0)
    with Gallery.create(tmp_path / "gallery", EmbeddingSpec("a" * 64, "full", DIM)) as gallery:
        rows = [Row(f"id{n}", f"/p/{n}", "ab"[n % 2], {"n": n}) for n in range(IMAGES)]
        gallery.add(rows, unit_vectors(IMAGES, DIM))
        yield gallery


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


def push(gallery: Gallery, server: FakeServer) -> Pushed:
    store = open_store(server.address, write=True)
    try:
        work = Pushing(gallery, store, Wish(dims=(4,)))
        work.carry(lambda count: None)
        work.build()
        return work.publish(work.check())
    finally:
        store.close()


def compared(gallery: Gallery, server: FakeServer) -> PushCheck:
    store = open_store(server.address)
    try:
        current = store.current()
        assert current is not None
        return compare(gallery, current, Contents.from_json(current.about(), store.place), every_key=True)
    finally:
        store.close()


def acknowledged(server: FakeServer) -> int:
    """Points that were put in, with an answer."""
    return sum(server.client.count(each.name).count for each in server.client.get_collections().collections)


def test_a_push_over_http_is_whole_and_answers_as_the_folder(stored: Gallery, server: FakeServer) -> None:
    assert push(stored, server).comparison.whole
    assert compared(stored, server).faults == []
    asked = EncodedQueries({"full": Encoded(unit_vectors(5, DIM, seed=1), 0.0, 0.0)})
    strategy = Strategy.shortlist(width="full", dim=4, length=20)
    stored.build_shortlist(4, "flat")
    there = PushedGallery.open(server.address)
    try:
        for where in (None, "label = 'a' AND n > 5"):
            found = search(there, strategy, asked, 3, there.allowed(where))
            wanted = search(stored, strategy, asked, 3, stored.allowed(where))
            assert found.I.tolist() == wanted.I.tolist()
    finally:
        there.close()


@pytest.mark.parametrize(
    ("ill", "words"),
    [
        (CUT, "the server cannot be reached, or went away"),
        (UNSAID, "the server cannot be reached, or went away"),
        (HALF, "the server cannot be reached, or went away"),
        (PROXY, r"the server refused \(502\): .*502 Bad Gateway"),
        (FULL, r"the server refused \(500\): Service internal error: No space left on device"),
    ],
)
def test_wherever_a_push_is_cut_it_is_one_line_and_goes_on(
    stored: Gallery, server: FakeServer, ill: str, words: str
) -> None:
    """Each request in turn is the one that fails, of a push that goes on each time."""
    failed = 0
    while True:
        first = len(server.asked)
        put = acknowledged(server)
        server.ill = lambda number, path, at=first + failed + 1: ill if number == at else ""  # type: ignore[misc]
        try:
            done = push(stored, server)
        except GalleryError as error:
            failed += 1
            said = str(error)
            assert said.startswith(f"{server.address}: "), said
            assert len(said.splitlines()) == 1
            assert re.search(words, said), said
            # What was there before is there.
            assert acknowledged(server) >= put
            continue
        break
    assert failed > 10
    assert done.images == IMAGES
    server.ill = lambda number, path: ""
    assert compared(stored, server).faults == []
    assert len(server.client.get_collections().collections) == 1


def test_what_was_acknowledged_is_not_pushed_again(stored: Gallery, server: FakeServer) -> None:
    cut = [0]

    def ill(number: int, path: str) -> str:
        cut[0] += path.endswith("/points") and path.startswith("PUT")
        return CUT if cut[0] == 4 else ""

    server.ill = ill
    with pytest.raises(GalleryError, match="went away"):
        push(stored, server)
    assert acknowledged(server) == 24
    server.ill = lambda number, path: ""
    assert push(stored, server).added == IMAGES - 24


@pytest.mark.parametrize("ill", [CUT, HALF, PROXY, FULL])
def test_a_search_that_is_cut_is_one_line_and_the_next_one_answers(
    stored: Gallery, server: FakeServer, ill: str
) -> None:
    push(stored, server)
    asked = EncodedQueries({"full": Encoded(unit_vectors(2, DIM, seed=1), 0.0, 0.0)})
    there = PushedGallery.open(server.address)
    try:
        wanted = search(there, Strategy.single_shot(), asked, 3).I
        server.ill = lambda number, path: ill
        with pytest.raises(GalleryError, match=f"^{server.address}: the server") as raised:
            search(there, Strategy.single_shot(), asked, 3)
        assert "\n" not in str(raised.value)
        server.ill = lambda number, path: ""
        assert search(there, Strategy.single_shot(), asked, 3).I.tolist() == wanted.tolist()
    finally:
        there.close()
