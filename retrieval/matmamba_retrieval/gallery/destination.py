"""The gallery that images are added to: made with the first of them, and checked before they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..remedies import RELOCATE
from ..storage.records import Row
from ..storage.sources import FileFacts, note_facts, same_file
from ..storage.spec import EmbeddingSpec
from .gallery import Gallery
from .merging import merge_segments

Vectors = NDArray[np.floating]
# Ids looked up at once.
CHUNK = 8192
# After so many commits their small files are put into one.
MERGE_COMMITS = 64
# What a gallery notes that holds a part of a collection.
SHARD = "shard"


class Destination:
    """Where images go. Opened or made for writing; `close` lets others write.

    Args:
        widths: further widths of which each image gets a vector; by default those that the gallery has.
        upsert: images with the same ids are replaced, else left as they are.
        shard: which part of a collection it is to hold, such as "1/4"; "" for all of it.

    Attributes:
        gallery: None until there is one.
        widths: labels of the further widths.
        facts: says size and time of the file of an image, by its path, as it is read from now on; None if
            they are not noted.

    Raises:
        GalleryError: another model made the gallery, it has other widths, or it holds another shard.
    """

    def __init__(
        self,
        folder: Path,
        spec: EmbeddingSpec,
        checkpoint_path: str = "",
        widths: Sequence[str] = (),
        *,
        upsert: bool = False,
        shard: str = "",
    ) -> None:
        self.folder, self.spec, self._path, self._shard = folder, spec, checkpoint_path, shard
        self.widths, self.upsert, self._commits = tuple(widths), upsert, 0
        self.gallery: Gallery | None = None
        self.facts: Callable[[str], FileFacts | None] | None = None
        if Gallery.exists(folder):
            self.open()
            assert self.gallery is not None
            self.widths = self.gallery.generation.widths

    def open(self) -> Gallery:
        """The gallery, made if it is not there."""
        if self.gallery is None:
            gallery = Gallery.open_or_create(self.folder, self.spec, self._path, self.widths)
            try:
                self._require_shard(gallery)
            except BaseException:
                gallery.close()
                raise
            self.gallery = gallery
        return self.gallery

    def _require_shard(self, gallery: Gallery) -> None:
        found = gallery.catalog.about(SHARD)
        if found == self._shard:
            return
        if gallery.key_count or found:
            names = [f"shard {name}" if name else "more than a shard" for name in (found, self._shard)]
            raise GalleryError(f"{self.folder} holds {names[0]}, not {names[1]}: give it another folder")
        gallery.catalog.set_about(SHARD, self._shard)

    def close(self) -> None:
        """Let others write to the gallery."""
        if self.gallery is not None:
            self.gallery.close()

    def keys_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Key by id, of those that the gallery has."""
        return {} if self.gallery is None else self.gallery.keys_of(ids)

    def rows_of(self, ids: Sequence[str]) -> dict[str, Row]:
        """Image by id, of those that the gallery has."""
        if self.gallery is None:
            return {}
        keys = self.gallery.keys_of(ids)
        return dict(zip(keys, self.gallery.rows(keys.values()), strict=True))

    def missing(
        self, ids: Sequence[str], paths: Sequence[str], prefix: str = "", part: range | None = None
    ) -> NDArray[np.int64]:
        """Positions of the images to add: those that the gallery lacks, or all if they are replaced.

        Args:
            ids: one for every image.
            paths: one for every image.
            prefix: put before each id.
            part: the positions to look at.

        Raises:
            GalleryError: the gallery has an id from another path.
        """
        part = range(len(ids)) if part is None else part
        if self.gallery is None or self.upsert:
            return np.arange(part.start, part.stop)
        found = []
        for start in range(part.start, part.stop, CHUNK):
            places = range(start, min(start + CHUNK, part.stop))
            known = self.rows_of([prefix + ids[place] for place in places])
            for place in places:
                if (row := known.get(prefix + ids[place])) is not None:
                    self.require_path(row, paths[place])
            lacking = [place for place in places if prefix + ids[place] not in known]
            found.append(np.array(lacking, dtype=np.int64))
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def require_path(self, row: Row, path: str) -> None:
        """Raise `GalleryError` if an image that the gallery has comes from another place than `path`."""
        if not same_file(row.path, path):
            raise GalleryError(
                f"{self.folder} has an image {row.id!r} already, from {row.path}, not {path}:"
                f" {RELOCATE} if the files have moved,"
                " a prefix keeps two folders apart, upsert replaces it"
            )

    def commit(self, rows: Sequence[Row], vectors: Mapping[str, Vectors]) -> int:
        """Add images with their vectors by width; they are on the disk when this returns how many."""
        gallery, small = self.open(), {width: vectors[width] for width in self.widths}
        if self.upsert:
            rows = with_old_metadata(gallery, rows)
        # Before the rows, which a kill in between would leave without them; but what is replaced must not be
        # said to be of the new file while it is of the old one.
        if not self.upsert:
            self._note_facts(gallery, rows)
        gallery.add(rows, vectors[self.spec.width], small, replace=self.upsert)
        if self.upsert:
            self._note_facts(gallery, rows)
        self._commits += 1
        if self._commits % MERGE_COMMITS == 0:
            merge_segments(gallery)
        return len(rows)

    def _note_facts(self, gallery: Gallery, rows: Sequence[Row]) -> None:
        if self.facts is not None:
            facts = {row.id: self.facts(row.path) for row in rows}
            note_facts(gallery.catalog, {name: fact for name, fact in facts.items() if fact is not None})

    def commit_new(self, rows: Sequence[Row], vectors: Mapping[str, Vectors]) -> int:
        """`commit` those that the gallery lacks, or all if they are replaced; returns how many these were.

        Raises:
            GalleryError: the gallery has an id from another path.
        """
        known = {} if self.upsert else self.rows_of([row.id for row in rows])
        for row in rows:
            if row.id in known:
                self.require_path(known[row.id], row.path)
        new = [place for place, row in enumerate(rows) if row.id not in known]
        picked = {width: xb[new] for width, xb in vectors.items()} if known else vectors
        return self.commit([rows[place] for place in new], picked) if new else 0


def with_old_metadata(gallery: Gallery, rows: Sequence[Row]) -> list[Row]:
    """Rows that take the place of others: what these were annotated with stays, if nothing else is said."""
    keys = gallery.keys_of([row.id for row in rows])
    old = dict(zip(keys, gallery.rows(keys.values()), strict=True))
    return [
        Row(row.id, row.path, row.label, {**old[row.id].metadata, **row.metadata}) if row.id in old else row
        for row in rows
    ]


def parse_shard(text: str, count: int, block: int = 1) -> range:
    """The positions of shard `i/n` of `count` images: contiguous, in whole blocks, the first shard is 1/n.

    Args:
        block: images that are encoded together stay together, so that they get the same bits as in one run.

    Raises:
        GalleryError: not i/n with 1 <= i <= n.
    """
    if not text:
        return range(count)
    number, _, shards = text.partition("/")
    if not (number.isdecimal() and shards.isdecimal() and 1 <= int(number) <= int(shards)):
        raise GalleryError(f"shard {text!r} is not i/n with i in 1..n, such as 1/4")
    blocks = -(-count // block)
    start, stop = (
        min(count, blocks * place // int(shards) * block) for place in (int(number) - 1, int(number))
    )
    return range(start, stop)
