"""A gallery that changes while it is read: versions, one writer, new generations."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from lookups import by_index
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row, prefix
from matmamba_retrieval.gallery.merging import MERGE_FILES, merge_segments
from matmamba_retrieval.gallery.renewal import Renewal, compact
from small import unit_vectors


def contents(gallery: Gallery) -> dict[str, tuple[Row, bytes]]:
    """Row and vector of each live image, by id."""
    keys = gallery.live_keys()
    vectors = gallery.segments.read(keys)
    return {row.id: (row, xb.tobytes()) for row, xb in zip(gallery.rows(keys), vectors, strict=True)}


def test_a_reader_sees_one_version_until_it_refreshes(gallery: Gallery) -> None:
    with Gallery(gallery.folder) as reader:
        before = contents(reader)
        gallery.add([Row("new", "n.jpg")], unit_vectors(1, 32, 7))
        gallery.delete(["id3", "id299"])
        gallery.upsert([Row("id5", "other.jpg")], unit_vectors(1, 32, 8))
        assert contents(reader) == before
        assert reader.keys_of(["id3", "id5", "new"]) == {"id3": 3, "id5": 5}
        assert reader.allowed() is None
        reader.refresh()
        after = contents(reader)
    assert after.keys() == before.keys() - {"id3", "id299"} | {"new"}
    assert after["id5"][0].path == "other.jpg"
    assert {name for name in before.keys() & after.keys() if after[name] != before[name]} == {"id5"}


def test_each_version_can_be_opened(gallery: Gallery) -> None:
    expected = {gallery.version.number: contents(gallery)}
    for number in range(6):
        if number % 2:
            gallery.delete([f"id{number}", f"new{number - 1}"])
        else:
            gallery.upsert([Row(f"new{number}", ""), Row("id9", str(number))], unit_vectors(2, 32, number))
        expected[gallery.version.number] = contents(gallery)
    assert [version.number for version in gallery.versions()][-7:] == [*expected]
    for number, wanted in expected.items():
        with Gallery(gallery.folder, version=number) as reader:
            assert contents(reader) == wanted
            assert len(reader) == len(wanted)
            assert reader.keys_of(wanted).keys() == wanted.keys()


def test_versions_that_do_not_exist_are_named(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="no version 99: versions 0 to 3 can be opened"):
        Gallery(gallery.folder, version=99)
    with pytest.raises(GalleryError, match="version 1 of"):
        Gallery(gallery.folder, version=1, write=True)
    gallery.delete(["id1"])
    compact(gallery)
    with pytest.raises(GalleryError, match="no version 3: versions 5 to 5"):
        Gallery(gallery.folder, version=3)


def test_a_second_writer_and_a_reader_that_writes_get_an_error(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="another process writes"):
        Gallery(gallery.folder, write=True)
    with Gallery(gallery.folder) as reader, pytest.raises(GalleryError, match="opened for reading"):
        reader.delete(["id1"])
    gallery.close()
    with Gallery(gallery.folder, write=True) as writer:
        assert writer.delete(["id1", "id2", "id1"]) == 2


@pytest.mark.parametrize("ids", [["id1", "nobody"], ["nobody", "noone"]])
def test_deleting_what_is_not_there_deletes_nothing(gallery: Gallery, ids: list[str]) -> None:
    with pytest.raises(GalleryError, match=r"nobody.*nothing was deleted"):
        gallery.delete(ids)
    assert len(gallery) == 300
    assert gallery.delete([]) == 0
    assert gallery.version.number == 3


def test_an_id_can_come_back(gallery: Gallery) -> None:
    gallery.delete(["id1"])
    gallery.add([Row("id1", "again.jpg")], unit_vectors(1, 32, 4))
    assert gallery.keys_of(["id1"]) == {"id1": 300}
    with pytest.raises(GalleryError, match="'id1' already"):
        gallery.add([Row("id1", "")], unit_vectors(1, 32, 4))
    with pytest.raises(GalleryError, match="'id1' is given twice"):
        gallery.upsert([Row("id1", ""), Row("id1", "")], unit_vectors(2, 32, 4))


def test_metadata_comes_back_and_filters(gallery: Gallery) -> None:
    metadata = {
        "year": 2021,
        "place": {"city": "Ulm", "at": [1.5, -2]},
        "größe": "naïve 'quote'",
        "gone": None,
    }
    gallery.add([Row("m", "m.jpg", None, metadata)], unit_vectors(1, 32, 3))
    assert gallery.rows([300]) == [Row("m", "m.jpg", None, metadata)]
    assert gallery.fields() == ["gone", "größe", "place", "place.at", "place.city", "year"]
    mask = gallery.allowed("year >= 2020 AND place.city = 'Ulm' AND größe LIKE 'na%'")
    assert mask is not None
    assert np.flatnonzero(mask).tolist() == [300]
    gallery.delete(["id0"])
    by_label = gallery.allowed("label = '0'")
    assert by_label is not None
    assert np.flatnonzero(by_label).tolist() == [*range(3, 300, 3)]
    with pytest.raises(GalleryError, match="colour"):
        gallery.allowed("colour = 'red'")


def test_compacting_keeps_all_that_is_live(gallery: Gallery) -> None:
    gallery.delete([f"id{n}" for n in range(0, 300, 2)])
    gallery.save_plan({"some": "plan"})
    wanted, files = contents(gallery), len([*(gallery.folder / "segments").iterdir()])
    reader = Gallery(gallery.folder)
    assert compact(gallery) == 150
    assert (len(gallery), gallery.key_count, gallery.allowed()) == (150, 150, None)
    assert contents(gallery) == contents(reader) == wanted
    assert gallery.plan == {"some": "plan"}
    assert gallery.shortlist_dims() == [8, 16]
    xq = prefix(unit_vectors(1, 32, 1), 8)
    assert {gallery.rows([key])[0].id for key in by_index(gallery, xq, 150)[0]} == wanted.keys()
    reader.close()
    gallery.sweep()
    left = [*(gallery.folder / "segments").iterdir()]
    assert len(left) == 1 < files
    assert [file.name for file in (gallery.folder / "locks").iterdir() if "-" in file.name] == [
        "generation-2"
    ]


def test_compacting_may_leave_nothing(gallery: Gallery) -> None:
    gallery.build_shortlist(16, "ivfpq")
    gallery.delete([f"id{n}" for n in range(300)])
    assert by_index(gallery, np.eye(1, 16, dtype=np.float32), 3, allowed=gallery.allowed()).size == 0
    assert compact(gallery) == 300
    assert (len(gallery), gallery.key_count, gallery.shortlists()) == (0, 0, [])
    gallery.add([Row("id1", "")], unit_vectors(1, 32))
    gallery.build_shortlist(16)
    assert by_index(gallery, np.eye(1, 16, dtype=np.float32), 3).tolist() == [[0]]


def test_an_interrupted_renewal_goes_on_where_it_was(gallery: Gallery) -> None:
    """Also when images were deleted, replaced and added in between."""
    new, xb = EmbeddingSpec("c" * 64, "full", 16), unit_vectors(400, 16, 5)

    def encode(keys: np.ndarray) -> np.ndarray:
        return xb[[int(row.id.strip("idnew")) + 50 * (row.path == "changed") for row in gallery.rows(keys)]]

    renewal = Renewal(gallery, new, "new.safetensors")
    for first in (0, 100):
        keys = renewal.pending()[:100]
        assert keys[0] == first
        renewal.add(keys, encode(keys))
    assert gallery.spec != new
    gallery.close()
    with Gallery(gallery.folder, write=True) as gallery:
        gallery.delete(["id7", "id250"])
        gallery.upsert([Row("id9", "changed")], unit_vectors(1, 32, 8))
        gallery.add([Row("new310", "")], unit_vectors(1, 32, 9))
        renewal = Renewal(gallery, new, "new.safetensors")
        keys = renewal.pending()
        assert keys.tolist() == [*range(200, 250), *range(251, 300), 300, 301]
        renewal.add(keys, encode(keys))
        wanted = {row.id: row for row in gallery.rows(gallery.live_keys())}
        renewal.finish()
        assert (gallery.spec, gallery.checkpoint_path) == (new, "new.safetensors")
        live = gallery.live_keys()
        assert {row.id: row for row in gallery.rows(live)} == wanted
        assert np.array_equal(gallery.segments.read(live), encode(live).astype(np.float16))
        assert gallery.plan is None


def test_a_renewal_of_another_spec_begins_anew(gallery: Gallery) -> None:
    first = Renewal(gallery, EmbeddingSpec("c" * 64, "full", 16))
    first.add(np.arange(50), unit_vectors(50, 16))
    spec = EmbeddingSpec("d" * 64, "full", 8)
    assert len(Renewal(gallery, spec).pending()) == 300
    assert [known.spec for known in gallery.catalog.generations().values()] == [gallery.spec, spec]
    gallery.sweep()
    assert len([*(gallery.folder / "segments").iterdir()]) == 3


def test_small_segments_are_merged_and_keys_stay(tmp_path: Path, spec: EmbeddingSpec) -> None:
    with Gallery.create(tmp_path / "g", spec, widths=("1/8",)) as gallery:
        xb, small = unit_vectors(40, 32), unit_vectors(40, 32, 1)
        for key in range(40):
            gallery.add([Row(str(key), "")], xb[key : key + 1], {"1/8": small[key : key + 1]})
        reader = Gallery(gallery.folder)
        assert merge_segments(gallery) == 2 * 39
        assert merge_segments(gallery) == 0
        for opened in (gallery, reader, Gallery(gallery.folder)):
            assert np.array_equal(opened.segments.read(np.arange(40)), xb.astype(np.float16))
            assert np.array_equal(opened.segments_of("1/8").read(np.arange(40)), small.astype(np.float16))
        assert len([*(gallery.folder / "segments").iterdir()]) == 2
        assert MERGE_FILES <= 40


def test_each_width_needs_its_vectors(tmp_path: Path, spec: EmbeddingSpec) -> None:
    with Gallery.create(tmp_path / "g", spec, widths=("1/8",)) as gallery:
        with pytest.raises(GalleryError, match="vectors of 1/8, not of no further width"):
            gallery.add([Row("a", "")], unit_vectors(1, 32))
        with pytest.raises(GalleryError, match=r"\(1, 32\)"):
            gallery.add([Row("a", ""), Row("b", "")], unit_vectors(2, 32), {"1/8": unit_vectors(1, 32)})
        with pytest.raises(GalleryError, match="not of 1/4"):
            gallery.segments_of("1/4")
        gallery.close()
        with pytest.raises(GalleryError, match="vectors of 1/8, not of 1/4"):
            Gallery.open_or_create(tmp_path / "g", spec, widths=("1/4",))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_gallery_can_be_read(gallery: Gallery) -> None:
    gallery.close()
    for file in [gallery.folder, *gallery.folder.rglob("*")]:
        file.chmod(file.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    with Gallery(gallery.folder) as reader:
        assert len(contents(reader)) == 300
    with pytest.raises(GalleryError, match="cannot"):
        Gallery(gallery.folder, write=True)
