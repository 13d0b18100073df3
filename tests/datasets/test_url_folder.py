"""Loose images at URLs: read as those of a folder here, each file fetched from where it lies."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest
from matmamba_datasets import BrokenImageError, DataError, Images, Limits, TableReading, open_images
from matmamba_datasets.remote import RemoteEntry, join
from matmamba_datasets.stored import Places
from matmamba_datasets.url_folder import FETCHED_AHEAD, UrlFolder
from real_trees import cameras, encoded, patterns, photos, strays

SCHEMES = ("file", "memory", "zip")


def at_url(scheme: str, folder: Path) -> str:
    """A copy of a folder, by a URL."""
    if scheme == "file":
        return f"file://{folder}"
    if scheme == "zip":
        return f"zip://::{shutil.make_archive(str(folder), 'zip', folder)}"
    fsspec.filesystem("memory").put(f"{folder}/", f"{folder}/", recursive=True)
    return f"memory:/{folder}"


def contents(images: Images) -> list[tuple[str, bytes, int]]:
    return [(id, bytes(images.stored(at)), int(images.labels[at])) for at, id in enumerate(images.ids)]  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("made", [photos, cameras, patterns, strays])
def test_a_folder_at_a_url_is_read_as_one_here(
    scheme: str, made: Callable[[Path], object], tmp_path: Path
) -> None:
    """The same ids, labels and files; what is left out is named with the same reasons."""
    tree = made(tmp_path / "place")
    flags = dict(zip(tree.flags[::2], tree.flags[1::2], strict=True))  # type: ignore[attr-defined]
    reading = TableReading(**{name: value.split(",") for name, value in flags.items()})
    here = open_images(tmp_path / "place", reading)
    there = open_images(at_url(scheme, tmp_path / "place"), reading)
    assert isinstance(there, UrlFolder)
    assert contents(there) == contents(here)
    assert there.classes == here.classes
    reasons = [sorted((path.rpartition("place/")[2], why) for path, why in here.left_out.items())]
    prefix = there._prefix
    reasons += [sorted((path.removeprefix(prefix), why) for path, why in there.left_out.items())]
    assert reasons[0] == reasons[1]
    sent = pickle.loads(pickle.dumps(there))
    assert contents(sent) == contents(here)
    assert [Places(Limits()).stored(path) for path in there.paths] == [file for _, file, _ in contents(here)]


def test_what_a_name_is_below_a_place() -> None:
    assert join("s3://b/all", "x.jpg") == "s3://b/all/x.jpg"
    assert join("zip://in::s3://b/all.zip", "x.jpg") == "zip://in/x.jpg::s3://b/all.zip"
    assert join("simplecache::s3://b/all/", "x.jpg") == "simplecache::s3://b/all/x.jpg"
    assert join("memory://", "x.jpg") == "memory://x.jpg"
    assert join("/here/", "x.jpg") == "/here/x.jpg"


def test_files_are_fetched_ahead_where_they_are_asked_for_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path / "place", 40)
    images = open_images(at_url("file", tmp_path / "place"))
    assert isinstance(images, UrlFolder)
    fetched = list[int]()
    fetch = UrlFolder.fetch

    def note(self: UrlFolder, index: int) -> bytes:
        if self is images:
            fetched.append(index)
        return fetch(self, index)

    monkeypatch.setattr(UrlFolder, "fetch", note)
    files = [(tmp_path / "place" / id).read_bytes() for id in images.ids]
    for index in (50, 3, 41):
        assert images.stored(index) == files[index]
    assert fetched == [50, 3, 41], "nothing is fetched that nobody asks for"
    fetched.clear()
    assert [images.stored(index) for index in range(0, 80, 3)] == files[::3]
    assert fetched.count(27) == 1
    assert len(fetched) <= 80
    # Anew: what was asked for ahead may still be on its way.
    images = open_images(at_url("file", tmp_path / "place"))
    assert isinstance(images, UrlFolder)
    fetched.clear()
    assert [images.stored(index) for index in range(80)] == files
    assert sorted(fetched) == [*range(80)], "each is fetched once"
    assert len(images._ahead._coming) <= FETCHED_AHEAD


def test_a_file_that_cannot_be_read_is_broken(tmp_path: Path) -> None:
    photos(tmp_path / "place", 2)
    images = open_images(at_url("file", tmp_path / "place"))
    (tmp_path / "place" / "cats" / "00.png").unlink()
    (tmp_path / "place" / "cats" / "01.png").write_bytes(b"")
    for index, why in ((0, "no such file"), (1, "an empty file")):
        with pytest.raises(BrokenImageError, match=why) as caught:
            images[index]
        assert caught.value.name == f"file://{tmp_path}/place/cats/0{index}.png"
    small = open_images(at_url("file", tmp_path / "place"), TableReading(max_file_mb=0.00001))
    with pytest.raises(BrokenImageError, match="more than the 0 that max_file_mb allows"):
        small[2]


def test_places_at_which_there_is_no_folder_are_named(tmp_path: Path) -> None:
    photos(tmp_path / "place", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    url = f"file://{tmp_path}"
    for place, why in (
        (f"{url}/nowhere", "no such folder"),
        (f"{url}/empty", "no images in"),
        (f"{url}/place/cats/00.png", "no images in"),
        (f"{url}/x.parquet", "on this machine alone"),
        ("nosuch://x", "nosuch"),
    ):
        with pytest.raises(DataError, match=why) as caught:
            open_images(place)
        assert place in str(caught.value)
        assert "\n" not in str(caught.value)


def test_links_at_a_url_are_left_out_by_name(tmp_path: Path) -> None:
    photos(tmp_path / "place", 1)
    (tmp_path / "place" / "cats" / "up").symlink_to("..")
    (tmp_path / "place" / "cats" / "other.png").symlink_to("00.png")
    images = open_images(at_url("file", tmp_path / "place"))
    assert list(images.ids) == ["cats/00.png", "dogs/00.png"]
    assert {path.rpartition("/")[2] for path in images.left_out} == {"up", "other.png"}


def test_shards_at_a_url_stay_shards(tmp_path: Path) -> None:
    tree = strays(tmp_path / "place")
    assert tree
    (tmp_path / "tars").mkdir()
    shutil.copy(tmp_path / "place" / "backup.tar", tmp_path / "tars")
    images = open_images(f"file://{tmp_path}/tars")
    assert list(images.ids) == ["a", "b"]


def test_what_file_systems_tell_of_a_change() -> None:
    """A time, or a checksum, by whichever name; without one nothing is known."""
    from datetime import UTC, datetime

    def stamp(**told: object) -> int | None:
        return RemoteEntry.of({"name": "b/x.jpg", "type": "file", "size": 1, **told}).stamp

    assert stamp(LastModified=datetime(1970, 1, 2, tzinfo=UTC)) == stamp(mtime=86400.0) == 86400 * 10**9
    assert stamp(LastModified=datetime(1970, 1, 2)) == 86400 * 10**9
    assert stamp(ETag='"a"') not in (None, stamp(ETag='"b"'))
    assert stamp() is None
    assert abs(stamp(modified=10**12) or 0) < 2**63


def test_facts_are_those_of_the_listing_and_asked_for_behind_it(tmp_path: Path) -> None:
    photos(tmp_path / "place", 3)
    images = open_images(at_url("file", tmp_path / "place"))
    assert isinstance(images, UrlFolder)
    for id, path in zip(images.ids, images.paths, strict=True):
        found = (tmp_path / "place" / id).stat()
        size, stamp = images.facts(path) or (0, 0)
        assert images.holds(path)
        assert size == found.st_size
        assert abs(stamp - found.st_mtime_ns) < 1000
    new, url = tmp_path / "place" / "new.png", images.paths[0].replace("cats/00.png", "new.png")
    new.write_bytes(encoded(1))
    os.utime(new, ns=(0, 5 * 10**9))
    assert images.facts(url) is None
    assert images.facts_now(url) == (new.stat().st_size, 5 * 10**9)
    new.unlink()
    with pytest.raises(FileNotFoundError):
        images.facts_now(url)
    assert not images.holds(str(new))
