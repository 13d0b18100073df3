"""A damaged catalogue written anew from its tables, if all of these can be read and are what was written.

What SQLite derives from the tables, its indexes and free pages, is made again.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import apsw

from ..errors import GalleryError
from .database import create_database, naming, open_database
from .digests import Digests
from .files import flush_folder, remove, system_errors
from .schema import DIGESTS, READABLE, index_script, objects, spaced, table_script, tables

_REWRITTEN, _DAMAGED = ".rewritten", ".damaged"
_ROWS_AT_ONCE = 8192


def rewrite_database(file: Path) -> Path:
    """Put a new file in the place of a damaged one in one moment; returns where the old one stays.

    Raises:
        GalleryError: a table is damaged; nothing was changed.
    """
    new, old = file.with_suffix(_REWRITTEN), file.with_suffix(_DAMAGED)
    with system_errors(f"write {file} anew"):
        new.unlink(missing_ok=True)
        try:
            with naming(file):
                _copy_tables(file, new)
            _keep(file, old)
            new.replace(file)
        finally:
            remove(new)
    flush_folder(file.parent)
    return old


def finish_rewriting(file: Path) -> bool:
    """Put back a catalogue that was moved away and not replaced, as an earlier version did when killed."""
    old = file.with_suffix(_DAMAGED)
    if file.exists() or not old.is_file():
        return False
    with system_errors(f"put {file} back"):
        os.link(old, file)
    flush_folder(file.parent)
    return True


def left_over(file: Path) -> bool:
    """Whether there is no catalogue but what an interrupted rewriting has moved away."""
    return not file.exists() and file.with_suffix(_DAMAGED).is_file()


def _keep(file: Path, old: Path) -> None:
    """A second name for the damaged file: the first one is never without a file."""
    old.unlink(missing_ok=True)
    try:
        os.link(file, old)
    except OSError:  # a file system without links
        old.write_bytes(file.read_bytes())


def _copy_tables(file: Path, new: Path) -> None:
    """Row by row: SQLite's VACUUM would read the indexes, too."""
    source = open_database(file, write=True)
    source.authorizer = _reads_alone
    try:
        number = _format_of(source, file)
        _require_tables(source, file, number)
        create_database(new, table_script(number))
        target = open_database(new, write=True)
        try:
            target.execute("BEGIN IMMEDIATE")
            for table in tables(number):
                _copy(source, target, table.name)
            target.execute(index_script())
            _require_digests(target, file, number)
            target.execute("COMMIT")
        finally:
            target.close()
    finally:
        source.close(force=True)


def _format_of(source: apsw.Connection, file: Path) -> int:
    found = source.execute("SELECT value FROM about WHERE name = 'format'").get
    for number in READABLE:
        if found == str(number):
            return number
    raise GalleryError(f"{file} is damaged: its format is {found!r}")


def _reads_alone(operation: int, *_: object) -> int:
    """Whatever a damaged catalogue makes SQLite do, it reads this file and no other."""
    allowed = (apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE)
    return apsw.SQLITE_OK if operation in allowed else apsw.SQLITE_DENY


def _copy(source: apsw.Connection, target: apsw.Connection, table: str) -> None:
    columns = len(list(target.execute(f"PRAGMA table_info({table})")))
    # Not an index of it, which may be what is damaged.
    rows = source.execute(f"SELECT * FROM {table} NOT INDEXED")
    statement = f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"
    # In lists: an error of the source within `executemany` would be taken for one of the target.
    while part := list(islice(rows, _ROWS_AT_ONCE)):
        target.executemany(statement, part)


def _require_tables(source: apsw.Connection, file: Path, number: int) -> None:
    made = {name: sql for name, sql in source.execute("SELECT name, sql FROM sqlite_master") if sql}
    for table in tables(number):
        if spaced(str(made.get(table.name, ""))) != objects(number)[table.name]:
            raise GalleryError(f"{file} is damaged: its table {table.name} is missing, or another")


def _require_digests(target: apsw.Connection, file: Path, number: int) -> None:
    # What can be known of a catalogue without digests.
    if target.execute("SELECT 1 FROM images WHERE NOT json_valid(metadata) LIMIT 1").get:
        raise GalleryError(f"{file} is damaged: metadata of images cannot be read")
    digests = Digests(target, file, known=number >= DIGESTS.since)
    if differing := next(digests.differing(), ""):
        raise GalleryError(f"{file} is damaged: {differing}")
