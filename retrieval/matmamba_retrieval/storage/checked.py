"""A catalogue's file: transactions, and rows that are compared with their digests; threads may share it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from ..errors import FormatError, GalleryError, SavedError
from ..remedies import REPAIR
from .database import damaged_pages, naming, open_database
from .digests import Digests
from .interrupts import uninterrupted
from .rewriting import left_over
from .schema import DIGESTS, FORMAT, READABLE, objects, spaced, tables

# What each transaction writes, so that it can be told whether it took effect.
_LAST = "transaction"


class CheckedDatabase:
    """The tables of a catalogue.

    Attributes:
        file: where it is.
        format: which tables it has, see `schema`.

    Raises:
        GalleryError: the file is missing, damaged, or of another format.
    """

    def __init__(self, file: Path, *, write: bool = False) -> None:
        if not file.is_file():
            raise GalleryError(nothing_at(file))
        self.file, self._lock, self._whole = file, threading.RLock(), False
        self._place = _place_of(file)
        self._db = open_database(file, write=write)
        try:
            self.format = self._require_format()
            self._digests = Digests(self._db, file, known=self.format >= DIGESTS.since)
            self._require_tables()
            if write:
                self._digests.watch()
                self._upgrade()
        except BaseException:
            self._db.close(force=True)
            raise

    def _require_format(self) -> int:
        with naming(self.file):
            try:
                found = self._db.execute("SELECT value FROM about WHERE name = 'format'").get
            except apsw.SQLError as error:
                raise GalleryError(f"{self.file} is not the catalogue of a gallery: {error}") from error
        if found not in map(str, READABLE):
            raise FormatError(f"{self.file} has format {found}, this version reads format {FORMAT}")
        return int(found)

    def _require_tables(self) -> None:
        """Nothing but our own tables: a catalogue from elsewhere could bring views and triggers along."""
        stored = self.run("SELECT name, sql FROM sqlite_master")
        made = {str(name): spaced(str(sql)) for name, sql in stored if sql}
        wanted = objects(self.format)
        for name in sorted(made.keys() | wanted):
            if made.get(name) != wanted.get(name):
                what = "has no" if name not in made else "has another" if name in wanted else "has a foreign"
                raise GalleryError(f"{self.file} is damaged, or was made elsewhere: it {what} table {name!r}")

    def _upgrade(self) -> None:
        if self.format < FORMAT:
            with self.reading():
                self._require_readable()
            with self.transaction():
                for table in tables():
                    if table.since > self.format:
                        self.run(table.definition)
                self._digests.begin()
                self.set_about("format", str(FORMAT))
            self.format = FORMAT

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes of the block, or none of them; within another one, part of that. Ctrl-C waits for it.

        Raises:
            SavedError: the changes are in the file, although the system reported an error.
        """
        with self._lock:
            with naming(self.file):
                within = self._db.in_transaction
            if within:
                yield
                return
            with uninterrupted(), naming(self.file):
                # A list of free pages that is not true would have rows written over.
                self.require_structure()
                self._db.execute("BEGIN IMMEDIATE")
                mark = uuid.uuid4().hex
                try:
                    yield
                    self.run("INSERT OR REPLACE INTO about VALUES (?, ?)", (_LAST, mark))
                    self._digests.settle()
                    self._db.execute("COMMIT")
                except BaseException as error:
                    self._end(mark, error)
                    raise

    def _end(self, mark: str, error: BaseException) -> None:
        """Roll back; `SavedError` if the commit had taken effect all the same."""
        self._digests.forget()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        try:
            saved = self._db.execute("SELECT value FROM about WHERE name = ?", (_LAST,)).get == mark
        except apsw.Error:
            return  # nothing can be read: the error says it
        if saved:
            raise SavedError(f"{self.file}: the change is saved, but the disk reported: {error}") from error

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Execute one statement; its rows. Changes belong into a `transaction`."""
        with self._lock, naming(self.file):
            return list(self._db.execute(statement, values))

    def run_many(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for many values, within a `transaction`."""
        with self._lock, naming(self.file):
            self._db.executemany(statement, values)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Nobody writes to the file during the block."""
        with self._lock, naming(self.file):
            self._db.execute("BEGIN; SELECT 1 FROM about")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    def about(self, name: str) -> str:
        """A fact about the whole catalogue; "" if it is not there."""
        self.require("about")
        rows = self.run("SELECT value FROM about WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    def set_about(self, name: str, value: str) -> None:
        """Change a fact about the whole catalogue."""
        with self.transaction():
            self.run("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    # Digests

    def require(self, table: str, part: int = 0, blocks: Iterable[int] | None = None) -> None:
        """Raise `GalleryError` if rows of a table are not those that were written.

        Args:
            part: the generation, of the tables that are divided by it.
            blocks: see `schema`; all by default.
        """
        with self._lock, naming(self.file):
            if blocks is None:
                self._digests.require_all(table, part)
            else:
                self._digests.require(table, part, blocks)

    def require_images(self, generation: int) -> None:
        """Raise `GalleryError` if images of a generation are not those that were written, or not findable."""
        self.require("images", generation)
        self.require_structure()

    def require_structure(self) -> None:
        """Raise `GalleryError` if a tree, an index or the list of free pages is damaged. Looked at once.

        What is not found by an index counts as absent only if the index is whole.
        """
        if not self._whole:
            if said := self.check_structure():
                raise GalleryError(f"{self.file} is damaged ({said[0]}): {REPAIR}")
            self._whole = True

    def check_structure(self) -> list[str]:
        """What SQLite finds wrong with its trees and indexes, in words."""
        return [row[0] for row in self.run("PRAGMA integrity_check") if row[0] != "ok"]

    def _require_readable(self) -> None:
        """What can be known of a catalogue without digests before it gets some: they would bless damage."""
        self.require_structure()
        bad = damaged_pages(self.file)
        if self.run("SELECT 1 FROM images WHERE NOT json_valid(metadata) LIMIT 1"):
            bad.append("has metadata that cannot be read")
        if bad:
            raise GalleryError(f"{self.file} is damaged: {bad[0]}")

    def is_replaced(self) -> bool:
        """Whether another file has its name by now, as behind a repair."""
        return _place_of(self.file) != self._place

    def misfits(self) -> Iterator[str]:
        """Which tables have values of other types than were written, in words."""
        for table in tables(self.format):
            if count := self.run(table.misfits)[0][0]:
                yield f"has {count} rows of {table.name} with a value of another type"

    def differing(self) -> list[str]:
        """Which rows are not those that were written, in words."""
        with self._lock, naming(self.file):
            return list(self._digests.differing())


def _place_of(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def nothing_at(file: Path) -> str:
    """What is said where there is no catalogue."""
    if left_over(file):
        return f"no gallery at {file.parent}, but what a stopped repair has left: {REPAIR} finishes it"
    return f"no gallery at {file.parent}"
