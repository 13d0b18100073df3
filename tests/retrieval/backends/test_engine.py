"""What both engines have to be able to do, the same way."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from matmamba_retrieval import GalleryError, prefix
from matmamba_retrieval.backends.address import is_address, open_store
from matmamba_retrieval.backends.edge import ABOUT, EdgeStore
from matmamba_retrieval.backends.engine import Collection, VectorField
from pushed_places import Places

DIM, CUT, COUNT = 12, 4, 50
FIELDS = [
    VectorField(name="full", width="full", dim=DIM),
    VectorField(name="dim4", width="full", dim=CUT, links=8),
]


def vectors() -> np.ndarray:
    xb = np.random.default_rng(5).normal(size=(COUNT, DIM)).astype(np.float16).astype(np.float32)
    return xb / np.linalg.norm(xb, axis=1, keepdims=True)


def fill(collection: Collection, which: np.ndarray) -> np.ndarray:
    xb = vectors()
    payloads = [
        {"id": f"i{key}", "label": None, "metadata": {"year": 2000 + key % 3}} for key in which.tolist()
    ]
    collection.upsert(which, {"full": xb[which], "dim4": prefix(xb[which], CUT)}, payloads)
    return xb


def test_what_was_put_in_is_there_to_the_bit_and_once(places: Places) -> None:
    with places.open() as store:
        assert store.current() is None
        collection = store.create("a", FIELDS, {"format": 1})
        xb = fill(collection, np.arange(COUNT))
        fill(collection, np.arange(10))
        assert collection.count() == COUNT
        found = collection.retrieve(np.array([7, 99, 3]), ["full", "dim4"])
        assert [point.key for point in found] == [7, 3]
        assert found[0].payload == {"id": "i7", "label": None, "metadata": {"year": 2001}}
        np.testing.assert_array_equal(found[0].vectors["full"], xb[7])
        np.testing.assert_array_equal(found[1].vectors["dim4"], prefix(xb, CUT)[3])
        assert collection.retrieve(np.array([7]), payload=False)[0].payload == {}
        collection.delete(np.array([1, 2, 99]))
        assert collection.count() == COUNT - 2
        assert np.concatenate(list(collection.keys())).tolist() == [0, *range(3, COUNT)]
        assert np.concatenate(list(collection.keys(45))).tolist() == [45, 46, 47, 48, 49]


def test_a_staged_collection_answers_once_it_is_published(places: Places) -> None:
    with places.open() as store:
        fill(store.create("a", FIELDS, {"matmamba": {}}), np.arange(5))
    with places.open() as store:
        assert store.current() is None
        staged = store.staged("a")
        assert staged is not None
        staged.note({"pushed": 5})
        staged.index_payload("id", "keyword")
        staged.index_payload("metadata.year", "integer")
        staged.finish(FIELDS)
        store.publish("a")
        fill(store.create("b", FIELDS, {"matmamba": {}}), np.arange(9))
    with places.open() as store:
        current = store.current()
        assert current is not None
        assert (current.count(), current.about()) == (5, {"matmamba": {}, "pushed": 5})
        store.publish("b")
        assert store.staged("a") is None
        current = store.current()
        assert current is not None
        assert current.count() == 9


def test_no_second_process_writes_to_a_folder(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path / "e", write=True)
    with pytest.raises(GalleryError, match="another process writes to edge:"):
        EdgeStore(tmp_path / "e", write=True)
    store.create("a", FIELDS, {})
    other = EdgeStore(tmp_path / "e")
    with pytest.raises(GalleryError, match="in use by another process"):
        other.staged("a")
    store.close()
    assert other.staged("a") is not None
    other.close()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(GalleryError, match="something else than a pushed gallery"):
        EdgeStore(tmp_path, write=True)
    with pytest.raises(GalleryError, match="is a file"):
        EdgeStore(tmp_path / "photo.jpg")
    assert [each.name for each in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize(
    "address",
    ["qdrant://", "qdrant://host", "qdrant://host/", "qdrant://host:port/a", "edge:", "qdrant://h/a--b"],
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    assert is_address(address)
    with pytest.raises(GalleryError, match="is no place for a gallery: give qdrant://host"):
        open_store(address)


@pytest.mark.parametrize(
    ("module", "address"), [("qdrant_edge", "edge:E"), ("qdrant_client", "qdrant://host/photos")]
)
def test_what_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, address: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(GalleryError, match=r"^this needs qdrant-.*'matmamba-vision\[qdrant\]'$"):
        open_store(address)


def test_a_server_that_is_down_is_named() -> None:
    with pytest.raises(GalleryError, match=r"^qdrant://127.0.0.1:9/photos: the server cannot be reached"):
        open_store("qdrant://127.0.0.1:9/photos")


def test_a_folder_whose_first_collection_was_never_finished_is_made_anew(tmp_path: Path) -> None:
    """A push goes on where it was killed between the engine's files and the one that says what they are."""
    folder = tmp_path / "pushed"
    with closing(EdgeStore(folder, write=True)) as store:
        store.create("half", FIELDS, {}).close()
    (folder / "half" / ABOUT).unlink()
    with closing(EdgeStore(folder, write=True)) as store:
        assert store.current() is None
        assert store.staged("half") is None
        store.create("half", FIELDS, {"made": "anew"})
        store.publish("half")
    with closing(EdgeStore(folder)) as store:
        current = store.current()
        assert current is not None
        assert current.about() == {"made": "anew"}
