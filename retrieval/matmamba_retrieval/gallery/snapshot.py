"""What a gallery holds at one version, to be read and searched."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import require_text, require_texts, require_wholes
from ..errors import GalleryError
from ..index.gallery_index import OpenIndex, load_index
from ..index.shortlist_index import ShortlistIndex
from ..remedies import REINDEX
from ..storage.catalog import Catalog
from ..storage.locks import Busy, Lock
from ..storage.records import Generation, Row, ShortlistRecord, Version
from ..storage.segments import Segments
from ..storage.spec import EmbeddingSpec
from .place import LOCKS, SEGMENTS, SHORTLISTS, hold_generation
from .state import Seen

RETRY_SECONDS = 0.01
# Images that are looked at to see whether images have labels.
LOOKED_AT = 64


class Snapshot:
    """A gallery at one version: what others add or delete is seen after `refresh`.

    Several threads may search it at once. One that refreshes it, or writes, has it for itself.

    Attributes:
        folder: where it is.

    Raises:
        GalleryError: no gallery there, or its files are damaged; or the version asked for does not exist, or
            no longer.
    """

    def __init__(self, folder: Path, catalog: Catalog, version: int | None = None) -> None:
        self.folder, self.catalog = folder, catalog
        self._held: Lock | None = None
        self._closed = False
        self._seen: Seen | None = None
        self._classes: tuple[Seen, NDArray[np.int64]] | None = None
        self._loading = threading.Lock()
        self._see(version)

    def close(self) -> None:
        """Release its files, and let go of its generation."""
        self._closed = True
        self.catalog.close()
        if self._held is not None:
            self._held.release()

    def refresh(self) -> None:
        """See the newest version; where that fails, what was seen before stays.

        Keys that were found before may be those of other images then, if the gallery was compacted.
        """
        if self.catalog.is_replaced():  # by a repair: the file that is open has no name any more
            before, self.catalog = self.catalog, Catalog(self.catalog.file)
            before.close()
        self._see(None)

    @property
    def _state(self) -> Seen:
        assert self._seen is not None
        return self._seen

    def seen(self) -> Seen:
        """All that is seen, together; `GalleryError` if it is no longer there, or the gallery was closed."""
        if self._closed:
            raise GalleryError(f"{self.folder} is closed: open it again")
        if self._held is None:
            self._require_there()
        return self._state

    @property
    def generation(self) -> Generation:
        """What made its vectors, and which widths there are."""
        return self._state.generation

    @property
    def version(self) -> Version:
        """Which state of the gallery is seen."""
        return self._state.version

    def _see(self, number: int | None) -> None:
        """Take in a version, the newest by default, and hold its generation so that its files stay."""
        generation, held = self._hold_current()
        try:
            seen = self._state_of(generation, number)
        except BaseException:
            if held is not None and held is not self._held:
                held.release()
            raise
        before, self._held, self._seen = self._held, held, seen
        if before is not None and before is not held:
            before.release()

    def _state_of(self, generation: Generation, number: int | None) -> Seen:
        version = self.catalog.newest(generation.number, number)
        if version is None or number not in (None, version.number):
            raise GalleryError(f"{self.folder} has no version {number}: {_known(self.catalog, generation)}")
        same = self._seen if self._seen and self._seen.generation.number == generation.number else None
        segments = {
            width: self._segments_now(
                generation, width, version.keys, same.segments.get(width) if same else None
            )
            for width in (generation.spec.width, *generation.widths)
        }
        removed = self.catalog.removed(version)
        live = None
        if len(removed):
            live = np.ones(version.keys, dtype=bool)
            live[removed] = False
        return Seen(
            generation=generation,
            version=version,
            live=live,
            segments=segments,
            shortlists=self.catalog.shortlists(generation.number),
            indexes=same.indexes if same else {},
        )

    def _segments_now(
        self, generation: Generation, width: str, rows: int, before: Segments | None
    ) -> Segments:
        """The segments of a width, opened; once more if a writer has just put others in their place."""
        while True:
            records = self.catalog.segments(generation.number, width)
            try:
                if before is not None:
                    return before.refreshed(records, rows)
                return Segments(self.folder / SEGMENTS, records, generation.spec.dim, rows)
            except GalleryError:
                if self.catalog.segments(generation.number, width) == records:
                    raise

    def _hold_current(self) -> tuple[Generation, Lock | None]:
        """The current generation, held if that can be; another one may become current until it is."""
        while True:
            current = self.catalog.current()
            if self._held is not None and self._seen and self._seen.generation.number == current.number:
                return current, self._held
            try:
                held = hold_generation(self.folder, current.number)
            except Busy:  # it is being removed: another one has just become current
                time.sleep(RETRY_SECONDS)
                continue
            if self.catalog.about("generation") == str(current.number):
                return current, held
            if held is not None:
                held.release()

    def _require_there(self) -> None:
        """What was read of a generation that could not be held counts only if it is still there."""
        if self._held is None and self.generation.number not in self.catalog.generations():
            raise GalleryError(
                f"{self.folder} was compacted or moved to another model since it was opened, and this process"
                f" may not lock its files in {LOCKS}/: open it again"
            )

    def __len__(self) -> int:
        return self.version.live

    @property
    def key_count(self) -> int:
        """How many keys there are, those of deleted images too."""
        return self.version.keys

    @property
    def spec(self) -> EmbeddingSpec:
        """What made its vectors."""
        return self.generation.spec

    @property
    def checkpoint_path(self) -> str:
        """Where the checkpoint was."""
        return self.generation.checkpoint_path

    @property
    def segments(self) -> Segments:
        """The vectors, by key."""
        seen = self._state
        return seen.segments[seen.generation.spec.width]

    def segments_of(self, width: str) -> Segments:
        """The vectors of a width, by key; `GalleryError` if it has none of that width."""
        known = self._state.segments
        if width not in known:
            raise GalleryError(f"{self.folder} has vectors of {', '.join(known)}, not of {width}")
        return known[width]

    def require(self, spec: EmbeddingSpec) -> None:
        """Raise `GalleryError` if embeddings of `spec` cannot be stored here."""
        made_with = self.checkpoint_path or "another model"
        try:
            self.spec.require_same(spec, f"{self.folder}, made with {made_with},")
        except GalleryError as error:
            raise GalleryError(f"{error}; {REINDEX} moves a gallery to another model") from None

    def require_queries(self, spec: EmbeddingSpec) -> None:
        """Raise `GalleryError` if embeddings of `spec`, of any width, cannot be compared with those here."""
        self.spec.require(spec, f"{self.folder}, made with {self.checkpoint_path or 'another model'},")

    def rows(self, keys: Iterable[int]) -> list[Row]:
        """The images with these keys, in this order; `GalleryError` if one is not there."""
        wanted = require_wholes(keys, "keys")
        try:
            return self.catalog.rows(self.generation.number, wanted)
        finally:
            self._require_there()

    def keys_of(self, ids: Iterable[str]) -> dict[str, int]:
        """Key by id, of those ids that the gallery has."""
        found = self.catalog.keys_at(self.version, require_texts(ids, "ids"))
        self._require_there()
        return found

    def labels(self) -> list[str | None]:
        """Labels of all images, by key; those of deleted ones too."""
        try:
            return self.catalog.labels(self.version)
        finally:
            self._require_there()

    def class_numbers(self) -> NDArray[np.int64]:
        """(key_count,) numbers from 0 of the labels of all images, read once for what is seen.

        Where there is no label they are below -1, and each once.
        """
        seen = self._state
        if self._classes is None or self._classes[0] is not seen:
            names = self.labels()
            number = {name: index for index, name in enumerate(dict.fromkeys(names)) if name is not None}
            codes = (-2 - key if name is None else number[name] for key, name in enumerate(names))
            self._classes = seen, np.fromiter(codes, dtype=np.int64, count=len(names))
        return self._classes[1]

    def classes(self, keys: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Numbers of the labels of images, of the shape of `keys`; None if no image has a label.

        Equal labels have equal numbers, from 0; without a label it is below -1, another one for each image.
        """
        numbers = self.class_numbers()
        return numbers[keys] if (numbers >= 0).any() else None

    def vectors(self, keys: NDArray[np.int64], width: str = "") -> NDArray[np.floating]:
        """(n, D) stored vectors: of a further width if the gallery has them, else those of its own."""
        further = width in self.generation.widths
        return (self.segments_of(width) if further else self.segments).read(keys)

    def fields(self) -> list[str]:
        """Names of the metadata by which images can be filtered."""
        return self.catalog.fields()

    def allowed(
        self, where: str | None = None, without: Sequence[int] | NDArray[np.int64] = ()
    ) -> NDArray[np.bool_] | None:
        """(key_count,) which keys a search may answer with: live ones that fulfil a condition; None for all.

        Args:
            where: in SQL, over id, path, label and metadata, such as "label = 'cat' AND year >= 2020".
            without: keys that are left out.

        Raises:
            GalleryError: `where` does not parse, or is more than a condition over known columns.
        """
        seen = self._state
        found = self.catalog.matching(seen.version, require_text(where, "where")) if where else None
        self._require_there()
        if found is None and not len(without):
            return seen.live
        mask = np.full(seen.version.keys, found is None)
        if found is not None:
            mask[found] = True
        mask[np.asarray(without, dtype=np.int64)] = False
        return mask if seen.live is None else mask & seen.live

    def total(self, allowed: Any) -> int:
        """How many images may be answered, of what `allowed` gave."""
        return len(self) if allowed is None else int(allowed.sum())

    def labelled(self) -> bool:
        """Whether images have labels: whether any of some that lie evenly among all has one.

        Reading those of a million takes a second.
        """
        keys = self.live_keys()
        some = keys[:: max(1, len(keys) // LOOKED_AT)]
        return any(row.label is not None for row in self.rows(map(int, some)))

    def keys_where(self, where: str = "") -> NDArray[np.int64]:
        """Keys of the images that fulfil a condition, by default all, ascending; raises as `allowed` does."""
        allowed = self.allowed(where or None)
        return self.live_keys() if allowed is None else np.flatnonzero(allowed)

    def live_keys(self) -> NDArray[np.int64]:
        """Keys of all images that were not deleted, ascending."""
        seen = self._state
        return np.arange(seen.version.keys) if seen.live is None else np.flatnonzero(seen.live)

    def versions(self) -> list[Version]:
        """The versions that can be opened, oldest first."""
        return self.catalog.versions(self.generation.number)

    @property
    def plan(self) -> Any:
        """How to search it best, as JSON; None if nobody has planned."""
        return self.catalog.plan(self.generation.number)

    def shortlists(self) -> list[ShortlistRecord]:
        """Its FAISS indexes, by dim and name."""
        return self._state.shortlists

    def shortlist_dims(self) -> list[int]:
        """Dims of the prefixes that have an index, ascending."""
        return sorted({record.dim for record in self.shortlists()})

    def step_dims(self) -> list[int] | None:
        """By how many leading coordinates later steps can compare; None for any."""
        return None

    def newest(self) -> tuple[Any, ...]:
        """What a newer state differs in from that which is seen, as the catalogue has it now.

        Whether its file was replaced, generation, spec and version, indexes, and the plan.

        Raises:
            GalleryError: the catalogue cannot be read.
        """
        generation = self.catalog.current()
        newest = self.catalog.newest(generation.number)
        indexes = tuple(record.file for record in self.catalog.shortlists(generation.number))
        plan = json.dumps(self.catalog.plan(generation.number), sort_keys=True)
        version = newest.number if newest else 0
        return self.catalog.is_replaced(), generation.number, generation.spec, version, indexes, plan

    def shortlist_index(self, record: ShortlistRecord) -> ShortlistIndex:
        """One of its `shortlists()`, read into memory when first asked for."""
        seen = self._state
        with self._loading:  # once, for however many threads
            if record.file not in seen.indexes:
                where = self.folder / SHORTLISTS
                seen.indexes[record.file] = load_index(where, record, seen.segments[record.width])
            return seen.indexes[record.file]

    def shortlist_record(self, dim: int, width: str) -> ShortlistRecord | None:
        """Its index over the leading `dim` coordinates of the vectors of a width; None if there is none."""
        return next((known for known in self.shortlists() if (known.dim, known.width) == (dim, width)), None)

    def open_index(self, dim: int, width: str) -> OpenIndex | None:
        """The same, in memory: looked up once for what is seen, because every query asks for it."""
        opened = self._state.opened
        found = opened.get((dim, width))
        if found is None and (record := self.shortlist_record(dim, width)) is not None:
            index, segments = self.shortlist_index(record), self.segments_of(width)
            found = opened[dim, width] = OpenIndex(record, index, segments, self.index_bytes(record))
        return found

    def index_bytes(self, record: ShortlistRecord) -> int:
        """Bytes of the file of an index."""
        try:
            return (self.folder / SHORTLISTS / record.file).stat().st_size
        except OSError:  # another process has replaced it: this one goes on with what it has loaded
            return self.shortlist_index(record).memory


def _known(catalog: Catalog, generation: Generation) -> str:
    newest = catalog.newest(generation.number)
    if newest is None:
        return f"{catalog.file} is damaged, it has none"
    return f"versions {generation.since} to {newest.number} can be opened"
