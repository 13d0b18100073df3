"""The gallery's catalogue: an SQLite file that says which images, segments and indexes exist."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, GalleryError
from .database import create_database, naming, open_database, open_to_filter
from .files import flush_folder
from .records import Generation, Row, SegmentRecord, ShortlistRecord, Version
from .spec import EmbeddingSpec
from .where import compile_where

FORMAT = 2
# Of a catalogue that is being made.
PARTIAL = ".partial"
Ints = NDArray[np.int64]
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE generations (
    number INTEGER PRIMARY KEY, spec TEXT NOT NULL, checkpoint_path TEXT NOT NULL, widths TEXT NOT NULL,
    since INTEGER NOT NULL, plan TEXT NOT NULL DEFAULT 'null'
);
CREATE TABLE versions (
    number INTEGER PRIMARY KEY, generation INTEGER NOT NULL, keys INTEGER NOT NULL, live INTEGER NOT NULL,
    time TEXT NOT NULL
);
CREATE TABLE segments (
    generation INTEGER NOT NULL, width TEXT NOT NULL, start INTEGER NOT NULL, rows INTEGER NOT NULL,
    file TEXT NOT NULL, sha256 TEXT NOT NULL, checks BLOB NOT NULL, PRIMARY KEY (generation, width, start)
) WITHOUT ROWID;
CREATE TABLE images (
    generation INTEGER NOT NULL, key INTEGER NOT NULL, id TEXT NOT NULL, path TEXT NOT NULL, label TEXT,
    metadata TEXT NOT NULL, added INTEGER NOT NULL, removed INTEGER, PRIMARY KEY (generation, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX live ON images (generation, id) WHERE removed IS NULL;
CREATE INDEX gone ON images (generation, removed) WHERE removed IS NOT NULL;
CREATE TABLE shortlists (
    generation INTEGER NOT NULL, name TEXT NOT NULL, width TEXT NOT NULL, dim INTEGER NOT NULL,
    recipe TEXT NOT NULL, rows INTEGER NOT NULL, file TEXT NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (generation, name)
) WITHOUT ROWID;
CREATE TABLE fields (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO about VALUES ('format', '%d'), ('generation', '1'), ('staged', '')
"""


class Catalog:
    """Images, segments and indexes by generation, and the versions of the gallery.

    Keys number the images of a generation from 0 in the order in which they were added. Every change is one
    SQLite transaction: what was committed survives a kill, what was not is never seen.

    Raises:
        GalleryError: the file is missing, damaged, or of another format.
    """

    def __init__(self, file: Path, *, write: bool = False) -> None:
        if not file.is_file():
            raise GalleryError(f"no gallery at {file.parent}")
        self.file = file
        self._db = open_database(file, write=write)
        try:
            found = self.about("format")
        except apsw.SQLError as error:
            raise GalleryError(f"{file} is not the catalogue of a gallery: {error}") from error
        if found != str(FORMAT):
            raise FormatError(f"{file} has format {found}, this version reads format {FORMAT}")

    @staticmethod
    def create(file: Path, spec: EmbeddingSpec, checkpoint_path: str, widths: Sequence[str]) -> None:
        """Write a new, empty catalogue; a kill leaves none."""
        partial = file.with_suffix(PARTIAL)
        partial.unlink(missing_ok=True)
        create_database(partial, _TABLES % FORMAT)
        catalog = Catalog(partial, write=True)
        with catalog.transaction():
            catalog.new_generation(1, spec, checkpoint_path, widths)
            catalog.run("INSERT INTO versions VALUES (0, 1, 0, 0, ?)", (_now(),))
        catalog.close()
        partial.rename(file)
        flush_folder(file.parent)

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes of the block, or none of them."""
        with naming(self.file):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Execute one statement; its rows."""
        with naming(self.file):
            return list(self._db.execute(statement, values))

    def run_many(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for many values."""
        with naming(self.file):
            self._db.executemany(statement, values)

    def about(self, name: str) -> str:
        """A fact about the whole catalogue; "" if it is not there."""
        rows = self.run("SELECT value FROM about WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    def set_about(self, name: str, value: str) -> None:
        """Change a fact about the whole catalogue."""
        self.run("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    # Generations and versions

    def generations(self) -> dict[int, Generation]:
        """All generations, also one that is still being made and old ones that somebody may read."""
        query = "SELECT number, spec, checkpoint_path, widths, since FROM generations"
        return {
            number: Generation(
                number, EmbeddingSpec(**json.loads(spec)), path, tuple(json.loads(widths)), since
            )
            for number, spec, path, widths, since in self.run(query)
        }

    def new_generation(
        self, number: int, spec: EmbeddingSpec, checkpoint_path: str, widths: Sequence[str]
    ) -> None:
        """Note a generation, without images."""
        self.run(
            "INSERT INTO generations (number, spec, checkpoint_path, widths, since) VALUES (?, ?, ?, ?, 0)",
            (number, json.dumps(asdict(spec)), checkpoint_path, json.dumps(list(widths))),
        )

    def versions(self, generation: int) -> list[Version]:
        """The versions of a generation, oldest first."""
        query = (
            "SELECT number, generation, keys, live, time FROM versions WHERE generation = ? ORDER BY number"
        )
        return [Version(*row) for row in self.run(query, (generation,))]

    def newest(self, generation: int, at_most: int | None = None) -> Version | None:
        """The newest version of a generation, of those up to a number."""
        query = "SELECT number, generation, keys, live, time FROM versions WHERE generation = ?"
        bound = "" if at_most is None else f" AND number <= {int(at_most)}"
        rows = self.run(f"{query}{bound} ORDER BY number DESC LIMIT 1", (generation,))
        return Version(*rows[0]) if rows else None

    def add_version(self, generation: int, keys: int, live: int) -> int:
        """Note that the gallery has changed; the number of the new version."""
        (number,) = self.run("SELECT max(number) + 1 FROM versions")[0]
        self.run("INSERT INTO versions VALUES (?, ?, ?, ?, ?)", (number, generation, keys, live, _now()))
        return int(number)

    def forget_versions(self, generation: int, before: int) -> None:
        """Versions before this one can no longer be opened."""
        self.run("DELETE FROM versions WHERE generation = ? AND number < ?", (generation, before))
        self.run("UPDATE generations SET since = max(since, ?) WHERE number = ?", (before, generation))

    # Segments and indexes

    def segments(self, generation: int, width: str) -> list[SegmentRecord]:
        """The segments of a width, in the order of their keys."""
        query = (
            "SELECT width, start, rows, file, sha256, checks FROM segments WHERE generation = ? AND width = ?"
        )
        return [SegmentRecord(*row) for row in self.run(f"{query} ORDER BY start", (generation, width))]

    def put_segment(self, generation: int, record: SegmentRecord) -> None:
        """Note a segment whose file is on the disk already; one that starts at the same key is replaced."""
        self.run(
            "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)", (generation, *astuple(record))
        )

    def shortlists(self, generation: int) -> list[ShortlistRecord]:
        """The indexes of a generation, by dim and name."""
        query = "SELECT name, width, dim, recipe, rows, file, sha256 FROM shortlists WHERE generation = ?"
        return [ShortlistRecord(*row) for row in self.run(f"{query} ORDER BY dim, name", (generation,))]

    def put_shortlist(self, generation: int, record: ShortlistRecord) -> None:
        """Note an index whose file is on the disk already; one of the same name is replaced."""
        self.run(
            "INSERT OR REPLACE INTO shortlists VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (generation, *astuple(record)),
        )

    def drop_shortlist(self, generation: int, name: str) -> None:
        """Forget an index."""
        self.run("DELETE FROM shortlists WHERE generation = ? AND name = ?", (generation, name))

    def files(self) -> set[str]:
        """Names of all files that the catalogue speaks of."""
        return {name for (name,) in self.run("SELECT file FROM segments UNION SELECT file FROM shortlists")}

    def plan(self, generation: int) -> Any:
        """The plan of a generation, None if it has none."""
        rows = self.run("SELECT plan FROM generations WHERE number = ?", (generation,))
        return json.loads(rows[0][0]) if rows else None

    def save_plan(self, generation: int, plan: Any) -> None:
        """Keep a plan, or forget it with None."""
        self.run("UPDATE generations SET plan = ? WHERE number = ?", (json.dumps(plan), generation))

    # Images

    def fields(self) -> list[str]:
        """Names of the metadata that images have; those of nested objects joined by dots."""
        return [name for (name,) in self.run("SELECT name FROM fields ORDER BY name")]

    def keys_of(self, generation: int, ids: Iterable[str]) -> dict[str, int]:
        """Keys of the images that the generation has now, by id, of those ids that it has."""
        # CROSS JOIN, because SQLite would rather look through all images.
        query = (
            "SELECT images.id, images.key FROM json_each(?) AS wanted"
            " CROSS JOIN images INDEXED BY live ON images.id = wanted.value"
            " WHERE generation = ? AND removed IS NULL"
        )
        return dict(self.run(query, (json.dumps(list(ids)), generation)))

    def keys_at(self, version: Version, ids: Iterable[str]) -> dict[str, int]:
        """Keys of the images that a version has, by id, of those ids that it has."""
        wanted = list(ids)
        found = {
            image_id: key
            for image_id, key in self.keys_of(version.generation, wanted).items()
            if key < version.keys
        }
        query = (
            "SELECT id, key FROM images INDEXED BY gone WHERE generation = ? AND removed > ? AND key < ?"
            " AND id IN (SELECT value FROM json_each(?))"
        )
        values = (version.generation, version.number, version.keys, json.dumps(wanted))
        return found | dict(self.run(query, values))

    def rows(self, generation: int, keys: Iterable[int]) -> list[Row]:
        """The images with these keys, in this order."""
        query = "SELECT id, path, label, metadata FROM images WHERE generation = ? AND key = ?"
        found = []
        with naming(self.file):
            for key in keys:
                row = self._db.execute(query, (generation, int(key))).fetchone()
                if row is None:
                    raise GalleryError(f"{self.file.parent} has no image of key {key}")
                image_id, path, label, metadata = row
                found.append(Row(image_id, path, label, json.loads(metadata)))
        return found

    def labels(self, version: Version) -> list[str | None]:
        """Labels of all images of a version, deleted ones too, by key."""
        query = "SELECT label FROM images WHERE generation = ? AND key < ? ORDER BY key"
        return [label for (label,) in self.run(query, (version.generation, version.keys))]

    def removed(self, version: Version) -> Ints:
        """Keys of the images that were deleted in a version or before."""
        query = "SELECT key FROM images INDEXED BY gone WHERE generation = ? AND removed <= ? AND key < ?"
        rows = self.run(query, (version.generation, version.number, version.keys))
        return np.array([key for (key,) in rows], dtype=np.int64)

    def gone(self, generation: int, keys: range) -> dict[int, int]:
        """Of consecutive keys those of deleted images, with the version that deleted them."""
        query = "SELECT key, removed FROM images WHERE generation = ? AND key >= ? AND key < ?"
        return dict(self.run(f"{query} AND removed IS NOT NULL", (generation, keys.start, keys.stop)))

    def matching(self, version: Version, where: str) -> Ints:
        """Keys of the images, deleted ones too, that fulfil a condition; `GalleryError` if it is not one."""
        condition, values = compile_where(where, self.fields())
        query = f"SELECT key FROM images WHERE generation = ? AND key < ? AND ({condition})"
        with naming(self.file):
            database = open_to_filter(self.file)
            rows = database.execute(query, (version.generation, version.keys, *values))
            keys = np.fromiter((key for (key,) in rows), dtype=np.int64)
            database.close()
        return keys


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
