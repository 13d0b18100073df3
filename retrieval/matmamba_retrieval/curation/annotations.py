"""What is known about images beside their pixels: a CSV file or JSON lines, kept on the disk while in use."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import GalleryError

# Columns by which an entry finds its image.
BY = ("id", "path")
_READ = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": "", ".json": ""}
_NAMED = 5
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
Entry = Mapping[str, Any]


class Annotations:
    """Metadata by the id or the path of an image.

    A column of a CSV file whose values are all whole numbers, or all numbers, holds numbers; else text. Empty
    cells are left out. In JSON lines, each line is an object.

    Attributes:
        by: "id" or "path": which column the file has.

    Raises:
        GalleryError: a file of another kind, without one of these columns or with both, a line that is
            damaged, or an image that is there twice; the message has the file and the line.
    """

    def __init__(self, file: Path) -> None:
        if file.suffix.lower() not in _READ:
            raise GalleryError(f"{file} is none of {', '.join(_READ)}")
        self.file, self.by = file, ""
        # SQLite keeps a database without a name in a file that it removes.
        self._db = sqlite3.connect("")
        self._db.execute(
            "CREATE TABLE entries (name TEXT PRIMARY KEY, entry TEXT, used INTEGER) WITHOUT ROWID"
        )
        try:
            self._db.executemany("INSERT INTO entries VALUES (?, ?, 0)", self._entries())
        except sqlite3.IntegrityError as error:
            raise GalleryError(f"{file}, line {self._line}: {self._name!r} is there twice") from error
        except OSError as error:
            raise GalleryError(f"cannot read {file}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise GalleryError(f"{file} is not UTF-8") from error

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM entries").fetchone()[0])

    def of(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """What is known about images with these ids, or paths; empty where there is nothing."""
        query = "SELECT entry FROM entries WHERE name = ?"
        found = (self._db.execute(query, (name,)).fetchone() for name in names)
        return [json.loads(row[0]) if row else {} for row in found]

    def require_known(self, names: Iterable[str]) -> int:
        """How many of all `names` have an entry; `GalleryError` if there are entries of others."""
        self._db.executemany("UPDATE entries SET used = 1 WHERE name = ?", ((name,) for name in names))
        unknown = self._db.execute("SELECT name FROM entries WHERE NOT used").fetchmany(_NAMED)
        (used,) = self._db.execute("SELECT count(*) FROM entries WHERE used").fetchone()
        if unknown:
            listed = ", ".join(repr(name) for (name,) in unknown)
            more = len(self) - used - len(unknown)
            raise GalleryError(
                f"{self.file} speaks of images that are not there, by {self.by}: {listed}"
                + (f" and {more} more" if more else "")
            )
        return int(used)

    def _entries(self) -> Iterator[tuple[str, str]]:
        read = self._read_table if _READ[self.file.suffix.lower()] else self._read_lines
        for line, entry in read():
            self._line = line
            self._require_column(entry)
            found = dict(entry)
            name = found.pop(self.by)
            if not isinstance(name, str) or not name:
                raise GalleryError(f"{self.file}, line {line}: {self.by!r} is {name!r}, not a text")
            self._name = str((self.file.parent / name).absolute()) if self.by == "path" else name
            yield self._name, json.dumps(found)

    def _require_column(self, entry: Entry) -> None:
        has = [name for name in BY if name in entry]
        if len(has) != 1 or (self.by and has[0] != self.by):
            said = "both columns id and path" if len(has) > 1 else f"no column {self.by or 'id or path'}"
            raise GalleryError(f"{self.file}, line {self._line}: {said}; one of them names the image")
        self.by = has[0]

    def _read_lines(self) -> Iterator[tuple[int, Entry]]:
        with self.file.open(encoding="utf-8-sig") as opened:
            for line, text in enumerate(opened, 1):
                if not text.strip():
                    continue
                try:
                    entry = json.loads(text, parse_constant=_refuse_constant)
                except ValueError as error:
                    raise GalleryError(f"{self.file}, line {line}: not JSON ({error})") from error
                if not isinstance(entry, dict):
                    raise GalleryError(f"{self.file}, line {line}: not a JSON object")
                yield line, entry

    def _read_table(self) -> Iterator[tuple[int, Entry]]:
        # Twice, because what a column holds is known when all of it was seen.
        kinds: dict[str, Callable[[str], Any]] = {}
        for _, row in self._cells():
            for name, text in row.items():
                kinds[name] = _kind(text, kinds.get(name, int))
        for name in BY:
            kinds[name] = str
        for line, row in self._cells():
            yield line, {name: kinds[name](text) for name, text in row.items()}

    def _cells(self) -> Iterator[tuple[int, dict[str, str]]]:
        with self.file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, delimiter=_READ[self.file.suffix.lower()], strict=True)
            try:
                header = next(reader, [])
                if not header or len(set(header)) < len(header) or not all(header):
                    raise GalleryError(f"{self.file}: its first line does not name the columns, each once")
                for cells in filter(None, reader):
                    if len(cells) != len(header):
                        counts = f"{len(cells)} values for {len(header)} columns"
                        raise GalleryError(f"{self.file}, line {reader.line_num}: {counts}")
                    row = zip(header, cells, strict=True)
                    yield reader.line_num, {name: cell for name, cell in row if cell or name in BY}
            except csv.Error as error:
                raise GalleryError(f"{self.file}, line {reader.line_num}: {error}") from error


def _kind(text: str, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """The narrowest of int, float and str that takes a value and those before; "007" is a name."""
    if kind is int and _WHOLE.fullmatch(text):
        return int
    if kind is not str and _NUMBER.fullmatch(text) and isfinite(float(text)):
        return float
    return str


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
