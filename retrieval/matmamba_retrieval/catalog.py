"""The gallery's catalogue: an SQLite file that says which images, segments and indexes exist."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import GalleryError
from .spec import EmbeddingSpec

FORMAT = 1
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE segments (
    start INTEGER PRIMARY KEY, rows INTEGER NOT NULL, file TEXT NOT NULL, sha256 TEXT NOT NULL
);
CREATE TABLE images (key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, path TEXT NOT NULL, label TEXT);
CREATE TABLE shortlists (
    dim INTEGER PRIMARY KEY, factory TEXT NOT NULL, rows INTEGER NOT NULL,
    file TEXT NOT NULL, sha256 TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class Row:
    """One image of a gallery.

    Attributes:
        id: stable and unique. path: where the image can be found. label: class name, or None.
    """

    id: str
    path: str
    label: str | None = None


@dataclass(frozen=True)
class SegmentRecord:
    """A file of vectors: those of the keys `start` to `start + rows`."""

    start: int
    rows: int
    file: str
    sha256: str


@dataclass(frozen=True)
class ShortlistRecord:
    """A FAISS index over `dim` leading coordinates of keys 0 to `rows`, made by a FAISS factory string."""

    dim: int
    factory: str
    rows: int
    file: str
    sha256: str


class Catalog:
    """Rows, segments and indexes. Keys number the images from 0 in the order in which they were added.

    Every change is one SQLite transaction: what was committed survives a kill, what was not is never seen.

    Raises:
        GalleryError: the file is missing, damaged, or of a newer format.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise GalleryError(f"no gallery at {file.parent}")
        self.file = file
        self._db = sqlite3.connect(file, isolation_level=None)
        try:
            about = dict(self._db.execute("SELECT name, value FROM about"))
            version = int(about["format"])
            if version > FORMAT:
                raise GalleryError(f"{file} has format {version}, this version reads up to {FORMAT}")
            self.spec = EmbeddingSpec(**json.loads(about["spec"]))
            self.checkpoint_path = about["checkpoint_path"]
        except (sqlite3.DatabaseError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise GalleryError(f"{file} is not the catalogue of a gallery: {error}") from error
        self._db.execute("PRAGMA synchronous = FULL")

    @staticmethod
    def create(file: Path, spec: EmbeddingSpec, checkpoint_path: str) -> Catalog:
        """A new, empty catalogue."""
        db = sqlite3.connect(file, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        about = {"format": str(FORMAT), "spec": json.dumps(asdict(spec)), "checkpoint_path": checkpoint_path}
        db.executescript(f"BEGIN IMMEDIATE; {_TABLES}")
        db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        db.execute("COMMIT")
        db.close()
        return Catalog(file)

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(start + rows), 0) FROM segments").fetchone()[0])

    def segments(self) -> list[SegmentRecord]:
        """All segments, in the order of their keys."""
        return [SegmentRecord(*row) for row in self._db.execute("SELECT * FROM segments ORDER BY start")]

    def add(self, rows: Sequence[Row], file: str, sha256: str) -> None:
        """Commit a segment whose vectors are on the disk already; `GalleryError` if an id is not new."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            record = SegmentRecord(len(self), len(rows), file, sha256)
            self._db.execute("INSERT INTO segments VALUES (?, ?, ?, ?)", tuple(asdict(record).values()))
            numbered = ((record.start + i, row.id, row.path, row.label) for i, row in enumerate(rows))
            self._db.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", numbered)
            self._db.execute("COMMIT")
        except BaseException as error:
            self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError):
                raise GalleryError(
                    f"the gallery has one of these ids already, or one is given twice: {error}"
                ) from error
            raise

    def paths_of(self, ids: Iterable[str]) -> dict[str, str]:
        """Path by id, of those ids that the gallery has."""
        found = {}
        for image_id in ids:
            for (path,) in self._db.execute("SELECT path FROM images WHERE id = ?", (image_id,)):
                found[image_id] = path
        return found

    def rows(self, keys: Iterable[int]) -> list[Row]:
        """The images with these keys, in this order."""
        query = "SELECT id, path, label FROM images WHERE key = ?"
        return [Row(*self._db.execute(query, (int(key),)).fetchone()) for key in keys]

    def labels(self) -> list[str | None]:
        """Labels of all images, by key."""
        return [label for (label,) in self._db.execute("SELECT label FROM images ORDER BY key")]

    def shortlist(self, dim: int) -> ShortlistRecord | None:
        """The index over `dim` coordinates, if one was built."""
        row = self._db.execute("SELECT * FROM shortlists WHERE dim = ?", (dim,)).fetchone()
        return ShortlistRecord(*row) if row else None

    def shortlist_dims(self) -> list[int]:
        """Dims of the indexes that were built, ascending."""
        return [dim for (dim,) in self._db.execute("SELECT dim FROM shortlists ORDER BY dim")]

    def put_shortlist(self, record: ShortlistRecord) -> None:
        """Commit an index whose file is already on the disk."""
        self._db.execute(
            "INSERT OR REPLACE INTO shortlists VALUES (?, ?, ?, ?, ?)", tuple(asdict(record).values())
        )
