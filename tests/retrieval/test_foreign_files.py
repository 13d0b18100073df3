"""Files in a gallery's folder that are not its own: never removed, never followed, never waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, SavedError
from matmamba_retrieval.gallery.inspection import verify
from matmamba_retrieval.gallery.repairing import repair
from matmamba_retrieval.storage import files
from matmamba_retrieval.storage.database import _free_pages
from matmamba_retrieval.storage.locks import Lock

HASH = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.mark.parametrize("place", ["segments", "shortlist"])
def test_only_files_of_our_own_names_are_swept(gallery: Gallery, place: str) -> None:
    gallery.close()
    ours = {"segments": ".npy", "shortlist": ".faiss"}
    foreign = [f"{HASH}{suffix}" for suffix in (".jpg", ".sqlite", "", *ours.values())]
    for name in foreign:
        (gallery.folder / place / name).write_text("mine")
    (gallery.folder / place / f"{'0' * 32}{ours[place]}").mkdir()
    Gallery(gallery.folder, write=True).close()
    left = {name for name in foreign if (gallery.folder / place / name).exists()}
    assert left == {*foreign} - {f"{HASH}{ours[place]}"}
    assert (gallery.folder / place / f"{'0' * 32}{ours[place]}").is_dir()
    assert verify(gallery.folder) == []


@pytest.mark.parametrize(
    "name",
    ["segments/*", "shortlist/*", "catalog.sqlite-journal", "catalog.sqlite-wal", "locks/generation-1"],
)
def test_pipes_are_refused_and_not_waited_for(gallery: Gallery, name: str) -> None:
    gallery.close()
    file = next(iter(sorted(gallery.folder.glob(name))), gallery.folder / name)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    opened: list[Callable[[Path], object]] = [Gallery, verify, repair, lambda at: Gallery(at, write=True)]
    for use in opened:
        with pytest.raises(GalleryError, match="is no regular file"):
            use(gallery.folder)


def test_a_pipe_that_appears_later_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GalleryError, match="is no regular file"):
        files.sha256_of(tmp_path / "pipe")
    for shared in (True, False):
        with pytest.raises(OSError, match="no regular file"):
            Lock(tmp_path / "pipe", shared=shared)


def test_a_loop_of_free_pages_ends() -> None:
    class Looping:
        def xRead(self, size: int, place: int) -> bytes:
            return (1).to_bytes(4, "big") + bytes(size - 4)

    header = bytes(32) + (1).to_bytes(4, "big") + b"\xff" * 4 + bytes(60)
    assert _free_pages(Looping(), header, 1) == set()  # type: ignore[arg-type]


@pytest.mark.parametrize("write", [True, False])
def test_what_a_killed_creation_left_is_removed_and_nothing_else(
    tmp_path: Path, spec: EmbeddingSpec, write: bool
) -> None:
    folder = tmp_path / "g"
    left = [folder / f"catalog-{HASH}.partial", folder / f"catalog-{HASH}.partial-journal"]
    folder.mkdir()
    if write:
        Gallery.create(folder, spec).close()
        mine = folder / "catalog-of-my-photos.partial.jpg"
        mine.write_text("mine")
    for file in left:
        file.write_text("")
    (Gallery(folder, write=True) if write else Gallery.create(folder, spec)).close()
    assert not any(file.exists() for file in left)
    assert not write or mine.read_text() == "mine"


def test_a_folder_of_somebody_elses_files_is_no_place(tmp_path: Path, spec: EmbeddingSpec) -> None:
    (tmp_path / "catalog-of-my-photos.partial.jpg").write_text("mine")
    with pytest.raises(GalleryError, match="is not a gallery"):
        Gallery.create(tmp_path, spec)


def test_a_creation_whose_name_is_not_flushed_says_that_it_is_made(
    tmp_path: Path, spec: EmbeddingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(folder: Path) -> None:
        raise GalleryError("the disk says EIO")

    with monkeypatch.context() as patch:
        patch.setattr(files, "flush_folder", failing)
        with pytest.raises(SavedError, match="is made, but not yet safe"):
            Gallery.create(tmp_path / "g", spec)
    with Gallery(tmp_path / "g") as made:
        assert len(made) == 0
