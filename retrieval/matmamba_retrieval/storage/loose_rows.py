"""Filters over rows that lie in no catalogue, by the same SQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

import apsw

from .records import Row
from .where import compile_where

_TABLE = "CREATE TABLE images (key INTEGER, id TEXT, path TEXT, label TEXT, metadata TEXT)"


def keys_among(where: str, fields: Collection[str], blocks: Iterable[Iterable[tuple[int, Row]]]) -> list[int]:
    """Keys of the rows that fulfil a condition, in their order.

    Args:
        where: the condition.
        fields: the metadata fields that there are.
        blocks: rows with their keys, so many at a time as memory may hold.

    Raises:
        GalleryError: `where` is not a condition over known names.
    """
    condition, values = compile_where(where, fields)
    database, found = apsw.Connection(":memory:"), list[int]()
    try:
        database.execute(_TABLE)
        for rows in blocks:
            database.execute("DELETE FROM images")
            told = (
                (key, row.id, row.path, row.label, json.dumps(dict(row.metadata), ensure_ascii=False))
                for key, row in rows
            )
            database.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?)", told)
            query = f"SELECT key FROM images WHERE {condition} ORDER BY rowid"
            found += [key for (key,) in database.execute(query, values)]
    finally:
        database.close(force=True)
    return found
