"""SQLite files whose every page carries a checksum, so that damage is an error and never another answer.

The checksums are those of SQLite's checksum VFS (https://sqlite.org/cksumvfs.html), which comes with APSW.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import apsw.sqlite_extra
import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError

CHECKED_VFS = "cksmvfs"
CHECKSUM_BYTES, PAGE_BYTES = 8, 4096
BUSY_MS = 30_000
# Places in the header of an SQLite file (https://sqlite.org/fileformat.html#the_database_header).
_PAGES, _RESERVED, _HEADER_BYTES = slice(28, 32), 20, 100
_READ_PAGES = 4096


def create_database(file: Path, script: str) -> None:
    """Write a new database with the tables of `script`."""
    with naming(file):
        database = _connect(file, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
        database.reserve_bytes("main", CHECKSUM_BYTES)
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.execute(f"BEGIN IMMEDIATE; {script}; COMMIT")
        database.close()


def open_database(file: Path, *, write: bool) -> apsw.Connection:
    """A connection to an existing database; one that is not to write cannot.

    Raises:
        GalleryError: no database there, or one without checksums.
    """
    header = _header(file)
    if len(header) < _HEADER_BYTES or header[_RESERVED] != CHECKSUM_BYTES:
        raise GalleryError(f"{file} is damaged, or not the catalogue of a gallery")
    with naming(file):
        # Also for reading: what a killed writer left half done can then be rolled back.
        mode = apsw.SQLITE_OPEN_READWRITE if write or _writable(file) else apsw.SQLITE_OPEN_READONLY
        database = _connect(file, mode)
        if not write:
            database.execute("PRAGMA query_only = 1")
    return database


def open_to_filter(file: Path) -> apsw.Connection:
    """A connection that can do nothing but read, for conditions that users wrote."""
    with naming(file):
        return _connect(file, apsw.SQLITE_OPEN_READONLY)


def rewrite_database(file: Path) -> None:
    """Write a damaged database anew from its tables, if all of these can be read.

    What SQLite derives from the tables, its indexes and free pages, is made again. The old file stays beside
    the new one.

    Raises:
        GalleryError: a table is damaged; nothing was changed.
    """
    new, old = file.with_suffix(".rewritten"), file.with_suffix(".damaged")
    new.unlink(missing_ok=True)
    try:
        with naming(file):
            _copy_tables(file, new)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    file.rename(old)
    new.rename(file)


def _copy_tables(file: Path, new: Path) -> None:
    """Not SQLite's VACUUM: that reads the indexes, too."""
    database = _connect(file, apsw.SQLITE_OPEN_READWRITE)
    made = list(database.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    tables = [(name, sql) for kind, name, sql in made if kind == "table"]
    create_database(new, ";".join(sql for _, sql in tables))
    database.execute("ATTACH ? AS new", (str(new),))
    copies = [f"INSERT INTO new.{name} SELECT * FROM main.{name}" for name, _ in tables]
    try:
        database.execute(";".join(["BEGIN", *copies, "COMMIT"]))
    finally:
        database.close(force=True)
    rewritten = _connect(new, apsw.SQLITE_OPEN_READWRITE)
    rewritten.execute(";".join(sql for kind, _, sql in made if kind == "index"))
    rewritten.close()


def damaged_pages(file: Path) -> list[str]:
    """What is wrong with a database file: its size, and pages that differ from their checksums."""
    header, size = _header(file), file.stat().st_size if file.is_file() else 0
    pages = int.from_bytes(header[_PAGES], "big")
    found = [] if size == pages * PAGE_BYTES else [f"has {size} bytes, not {pages} pages of {PAGE_BYTES}"]
    with file.open("rb") as opened:
        first = 0
        while block := opened.read(_READ_PAGES * PAGE_BYTES):
            whole = np.frombuffer(block, dtype="<u4", count=len(block) // PAGE_BYTES * (PAGE_BYTES // 4))
            bad = np.flatnonzero(~_pages_fit(whole.reshape(-1, PAGE_BYTES // 4)))
            found += [f"page {first + number} differs from its checksum" for number in bad]
            first += _READ_PAGES
    return found


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
    except (apsw.ReadOnlyError, apsw.CantOpenError) as error:
        raise GalleryError(f"{file} cannot be opened or written: {error}") from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.IOError) as error:
        raise GalleryError(f"{file} is damaged ({error})") from error


def _connect(file: Path, mode: int) -> apsw.Connection:
    if CHECKED_VFS not in apsw.vfs_names():
        with apsw.Connection(":memory:") as loader:
            apsw.sqlite_extra.load(loader, "cksumvfs")
    database = apsw.Connection(str(file), flags=mode, vfs=CHECKED_VFS)
    database.set_busy_timeout(BUSY_MS)
    # With the removal of the journal flushed too: a commit lasts through a power failure.
    database.execute("PRAGMA synchronous = EXTRA")
    return database


def _writable(file: Path) -> bool:
    try:
        with file.open("r+b"):
            return True
    except OSError:
        return False


def _header(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_HEADER_BYTES)
    except OSError as error:
        raise GalleryError(f"{file} cannot be read: {error.strerror or error}") from error
