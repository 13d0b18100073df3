"""Digests of a catalogue's rows: a page in the place of another is an error and never another answer.

SQLite's own checksums are of single pages and do not know where a page belongs. So every table is divided
into blocks of rows (see `schema`), and the catalogue keeps the SHA3-224 of each, as SQLite's `sha3_query`
computes it. Triggers of the writing connection note which blocks change; their digests are renewed before the
commit. A reader compares a block when it first needs one of its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apsw

from ..errors import GalleryError
from .schema import TABLES, Table

_BITS = 224
_DIGEST = f"SELECT sha3_query(?, {_BITS})"
_COMPARED = f"SELECT digest, sha3_query(?, {_BITS}) FROM digests WHERE name = ? AND part = ? AND block = ?"
_TOUCH = """
CREATE TEMP TRIGGER {table}_{event} BEFORE {event} ON main.{table}
BEGIN SELECT touch_block('{table}', {place}, {checked}); END
"""
Block = tuple[str, int, int]


class Digests:
    """The digests of a connection's catalogue, those that were compared remembered.

    Args:
        file: named in errors.
        known: whether the catalogue has digests; without, nothing is compared.
    """

    def __init__(self, database: apsw.Connection, file: Path, *, known: bool) -> None:
        self._db, self._file, self.known = database, file, known
        self._compared: set[Block] = set()
        self._whole: set[tuple[str, int]] = set()
        self._touched: set[Block] = set()

    def require(self, table: str, part: int = 0, blocks: Iterable[int] = (0,)) -> None:
        """Raise `GalleryError` if the rows of some blocks are not those that were written."""
        if not self.known or (table, part) in self._whole:
            return
        for block in set(blocks):
            place = (table, part, block)
            if place not in self._compared and not self._fits(place):
                raise GalleryError(f"{self._file} is damaged: {_named(place)} differ from their digest")
            self._compared.add(place)

    def require_all(self, table: str, part: int = 0) -> None:
        """`require` for all rows of a table, or of a part of it."""
        if self.known and (table, part) not in self._whole:
            self.require(table, part, self._blocks(TABLES[table], part))
            self._whole.add((table, part))

    def require_newest(self, table: str, part: int = 0) -> None:
        """`require` for the last block that there is."""
        if self.known:
            query = "SELECT max(block) FROM digests WHERE name = ? AND part = ?"
            last = self._db.execute(query, (table, part)).get
            self.require(table, part, [last or 0])

    def differing(self) -> Iterator[str]:
        """Which rows are not those that were written, in words."""
        for table in TABLES.values() if self.known else ():
            for part in self._parts(table):
                places = [(table.name, part, block) for block in self._blocks(table, part)]
                yield from (
                    f"{_named(place)} differ from their digest" for place in places if not self._fits(place)
                )

    def begin(self) -> None:
        """Give a catalogue without digests those of all its rows, within the transaction that is open."""
        self.known = True
        for table in TABLES.values():
            for part in self._parts(table):
                self._touched |= {(table.name, part, block) for block in self._blocks(table, part)}

    def watch(self) -> None:
        """Note from now on which blocks change, for `settle`; a damaged one cannot be changed."""
        self._db.create_scalar_function("touch_block", self._touch, 4)
        for table in TABLES.values():
            for event, row in (("INSERT", "NEW"), ("UPDATE", "OLD"), ("DELETE", "OLD")):
                place = ", ".join(table.place(row))
                # What is deleted need not be whole: so are generations that nobody reads any more.
                checked = int(event != "DELETE")
                self._db.execute(_TOUCH.format(table=table.name, event=event, place=place, checked=checked))

    def _touch(self, *values: Any) -> None:
        """Called by the triggers, with a place and whether its block has to be whole."""
        table, part, block, checked = values
        if not (isinstance(part, int) and isinstance(block, int)):
            raise GalleryError(f"{self._file} is damaged: {part!r:.80} stands where a number belongs")
        place = (table, part, block)
        if place not in self._touched:
            if checked:
                self.require(table, part, [block])
            self._touched.add(place)

    def settle(self) -> None:
        """Renew the digests of the blocks that changed: to be called before the commit."""
        for name, part, block in self._touched:
            rows = TABLES[name].rows_of(part, block)
            if self._db.execute(f"SELECT EXISTS ({rows})").get:
                digest = self._db.execute(_DIGEST, (rows,)).get
                self._db.execute(
                    "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (name, part, block, digest)
                )
            else:
                self._db.execute(
                    "DELETE FROM digests WHERE name = ? AND part = ? AND block = ?", (name, part, block)
                )
        self._touched.clear()

    def forget(self) -> None:
        """Nothing has changed: to be called after a rollback."""
        self._touched.clear()

    def _fits(self, place: Block) -> bool:
        """Whether a block has the digest that the catalogue keeps; an empty one has none."""
        table, part, block = place
        rows = TABLES[table].rows_of(part, block)
        for _ in range(2):
            # In one statement, so that another process cannot commit in between.
            if found := self._db.execute(_COMPARED, (rows, table, part, block)).fetchone():
                return bool(found[0] == found[1])
            if not self._db.execute(f"SELECT EXISTS ({rows})").get:
                return True
        return False

    def _parts(self, table: Table) -> list[int]:
        if not table.part:
            return [0]
        query = f"SELECT {table.part} FROM {table.name} UNION SELECT part FROM digests WHERE name = ?"
        return self._numbers(query, (table.name,))

    def _blocks(self, table: Table, part: int) -> list[int]:
        """Those that have rows or a digest."""
        own_part, block = table.place(table.name)
        query = (
            f"SELECT {block} FROM {table.name} WHERE {own_part} = ?"
            " UNION SELECT block FROM digests WHERE name = ? AND part = ?"
        )
        return self._numbers(query, (part, table.name, part))

    def _numbers(self, query: str, values: tuple[Any, ...]) -> list[int]:
        """Column of whole numbers: what is no number must not become part of a statement."""
        found = [number for (number,) in self._db.execute(query, values)]
        if bad := [number for number in found if not isinstance(number, int)]:
            raise GalleryError(f"{self._file} is damaged: {bad[0]!r:.80} stands where a number belongs")
        return found


def _named(place: Block) -> str:
    name, part, block = place
    table = TABLES[name]
    within = f" of generation {part}" if table.part else ""
    if not table.number:
        return f"the rows of {name}{within}"
    return f"the rows of {name}{within} from {table.number} {block * table.block} on"
