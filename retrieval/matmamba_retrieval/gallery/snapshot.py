"""What a gallery holds at one version, to be read and searched."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..index.shortlist import load_index, search_index
from ..index.shortlist_index import ShortlistIndex
from ..storage.catalog import Catalog
from ..storage.locks import Busy, Lock
from ..storage.records import Generation, Row, ShortlistRecord, Version
from ..storage.segments import Segments
from ..storage.spec import EmbeddingSpec

CATALOG, SEGMENTS, SHORTLISTS, LOCKS = "catalog.sqlite", "segments", "shortlist", "locks"
RETRY_SECONDS = 0.01


class Snapshot:
    """A gallery at one version: what others add or delete is seen after `refresh`.

    Attributes:
        folder: where it is. generation: what made its vectors. version: which state of it is seen.

    Raises:
        GalleryError: no gallery there, or its files are damaged; or the version asked for does not exist, or
            no longer.
    """

    generation: Generation
    version: Version

    def __init__(self, folder: Path, catalog: Catalog, version: int | None = None) -> None:
        self.folder, self.catalog = folder, catalog
        self._held: Lock | None = None
        self._segments: dict[str, Segments] = {}
        self._indexes: dict[str, ShortlistIndex] = {}
        self._see(version)

    def close(self) -> None:
        """Release its files, and let go of its generation."""
        self.catalog.close()
        if self._held is not None:
            self._held.release()

    def refresh(self) -> None:
        """See the newest version."""
        self._see(None)

    def _see(self, number: int | None) -> None:
        """Take in a version, the newest by default, and hold its generation so that its files stay."""
        generation = self._hold_current()
        version = self.catalog.newest(generation.number, number)
        if version is None or number not in (None, version.number):
            raise GalleryError(f"{self.folder} has no version {number}: {_known(self.catalog, generation)}")
        self.generation, self.version = generation, version
        removed = self.catalog.removed(version)
        self._live = None
        if len(removed):
            self._live = np.ones(version.keys, dtype=bool)
            self._live[removed] = False
        self._shortlists = self.catalog.shortlists(generation.number)
        for width in (generation.spec.width, *generation.widths):
            self._see_segments(width)

    def _see_segments(self, width: str) -> None:
        """Open the segments of a width; once more if a writer has just put others in their place."""
        while True:
            records = self.catalog.segments(self.generation.number, width)
            try:
                if width in self._segments:
                    self._segments[width].refresh(records, self.key_count)
                else:
                    where, dim = self.folder / SEGMENTS, self.spec.dim
                    self._segments[width] = Segments(where, records, dim, self.key_count)
                return
            except GalleryError:
                if self.catalog.segments(self.generation.number, width) == records:
                    raise

    def _hold_current(self) -> Generation:
        """The current generation, held; another one may become current until it is."""
        while True:
            number = int(self.catalog.about("generation"))
            if self._held is not None and self.generation.number == number:
                return self.generation
            try:
                held = hold_generation(self.folder, number)
            except Busy:  # it is being removed: another one has just become current
                time.sleep(RETRY_SECONDS)
                continue
            if int(self.catalog.about("generation")) == number:
                if self._held is not None:
                    self._held.release()
                self._held = held
                self._segments, self._indexes = {}, {}
                return self.catalog.generations()[number]
            if held is not None:
                held.release()

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
        return self._segments[self.spec.width]

    def segments_of(self, width: str) -> Segments:
        """The vectors of a width, by key; `GalleryError` if it has none of that width."""
        if width not in self._segments:
            raise GalleryError(f"{self.folder} has vectors of {', '.join(self._segments)}, not of {width}")
        return self._segments[width]

    def require(self, spec: EmbeddingSpec) -> None:
        """Raise `GalleryError` if embeddings of `spec` cannot be stored here."""
        self.spec.require_same(spec, f"{self.folder}, made with {self.checkpoint_path or 'another model'},")

    def require_queries(self, spec: EmbeddingSpec) -> None:
        """Raise `GalleryError` if embeddings of `spec`, of any width, cannot be compared with those here."""
        self.spec.require(spec, f"{self.folder}, made with {self.checkpoint_path or 'another model'},")

    def rows(self, keys: Iterable[int]) -> list[Row]:
        """The images with these keys, in this order."""
        return self.catalog.rows(self.generation.number, keys)

    def keys_of(self, ids: Iterable[str]) -> dict[str, int]:
        """Key by id, of those ids that the gallery has."""
        return self.catalog.keys_at(self.version, ids)

    def labels(self) -> list[str | None]:
        """Labels of all images, by key; those of deleted ones too."""
        return self.catalog.labels(self.version)

    def fields(self) -> list[str]:
        """Names of the metadata by which images can be filtered."""
        return self.catalog.fields()

    def allowed(self, where: str | None = None) -> NDArray[np.bool_] | None:
        """(key_count,) which keys a search may answer with: live ones that fulfil a condition; None for all.

        Args:
            where: in SQL, over id, path, label and metadata, such as "label = 'cat' AND year >= 2020".

        Raises:
            GalleryError: `where` does not parse, or is more than a condition over known columns.
        """
        if not where:
            return self._live
        mask = np.zeros(self.key_count, dtype=bool)
        mask[self.catalog.matching(self.version, where)] = True
        return mask if self._live is None else mask & self._live

    def live_keys(self) -> NDArray[np.int64]:
        """Keys of all images that were not deleted, ascending."""
        return np.arange(self.key_count) if self._live is None else np.flatnonzero(self._live)

    def versions(self) -> list[Version]:
        """The versions that can be opened, oldest first."""
        return self.catalog.versions(self.generation.number)

    @property
    def plan(self) -> Any:
        """How to search it best, as JSON; None if nobody has planned."""
        return self.catalog.plan(self.generation.number)

    def shortlists(self) -> list[ShortlistRecord]:
        """Its FAISS indexes, by dim and name."""
        return self._shortlists

    def shortlist_dims(self) -> list[int]:
        """Dims of the prefixes that have an index, ascending."""
        return sorted({record.dim for record in self.shortlists()})

    def search_shortlist(
        self,
        xq: NDArray[np.float32],
        shortlist: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
        effort: int = 0,
        width: str = "",
    ) -> NDArray[np.int64]:
        """(nq, K) keys whose prefixes are nearest to (nq, dim) normalised ones, by the index over that dim.

        Args:
            allowed: (key count,) see `allowed`; None allows all that the index has, deleted ones too.
            effort: see `search_index`. width: whose vectors the index is over; by default the spec's, or any.

        Raises:
            GalleryError: no index over that dim.
        """
        record = self._shortlist_record(xq.shape[1], width)
        index, segments = self.shortlist_index(record), self.segments_of(record.width)
        return search_index(index, segments, xq, shortlist, allowed, effort)

    def _shortlist_record(self, dim: int, width: str) -> ShortlistRecord:
        found = {record.width: record for record in self.shortlists() if record.dim == dim}
        if width:
            found = {width: found[width]} if width in found else {}
        if found:
            return found.get(self.spec.width, next(iter(found.values())))
        built = ", ".join(map(str, self.shortlist_dims())) or "none"
        raise GalleryError(f"{self.folder} has no shortlist index over {dim} dims (built: {built})")

    def shortlist_index(self, record: ShortlistRecord) -> ShortlistIndex:
        """One of its `shortlists()`, read into memory when first asked for."""
        if record.file not in self._indexes:
            where = self.folder / SHORTLISTS
            self._indexes[record.file] = load_index(where, record, self.segments_of(record.width))
        return self._indexes[record.file]


def hold_generation(folder: Path, number: int, *, alone: bool = False) -> Lock | None:
    """Hold a generation so that its files stay; None where nothing can be written, as on a read-only disk.

    Args:
        alone: only if nobody else holds it.

    Raises:
        Busy: somebody holds it alone, or anybody if `alone`.
    """
    try:
        return Lock(folder / LOCKS / generation_lock(number), shared=not alone)
    except OSError:
        return None


def generation_lock(number: int) -> str:
    """Name of the file whose lock holds a generation."""
    return f"generation-{number}"


def _known(catalog: Catalog, generation: Generation) -> str:
    newest = catalog.newest(generation.number)
    assert newest is not None
    return f"versions {generation.since} to {newest.number} can be opened"
