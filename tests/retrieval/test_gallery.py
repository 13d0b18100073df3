"""The gallery: what is added stays, what does not fit is refused, what is lost is built again."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from lookups import by_index
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row, prefix
from matmamba_retrieval.gallery.repairing import repair
from small import unit_vectors


def snapshot(folder: Path) -> dict[str, bytes]:
    """Content of every file."""
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_vectors_and_rows_come_back(gallery: Gallery) -> None:
    with Gallery(gallery.folder) as reopened:
        keys = np.array([299, 0, 150, 100, 99, 255])
        assert len(reopened) == 300
        assert [row.id for row in reopened.rows(keys)] == [f"id{key}" for key in keys]
        assert reopened.rows([7]) == [Row("id7", "/photos/7.jpg", "1")]
        expected = unit_vectors(300, 32)
        expected[250:260] = expected[:10]
        assert np.array_equal(reopened.segments.read(keys), expected[keys].astype(np.float16))
        assert reopened.spec == gallery.spec
        assert reopened.labels()[:4] == ["0", "1", "2", "0"]
        assert reopened.keys_of(["id3", "nobody"]) == {"id3": 3}


@pytest.mark.parametrize(
    ("rows", "xb", "message"),
    [
        ([Row("id5", "")], unit_vectors(1, 32), "id5|ids"),
        ([Row("new", ""), Row("new", "")], unit_vectors(2, 32), "ids"),
        ([Row("new", "")], unit_vectors(1, 31), r"\(1, 31\)"),
        ([Row("new", "")], unit_vectors(2, 32), r"\(2, 32\)"),
        ([Row("ok", ""), Row("long", "")], unit_vectors(2, 32) * np.array([[1], [3]]), "'long'"),
        ([Row("nan", "")], np.full((1, 32), np.nan), "'nan'"),
        ([Row("m", "", None, {"x": float("nan")})], unit_vectors(1, 32), "metadata of 'm' are not JSON"),
        ([Row("m", "", None, {"x": {1, 2}})], unit_vectors(1, 32), "metadata of 'm' are not JSON"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    gallery: Gallery, rows: list[Row], xb: np.ndarray, message: str
) -> None:
    before = snapshot(gallery.folder)
    with pytest.raises(GalleryError, match=message):
        gallery.add(rows, xb)
    assert snapshot(gallery.folder) == before
    assert len(gallery) == 300


def test_a_gallery_is_made_in_an_empty_place_only(
    gallery: Gallery, tmp_path: Path, spec: EmbeddingSpec
) -> None:
    with pytest.raises(GalleryError, match="gallery"):
        Gallery.create(gallery.folder, spec)
    (tmp_path / "file").write_text("x")
    with pytest.raises(GalleryError, match="file"):
        Gallery.create(tmp_path / "file", spec)
    with pytest.raises(GalleryError, match="nowhere"):
        Gallery(tmp_path / "nowhere")


def test_specs_must_fit() -> None:
    stored = EmbeddingSpec("a" * 64, "full", 32)
    stored.require(EmbeddingSpec("a" * 64, "1/8", 32), "gallery g")
    with pytest.raises(GalleryError, match="gallery g was made by another checkpoint"):
        stored.require(EmbeddingSpec("b" * 64, "full", 32), "gallery g")
    with pytest.raises(GalleryError, match="32 dims, not 16"):
        stored.require(EmbeddingSpec("a" * 64, "full", 16), "gallery g")


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF4,Flat", "SQ8"])
def test_a_shortlist_holds_the_nearest_prefixes(gallery: Gallery, factory: str) -> None:
    gallery.build_shortlist(8, factory)
    xq = prefix(unit_vectors(5, 32, seed=3), 8)
    found = by_index(gallery, xq, 20)
    assert found.shape == (5, 20)
    scores = xq @ prefix(gallery.segments.read(np.arange(300)), 8).T
    exact = np.argsort(-scores, axis=1)[:, :20]
    shared = [len(set(row) & set(wanted)) / 20 for row, wanted in zip(found, exact, strict=True)]
    assert np.mean(shared) >= (0.99 if factory == "Flat" else 0.3)


def test_rows_newer_than_the_index_are_found(gallery: Gallery) -> None:
    xb = unit_vectors(10, 32, seed=9)
    gallery.add([Row(f"new{n}", "") for n in range(10)], xb)
    with Gallery(gallery.folder) as reopened:
        found = by_index(reopened, prefix(xb, 8), 5)
        assert np.array_equal(found[:, 0], np.arange(300, 310))


@pytest.mark.parametrize("damage", ["delete", "flip", "truncate"])
def test_a_lost_index_is_built_again_with_a_warning(
    gallery: Gallery, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    xq = prefix(unit_vectors(4, 32, seed=5), 8)
    before = by_index(gallery, xq, 7)
    gallery.close()
    for file in (gallery.folder / "shortlist").iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.unlink() if damage == "delete" else file.write_bytes(
            content if damage == "flip" else content[:100]
        )
    with Gallery(gallery.folder) as reopened:
        assert np.array_equal(by_index(reopened, xq, 7), before)
        assert "building it again" in caplog.text
    caplog.clear()
    repair(gallery.folder)
    with Gallery(gallery.folder) as reopened:
        assert np.array_equal(by_index(reopened, xq, 7), before)
        assert not caplog.text


@pytest.mark.parametrize("damage", ["missing", "another length"])
def test_a_lost_segment_is_named_on_opening(gallery: Gallery, damage: str) -> None:
    file = next((gallery.folder / "segments").iterdir())
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(GalleryError, match=rf"{file.name}.*{damage}"):
        Gallery(gallery.folder)


def test_what_cannot_be_built_is_named(gallery: Gallery, tmp_path: Path, spec: EmbeddingSpec) -> None:
    for dim in (0, 33):
        with pytest.raises(GalleryError, match=str(dim)):
            gallery.build_shortlist(dim)
    with pytest.raises(GalleryError, match="NoSuchIndex"):
        gallery.build_shortlist(8, "NoSuchIndex")
    with pytest.raises(GalleryError, match="IVF4096"):
        gallery.build_shortlist(8, "IVF4096,Flat")
    with pytest.raises(GalleryError, match=r"12 dims of width full \(built: 8 dims .*, 16 dims"):
        by_index(gallery, unit_vectors(1, 12), 3)
    with pytest.raises(GalleryError, match="empty"):
        Gallery.create(tmp_path / "empty", spec).build_shortlist(8)


@pytest.mark.parametrize("damage", ["text", "other", "newer"])
def test_a_foreign_catalogue_is_named(gallery: Gallery, damage: str) -> None:
    file = gallery.folder / "catalog.sqlite"
    if damage == "newer":
        gallery.catalog.set_about("format", "99")
        gallery.close()
    else:
        gallery.close()
        file.unlink()
        if damage == "text":
            file.write_text("not a database at all" * 100)
        else:
            sqlite3.connect(file).execute("CREATE TABLE x (y)").close()
    with pytest.raises(GalleryError, match="format 99" if damage == "newer" else r"catalog\.sqlite"):
        Gallery(gallery.folder)
