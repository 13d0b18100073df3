"""A gallery carried to a collection: in batches, to be continued after whatever stops it."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..errors import GalleryError
from ..gallery.snapshot import Snapshot
from .comparison import PushCheck, compare, vectors_at
from .engine import KEYWORD, Collection, Ints, Store
from .kinds import MIXED, NOTHING, merge_kinds
from .layout import ID, LABEL, Contents, payload_of
from .tuning import chosen_fields, measured_fields, memory_of
from .wish import RECALL, Wish, vectors_of

# Numbers that a batch has at most, and images: 10 MB of JSON, a third of what a server takes.
BATCH_NUMBERS, BATCH_ROWS = 1 << 19, 1024
# Keys of the first images, which tell galleries apart: they never change within a generation.
FIRST_KEYS = 64
# Of keys, whose paths have one digest.
PATH_BLOCK = 1 << 16
# Points that are compared to find out whether another generation is of the same gallery.
SAMPLED = 200
# Under which a collection remembers the push that began last to write to it.
WRITER = "matmamba_push"
# Between two notes of how far it is; what came after the last is pushed again by a continued push. Each waits
# for the disk to have what came since the one before: seldom, it stops a push for half a second.
NOTE_SECONDS = 2.0
REPLACE = "push this gallery to another place, or with `replace` (`matmamba gallery push`)"


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push did, and what is there now.

    Attributes:
        place: where.
        images: that the collection has.
        added: points that were put in.
        deleted: points that were taken out.
        anew: whether another collection took the place of the one before, or the first was made.
        vectors: of each point: name, dim, index by which it is searched, whether its numbers lie on the disk.
        memory_bytes: of what every query goes through, together.
        recall: of each vector that is searched approximately, measured in the collection.
        comparison: of the collection with the gallery.
    """

    place: str
    images: int
    added: int
    deleted: int
    anew: bool
    vectors: list[dict[str, Any]]
    memory_bytes: int
    recall: dict[str, float]
    comparison: PushCheck

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


class Pushing:
    """One push of a gallery, step by step: `carry`, `build`, `check`, `publish`.

    Where the collection has this gallery at this generation, what was added is put in and what was deleted
    taken out. Where it has an earlier generation, or something else was asked for than before, another one is
    made beside it, which takes its place at the end.

    Args:
        gallery: open, at one version.
        store: open for writing.
        wish: how good and how large it may be.
        replace: whether the collection of another gallery may be replaced.

    Raises:
        GalleryError: nothing to push; the collection is of another gallery or spec, or no push made it; no
            way of search is as good as was asked for; or the engine refuses.
    """

    def __init__(self, gallery: Snapshot, store: Store, wish: Wish, *, replace: bool = False) -> None:
        if not gallery.key_count:
            raise GalleryError(f"{gallery.folder} has no images to push")
        self.gallery, self.store, self._identity = gallery, store, identity(gallery)
        self._added = self._deleted = 0
        self._noted = time.monotonic()
        self._digests = dict[range, str]()
        self.token, self._collection, self.contents = self._begun(wish, replace)
        self._writer = uuid.uuid4().hex
        self._collection.note({WRITER: self._writer})

    def _begun(self, wish: Wish, replace: bool) -> tuple[str, Collection, Contents]:
        """The collection that is filled, what it says, and its name where it is not the one that answers."""
        gallery, store = self.gallery, self.store
        vectors = vectors_of(gallery, wish.dims)
        about, serial = store.about(), 0
        if about is not None:
            known = Contents.from_json(about, store.place)
            # One that takes its place needs nothing of it, which may be damaged.
            if not replace and (current := store.current()) is not None:
                if self._is_same(known, vectors, wish):
                    return "", current, self._renewed(known)
                self._require_replaceable(current, known)
            if not wish.given and (not replace or self._is_of_this(known)):
                wish = Wish.kept(known.wish, gallery.spec.dim)
                vectors = vectors_of(gallery, wish.dims)
            serial = known.serial + 1
        token = _token(self._identity, vectors, wish, serial)
        return token, *self._staged(token, vectors, wish, serial)

    def _is_same(self, known: Contents, vectors: list[tuple[str, int]], wish: Wish) -> bool:
        """Whether what is there can be brought up to date."""
        if not self._is_of_this(known) or known.version > self.gallery.version.number:
            return False
        there = {(field.width, field.dim) for field in known.fields}
        return set(vectors) <= there and (not wish.given or wish.to_json() == known.wish)

    def _is_of_this(self, known: Contents) -> bool:
        """Whether it is of this gallery, at this generation: of its first images, and of its history."""
        number, count = self.gallery.generation.number, int(known.gallery.partition("-")[0])
        # An older version may have fewer images than were pushed.
        if count <= self.gallery.key_count and known.gallery != identity(self.gallery, count):
            return False
        then = self.gallery.catalog.newest(number, known.version)
        same_history = then is not None and (then.number, then.time) == (known.version, known.time)
        return known.generation == number and same_history

    def _renewed(self, known: Contents) -> Contents:
        """What may have changed without any vector: a name for the model, the plan, the folder."""
        gallery = self.gallery
        return replace(
            known,
            folder=str(gallery.folder.absolute()),
            spec=gallery.spec,
            checkpoint_path=gallery.checkpoint_path,
            plan=gallery.plan,
        )

    def _require_replaceable(self, current: Collection, known: Contents) -> None:
        """It makes room for a later generation of its gallery, or for the same with another wish."""
        place, gallery = self.store.place, self.gallery
        if self._is_of_this(known):
            if known.version > gallery.version.number:
                raise GalleryError(
                    f"{place} has version {known.version} of {gallery.folder}, which is at version"
                    f" {gallery.version.number}: {REPLACE}"
                )
            return
        if known.generation < gallery.generation.number and self._knows(current):
            return
        try:
            known.spec.require_same(gallery.spec, f"{place}, of the gallery {known.folder},")
        except GalleryError as error:
            raise GalleryError(f"{error}: {REPLACE}") from error
        raise GalleryError(f"{place} has another gallery, which was in {known.folder}: {REPLACE}")

    def _knows(self, current: Collection) -> bool:
        """Whether most images of a collection are in the gallery."""
        keys = next(current.keys(), np.empty(0, dtype=np.int64))[:SAMPLED]
        ids = [str(point.payload.get(ID)) for point in current.retrieve(keys)]
        return 2 * len(self.gallery.keys_of(ids)) >= max(1, len(ids))

    def _staged(
        self, token: str, vectors: list[tuple[str, int]], wish: Wish, serial: int
    ) -> tuple[Collection, Contents]:
        """One beside the current: begun by a push that was stopped, or new."""
        gallery, staged = self.gallery, self.store.staged(token)
        if staged is not None:
            return staged, self._renewed(Contents.from_json(staged.about(), self.store.place))
        fields, tried = chosen_fields(gallery, vectors, wish)
        contents = Contents(
            gallery=self._identity,
            folder=str(gallery.folder.absolute()),
            generation=gallery.generation.number,
            spec=gallery.spec,
            checkpoint_path=gallery.checkpoint_path,
            widths=gallery.generation.widths,
            fields=fields,
            wish=wish.to_json(),
            serial=serial,
            plan=gallery.plan,
            measured={"sample": tried},
        )
        return self.store.create(token, fields, contents.to_json()), contents

    @property
    def total(self) -> int:
        """Keys of the gallery, those of deleted images too."""
        return self.gallery.key_count

    @property
    def there(self) -> int:
        """Keys that were pushed before."""
        return self.contents.keys

    def carry(self, advance: Callable[[int], None]) -> None:
        """Take out what was deleted, put in what was added, and again what was moved.

        Args:
            advance: is called with a number of keys as they are done.
        """
        self._take_out()
        for block in self._moved_blocks():
            for keys in self._live_in(block):
                self._put(keys)
        for first in range(self.contents.keys, self.total, self._batch):
            end = min(first + self._batch, self.total)
            for keys in self._live_in(range(first, end)):
                self._put(keys)
            self.contents = replace(self.contents, keys=end)
            advance(end - first)
            if time.monotonic() - self._noted > NOTE_SECONDS:
                self._note()
        self._note()

    @property
    def _batch(self) -> int:
        numbers = sum(field.dim for field in self.contents.fields)
        return max(1, min(BATCH_ROWS, BATCH_NUMBERS // numbers))

    def _require_alone(self) -> None:
        """Nothing locks a server: of two pushes the later one goes on, and the other writes nothing more."""
        if self._collection.about().get(WRITER) != self._writer:
            raise GalleryError(
                f"another push to {self.store.place} has begun meanwhile, and goes on: this one ends"
            )

    def _note(self) -> None:
        self._require_alone()
        self.contents = replace(self.contents, paths=self._path_digests(self.contents.keys))
        self._collection.note(self.contents.to_json())
        self._noted = time.monotonic()

    def _take_out(self) -> None:
        """All that went since the last whole push, whether or not a stopped one has put it in."""
        now, number = self.gallery.version.number, self.contents.generation
        gone = self.gallery.catalog.gone(number, range(self.total))
        keys = sorted(key for key, version in gone.items() if self.contents.version < version <= now)
        for first in range(0, len(keys), BATCH_ROWS):
            self._require_alone()
            self._collection.delete(np.array(keys[first : first + BATCH_ROWS], dtype=np.int64))
        self._deleted = len(keys)

    def _moved_blocks(self) -> Iterator[range]:
        """Blocks of keys whose images' paths are others than when they were pushed."""
        keys = self.contents.keys
        for block, digest in zip(_blocks(keys), self.contents.paths, strict=True):
            if self._path_digest(block) != digest:
                yield block

    def _path_digests(self, keys: int) -> list[str]:
        return [self._path_digest(block) for block in _blocks(keys)]

    def _path_digest(self, block: range) -> str:
        """Read once: nobody changes the gallery meanwhile."""
        if block not in self._digests:
            self._digests[block] = _digest(self.gallery.catalog.paths(self.contents.generation, block))
        return self._digests[block]

    def _live_in(self, keys: range) -> Iterator[Ints]:
        """Live keys of a range, in batches."""
        live = self.gallery.seen().live
        found = np.arange(keys.start, keys.stop)
        if live is not None:
            found = found[live[keys.start : keys.stop]]
        for first in range(0, len(found), self._batch):
            yield found[first : first + self._batch]

    def _put(self, keys: Ints) -> None:
        rows = self.gallery.rows(keys)
        vectors = {field.name: vectors_at(self.gallery, field, keys) for field in self.contents.fields}
        self._require_alone()
        self._collection.upsert(keys, vectors, [payload_of(row) for row in rows])
        merge_kinds(self.contents.kinds, (row.metadata for row in rows))
        self._added += len(keys)

    def build(self) -> None:
        """Index what filters use, build graphs, and measure what they find."""
        self._require_alone()
        for name, kind in {ID: KEYWORD, LABEL: KEYWORD, **self.contents.kinds}.items():
            self._collection.index_payload(name, MIXED if kind == NOTHING else kind)
        self._collection.finish(self.contents.fields)
        wanted = float(self.contents.wish["recall"]) or RECALL
        fields, recalls = measured_fields(self.gallery, self._collection, self.contents.fields, wanted)
        measured = {**self.contents.measured, "recall": recalls}
        self.contents = replace(self.contents, fields=fields, measured=measured)

    def check(self) -> PushCheck:
        """Compare what is there with the gallery; `GalleryError` if it differs."""
        self._require_alone()
        now = self.gallery.version
        self.contents = replace(
            self.contents, version=now.number, time=now.time, live=len(self.gallery), complete=True
        )
        found = compare(self.gallery, self._collection, self.contents)
        if not found.whole:
            raise GalleryError(f"{self.store.place} does not hold what was pushed: {'; '.join(found.faults)}")
        return found

    def publish(self, comparison: PushCheck) -> Pushed:
        """Let it answer."""
        self._note()
        if self.token:
            self.store.publish(self.token)
        contents, rows = self.contents, len(self.gallery)
        return Pushed(
            place=self.store.place,
            images=rows,
            added=self._added,
            deleted=self._deleted,
            anew=bool(self.token),
            vectors=[
                {"name": each.name, "dim": each.dim, "index": each.index, "on_disk": each.on_disk}
                for each in contents.fields
            ],
            memory_bytes=round(memory_of(contents.fields, rows)),
            recall=dict(contents.measured.get("recall", {})),
            comparison=comparison,
        )


def identity(gallery: Snapshot, count: int = FIRST_KEYS) -> str:
    """Digest that tells galleries apart, and generations of one: of its first images, after their number."""
    rows = gallery.rows(range(min(count, gallery.key_count)))
    return f"{len(rows)}-{_digest([str(gallery.generation.number), *(row.id for row in rows)])}"


def _blocks(keys: int) -> list[range]:
    return [range(first, min(keys, first + PATH_BLOCK)) for first in range(0, keys, PATH_BLOCK)]


def _token(gallery: str, vectors: list[tuple[str, int]], wish: Wish, serial: int) -> str:
    return _digest([gallery, json.dumps(vectors), json.dumps(wish.to_json()), str(serial)])


def _digest(texts: list[str]) -> str:
    # With lengths, so that no two lists read the same.
    text = "".join(f"{len(text)}:{text}" for text in texts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
