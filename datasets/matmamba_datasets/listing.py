"""The one place where a folder is listed: each entry is read, or left out by name with the reason.

Nothing that is wrong with one entry touches another, and nothing is opened.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from .kinds import is_shard, is_table, why_no_folder, why_no_image
from .left_out import left_out_text
from .names import is_text, shown
from .own_folders import own_kind
from .reading import FOLLOW, Reading
from .regular import said, why_not_regular
from .texts import Packed

_READ_ALREADY = "a link to a folder that is read where it lies, or holds this one"
Entries = list[str]
# Suffixes, as they are written, of which is remembered what is done with their files.
_REMEMBERED = 256


class Listing:
    """What is below a folder.

    Links to folders are followed last, and each folder is read once: so a link to a folder above it ends
    nothing, and what has a place of its own keeps it.

    Attributes:
        root: the folder.
        prefix: what stands before a path below it in a whole one.
        images: paths below it, with "/" on every system, of what is an image or may be one, in their order.
        owners: for each its place in `names`.
        names: first folders below the root, None for files beside them.
        shards: paths of *.tar files.
        tables: paths of *.parquet files.
        left_out: reason by absolute path of all else; one of a folder ends with "/" and stands for what is in
            it.

    Args:
        reading: patterns of what to take, and what to do with links.
        why_not: says of a name why such a file is not taken, "" if it is; by default of what is no image.
    """

    def __init__(
        self,
        root: Path | str,
        reading: Reading | None = None,
        why_not: Callable[[str], str] = why_no_image,
    ) -> None:
        reading, self._why_not = reading or Reading(), why_not
        self.root, self.prefix = self._placed(root)
        self.left_out = dict[str, str]()
        self.shards, self.tables = list[str](), list[str]()
        self._follow, self._links = reading.links == FOLLOW, list[str]()
        self._include, self._exclude = _patterns(reading.include), _patterns(reading.exclude)
        # Why files of a suffix are left out, "" if they are taken: only where no pattern decides.
        self._usual: dict[str, str] = {}
        # Folders above: a link to one of these would lead back here.
        self._seen = self._above()
        # Numbers of the owners as they come, because a million strings would take a hundred megabytes.
        self.owners, self._numbers = array("q"), dict[str | None, int]()
        self.images = Packed.of_runs(self._noted())
        self.shards.sort()
        self.tables.sort()

    def _placed(self, root: Path | str) -> tuple[Path | str, str]:
        """The folder, and what stands before the paths below it."""
        return Path(root), f"{absolute(Path(root))}{os.sep}"

    def _above(self) -> set[Hashable]:
        return {_identity(folder) for folder in absolute(Path(self.root)).resolve().parents}

    def _identity(self, inside: str) -> Hashable:
        """What tells a folder below the root from all others, however it was come to."""
        return _identity(os.path.join(self.root, inside))  # noqa: PTH118  strings, for speed

    def _scanned(self, inside: str) -> AbstractContextManager[Iterable[os.DirEntry[str]]]:
        """What is in a folder below the root."""
        return os.scandir(os.path.join(self.root, inside))  # noqa: PTH118  strings, for speed

    @property
    def names(self) -> list[str | None]:
        return list(self._numbers)

    def leave(self, path: str, reason: str) -> None:
        """Name what is left out, by its path below the root."""
        self.left_out[self.prefix + path] = reason

    def _noted(self) -> Iterator[list[str]]:
        for run in walk(self):
            owner = run[0].split("/", 1)[0] if "/" in run[0] else None
            number = self._numbers.setdefault(owner, len(self._numbers))
            self.owners.extend(array("q", [number]) * len(run))
            yield run

    def linked(self) -> Entries:
        """Folders behind links that were found since the last call, sorted."""
        found, self._links = sorted(self._links), []
        return found

    def entries(self, inside: str) -> Entries:
        """Images and folders (with "/") in a folder, sorted, so that folders stand where they belong."""
        found = Entries()
        try:
            identity = self._identity(inside)
            if identity in self._seen:
                self.leave(inside, _READ_ALREADY)
                return found
            self._seen.add(identity)
            with self._scanned(inside) as entries:
                self._sort_out(entries, inside, found)
        except OSError as error:
            self.leave(inside, f"cannot be listed: {said(error)}")
        if inside and (kind := self._own_kind(inside, found)):
            self._leave_whole(inside, kind)
            return Entries()
        found.sort()
        return found if "".join(found).isascii() else [path for path in found if self._is_text(path)]

    def _own_kind(self, inside: str, found: Entries) -> str:
        """What the folder is, if this project wrote it: a gallery, or a run."""
        whole = self.prefix + inside
        return own_kind(
            lambda name: inside + name in found if name[-1] == "/" else whole + name in self.left_out
        )

    def _leave_whole(self, inside: str, kind: str) -> None:
        """Name a folder as a whole: what is in it is no image of the user's, and makes no class."""
        whole = self.prefix + inside
        for path in [path for path in self.left_out if path.startswith(whole)]:
            del self.left_out[path]
        self.leave(inside, kind)

    def _sort_out(self, entries: Iterable[os.DirEntry[str]], inside: str, found: Entries) -> None:
        """Add images and folders to what was found, and name the others."""
        usual, left, prefix, add = self._usual.get, self.left_out, self.prefix + inside, found.append
        for entry in entries:
            # The usual case in few steps, because there may be millions.
            name = entry.name
            if (reason := usual(name[-4:])) is None:
                reason = usual(name[name.rfind(".") :])
            if reason is not None and name[0] != ".":
                try:
                    if entry.is_file(follow_symlinks=False):
                        if reason:
                            left[prefix + name] = reason
                        else:
                            add(inside + name)
                        continue
                except OSError:
                    # Some file systems have to be asked for each entry; it is named below.
                    pass
            if path := self._taken(entry, inside):
                add(path)

    def _is_text(self, path: str) -> bool:
        if is_text(path):
            return True
        self.leave(path, "its name is not UTF-8: rename it")
        return False

    def _taken(self, entry: os.DirEntry[str], inside: str) -> str:
        """The path of an image or a folder; "" for what is something else."""
        name, path = entry.name, inside + entry.name
        if not (name.isascii() or is_text(name)):
            self.leave(path, "its name is not UTF-8: rename it")
            return ""
        try:
            if entry.is_file(follow_symlinks=False):
                return self._file(name, path)
            if entry.is_dir(follow_symlinks=False):
                return self._folder(name, path)
            return self._special(entry, path)
        except OSError as error:
            self.leave(path, f"cannot be read: {said(error)}")
            return ""

    def _special(self, entry: os.DirEntry[str], path: str) -> str:
        mode = entry.stat().st_mode
        if not stat.S_ISDIR(mode):
            kind = why_not_regular(mode)
            return self._no(path, kind) if kind else self._file(entry.name, path)
        if not self._follow:
            return self._no(f"{path}/", "a link to a folder, links is 'skip'")
        if folder := self._folder(entry.name, path):
            self._links.append(folder)
        return ""

    def _folder(self, name: str, path: str) -> str:
        reason = why_no_folder(name) or ("by exclude" if _match(self._exclude, name, path) else "")
        return self._no(f"{path}/", reason) if reason else f"{path}/"

    def _file(self, name: str, path: str) -> str:
        if self._exclude and _match(self._exclude, name, path):
            return self._no(path, "by exclude")
        if self._include and not _match(self._include, name, path):
            return self._no(path, "by include")
        reason = self._why_not(name)
        if name[0] != ".":
            self._remember(name, path, reason)
        return self._no(path, reason) if reason else path

    def _remember(self, name: str, path: str, reason: str) -> None:
        """Note archives and tables, and what is done with files of any other suffix."""
        place = name.rfind(".")
        if is_shard(name) or is_table(name):
            (self.shards if is_shard(name) else self.tables).append(path)
        elif place > 0 and len(self._usual) < _REMEMBERED and not (self._include or self._exclude):
            self._usual[name[place:]] = reason

    def _no(self, path: str, reason: str) -> str:
        self.leave(path, reason)
        return ""


def walk(listing: Listing) -> Iterator[list[str]]:
    """The images below a folder in runs, each of one folder; only the folders on the way are in memory."""
    waiting = [""]
    while waiting:
        for start in waiting:
            # No recursion: folders can be nested deeper than Python calls.
            stack = [_runs(listing.entries(start))]
            while stack:
                run = next(stack[-1], None)
                if run is None:
                    stack.pop()
                elif run[0].endswith("/"):
                    stack.append(_runs(listing.entries(run[0])))
                else:
                    yield run
        waiting = listing.linked()


def _runs(entries: Entries) -> Iterator[list[str]]:
    """Images that stand together, and each folder alone."""
    start, folders = 0, "/\n" in "\n".join(entries) + "\n"
    for place in [place for place, path in enumerate(entries) if path[-1] == "/"] if folders else ():
        if start < place:
            yield entries[start:place]
        yield entries[place : place + 1]
        start = place + 1
    if start < len(entries):
        yield entries[start:]


def left_beside(root: Path, taken: Sequence[Path]) -> dict[str, str]:
    """Why what lies beside the folders that are read is not, by absolute path."""
    names, found = {folder.name for folder in taken}, dict[str, str]()
    listed = " and ".join(f"{name}/" for name in sorted(names))
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name not in names:
                    ending = "/" if _is_folder(entry) else ""
                    found[f"{absolute(root)}{os.sep}{entry.name}{ending}"] = f"beside {listed}"
    except OSError as error:
        found[f"{absolute(root)}{os.sep}"] = f"cannot be listed: {said(error)}"
    return found


def beside_nothing(listing: Listing) -> str:
    """What there is where nothing is that was looked for, as the end of a message."""
    found = ""
    if listing.images:
        first = shown(listing.images[0])
        found = f"; {len(listing.images):,} images such as {first}: the data set 'folder' reads them"
    return f"{found}\n{left_out_text(listing.left_out)}" if listing.left_out else found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def absolute(path: Path) -> Path:
    """An absolute path without "..", by which a file is remembered."""
    found = path.absolute()
    return found.resolve() if ".." in found.parts else found


def _identity(folder: Path | str) -> tuple[int, int]:
    found = os.stat(folder)  # noqa: PTH116  strings, for speed
    return found.st_dev, found.st_ino


def _patterns(globs: Sequence[str]) -> list[tuple[bool, re.Pattern[str]]]:
    """Compiled, with whether each is compared with the whole path."""
    return [("/" in glob.rstrip("/"), re.compile(fnmatch.translate(glob.rstrip("/")))) for glob in globs]


def _match(patterns: list[tuple[bool, re.Pattern[str]]], name: str, path: str) -> bool:
    return any(pattern.match(path if whole else name) for whole, pattern in patterns)
