"""What is known about images beside their pixels: a CSV file or JSON lines, kept on the disk while in use."""

from __future__ import annotations

import csv
import json
import os
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
    cells are left out. In JSON lines, each line is an object. Columns id, path and label may be written in
    capitals, paths with backslashes, and a CSV file may separate by semicolons, tabs or bars.

    Attributes:
        by: "id" or "path": which column the file has.
        left_out: lines that cannot be used: reason by "file, line".

    Raises:
        GalleryError: a file of another kind, without one of these columns or with both, or of which no line
            can be used; the message has the file, and the header that was seen.
    """

    def __init__(self, file: Path) -> None:
        if file.suffix.lower() not in _READ:
            raise GalleryError(f"{file} is none of {', '.join(_READ)}")
        self.file, self.by, self.left_out = file, "", dict[str, str]()
        # SQLite keeps a database without a name in a file that it removes.
        self._db = sqlite3.connect("")
        self._db.execute(
            "CREATE TABLE entries (name TEXT PRIMARY KEY, entry TEXT, line INT, used INT) WITHOUT ROWID"
        )
        try:
            for entry in self._entries():
                self._keep(*entry)
        except OSError as error:
            raise GalleryError(f"cannot read {file}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise GalleryError(f"{file} is not UTF-8") from error
        if not (self.left_out or len(self)):
            raise GalleryError(f"{file} speaks of no image: it has no rows")
        if self.left_out and not len(self):
            name, reason = next(iter(self.left_out.items()))
            raise GalleryError(f"{name}: {reason}, and no other line can be used")

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM entries").fetchone()[0])

    def of(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """What is known about images with these ids, or paths; empty where there is nothing."""
        query = "SELECT entry FROM entries WHERE name = ?"
        found = (self._db.execute(query, (_spelt(name),)).fetchone() for name in names)
        return [json.loads(row[0]) if row else {} for row in found]

    def require_known(self, names: Iterable[str]) -> int:
        """How many of all `names` have an entry; entries of others are left out.

        Raises:
            GalleryError: there are entries, and none is of these.
        """
        self._db.executemany(
            "UPDATE entries SET used = 1 WHERE name = ?", ((_spelt(name),) for name in names)
        )
        (used,) = self._db.execute("SELECT count(*) FROM entries WHERE used").fetchone()
        unknown = self._db.execute("SELECT name, line FROM entries WHERE NOT used ORDER BY line").fetchall()
        if unknown and not used:
            listed = ", ".join(repr(name) for name, _ in unknown[:_NAMED])
            more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
            raise GalleryError(
                f"{self.file} speaks only of images that are not there, by {self.by}: {listed}{more}"
            )
        self.left_out |= {self._at(line): "speaks of an image that is not there" for _, line in unknown}
        return int(used)

    def _at(self, line: int) -> str:
        return f"{self.file}, line {line}"

    def _keep(self, line: int, name: str, entry: str) -> None:
        try:
            self._db.execute("INSERT INTO entries VALUES (?, ?, ?, 0)", (name, entry, line))
        except sqlite3.IntegrityError:
            self.left_out[self._at(line)] = f"{name!r} is there twice"
        except UnicodeEncodeError:
            self.left_out[self._at(line)] = f"{name!a} is no text that can be stored"

    def _entries(self) -> Iterator[tuple[int, str, str]]:
        read = self._read_table if _READ[self.file.suffix.lower()] else self._read_lines
        for line, entry in read():
            has = [name for name in BY if name in entry]
            if len(has) > 1 or (not self.by and not has):
                said = "both columns id and path" if len(has) > 1 else "no column id or path"
                seen = ", ".join(map(repr, entry))
                raise GalleryError(f"{self._at(line)}: {said}; one of them names the image; there is {seen}")
            self.by = self.by or has[0]
            found = dict(entry)
            name = found.pop(self.by, None)
            if not isinstance(name, str) or not name:
                self.left_out[self._at(line)] = f"{self.by!r} is {name!r}, not a text"
                continue
            name = _spelt(name)
            at = os.path.normpath(self.file.parent.absolute() / name) if self.by == "path" else name
            yield line, at, json.dumps(found)

    def _read_lines(self) -> Iterator[tuple[int, Entry]]:
        with self.file.open(encoding="utf-8-sig") as opened:
            for line, text in enumerate(opened, 1):
                if not text.strip():
                    continue
                try:
                    entry = json.loads(text, parse_constant=_refuse_constant)
                except ValueError as error:
                    self.left_out[self._at(line)] = f"not JSON ({error})"
                    continue
                if isinstance(entry, dict):
                    yield line, {_column(name): value for name, value in entry.items()}
                else:
                    self.left_out[self._at(line)] = "not a JSON object"

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
            delimiter = _delimiter(opened.readline(), _READ[self.file.suffix.lower()])
            opened.seek(0)
            reader = csv.reader(opened, delimiter=delimiter, strict=True)
            try:
                header = [_column(name) for name in next(reader, [])]
                if not header or len(set(header)) < len(header) or not all(header):
                    raise GalleryError(
                        f"{self.file}: its first line does not name the columns, each once: {header},"
                        f" separated by {delimiter!r}"
                    )
                if not set(BY) & set(header):
                    raise GalleryError(
                        f"{self.file}: no column id or path, one of which names the image; its columns are"
                        f" {', '.join(map(repr, header))}, separated by {delimiter!r}"
                    )
                for cells in filter(None, reader):
                    if len(cells) != len(header):
                        counts = f"{len(cells)} values for {len(header)} columns"
                        self.left_out[self._at(reader.line_num)] = counts
                        continue
                    row = zip(header, cells, strict=True)
                    yield reader.line_num, {name: cell for name, cell in row if cell or name in BY}
            except csv.Error as error:
                raise GalleryError(f"{self.file}, line {reader.line_num}: {error}") from error


def _delimiter(header: str, usual: str) -> str:
    """What separates the columns: the usual, unless another one shows a column that names images."""
    for delimiter in (usual, *(one for one in ",;\t|" if one != usual)):
        if {_column(name) for name in header.strip().replace('"', "").split(delimiter)} & set(BY):
            return delimiter
    return usual


def _column(name: str) -> str:
    """A column's name; of those that mean something, however it is written."""
    lowered = name.strip().lower()
    return lowered if lowered in (*BY, "label") else name


def _spelt(name: str) -> str:
    """A name as it is compared: Windows separates folders by backslashes."""
    return name.replace("\\", "/")


def _kind(text: str, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """The narrowest of int, float and str that takes a value and those before; "007" is a name."""
    if kind is int and _WHOLE.fullmatch(text):
        return int
    if kind is not str and _NUMBER.fullmatch(text) and isfinite(float(text)):
        return float
    return str


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
