"""Damage: every flipped bit is found, none changes an answer in silence, what is derived is restored."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from damaged_galleries import answers, damage_and_restore, flip_in_page, some_gallery
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row
from matmamba_retrieval.gallery.inspection import verify, verify_vectors
from matmamba_retrieval.gallery.repairing import LEFT, repair
from matmamba_retrieval.storage.records import SegmentRecord
from small import unit_vectors


# A quarter of a second each; a thousand were counted by benchmarks/gallery_safety.py.
@pytest.mark.parametrize("times", [40, pytest.param(150, marks=pytest.mark.slow)])
def test_damage_anywhere_is_found_and_answers_nothing_else(tmp_path: Path, times: int) -> None:
    counts = damage_and_restore(some_gallery(tmp_path / "gallery"), times)
    assert (
        counts["undetected"] == counts["silently another answer"] == counts["derived and not restored"] == 0
    )
    assert sum(counts[kind] for kind in ("flip", "truncation")) == times
    assert min(counts["flip"], counts["truncation"], counts["error"], counts["restored"]) > times / 15, counts


def test_a_whole_gallery_has_no_damage(gallery: Gallery) -> None:
    assert verify(gallery.folder) == []
    gallery.close()
    assert repair(gallery.folder) == []
    with pytest.raises(GalleryError, match="no gallery at"):
        verify(gallery.folder / "elsewhere")


def test_damaged_vectors_are_encoded_again_from_their_images(gallery: Gallery) -> None:
    before, xb = answers(gallery.folder), unit_vectors(300, 32)
    xb[250:260] = xb[0:10]
    gallery.close()
    files = sorted((gallery.folder / "segments").iterdir())
    asked: list[str] = []

    def encode(rows: Sequence[Row], width: str) -> np.ndarray:
        asked.extend(row.id for row in rows)
        return xb[[int(row.id[2:]) for row in rows]]

    files[0].unlink()
    content = bytearray(files[1].read_bytes())
    content[-1] ^= 128
    files[1].write_bytes(content)
    found = verify(gallery.folder)
    assert {entry.file: entry.what.split()[0] for entry in found} == {files[0]: "is", files[1]: "differs"}
    assert all("(`matmamba gallery repair`)" in entry.remedy for entry in found)
    assert [said.startswith(LEFT) for said in repair(gallery.folder)] == [True, True]
    assert len(verify(gallery.folder)) == 2
    assert [said.split()[0] for said in repair(gallery.folder, lambda generation: encode)] == [
        "wrote",
        "wrote",
        "removed",
    ]
    assert 100 <= len(asked) <= 200
    assert verify(gallery.folder) == []
    assert answers(gallery.folder) == before


@pytest.mark.parametrize("missing", [False, True])
def test_images_that_cannot_be_encoded_again_are_lost_alone(gallery: Gallery, missing: bool) -> None:
    before, xb = answers(gallery.folder), unit_vectors(300, 32)
    xb[250:260] = xb[0:10]
    gallery.delete(["id3"])
    gallery.close()
    file = next(gallery.folder / "segments" / record.file for record in _segments(gallery.folder))
    content = file.read_bytes()
    file.unlink() if missing else file.write_bytes(content[:-1] + bytes([content[-1] ^ 128]))
    unreadable = {"id3", "id8"}

    def encode(rows: Sequence[Row], width: str) -> list[np.ndarray | str]:
        return [f"no {row.path}" if row.id in unreadable else xb[int(row.id[2:])] for row in rows]

    for _ in range(2):
        done, lost, *_ = repair(gallery.folder, lambda generation: encode)
        assert "with 98 images encoded again" in done
        assert "'id8'" in lost
        assert "no /photos/8.jpg" in lost
        assert len(verify(gallery.folder)) == 1
        with Gallery(gallery.folder) as opened, pytest.raises(GalleryError, match="damaged"):
            opened.segments.read(np.array([8]))
    with Gallery(gallery.folder, write=True) as opened:
        opened.delete(["id8"])
    repair(gallery.folder, lambda generation: encode)
    assert verify(gallery.folder) == []
    kept = np.setdiff1d(np.arange(300), [3, 8])
    with Gallery(gallery.folder) as opened:
        assert np.array_equal(opened.segments.read(kept), xb[kept].astype(np.float16))
        assert opened.live_keys().tolist() == kept.tolist()
        # No older version answers with the vectors that are lost.
        assert [version.live for version in opened.versions()] == [298]
    assert answers(gallery.folder)["keys"].keys() == before["keys"].keys() - {"id3"}


def _segments(folder: Path) -> list[SegmentRecord]:
    with Gallery(folder) as gallery:
        return gallery.catalog.segments(gallery.generation.number, gallery.spec.width)


def test_a_picture_that_is_put_back_gives_its_vector_again(gallery: Gallery) -> None:
    before, xb = answers(gallery.folder), unit_vectors(300, 32)
    xb[250:260] = xb[0:10]
    gallery.close()
    for file in [*(gallery.folder / "segments").iterdir(), *(gallery.folder / "shortlist").iterdir()]:
        file.unlink()
    readable = range(1, 300)

    def encode(rows: Sequence[Row], width: str) -> list[np.ndarray | str]:
        numbers = [int(row.id[2:]) for row in rows]
        return [xb[number] if number in readable else "no picture" for number in numbers]

    assert any("'id0'" in said for said in repair(gallery.folder, lambda generation: encode))
    readable = range(300)
    repair(gallery.folder, lambda generation: encode)
    assert verify(gallery.folder) == []
    assert answers(gallery.folder) == before


def test_a_missing_file_is_listed_once(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", EmbeddingSpec("a" * 64, "full", 32)) as gallery:
        gallery.add([Row(f"id{n}", f"{n}.jpg") for n in range(1000)], unit_vectors(1000, 32))
        gallery.build_shortlist(8)
    files = [*(tmp_path / "g/segments").iterdir(), *(tmp_path / "g/shortlist").iterdir()]
    for file in files:
        file.unlink()
    found = verify(tmp_path / "g")
    assert [entry.file for entry in found] == files
    assert all(entry.what.startswith("is missing") for entry in found)
    assert all("(`matmamba gallery repair`)" in entry.remedy for entry in found)


def test_a_gallery_of_a_newer_format_is_not_damaged(gallery: Gallery) -> None:
    gallery.catalog.set_about("format", "99")
    gallery.close()
    for command in (Gallery, verify, repair):
        with pytest.raises(GalleryError, match="has format 99, this version reads"):
            command(gallery.folder)


@pytest.mark.parametrize("kept", [0, 50, 6000])
def test_a_catalogue_that_is_cut_short_needs_a_copy(gallery: Gallery, kept: int) -> None:
    gallery.close()
    file = gallery.folder / "catalog.sqlite"
    file.write_bytes(file.read_bytes()[:kept])
    found = verify(gallery.folder)
    assert found
    assert all("a copy of the gallery" in entry.remedy for entry in found)
    assert all("(`matmamba gallery import`)" in entry.remedy for entry in found)


def test_a_catalogue_is_written_anew_where_only_its_indexes_are_damaged(gallery: Gallery) -> None:
    before = answers(gallery.folder)
    flip_in_page(gallery, "live", 700)
    assert "page" in verify(gallery.folder)[0].what
    assert "anew" in repair(gallery.folder)[0]
    assert verify(gallery.folder) == []
    assert answers(gallery.folder) == before


def test_a_catalogue_whose_images_are_damaged_is_not_repaired_in_silence(gallery: Gallery) -> None:
    file = flip_in_page(gallery, "images", random.Random(0).randrange(20, 4000))
    content = file.read_bytes()
    with pytest.raises(GalleryError, match=r"catalog\.sqlite is damaged"):
        repair(gallery.folder)
    assert file.read_bytes() == content
    with pytest.raises(GalleryError, match=r"catalog\.sqlite is damaged"):
        answers(gallery.folder)


def test_files_of_killed_processes_are_removed(gallery: Gallery) -> None:
    gallery.close()
    left = [
        gallery.folder / "segments" / f"{'ab' * 16}.npy",
        gallery.folder / "shortlist" / f"{'0' * 32}.faiss",
    ]
    foreign = gallery.folder / "segments" / "notes.txt"
    for file in (*left, foreign):
        file.write_bytes(b"half")
    assert verify(gallery.folder) == []
    Gallery(gallery.folder, write=True).close()
    assert not any(file.exists() for file in left)
    # Somebody else's.
    assert foreign.exists()


def test_images_that_changed_are_named(gallery: Gallery) -> None:
    def encode(rows: Sequence[Row], width: str) -> np.ndarray:
        xb = gallery.segments.read(np.array([*gallery.keys_of([row.id for row in rows]).values()]))
        changed = xb.astype(np.float32)
        changed[[row.id == "id7" for row in rows]] *= -1
        return changed

    (found,) = verify_vectors(gallery, encode, 1000)
    assert "'id7'" in found.what
    assert found.file == Path("/photos/7.jpg")
    named = [verify_vectors(gallery, encode, 30, seed) for seed in range(40)]
    assert 0 < sum(map(bool, named)) < 40


@pytest.mark.parametrize("what", ["vectors", "index", "catalogue"])
def test_a_full_disk_changes_nothing(gallery: Gallery, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, files = answers(gallery.folder), sorted(gallery.folder.rglob("*"))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if what == "catalogue":
        (pages,) = gallery.catalog.run("PRAGMA page_count")[0]
        gallery.catalog.run(f"PRAGMA max_page_count = {pages}")
    else:
        monkeypatch.setattr(os, "fsync", full)
    rows = [Row(f"new{n}", "x" * 200) for n in range(500)]
    with pytest.raises(GalleryError, match=r"full|No space left"):
        gallery.build_shortlist(4) if what == "index" else gallery.add(rows, unit_vectors(500, 32))
    monkeypatch.undo()
    assert answers(gallery.folder) == before
    assert sorted(gallery.folder.rglob("*")) == files
    if what == "catalogue":
        gallery.catalog.run("PRAGMA max_page_count = 1000000")
    gallery.add(rows, unit_vectors(500, 32))
    assert verify(gallery.folder) == []
