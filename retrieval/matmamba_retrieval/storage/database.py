"""SQLite files whose every page carries a checksum, so that damage is an error and never another answer.

The checksums are those of SQLite's checksum VFS (https://sqlite.org/cksumvfs.html), which comes with APSW.
Files are read through SQLite alone: a process that closes a database file gives up all its locks on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import apsw.sqlite_extra
import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from .files import system_errors

CHECKED_VFS = "cksmvfs"
CHECKSUM_BYTES, PAGE_BYTES = 8, 4096
BUSY_MS = 30_000
# Places in the header of an SQLite file (https://sqlite.org/fileformat.html#the_database_header).
_PAGES, _RESERVED, _HEADER_BYTES = slice(28, 32), 20, 100
_FREE_TRUNK, _FREE_COUNT = slice(32, 36), slice(36, 40)
_READ_PAGES = 4096
# Errors of reading that are about the content; all others are the system's.
_DAMAGE = (apsw.SQLITE_IOERR_DATA, apsw.SQLITE_IOERR_SHORT_READ)
_UNFIT = (
    apsw.NotADBError, apsw.SQLError, apsw.MismatchError, apsw.ConstraintError,
    UnicodeDecodeError,
)  # fmt: skip


def create_database(file: Path, script: str) -> None:
    """Write a new database with the tables of `script`."""
    with naming(file):
        database = _connect(file, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
        try:
            database.reserve_bytes("main", CHECKSUM_BYTES)
            database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            database.execute(f"BEGIN IMMEDIATE; {script}; COMMIT")
        finally:
            database.close(force=True)


def open_database(file: Path, *, write: bool) -> apsw.Connection:
    """A connection to an existing database; one that is not to write cannot.

    Raises:
        GalleryError: no database there, or one without checksums.
    """
    header = _read_header(file)
    if len(header) < _HEADER_BYTES or header[_RESERVED] != CHECKSUM_BYTES:
        raise GalleryError(f"{file} is damaged, or not the catalogue of a gallery")
    with naming(file):
        # Also for reading: what a killed writer left half done can then be rolled back.
        writable = write or os.access(file, os.W_OK)
        database = _connect(file, apsw.SQLITE_OPEN_READWRITE if writable else apsw.SQLITE_OPEN_READONLY)
        # For digests of rows.
        apsw.sqlite_extra.load(database, "shathree")
        if not write:
            database.execute("PRAGMA query_only = 1")
    return database


def open_to_filter(file: Path) -> apsw.Connection:
    """A connection that can do nothing but read, for conditions that users wrote."""
    with naming(file):
        return _connect(file, apsw.SQLITE_OPEN_READONLY)


def damaged_pages(file: Path) -> list[str]:
    """What is wrong with a database file: its size, and pages that differ from their checksums, or are blank.

    Nobody may write to it meanwhile.
    """
    header = _read_header(file)
    with system_errors(f"read {file}"):
        size = file.stat().st_size
    pages = int.from_bytes(header[_PAGES], "big")
    found = [] if size == pages * PAGE_BYTES else [f"has {size} bytes, not {pages} pages of {PAGE_BYTES}"]
    with naming(file), _opened(file) as opened:
        blank: list[int] = []
        for first in range(0, size // PAGE_BYTES, _READ_PAGES):
            count = min(_READ_PAGES, size // PAGE_BYTES - first)
            words = np.frombuffer(opened.xRead(count * PAGE_BYTES, first * PAGE_BYTES), dtype="<u4")
            words = words.reshape(-1, PAGE_BYTES // 4)
            bad = np.flatnonzero(~_pages_fit(words))
            found += [f"page {first + number} differs from its checksum" for number in bad]
            # Zeros are the checksum of zeros.
            blank += (first + np.flatnonzero(~words.any(axis=1))).tolist()
        free = _free_pages(opened, header, size // PAGE_BYTES) if blank and not found else set()
    return found + [f"page {number} is blank" for number in blank if number not in free]


def _free_pages(opened: apsw.VFSFile, header: bytes, pages: int) -> set[int]:
    """Numbers, from 0, of the pages that hold nothing: those that the list of free pages names."""
    free: set[int] = set()
    trunks: set[int] = set()
    trunk, left = int.from_bytes(header[_FREE_TRUNK], "big"), int.from_bytes(header[_FREE_COUNT], "big")
    # Each once: a list that was tampered with may lead back to itself.
    while 0 < trunk <= pages and left > 0 and trunk not in trunks:
        trunks.add(trunk)
        numbers = np.frombuffer(opened.xRead(PAGE_BYTES, (trunk - 1) * PAGE_BYTES), dtype=">u4")
        trunk, count = int(numbers[0]), min(int(numbers[1]), PAGE_BYTES // 4 - 2)
        free |= {int(number) - 1 for number in numbers[2 : 2 + count]}
        left -= 1 + count
    return free


def _pages_fit(words: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """For (n, 1024) words, whether each page's last two are the checksum of the others: two running sums."""
    first = second = np.zeros(len(words), dtype=np.uint32)
    for place in range(0, words.shape[1] - 2, 2):
        first = first + words[:, place] + second
        second = second + words[:, place + 1] + first
    return (first == words[:, -2]) & (second == words[:, -1])


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Turn an error of SQLite into a `GalleryError` that names the file."""
    try:
        yield
    except apsw.FullError as error:
        raise GalleryError(f"the disk of {file} is full: nothing was changed") from error
    except apsw.BusyError as error:
        raise GalleryError(
            f"{file} is in use by another process for more than {BUSY_MS // 1000} s"
        ) from error
    except apsw.ConnectionClosedError as error:
        raise GalleryError(f"{file} is closed: open the gallery again") from error
    except UnicodeEncodeError as error:
        raise GalleryError(f"{error.object!a:.200} is not a text that can be stored in {file}") from error
    except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.ExtensionLoadingError) as error:
        raise GalleryError(f"{file} cannot be opened or written: {error}") from error
    except apsw.IOError as error:
        if getattr(error, "extendedresult", None) in _DAMAGE:
            raise GalleryError(f"{file} is damaged ({error})") from error
        raise GalleryError(f"{file} cannot be read or written: {error}") from error
    except apsw.CorruptError as error:
        # SQLite reports what the system cannot read in the same way.
        raise GalleryError(f"{file} is damaged, or the system cannot read it ({error})") from error
    except _UNFIT as error:
        # The statements are ours, so it is the tables that do not go with them.
        raise GalleryError(f"{file} is damaged ({error})") from error


def _connect(file: Path, mode: int) -> apsw.Connection:
    if CHECKED_VFS not in apsw.vfs_names():
        with apsw.Connection(":memory:") as loader:
            apsw.sqlite_extra.load(loader, "cksumvfs")
    database = apsw.Connection(str(file), flags=mode, vfs=CHECKED_VFS)
    database.set_busy_timeout(BUSY_MS)
    # A catalogue that came from elsewhere may hold anything: it reaches no other file.
    database.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
    # With the removal of the journal flushed too: a commit lasts through a power failure.
    database.execute("PRAGMA synchronous = EXTRA; PRAGMA trusted_schema = 0")
    return database


@contextmanager
def _opened(file: Path) -> Iterator[apsw.VFSFile]:
    flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0]
    # The system's own, below the checksums.
    opened = apsw.VFSFile("unix", str(file.absolute()), flags)
    try:
        yield opened
    finally:
        opened.xClose()


def _read_header(file: Path) -> bytes:
    """The first bytes of a database, fewer if there are not as many."""
    if not os.access(file, os.R_OK):
        raise GalleryError(f"{file} cannot be read: no permission, or it is not there")
    with system_errors(f"read {file}"):
        size = min(_HEADER_BYTES, file.stat().st_size)
    with naming(file), _opened(file) as opened:
        return opened.xRead(size, 0) if size else b""
