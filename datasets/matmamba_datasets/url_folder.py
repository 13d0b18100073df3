"""A folder of image files at any URL that fsspec knows, read as one on this machine is."""

from __future__ import annotations

import os
import stat
from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

from .errors import DataError
from .folder import Folder
from .listing import Entries, Listing
from .reading import Reading
from .remote import RemoteEntry, entries_at, entry_at, join, parts_of, read_remote, with_slash
from .texts import Texts

# Of what is not told.
_UNKNOWN = -1
# Files that are fetched while others are decoded: each takes its time on the way, whatever it holds.
FETCHED_AHEAD = 16


class _ListedEntry:
    """An entry, as `os.scandir` gives them."""

    def __init__(self, entry: RemoteEntry) -> None:
        self.name, self._kind = entry.name, entry.kind

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._kind == "file"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._kind == "directory"

    def stat(self) -> os.stat_result:
        # Asked for what is neither.
        if self._kind == "link":
            raise OSError("a link, which is followed on this machine alone")
        return os.stat_result((stat.S_IFREG if self._kind == "file" else 0, *[0] * 9))


class UrlListing(Listing):
    """What is below a folder at a URL: see `Listing`. Links are left out.

    Attributes:
        sizes: of the images, in bytes; -1 where nobody tells.
        stamps: of the images, what tells that one was written anew; -1 where nothing does.
    """

    def __init__(self, root: str, reading: Reading | None = None) -> None:
        self.sizes, self.stamps = array("q"), array("q")
        self._scanned_last, self._facts = dict[str, RemoteEntry](), dict[str, RemoteEntry]()
        super().__init__(root, reading)

    def _placed(self, root: Path | str) -> tuple[Path | str, str]:
        before, path, _ = parts_of(str(root))
        return str(root), f"{before}{with_slash(path)}"

    def _above(self) -> set[Hashable]:
        return set()

    def _identity(self, inside: str) -> Hashable:
        return inside

    def _scanned(self, inside: str) -> AbstractContextManager[Iterable[os.DirEntry[str]]]:
        folder = join(str(self.root), inside.rstrip("/")) if inside else str(self.root)
        try:
            entries = entries_at(folder)
        except OSError as error:
            if inside:
                raise
            raise DataError(f"cannot list {folder}: {_first_line(error)}") from error
        self._scanned_last = {f"{inside}{entry.name}": entry for entry in entries}
        return nullcontext(cast("Any", map(_ListedEntry, entries)))

    def entries(self, inside: str) -> Entries:
        found = super().entries(inside)
        self._facts |= {path: self._scanned_last[path] for path in found if not path.endswith("/")}
        return found

    def _noted(self) -> Iterator[list[str]]:
        for run in super()._noted():
            facts = [self._facts.pop(path) for path in run]
            self.sizes.extend(_UNKNOWN if one.size is None else one.size for one in facts)
            self.stamps.extend(_UNKNOWN if one.stamp is None else one.stamp for one in facts)
            yield run


def _first_line(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    return "no such folder" if isinstance(error, FileNotFoundError) else text or type(error).__name__


class _Urls(Texts):
    """The URLs of files in a folder."""

    def __init__(self, folder: str, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names

    def __len__(self) -> int:
        return len(self._names)

    def text(self, index: int) -> str:
        return join(self._folder, self._names[index])


class UrlFolder(Folder):
    """All images below a folder at a URL, as `Folder`: with the same ids, and URLs as paths.

    Files that are asked for one after the other are fetched ahead.

    Args:
        root: the URL.
        reading: what is read of it.
        listing: what is below it, if that is known.

    Raises:
        DataError: it cannot be listed, or there is no image in it.
    """

    def __init__(self, root: str, reading: Reading | None = None, listing: UrlListing | None = None) -> None:
        self.root, self.limits = root, reading or Reading()
        listing = listing or UrlListing(root, reading)
        self._take(listing, ())
        self.paths: Sequence[str] = _Urls(root, self.ids)
        self._prefix, self._behind = listing.prefix, parts_of(root)[2]
        self._sizes, self._stamps = listing.sizes, listing.stamps
        self._ahead = _FetchedAhead()

    def stored(self, index: int) -> bytes:
        return self._ahead.take(self, index)

    def fetch(self, index: int) -> bytes:
        """The file of an image, from where it lies; `BrokenImageError` if it cannot be read."""
        size = self._sizes[index]
        return read_remote(self.paths[index], self.limits.max_bytes, None if size == _UNKNOWN else size)

    def holds(self, path: str) -> bool:
        """Whether an image with such a path lies below this folder."""
        return path.startswith(self._prefix) and path.endswith(self._behind)

    def facts(self, path: str) -> tuple[int, int] | None:
        """Size and stamp of an image when the folder was listed; None if they are not known."""
        place = self._place(path)
        if place is None or _UNKNOWN in (self._sizes[place], self._stamps[place]):
            return None
        return self._sizes[place], self._stamps[place]

    def facts_now(self, path: str) -> tuple[int, int] | None:
        """The same of any file below the folder, which is asked for if it was not listed.

        Raises:
            OSError: it is not there, or cannot be asked for.
        """
        if self._place(path) is not None:
            return self.facts(path)
        now = entry_at(path)
        return None if now.size is None or now.stamp is None else (now.size, now.stamp)

    def _place(self, path: str) -> int | None:
        """Which image lies at a path; None if none was listed there."""
        name = path[len(self._prefix) : len(path) - len(self._behind)]
        # A listing is sorted.
        place = bisect_left(self.ids, name)
        return place if place < len(self.ids) and self.ids[place] == name else None

    @property
    def tells_changes(self) -> bool:
        """Whether the file system says of any image when it was written."""
        return any(stamp != _UNKNOWN for stamp in self._stamps)


class _FetchedAhead:
    """Files that are on their way. In another process, which it is sent to or copied into, it begins anew."""

    def __init__(self) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._process, self._last = os.getpid(), -2
        self._pool: ThreadPoolExecutor | None = None
        self._coming = dict[int, Future[bytes]]()

    def __reduce__(self) -> tuple[type[_FetchedAhead], tuple[()]]:
        return _FetchedAhead, ()

    def take(self, images: UrlFolder, index: int) -> bytes:
        """The file of an image; those behind it begin to come once two were asked for in their order."""
        if self._process != os.getpid():
            self._begin_anew()
        if 0 < index - self._last <= FETCHED_AHEAD:
            self._have_come(images, index)
        else:
            self._coming.clear()
        self._last = index
        coming = self._coming.pop(index, None)
        return images.fetch(index) if coming is None else coming.result()

    def _have_come(self, images: UrlFolder, index: int) -> None:
        self._pool = self._pool or ThreadPoolExecutor(FETCHED_AHEAD, "fetched ahead")
        # What was passed over is not wanted.
        for place in [place for place in self._coming if place < index]:
            del self._coming[place]
        for place in range(index, min(index + FETCHED_AHEAD, len(images))):
            if place not in self._coming:
                self._coming[place] = self._pool.submit(images.fetch, place)
