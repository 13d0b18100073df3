"""The engine's folder, damaged, on a disk that cannot be written, or full: one line that names the place."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from matmamba_common.errors import MatMambaError
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row
from matmamba_retrieval.backends import edge
from matmamba_retrieval.backends.comparison import PushCheck
from matmamba_retrieval.backends.pushed_gallery import PushedGallery
from matmamba_retrieval.backends.pushing import Pushing
from matmamba_retrieval.backends.wish import Wish
from pushed_places import Places, compared, push
from small import unit_vectors

IMAGES, DIM = 30, 8


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Gallery]:
    """Thirty labelled images."""
    with Gallery.create(tmp_path / "gallery", EmbeddingSpec("a" * 64, "full", DIM)) as gallery:
        rows = [Row(f"id{n}", "", "a", {"n": n}) for n in range(IMAGES)]
        gallery.add(rows, unit_vectors(IMAGES, DIM))
        yield gallery


def ask(places: Places) -> None:
    """All that a search by an image of the gallery reads."""
    opened = PushedGallery.open(places.address)
    try:
        keys = opened.keys_of(["id3"])
        opened.vectors(np.array(list(keys.values())))
        opened.labels()
        opened.rows(range(IMAGES))
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("current.json", b"\xff\xfe", "current.json is damaged: "),
        ("*/about.json", b"\xff\xfe", "about.json is damaged: "),
        ("*/about.json", b"[]", "about.json is damaged: it is no JSON object"),
        ("*/shard/segments/*/segment.json", b"", "cannot be used: "),
        # The engine gives up.
        ("*/shard/segments/*/vector_storage-full/deleted/status.dat", b"", "is damaged: the engine gave up"),
        ("*/shard/segments/*/vector_storage-full/vectors/status.dat", None, "has no vector 'full'"),
    ],
)
def test_a_damaged_folder_is_one_line(
    stored: Gallery, tmp_path: Path, file: str, content: bytes | None, words: str
) -> None:
    places = Places("edge", tmp_path)
    push(stored, places)
    (found,) = (tmp_path / "pushed").glob(file)
    found.unlink() if content is None else found.write_bytes(content)
    with pytest.raises(GalleryError) as raised:
        ask(places)
    assert words in str(raised.value)
    assert str(tmp_path / "pushed") in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    # Where the folder says what it holds, another one takes its place.
    if "shard" in file:
        assert push(stored, places, replace=True).comparison.whole
        ask(places)


def test_a_point_that_was_meddled_with_is_named(stored: Gallery, tmp_path: Path) -> None:
    places = Places("edge", tmp_path)
    push(stored, places)
    with places.open() as store:
        current = store.current()
        assert current is not None
        current.upsert(np.array([3]), {"full": unit_vectors(1, DIM)}, [{"id": "id3", "path": "", "label": 5}])
    opened = PushedGallery.open(places.address)
    try:
        with pytest.raises(
            GalleryError, match=r"edge:.* is damaged: a point that was found by its label has 5"
        ):
            opened.labels()
        assert opened.keys_of(["id3"]) == {"id3": 3}
    finally:
        opened.close()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_said(number: int) -> None:
    with pytest.raises(GalleryError) as raised, edge.saying("edge:P"):
        raise Exception(f"Failed to open mmap payload storage: Read-only (os error {number})")
    assert str(raised.value).startswith(
        "edge:P cannot be written to, which the engine does even to be asked: "
    )


def test_what_is_no_fault_of_the_engine_passes() -> None:
    for error in (KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)), edge.saying("edge:P"):
            raise error


@pytest.mark.parametrize("step", ["carry", "build", "check", "publish"])
def test_a_folder_that_goes_away_during_a_push_is_one_line_and_the_next_one_is_whole(
    stored: Gallery, tmp_path: Path, step: str
) -> None:
    places = Places("edge", tmp_path)
    with places.open() as store:
        work = Pushing(stored, store, Wish(dims=(4,), recall=0.9, memory=IMAGES * 5.0))
        steps: dict[str, Callable[[], object]] = {
            "carry": lambda: work.carry(lambda count: None),
            "build": work.build,
            "check": work.check,
            "publish": lambda: work.publish(PushCheck(images=IMAGES, counted=IMAGES, sampled=0)),
        }
        for name, go in steps.items():
            if name == step:
                shutil.rmtree(tmp_path / "pushed")
                with pytest.raises(MatMambaError, match="No such file or directory") as raised:
                    go()
                assert "\n" not in str(raised.value)
                break
            go()
    assert push(stored, places).images == IMAGES
    assert compared(stored, places).faults == []


def test_a_disk_that_fills_while_filters_are_indexed_is_told_and_the_push_goes_on(
    stored: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, usage = Places("edge", tmp_path), shutil.disk_usage(tmp_path)
    # Room for another byte than the index of 30 points may take.
    free = edge.ROOM + edge.INDEXED_BYTES * IMAGES - 1
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda place: usage._replace(free=free))
        with pytest.raises(GalleryError, match=r"the disk of edge:.* is full"):
            push(stored, places)
    with places.open() as store:
        assert store.current() is None
    assert push(stored, places).added == 0
    assert compared(stored, places).faults == []
