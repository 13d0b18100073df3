"""Where the images of a call lie, and how their files are looked at: on this machine, or at a URL."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

from matmamba_datasets import Images
from matmamba_datasets.listing import absolute
from matmamba_datasets.remote import is_url
from matmamba_datasets.url_folder import UrlFolder
from matmamba_retrieval.gallery.image_files import ImageFiles, LocalFiles
from matmamba_retrieval.storage.sources import FileFacts, facts_of

from ..errors import ConfigError
from .intake import Wanted

# A path of this machine, or a URL; None of images that lie in no place.
Place: TypeAlias = Path | str | None


def place_of(images: object) -> Place:
    """The place that an argument names."""
    if not isinstance(images, (str, os.PathLike)):
        return None
    name = os.fspath(images)
    return name if is_url(name) else Path(name)


def spellings(place: Path) -> tuple[str, ...]:
    """A place as it may have been called before: as it is called now, and without links."""
    return tuple({str(absolute(place)), str(place.resolve())})


def files_of(place: Place, images: Images | None = None) -> ImageFiles | None:
    """The files of a place; None where nobody can look at them.

    Args:
        place: where they lie.
        images: of a folder at a URL, as they were listed.
    """
    if isinstance(place, Path):
        return LocalFiles(spellings(place))
    return _ListedFiles(images) if place is not None and isinstance(images, UrlFolder) else None


def facts_from_now(images: Images) -> Callable[[str], FileFacts | None]:
    """What says the facts of files, by path, that are read from now on; at a URL, as they were listed."""
    if isinstance(images, UrlFolder):
        return partial(_told, images.facts)
    return partial(facts_of, since=time.time_ns())


def require_told(wanted: Wanted, images: Images) -> None:
    """Raise `ConfigError` if it is asked for what became of files at a URL that does not tell it."""
    names = [name for name in ("changed", "prune") if getattr(wanted, name)]
    if not names or not isinstance(wanted.place, str):
        return
    if not isinstance(images, UrlFolder):
        raise ConfigError(
            f"{names[0]} means nothing for shards at a URL, whose changes nobody looks at: upsert encodes all"
            f" of {wanted.place}"
        )
    if wanted.changed and not images.tells_changes:
        raise ConfigError(
            f"changed: {wanted.place} does not tell when its files were written; upsert encodes them all"
        )


class _ListedFiles:
    """The files of a folder at a URL."""

    def __init__(self, images: UrlFolder) -> None:
        self._images = images
        self.holds = images.holds

    def look(self, path: str) -> FileFacts | int | None:
        try:
            return _told(self._images.facts_now, path)
        except OSError as error:
            # What file systems of other machines raise has no number.
            return errno.ENOENT if isinstance(error, FileNotFoundError) else error.errno or -1


def _told(facts: Callable[[str], tuple[int, int] | None], path: str) -> FileFacts | None:
    found = facts(path)
    return None if found is None else FileFacts(*found)
