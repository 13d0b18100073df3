"""The gallery's catalogue: an SQLite file that says which images, segments and indexes exist."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError, SavedError
from ..remedies import REPAIR
from .checked import CheckedDatabase
from .database import create_database, naming, open_to_filter
from .files import put_new, remove
from .records import (
    Generation,
    Row,
    SegmentRecord,
    ShortlistRecord,
    Version,
    as_json,
    damage_of,
    require_column,
    stored_json,
)
from .schema import IMAGE_BLOCK, READABLE, VERSION_BLOCK, index_script, table_script
from .spec import EmbeddingSpec

# Of a catalogue that is being made.
PARTIAL = ".partial"
_FIRST = "INSERT INTO about VALUES ('format', '%d'), ('generation', '1'), ('staged', '')"
Ints = NDArray[np.int64]


class Catalog(CheckedDatabase):
    """Images, segments and indexes by generation, and the versions of the gallery.

    Keys number the images of a generation from 0 in the order in which they were added. Every change is one
    SQLite transaction: what was committed survives a kill, what was not is never seen. Rows are compared with
    their digests before they are answered with. Threads may share it.
    """

    @staticmethod
    def create(file: Path, spec: EmbeddingSpec, checkpoint_path: str, widths: Sequence[str]) -> None:
        """Write a new, empty catalogue; a kill leaves none, and one that is there stays.

        Raises:
            GalleryError: there is one already, or it cannot be written.
        """
        partial = file.with_name(f"{file.stem}-{uuid.uuid4().hex}{PARTIAL}")
        try:
            oldest = READABLE[0]
            create_database(partial, f"{table_script(oldest)}; {index_script()}; {_FIRST % oldest}")
            # Which makes it one of today's format.
            catalog = Catalog(partial, write=True)
            with catalog.transaction():
                catalog.new_generation(1, spec, checkpoint_path, widths)
                catalog.run("INSERT INTO versions VALUES (0, 1, 0, 0, ?)", (_now(),))
            catalog.close()
            put_new(partial, file)
        except SavedError as error:
            if file.exists():
                raise
            # Saved in the partial file alone, which nobody will see.
            raise GalleryError(f"cannot make {file}: {error.__cause__}") from error
        finally:
            remove(partial)

    # Generations and versions

    def generations(self) -> dict[int, Generation]:
        """All generations, also one that is still being made and old ones that somebody may read."""
        self.require("generations")
        query = "SELECT number, spec, checkpoint_path, widths, since FROM generations"
        with damage_of(self.file):
            return {row[0]: Generation.stored(*row) for row in self.run(query)}

    def current(self) -> Generation:
        """The generation that answers; `GalleryError` if there is none."""
        return self.generation(self.about("generation"))

    def generation(self, number: str) -> Generation:
        """A generation by its number, as `about` has it; `GalleryError` if it is not there."""
        for generation in self.generations().values():
            if str(generation.number) == number:
                return generation
        raise GalleryError(f"{self.file} is damaged: it has no generation {number!r}")

    def new_generation(
        self, number: int, spec: EmbeddingSpec, checkpoint_path: str, widths: Sequence[str]
    ) -> None:
        """Note a generation, without images."""
        self.run(
            "INSERT INTO generations (number, spec, checkpoint_path, widths, since) VALUES (?, ?, ?, ?, 0)",
            (number, json.dumps(asdict(spec)), checkpoint_path, json.dumps(list(widths))),
        )

    def set_maker(self, number: int, spec: EmbeddingSpec, checkpoint_path: str) -> None:
        """Note what made the vectors of a generation; its plan, which names what was known, is dropped."""
        query = "UPDATE generations SET spec = ?, checkpoint_path = ? WHERE number = ?"
        with self.transaction():
            self.require("generations")
            self.run(query, (json.dumps(asdict(spec)), checkpoint_path, number))
            self.save_plan(number, None)

    def versions(self, generation: int) -> list[Version]:
        """The versions of a generation, oldest first."""
        self.require("versions")
        query = "SELECT number, generation, keys, live, time FROM versions WHERE generation = ?"
        with damage_of(self.file):
            return [Version.stored(*row) for row in self.run(f"{query} ORDER BY number", (generation,))]

    def newest(self, generation: int, at_most: int | None = None) -> Version | None:
        """The newest version of a generation, of those up to a number."""
        with self._lock, naming(self.file):
            self._digests.require_newest("versions")
        query = "SELECT number, generation, keys, live, time FROM versions WHERE generation = ?"
        bound = "" if at_most is None else f" AND number <= {int(at_most)}"
        rows = self.run(f"{query}{bound} ORDER BY number DESC LIMIT 1", (generation,))
        if not rows:
            return None
        with damage_of(self.file):
            version = Version.stored(*rows[0])
        self.require("versions", 0, [version.number // VERSION_BLOCK])
        return version

    def add_version(self, generation: int, keys: int, live: int) -> int:
        """Note that the gallery has changed; the number of the new version."""
        (number,) = self.run("SELECT coalesce(max(number), 0) + 1 FROM versions")[0]
        self.run("INSERT INTO versions VALUES (?, ?, ?, ?, ?)", (number, generation, keys, live, _now()))
        return int(number)

    def forget_versions(self, generation: int, before: int) -> None:
        """Versions before this one can no longer be opened."""
        self.require("versions")
        self.run("DELETE FROM versions WHERE generation = ? AND number < ?", (generation, before))
        self.run("UPDATE generations SET since = max(since, ?) WHERE number = ?", (before, generation))

    # Segments and indexes

    def segments(self, generation: int, width: str) -> list[SegmentRecord]:
        """The segments of a width, in the order of their keys."""
        self.require("segments", generation)
        query = "SELECT width, start, rows, file, sha256, checks FROM segments WHERE generation = ?"
        with damage_of(self.file):
            rows = self.run(f"{query} AND width = ? ORDER BY start", (generation, width))
            return [SegmentRecord.stored(*row) for row in rows]

    def put_segment(self, generation: int, record: SegmentRecord) -> None:
        """Note a segment whose file is on the disk already; one that starts at the same key is replaced."""
        self.run(
            "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)", (generation, *astuple(record))
        )

    def shortlists(self, generation: int) -> list[ShortlistRecord]:
        """The indexes of a generation, by dim and name."""
        self.require("shortlists", generation)
        query = "SELECT name, width, dim, recipe, rows, file, sha256 FROM shortlists WHERE generation = ?"
        with damage_of(self.file):
            rows = self.run(f"{query} ORDER BY dim, name", (generation,))
            return [ShortlistRecord.stored(*row) for row in rows]

    def put_shortlist(self, generation: int, record: ShortlistRecord) -> None:
        """Note an index whose file is on the disk already; one of the same name is replaced."""
        with self.transaction():
            self.run(
                "INSERT OR REPLACE INTO shortlists VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (generation, *astuple(record)),
            )

    def drop_shortlist(self, generation: int, name: str) -> None:
        """Forget an index."""
        self.run("DELETE FROM shortlists WHERE generation = ? AND name = ?", (generation, name))

    def files(self) -> set[str]:
        """Names of all files that the catalogue speaks of; `GalleryError` if it may have lost some."""
        for generation in self.generations():
            self.require("segments", generation)
            self.require("shortlists", generation)
        return {name for (name,) in self.run("SELECT file FROM segments UNION SELECT file FROM shortlists")}

    def plan(self, generation: int) -> Any:
        """The plan of a generation, None if it has none."""
        self.require("generations")
        rows = self.run("SELECT plan FROM generations WHERE number = ?", (generation,))
        with damage_of(self.file):
            return stored_json(rows[0][0], f"the plan of generation {generation}") if rows else None

    def save_plan(self, generation: int, plan: Any) -> None:
        """Keep a plan, or forget it with None."""
        query = "UPDATE generations SET plan = ? WHERE number = ?"
        with self.transaction():
            self.run(query, (as_json(plan, "the plan is"), generation))

    # Images

    def fields(self) -> list[str]:
        """Names of the metadata that images have; those of nested objects joined by dots."""
        self.require("fields")
        names = [name for (name,) in self.run("SELECT name FROM fields ORDER BY name")]
        return require_column(self.file, names, "a name of metadata", str)

    def keys_of(self, generation: int, ids: Iterable[str]) -> dict[str, int]:
        """Keys of the images that the generation has now, by id, of those ids that it has."""
        wanted = list(ids)
        # CROSS JOIN, because SQLite would rather look through all images.
        query = (
            "SELECT images.id, images.key FROM json_each(?) AS wanted"
            " CROSS JOIN images INDEXED BY live ON images.id = wanted.value"
            " WHERE generation = ? AND removed IS NULL"
        )
        found: dict[str, int] = dict(self.run(query, (json.dumps(wanted), generation)))
        if len(found) < len(set(wanted)):
            self.require_structure()
        self._require_found(generation, found)
        return found

    def _require_found(self, generation: int, found: Mapping[str, int]) -> None:
        """What an index says has to stand in the table, too."""
        self.require("images", generation, {key // IMAGE_BLOCK for key in found.values()})
        if self._whole:
            return
        query = "SELECT id FROM images WHERE generation = ? AND key = ?"
        with self._lock, naming(self.file):
            for image_id, key in found.items():
                if self._db.execute(query, (generation, key)).get != image_id:
                    raise GalleryError(f"{self.file} is damaged: {image_id!r} has another key: {REPAIR}")

    def keys_at(self, version: Version, ids: Iterable[str]) -> dict[str, int]:
        """Keys of the images that a version has, by id, of those ids that it has."""
        wanted = list(ids)
        now = self.keys_of(version.generation, wanted)
        found = {image_id: key for image_id, key in now.items() if key < version.keys}
        if len(found) == len(set(wanted)):
            return found
        query = (
            "SELECT id, key FROM images INDEXED BY gone WHERE generation = ? AND removed > ? AND key < ?"
            " AND id IN (SELECT value FROM json_each(?))"
        )
        values = (version.generation, version.number, version.keys, json.dumps(wanted))
        before: dict[str, int] = dict(self.run(query, values))
        if len(found | before) < len(set(wanted)):
            self.require_structure()
        self._require_found(version.generation, before)
        return found | before

    def rows(self, generation: int, keys: Iterable[int]) -> list[Row]:
        """The images with these keys, in this order."""
        wanted = [int(key) for key in keys]
        self.require("images", generation, {key // IMAGE_BLOCK for key in wanted})
        # In one statement: each would ask the system for the file.
        query = (
            "SELECT key, id, path, label, metadata FROM images WHERE generation = ?"
            " AND key IN (SELECT value FROM json_each(?))"
        )
        with self._lock, naming(self.file), damage_of(self.file):
            found = {key: row for key, *row in self._db.execute(query, (generation, json.dumps(wanted)))}
            missing = next((key for key in wanted if key not in found), None)
            if missing is not None:
                raise GalleryError(f"{self.file.parent} has no image of key {missing}")
            return [Row.stored(*found[key]) for key in wanted]

    def labels(self, version: Version) -> list[str | None]:
        """Labels of all images of a version, deleted ones too, by key."""
        self.require("images", version.generation)
        query = "SELECT label FROM images WHERE generation = ? AND key < ? ORDER BY key"
        labels = [label for (label,) in self.run(query, (version.generation, version.keys))]
        if len(labels) != version.keys:
            raise GalleryError(f"{self.file} is damaged: it has {len(labels)} images, not {version.keys}")
        return require_column(self.file, labels, "a label", str, type(None))

    def paths(self, generation: int, keys: range) -> list[str]:
        """Paths of the images of consecutive keys, deleted ones too."""
        self.require("images", generation, range(keys.start // IMAGE_BLOCK, -(-keys.stop // IMAGE_BLOCK)))
        query = "SELECT path FROM images WHERE generation = ? AND key >= ? AND key < ? ORDER BY key"
        rows = self.run(query, (generation, keys.start, keys.stop))
        return require_column(self.file, [path for (path,) in rows], "a path", str)

    def removed(self, version: Version) -> Ints:
        """Keys of the images that were deleted in a version or before."""
        query = "SELECT key FROM images INDEXED BY gone WHERE generation = ? AND removed <= ? AND key < ?"
        rows = self.run(query, (version.generation, version.number, version.keys))
        found = require_column(self.file, [key for (key,) in rows], "the key of an image", int)
        keys, gone = np.array(found, dtype=np.int64), version.keys - version.live
        if len(np.unique(keys)) != gone:
            what = f"{len(rows)} images are deleted, not {gone}: {REPAIR}"
            raise GalleryError(f"{self.file} is damaged: {what}")
        return keys

    def gone(self, generation: int, keys: range) -> dict[int, int]:
        """Of consecutive keys those of deleted images, with the version that deleted them."""
        self.require("images", generation, range(keys.start // IMAGE_BLOCK, -(-keys.stop // IMAGE_BLOCK)))
        query = "SELECT key, removed FROM images WHERE generation = ? AND key >= ? AND key < ?"
        found = dict(self.run(f"{query} AND removed IS NOT NULL", (generation, keys.start, keys.stop)))
        require_column(self.file, list(found.values()), "the version without an image", int)
        return found

    def matching(self, version: Version, where: str) -> Ints:
        """Keys of the images, deleted ones too, that fulfil a condition; `GalleryError` if it is not one."""
        # sqlglot takes longer to load than a gallery without a filter to open.
        from .where import compile_where

        condition, values = compile_where(where, self.fields())
        self.require("images", version.generation)
        query = f"SELECT key FROM images WHERE generation = ? AND key < ? AND ({condition})"
        with naming(self.file):
            database = open_to_filter(self.file)
            rows = database.execute(query, (version.generation, version.keys, *values))
            keys = np.fromiter((key for (key,) in rows), dtype=np.int64)
            database.close()
        return keys


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
