"""Pushed galleries: all of it is there, once, whatever changed and whatever stopped a push."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Plan, Row, Strategy
from matmamba_retrieval.backends import comparison, pushing
from matmamba_retrieval.backends.edge import EdgeCollection
from matmamba_retrieval.backends.engine import Floats, Ints, VectorField
from matmamba_retrieval.backends.layout import payload_of
from matmamba_retrieval.backends.pushed_gallery import PushedGallery
from matmamba_retrieval.backends.pushing import Pushing
from matmamba_retrieval.backends.server import ServerCollection
from matmamba_retrieval.backends.wish import Wish
from matmamba_retrieval.gallery.renewal import Renewal, compact
from matmamba_retrieval.storage.sources import relocate
from pushed_places import Places, compared, contents_of, push
from small import unit_vectors

DIM, SMALL = 16, "1/8"
SPEC = EmbeddingSpec("a" * 64, "full", DIM)


def rows(numbers: Sequence[int]) -> list[Row]:
    """Images with metadata of every kind."""
    return [
        Row(
            f"id{number}",
            f"/photos/{number}.jpg",
            None if number % 3 else f"class {number % 2}",
            {"year": 2000 + number % 5, "size": number / 2, "raw": number % 2 == 0, "at": {"odd key": "x"}},
        )
        for number in numbers
    ]


def fill(gallery: Gallery, numbers: Sequence[int], *, seed: int = 0, replace: bool = False) -> None:
    full, small = (unit_vectors(1000, DIM, seed + more)[list(numbers)] for more in (0, 1))
    gallery.add(rows(numbers), full, {SMALL: small}, replace=replace)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Gallery]:
    """Sixty images with vectors of two widths, of which two were deleted, and a plan over 4 dims."""
    with Gallery.create(tmp_path / "gallery", SPEC, "runs/a", [SMALL]) as gallery:
        fill(gallery, range(40))
        fill(gallery, range(40, 60))
        gallery.delete(["id3", "id59"])
        strategy = Strategy.shortlist(dim=4, length=20)
        gallery.save_plan(Plan(strategy=strategy, spec=SPEC, k=10, goal="recall >= 0.9").to_json())
        yield gallery


def test_all_of_a_gallery_is_there(stored: Gallery, places: Places) -> None:
    done = push(stored, places, dims=(8,))
    assert (done.images, done.added, done.deleted, done.anew) == (58, 58, 2, True)
    names = ["full", "1-8.full", "dim4", "dim8"]
    assert [each["name"] for each in done.vectors] == names
    # Full vectors only rank: on the disk, and not counted.
    assert [each["on_disk"] for each in done.vectors] == [True, True, False, False]
    assert done.memory_bytes == 58 * 4 * (4 + 8)
    found = compared(stored, places)
    assert (found.faults, found.images, found.counted, found.sampled) == ([], 58, 58, 58)
    about = contents_of(places)
    assert (about.keys, about.live, about.complete, about.version) == (60, 58, True, stored.version.number)
    assert (about.spec, about.plan, about.widths) == (SPEC, stored.plan, (SMALL,))
    assert about.kinds == {
        "metadata.year": "integer",
        "metadata.size": "float",
        "metadata.raw": "bool",
        "metadata.at": "",
        'metadata.at."odd key"': "keyword",
    }


def test_what_changed_is_carried_over_and_nothing_else(stored: Gallery, places: Places) -> None:
    push(stored, places)
    stored.delete(["id0", "id1"])
    fill(stored, range(60, 70))
    fill(stored, [10, 11], seed=5, replace=True)
    relocate(stored.catalog, stored.generation.number, "/photos/20.jpg", "/archive/20.jpg")
    before = compared(stored, places)
    assert (before.added, before.deleted) == (12, 4)
    assert before.faults == ["'id20' has other metadata, path or label"]
    done = push(stored, places)
    # The block of keys with another path is small here: all that was live in it is put in again.
    assert (done.images, done.added, done.deleted, done.anew) == (66, 54 + 12, 4, False)
    assert compared(stored, places).faults == []
    again = push(stored, places)
    assert (again.added, again.deleted, again.anew) == (0, 0, False)


def test_a_compacted_gallery_takes_the_place_of_the_one_before(stored: Gallery, places: Places) -> None:
    push(stored, places)
    compact(stored)
    done = push(stored, places)
    assert (done.images, done.added, done.anew) == (58, 58, True)
    assert compared(stored, places).faults == []
    assert contents_of(places).generation == stored.generation.number


def test_so_does_one_that_another_model_made(stored: Gallery, places: Places) -> None:
    push(stored, places)
    renewal = Renewal(stored, EmbeddingSpec("b" * 64, "full", 8), "runs/b")
    keys = renewal.pending()
    renewal.add(keys, unit_vectors(len(keys), 8))
    renewal.finish()
    assert push(stored, places).anew
    assert compared(stored, places).faults == []
    assert [each.name for each in contents_of(places).fields] == ["full"]


def test_another_wish_makes_another_collection_and_none_keeps_the_one_that_is_there(
    stored: Gallery, places: Places
) -> None:
    push(stored, places, dims=(8,))
    assert not push(stored, places).anew
    assert [each.name for each in contents_of(places).fields][2:] == ["dim4", "dim8"]
    assert push(stored, places, dims=(2,)).anew
    assert [each.name for each in contents_of(places).fields][2:] == ["dim2", "dim4"]
    assert compared(stored, places).faults == []


def test_settings_are_kept_when_all_is_pushed_anew(stored: Gallery, places: Places) -> None:
    """Asked for nothing: after `compact`, with another plan, with `replace`, and with fewer dims."""
    push(stored, places, dims=(8, 12), recall=0.9)
    kept = Wish(dims=(8, 12), recall=0.9).to_json()
    compact(stored)
    done = push(stored, places)
    assert (done.anew, contents_of(places).wish) == (True, kept)
    assert {"dim4", "dim8", "dim12"} <= {each["name"] for each in done.vectors}
    strategy = Strategy.shortlist(dim=6, length=20)
    stored.save_plan(Plan(strategy=strategy, spec=SPEC, k=10, goal="recall >= 0.9").to_json())
    for replace in (False, True):
        done = push(stored, places, replace=replace)
        assert (done.anew, contents_of(places).wish) == (True, kept)
        assert {"dim6", "dim8", "dim12"} <= {each["name"] for each in done.vectors}
    shorter = EmbeddingSpec("b" * 64, "full", 10)
    renewal = Renewal(stored, shorter, "runs/b")
    keys = renewal.pending()
    renewal.add(keys, unit_vectors(len(keys), 10))
    renewal.finish()
    push(stored, places)
    assert contents_of(places).wish == Wish(dims=(8,), recall=0.9).to_json()


def test_of_two_pushes_the_later_one_goes_on(stored: Gallery, places: Places) -> None:
    """What the other would have written last is of an older version: an image that was deleted since."""
    push(stored, places)
    fill(stored, [70, 71])
    with Gallery(stored.folder) as before, places.open() as store:
        stored.delete(["id70"])
        first = Pushing(before, store, Wish())
        later = Pushing(stored, store, Wish())
        later.carry(lambda count: None)
        for step in (lambda: first.carry(lambda count: None), first.build, first.check):
            with pytest.raises(GalleryError, match=r"another push to .* has begun meanwhile"):
                step()
        later.build()
        later.publish(later.check())
    assert compared(stored, places).faults == []


def test_what_a_stopped_push_has_put_in_has_its_labels(stored: Gallery, places: Places) -> None:
    """It is answered, so whoever measures answers by labels asks for them."""
    push(stored, places)
    fill(stored, range(70, 90))
    with places.open() as store:
        work = Pushing(stored, store, Wish())
        work.carry(lambda count: None)
        current = store.current()
        assert current is not None
        # As it was noted before.
        current.note({"matmamba": {**work.contents.to_json()["matmamba"], "keys": 60, "paths": []}})
    with places.open(write=False) as store:
        opened = PushedGallery(store)
        assert (len(opened), opened.key_count) == (58, 60)
        assert max(opened.keys_where()) == 79
        live = stored.live_keys()
        assert [opened.labels()[key] for key in live] == [row.label for row in stored.rows(live)]


def test_a_collection_of_another_gallery_stays_unless_it_is_to_be_replaced(
    stored: Gallery, places: Places, tmp_path: Path
) -> None:
    push(stored, places)
    before = contents_of(places)
    for spec, words in [
        (
            EmbeddingSpec("b" * 64, "full", DIM),
            "was made by another checkpoint: digest aaaaaaaaaaaa, not digest b",
        ),
        (SPEC, "has another gallery, which was in"),
    ]:
        with Gallery.create(tmp_path / words[:8], spec) as other:
            other.add([Row("else", "")], unit_vectors(1, DIM))
            with pytest.raises(GalleryError, match=words) as raised:
                push(other, places)
            assert "`replace`" in str(raised.value)
            assert "\n" not in str(raised.value)
            assert contents_of(places) == before
    with Gallery(tmp_path / "has anot") as other:
        assert push(other, places, replace=True).images == 1
        assert compared(other, places).faults == []


def test_a_replaced_collection_is_made_anew_though_it_is_of_the_same_gallery(
    stored: Gallery, places: Places
) -> None:
    push(stored, places)
    with places.open() as store:
        current = store.current()
        assert current is not None
        current.delete(np.array([5]))
    assert compared(stored, places).faults == [
        "it has 57 points for 58 images",
        "1 image missing, the first of key 5",
        "'id5' is missing",
    ]
    with pytest.raises(GalleryError, match="does not hold what was pushed: it has 57 points for 58 images"):
        push(stored, places)
    done = push(stored, places, replace=True)
    assert done.anew
    assert compared(stored, places).faults == []


def test_a_newer_collection_is_not_set_back(stored: Gallery, places: Places) -> None:
    number = stored.version.number
    fill(stored, [70])
    push(stored, places)
    with Gallery(stored.folder, version=number) as older, pytest.raises(GalleryError, match="has version"):
        push(older, places)
    assert contents_of(places).keys == 61


def test_nothing_is_pushed_of_nothing(tmp_path: Path, places: Places) -> None:
    with Gallery.create(tmp_path / "empty", SPEC) as gallery:
        with pytest.raises(GalleryError, match="has no images to push"):
            push(gallery, places)
        fill_one = unit_vectors(1, DIM)
        gallery.add([Row("a", "")], fill_one)
        push(gallery, places)
        gallery.delete(["a"])
        assert push(gallery, places).images == 0
    with places.open() as store:
        current = store.current()
        assert current is not None
        assert current.count() == 0


@pytest.mark.parametrize("wish", [{"dims": (0,)}, {"dims": (17,)}, {"recall": 1.5}, {"memory": -1.0}])
def test_wishes_that_cannot_be(stored: Gallery, places: Places, wish: dict[str, Any]) -> None:
    with pytest.raises(GalleryError, match=r"dims|recall|memory"):
        push(stored, places, **wish)
    with places.open() as store:
        assert store.current() is None


def test_a_format_of_the_future_and_a_foreign_collection_are_left_alone(
    stored: Gallery, places: Places
) -> None:
    push(stored, places)
    about = contents_of(places).to_json()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"matmamba": {**about["matmamba"], "format": 99}}, "has format 99"),
        ({"matmamba": 7}, "is a collection that no push has made"),
        ({"matmamba": {**about["matmamba"], "keys": "many"}}, "keys is 'many'"),
    ]
    for values, words in cases:
        with places.open() as store:
            current = store.current()
            assert current is not None
            current.note(values)
        with pytest.raises(GalleryError, match=words):
            push(stored, places, replace=True)


class Cut(Exception):
    """What a stopped push is stopped by."""


@pytest.mark.parametrize("kind", [EdgeCollection, ServerCollection])
def test_a_push_that_is_cut_goes_on(
    stored: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """After each number of batches in turn: the same push again ends with all, and does not begin again."""
    monkeypatch.setattr(pushing, "BATCH_ROWS", 8)
    monkeypatch.setattr(pushing, "NOTE_SECONDS", 0.0)
    places = Places("edge" if kind is EdgeCollection else "local", tmp_path)
    put, left = kind.upsert, [0]

    def cut(self: Any, keys: Ints, vectors: Mapping[str, Floats], payloads: Sequence[Any]) -> None:
        if not left[0]:
            raise Cut
        left[0] -= 1
        put(self, keys, vectors, payloads)

    monkeypatch.setattr(kind, "upsert", cut)
    for stop, allowed in enumerate((1, 0, 2, 1, 3)):
        left[0] = allowed
        with pytest.raises(Cut):
            push(stored, places)
        with places.open() as store:
            assert store.current() is None
        stored.delete([f"id{20 + stop}"])
    left[0] = 1000
    done = push(stored, places)
    assert done.images == 53
    # 60 keys in 8 batches, of which 7 were put in before.
    assert left[0] == 1000 - 1
    assert compared(stored, places).faults == []


def test_what_differs_is_named(stored: Gallery, places: Places) -> None:
    push(stored, places)
    wrong = {
        "full": unit_vectors(3, DIM, 9),
        "1-8.full": unit_vectors(3, DIM, 8),
        "dim4": unit_vectors(3, 4, 7),
    }
    with places.open() as store:
        current = store.current()
        assert current is not None
        current.upsert(np.array([7, 8, 600]), wrong, [payload_of(row) for row in rows([7, 8, 600])])
    assert compared(stored, places).faults == [
        "it has 59 points for 58 images",
        "1 point of no image, the first of key 600",
        "'id7' has another vector full",
        "'id8' has another vector full",
    ]


def test_ways_of_search_are_chosen_by_measured_recall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exact one unless its memory is too much; then the first whose recall is enough; or none."""
    places = Places("edge", tmp_path)
    with Gallery.create(tmp_path / "many", SPEC) as gallery:
        gallery.add([Row(f"{n}", "") for n in range(400)], unit_vectors(400, DIM))
        push(gallery, places, dims=(8,))
        assert contents_of(places).fields[1] == VectorField(name="dim8", width="full", dim=8)
        done = push(gallery, places, dims=(8,), memory=400 * 12.0)
        assert [each["index"] for each in done.vectors] == ["flat", "int8"]
        assert done.memory_bytes == 400 * 12
        assert done.recall["dim8"] >= 0.99
        assert contents_of(places).measured == {
            "sample": {"dim8": {"int8": pytest.approx(1, abs=0.01)}},
            "recall": done.recall,
        }
        with pytest.raises(GalleryError, match=r"no way to search 400 rows of dim8 has a recall of 0.99 in"):
            push(gallery, places, dims=(8,), memory=100.0)
        monkeypatch.setattr("matmamba_retrieval.backends.tuning.FEW_ROWS", 100)
        done = push(gallery, places, dims=(8,), recall=0.9)
        assert [each["index"] for each in done.vectors] == ["flat", "hnsw16"]
        assert contents_of(places).fields[1].search_effort == 64
        assert compared(gallery, places).faults == []
        # All of the nearest: only what compares all numbers can promise that.
        with pytest.raises(GalleryError, match="no way to search"):
            push(gallery, places, dims=(8,), recall=1.0, memory=400 * 31.0)
        assert contents_of(places).wish == Wish(dims=(8,), recall=0.9).to_json()
        assert comparison.SAMPLED >= 400
