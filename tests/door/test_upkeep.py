"""The upkeep of galleries as calls of Python: results as values, nothing printed, bad input by name."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from matmamba_common.errors import MatMambaError
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_vision.progress import Event, Progress
from matmamba_vision.upkeep.contents import delete, describe, ids_to_delete, keys_where
from matmamba_vision.upkeep.duplicates import duplicates
from matmamba_vision.upkeep.exchange import export_atlas, export_gallery, import_gallery
from matmamba_vision.upkeep.health import compact, repair, verify
from matmamba_vision.upkeep.image_gallery import open_gallery
from matmamba_vision.upkeep.labels import suggest_labels
from matmamba_vision.upkeep.merge import merge
from matmamba_vision.upkeep.moving import relocate
from matmamba_vision.upkeep.reindex import reindex
from small import unit_vectors


@pytest.fixture(autouse=True)
def silent(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No call of a room prints."""
    yield
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


@pytest.fixture
def writable(gallery: Gallery) -> Iterator[Gallery]:
    """The gallery of 300 vectors, ten of them twice."""
    gallery.close()
    with Gallery(gallery.folder, write=True) as opened:
        yield opened


def stages(events: list[Event]) -> dict[str, Progress]:
    """The last event of each stage."""
    return {event.stage: event for event in events if isinstance(event, Progress)}


def test_what_a_gallery_holds(writable: Gallery) -> None:
    about = describe(writable)
    assert (about["images"], about["deleted"], about["labels"]) == (300, 0, 3)
    assert [index["dim"] for index in about["indexes"]] == [8, 16]
    assert len(keys_where(writable)) == 300
    assert keys_where(writable, "label = '1'").tolist() == list(range(1, 300, 3))


def test_images_are_deleted_by_id_or_by_condition(writable: Gallery) -> None:
    assert ids_to_delete(writable, where="label = '1'")[:2] == ["id1", "id4"]
    assert delete(writable, "id0") == delete(writable, ["id1"]) == 1
    assert delete(writable, where="label = '1'") == 99
    assert delete(writable, where="label = '1'") == 0
    assert len(writable) == 199


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, MatMambaError, "either by ids or by where"),
        ({"ids": ["id1"], "where": "label = '1'"}, MatMambaError, "either by ids or by where"),
        ({"ids": ["id1", "nobody"]}, MatMambaError, "'nobody': nothing was deleted"),
        ({"ids": 3}, TypeError, "ids is 3: it can be text or a list of texts"),
        ({"where": "label = "}, MatMambaError, "label = "),
    ],
)
def test_what_cannot_be_deleted_is_said_and_nothing_is(
    writable: Gallery, given: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        delete(writable, **given)  # type: ignore[arg-type]
    assert len(writable) == 300


def test_damage_is_found_and_repaired(gallery: Gallery) -> None:
    gallery.close()
    assert verify(gallery.folder).whole
    (index, _) = sorted((gallery.folder / "shortlist").glob("*.faiss"))
    index.write_bytes(index.read_bytes()[:-5])
    found = verify(gallery.folder)
    assert not found.whole
    assert [Path(damage["file"]).name for damage in found.to_dict()["damages"]] == [index.name]
    assert repair(gallery.folder).whole
    assert verify(gallery.folder).whole


def test_deleted_images_leave_for_good(writable: Gallery) -> None:
    delete(writable, ["id0"])
    writable.close()
    assert compact(writable.folder) == 1
    assert compact(writable.folder) == 0


def test_an_export_is_imported_to_the_bit(gallery: Gallery, tmp_path: Path) -> None:
    events: list[Event] = []
    file = tmp_path / "some.parquet"
    assert export_gallery(gallery, file, where="label <> '2'", progress=events.append) == 200
    assert stages(events)["exporting"] == Progress(stage="exporting", done=200, total=200, finished=True)
    assert import_gallery(file, tmp_path / "copy", progress=events.append) == 200
    assert stages(events)["importing"].finished
    with Gallery(tmp_path / "copy") as copy:
        keys = keys_where(gallery, "label <> '2'")
        assert copy.rows(copy.live_keys()) == gallery.rows(keys)
        assert np.array_equal(copy.segments.read(copy.live_keys()), gallery.segments.read(keys))
    with pytest.raises(MatMambaError, match="id0"):
        import_gallery(file, tmp_path / "copy")
    assert import_gallery(file, tmp_path / "copy", existing="skip") == 0


def test_a_map_of_a_gallery(gallery: Gallery, tmp_path: Path) -> None:
    assert export_atlas(gallery, tmp_path / "map.parquet", k=5) == 300


def test_near_duplicates(gallery: Gallery) -> None:
    events: list[Event] = []
    found = duplicates(gallery, threshold=0.999, progress=events.append)
    assert [[row.id for row in group.rows] for group in found.groups] == [
        [f"id{n}", f"id{250 + n}"] for n in range(10)
    ]
    assert found.exact
    assert found.surplus == [f"id{n}" for n in range(250, 260)]
    assert stages(events)["comparing"].finished
    assert found.to_dict()["groups"][0]["keep"]["id"] == "id0"
    assert all(score <= 1 for group in found.groups for score in group.scores)


def test_labels_by_neighbours(tmp_path: Path, spec: EmbeddingSpec) -> None:
    xb = np.repeat(unit_vectors(2, 32), 20, axis=0) + 0.1 * unit_vectors(40, 32, seed=1)
    xb /= np.linalg.norm(xb, axis=1, keepdims=True)
    labels = [None if n == 3 else "=cat" if n < 20 or n == 30 else "dog" for n in range(40)]
    with Gallery.create(tmp_path / "g", spec) as gallery:
        gallery.add([Row(f"{n}", f"/{n}.jpg", label) for n, label in enumerate(labels)], xb)
        found = suggest_labels(gallery, k=5)
        assert [(one.row.id, one.suggested) for one in found.of("suggestion")] == [("3", "=cat")]
        assert [(one.row.id, one.suggested) for one in found.of("suspicious")] == [("30", "dog")]
        assert found.labelled == 39
        found.write_csv(tmp_path / "labels.csv")
        found.write_page(tmp_path / "labels.html", gallery)
    rows = list(csv.DictReader((tmp_path / "labels.csv").open()))
    # A spreadsheet would run what begins with "=".
    assert [row["suggested"] for row in rows] == ["'=cat", "dog"]
    assert "3 → " not in (tmp_path / "labels.html").read_text()


def test_an_opened_gallery_does_all_that_the_functions_do(gallery: Gallery, tmp_path: Path) -> None:
    with open_gallery(gallery.folder) as opened:
        assert opened.export_atlas(tmp_path / "map.parquet", k=5, where="label = '1'") == 100
        assert opened.duplicates(threshold=0.999, method="exact") == duplicates(gallery, threshold=0.999)
        near = opened.duplicates(threshold=0.999, method="shortlist", neighbours=5)
        assert not near.exact
        assert near.surplus == [f"id{n}" for n in range(250, 260)]
        found = opened.suggest_labels(k=5, temperature=0.1, method="exact")
        assert found.to_dict() == suggest_labels(gallery, k=5, temperature=0.1).to_dict()
        found.write_page(tmp_path / "page.html", opened)
        found.write_page(tmp_path / "same.html", gallery)
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "same.html").read_bytes()


def test_galleries_become_one(gallery: Gallery, tmp_path: Path) -> None:
    for part in (1, 2):
        file = tmp_path / f"{part}.parquet"
        export_gallery(gallery, file, where=f"label = '{part}'")
        import_gallery(file, tmp_path / str(part))
    events: list[Event] = []
    merged = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "both", dims=[8], progress=events.append)
    assert (merged.added, merged.total) == (200, 200)
    assert json.loads(json.dumps(merged.to_dict()))["gallery"] == str(tmp_path / "both")
    assert stages(events)["merging"].done == 200
    assert merge([tmp_path / "1", tmp_path / "2"], tmp_path / "both").added == 0


def test_files_that_moved(writable: Gallery, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "7.jpg").write_bytes(b"")
    moved = relocate(writable, "/photos", tmp_path / "photos")
    assert moved.to_dict() == {"paths": 300, "there": 1}
    with pytest.raises(MatMambaError, match="/nowhere"):
        relocate(writable, "/nowhere", tmp_path)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda gallery, place: verify(place / "none"), MatMambaError, "none"),
        (lambda gallery, place: verify(gallery.folder, images=-1), MatMambaError, "images is -1"),
        (lambda gallery, place: repair(place / "none"), MatMambaError, "none"),
        (lambda gallery, place: compact(place / "none"), MatMambaError, "none"),
        (lambda gallery, place: duplicates(gallery, neighbours=0), MatMambaError, "neighbours is 0"),
        (lambda gallery, place: duplicates(gallery, threshold=2), MatMambaError, "threshold"),
        (lambda gallery, place: duplicates(gallery, method="fast"), MatMambaError, "method is 'fast'"),  # type: ignore[arg-type]
        (lambda gallery, place: duplicates(gallery, where=1), TypeError, "where is 1"),  # type: ignore[arg-type]
        (lambda gallery, place: suggest_labels(gallery, k=0), MatMambaError, "k is 0"),
        (lambda gallery, place: suggest_labels(gallery, temperature="x"), TypeError, "temperature is 'x'"),  # type: ignore[arg-type]
        (
            lambda gallery, place: duplicates(gallery).write_page(place / "no" / "x.html"),
            MatMambaError,
            "there is no folder",
        ),
        (lambda gallery, place: merge([], place / "new"), MatMambaError, "galleries is empty"),
        (lambda gallery, place: merge("one", place / "new"), TypeError, "galleries is 'one'"),
        (lambda gallery, place: merge([3], place / "new"), TypeError, r"galleries\[0\] is 3"),  # type: ignore[list-item]
        (
            lambda gallery, place: merge([gallery.folder], place / "new", dims=[64]),
            MatMambaError,
            "dims: 64",
        ),
        (lambda gallery, place: export_gallery(gallery, place / "no" / "x"), MatMambaError, "no"),
        (lambda gallery, place: export_gallery(gallery, place / "new", where="x ="), MatMambaError, "x ="),
        (lambda gallery, place: export_atlas(gallery, place / "new", k=1), MatMambaError, "k is 1"),
        (
            lambda gallery, place: import_gallery(place / "x", place / "new", existing="no"),  # type: ignore[arg-type]
            MatMambaError,
            "existing is 'no'",
        ),
        (lambda gallery, place: import_gallery(place / "x", place / "new"), MatMambaError, "x"),
        (lambda gallery, place: reindex(place / "none", "matmamba_nano_patch4_32"), MatMambaError, "none"),
        (lambda gallery, place: reindex(gallery.folder, place / "nothing"), MatMambaError, "nothing"),
        (lambda gallery, place: reindex(gallery.folder, 3), TypeError, "model is 3"),  # type: ignore[arg-type]
        (
            lambda gallery, place: reindex(gallery.folder, "matmamba_nano_patch4_32", threads=-1),
            MatMambaError,
            "threads is -1",
        ),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    gallery: Gallery,
    tmp_path: Path,
    call: Callable[[Gallery, Path], object],
    error: type[Exception],
    said: str,
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(error, match=said):
        call(gallery, place)
    assert not list(place.iterdir())


def test_a_closed_gallery_says_so(gallery: Gallery) -> None:
    gallery.close()
    for call in (describe, duplicates, suggest_labels):
        with pytest.raises(MatMambaError, match="closed"):
            call(gallery)
