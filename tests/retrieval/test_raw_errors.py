"""Whatever is wrong with what is given, stored or reported by the system is one `GalleryError`."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import apsw.sqlite_extra
import pytest
from matmamba_retrieval import (
    EmbeddingSpec,
    Encoded,
    EncodedQueries,
    Gallery,
    GalleryError,
    Row,
    SavedError,
    Strategy,
    search,
)
from matmamba_retrieval.exchange.joining import JOINING, join
from matmamba_retrieval.gallery.destination import SHARD
from matmamba_retrieval.gallery.inspection import verify
from matmamba_retrieval.gallery.repairing import LEFT, repair
from matmamba_retrieval.gallery.staging import sweep
from matmamba_retrieval.storage import catalog, database, files
from matmamba_retrieval.storage.schema import TABLES
from small import unit_vectors

HALF = "x\ud800"


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


BAD: dict[str, Row] = {
    "id": Row(HALF, "p"),
    "path": Row("n", HALF),
    "label": Row("n", "p", HALF),
    "no id": Row(None, "p"),  # type: ignore[arg-type]
    "a list as id": Row([], "p"),  # type: ignore[arg-type]
    "no path": Row("n", None),  # type: ignore[arg-type]
    "bytes": Row("n", b"p"),  # type: ignore[arg-type]
    "text": Row("n", "p", None, {"a": [HALF]}),
    "key": Row("n", "p", None, {"a": {1: 2}}),
    "none": Row("n", "p", None, None),  # type: ignore[arg-type]
    "deep": Row("n", "p", None, nested(1_200)),
    "deeper": Row("n", "p", None, nested(100_000)),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_stored_names_its_image_and_writes_nothing(gallery: Gallery, kind: str) -> None:
    before = sorted((gallery.folder / "segments").iterdir())
    with pytest.raises(GalleryError, match=ascii(BAD[kind].id).replace("\\", r"\\").replace("[", r"\[")):
        gallery.add([BAD[kind]], unit_vectors(1, 32))
    assert sorted((gallery.folder / "segments").iterdir()) == before
    assert len(gallery) == 300


@pytest.mark.parametrize("plan", [{1, 2}, {"a": float("nan")}, nested(100_000), {"a": HALF}])
def test_a_plan_is_json(gallery: Gallery, plan: Any) -> None:
    with pytest.raises(GalleryError, match=r"not JSON|not a text"):
        gallery.save_plan(plan)
    assert gallery.plan is None


def test_a_closed_gallery_says_so(gallery: Gallery) -> None:
    gallery.close()
    before = sorted((gallery.folder / "segments").iterdir())
    with pytest.raises(GalleryError, match="is closed"):
        gallery.rows([1])
    with pytest.raises(GalleryError, match="is closed"):
        gallery.add([Row("n", "p")], unit_vectors(1, 32))
    with pytest.raises(GalleryError, match="is closed"):
        gallery.catalog.set_about("a", "b")
    assert sorted((gallery.folder / "segments").iterdir()) == before


# Catalogues from elsewhere


def crafted(gallery: Gallery, *statements: str) -> Path:
    """The gallery with changes to its catalogue that its digests go with."""
    gallery.close()
    found = database._connect(gallery.folder / "catalog.sqlite", apsw.SQLITE_OPEN_READWRITE)
    apsw.sqlite_extra.load(found, "shathree")
    found.execute("PRAGMA writable_schema = 1")
    for statement in statements:
        found.execute(statement)
    for name, part, block in list(found.execute("SELECT name, part, block FROM digests")):
        query = TABLES[name].rows_of(part, block)
        found.execute(
            "UPDATE digests SET digest = sha3_query(?, 224) WHERE name = ? AND part = ? AND block = ?",
            (query, name, part, block),
        )
    found.close()
    return gallery.folder


CRAFTED = {
    "plan": "UPDATE generations SET plan = x'ff'",
    "text": "UPDATE generations SET plan = CAST(x'ff' AS TEXT)",
    "label": "UPDATE images SET label = x'ff' WHERE key = 5",
    "removed": "UPDATE images SET removed = 'abc' WHERE key = 5",
    "metadata": "UPDATE images SET metadata = '{' WHERE key = 5",
    "deep": f"UPDATE images SET metadata = '{json.dumps(nested(500))}' || '}}' WHERE key = 5",
    "key": "UPDATE images SET key = 'abc' WHERE key = 5",
    "versions": "UPDATE versions SET keys = 1000000000000, live = 999999999999 WHERE number = 0",
    "fields": "INSERT INTO fields VALUES (x'ff'); INSERT INTO digests VALUES ('fields', 0, 0, x'00')",
}


@pytest.mark.parametrize("what", CRAFTED)
def test_values_of_a_crafted_catalogue_are_found_and_a_repair_says_what_is_left(
    gallery: Gallery, what: str
) -> None:
    folder = crafted(gallery, CRAFTED[what])
    with Gallery(folder) as opened:
        for read in (opened.labels, opened.fields, lambda: opened.plan, lambda: opened.rows(range(300))):
            with suppress(GalleryError):
                read()
    assert verify(folder)
    assert any(said.startswith(LEFT) for said in repair(folder))


def test_a_definition_that_is_no_text(gallery: Gallery) -> None:
    folder = crafted(gallery, "UPDATE sqlite_master SET sql = CAST(sql AS BLOB) WHERE name = 'live'")
    with pytest.raises(GalleryError, match="another table 'live'"):
        Gallery(folder)
    assert verify(folder)


@pytest.mark.parametrize(
    "noted", ["garbage", "[]", "5", "[" * 100_000, '{"sources": 5, "keys": 1, "done": 1}']
)
def test_what_is_noted_of_joined_galleries_is_checked(gallery: Gallery, tmp_path: Path, noted: str) -> None:
    with Gallery.create(tmp_path / "other", gallery.spec) as other:
        other.add([Row("new", "p")], unit_vectors(1, 32))
    gallery.catalog.set_about(JOINING, noted)
    gallery.close()
    with pytest.raises(GalleryError, match="is damaged: it is said to hold"):
        join([tmp_path / "other"], gallery.folder)


@pytest.mark.parametrize("shard", ["x/y", "1", "1/", "/", "1/2/3", "9/3"])
def test_what_is_noted_of_a_shard_is_checked(gallery: Gallery, tmp_path: Path, shard: str) -> None:
    gallery.catalog.set_about(SHARD, shard)
    gallery.close()
    with pytest.raises(GalleryError, match="is damaged: it holds shard"):
        join([gallery.folder], tmp_path / "into")


# The system's errors


def fails(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EIO, "Input/output error", "somewhere")


def test_what_cannot_be_removed_is_left_for_the_next_sweep(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = gallery.folder / "segments" / f"{'0' * 32}.npy"
    left.write_text("")
    for target, name in ((Path, "unlink"), (os, "scandir")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, fails)
            assert sweep(gallery.catalog, gallery.folder) == 0
    assert sweep(gallery.catalog, gallery.folder) == 1
    assert not left.exists()


def test_a_folder_that_cannot_be_looked_into(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(GalleryError, match=f"cannot look into {gallery.folder}: Input/output error"):
        Gallery(gallery.folder)


def test_locks_that_may_not_be_listed_keep_nobody_from_reading(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.scandir

    def scandir(folder: Path) -> Any:
        if Path(folder).name == "locks":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return original(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with Gallery(gallery.folder) as reader:
        assert len(reader) == 300


def test_a_disk_that_does_not_flush(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.close()
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(GalleryError, match=r"cannot flush .*: Input/output error"):
        repair(gallery.folder)


def test_a_segment_that_may_not_be_read(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numpy.memmap", fails)
    with pytest.raises(GalleryError, match=r"cannot read .*\.npy: Input/output error"):
        Gallery(gallery.folder)


def test_an_extension_that_cannot_be_loaded(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_files_left(*_: Any) -> None:
        raise apsw.ExtensionLoadingError("Too many open files")

    monkeypatch.setattr(apsw.sqlite_extra, "load", no_files_left)
    with pytest.raises(GalleryError, match="cannot be opened or written: Too many open files"):
        Gallery(gallery.folder)


def test_a_reader_goes_on_with_an_index_that_was_replaced(gallery: Gallery) -> None:
    queries = EncodedQueries({"full": Encoded(unit_vectors(2, 32), 0.0, 0.0)})
    with Gallery(gallery.folder) as reader:
        before = search(reader, Strategy.shortlist(width="full", dim=8, length=20), queries, 3)
        gallery.build_shortlist(8)
        after = search(reader, Strategy.shortlist(width="full", dim=8, length=20), queries, 3)
    assert (before.I == after.I).all()
    assert after.cost.bytes_read == pytest.approx(before.cost.bytes_read, rel=0.01)


def test_an_error_behind_the_commit_of_what_nobody_sees_makes_no_gallery(
    tmp_path: Path, spec: EmbeddingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def saved(*_: Any) -> None:
        raise SavedError("the change is saved") from OSError("the disk says EIO")

    monkeypatch.setattr(catalog, "put_new", saved)
    with pytest.raises(GalleryError, match=r"cannot make .*catalog.sqlite: the disk says EIO") as caught:
        Gallery.create(tmp_path / "g", spec)
    assert not isinstance(caught.value, SavedError)
    assert [*(tmp_path / "g").glob("catalog*")] == []
    assert files.remove(tmp_path / "g" / "catalog.sqlite") is False
