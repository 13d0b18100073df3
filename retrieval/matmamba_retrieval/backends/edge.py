"""Qdrant's engine in this process, over a folder: `edge:FOLDER`."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_common.lazy import Deferred

from ..errors import GalleryError
from ..storage.files import flush_folder, system_errors
from ..storage.locks import Busy, Lock
from .edge_requests import edge_filter, edge_request
from .engine import (
    BINARY,
    FLOAT16,
    INT8,
    Condition,
    Floats,
    Ints,
    ScoredPoint,
    Stage,
    StoredPoint,
    VectorField,
)
from .missing import needed

qe = Deferred("qdrant_edge")
# The file that says which folder answers, that beside a shard, and the shard itself.
CURRENT, ABOUT, SHARD, LOCK = "current.json", "about.json", "shard", "writer.lock"
KEYS_AT_ONCE = 10_000
# Points of one operation. The engine copies each several times: what fits into the processor's cache is
# copied faster, and leaves smaller holes in memory between what the engine keeps.
POINTS_AT_ONCE = 128
# KiB of vectors in a segment up to which all are compared, as on a server by default.
FEWEST_FOR_GRAPH = 10_000
# What a Rust program raises that gives up; it derives from nothing but `BaseException`.
PANIC = "PanicException"
# Bytes of a payload index, a point: more than it takes.
INDEXED_BYTES = 256
# The engine writes through memory, and a disk that is full then would end the process: it is asked before.
ROOM = 256 << 20


class EdgeStore:
    """A folder with one collection that answers, and others in the making.

    Args:
        folder: made with the first collection.
        write: whether collections are to be made or changed; one process at a time does.

    Raises:
        GalleryError: it holds something else; another process writes to it; qdrant-edge-py is missing.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        needed("qdrant_edge", "qdrant-edge-py")
        self.folder, self.place = folder, f"edge:{folder}"
        self._opened: list[EdgeCollection] = []
        self._lock: Lock | None = None
        self._require_ours()
        if write:
            with system_errors(f"make {folder}"):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._hold()

    def _require_ours(self) -> None:
        with system_errors(f"look into {self.folder}"):
            if self.folder.exists() and not self.folder.is_dir():
                raise GalleryError(f"{self.place} is a file: name a folder")
            if not self.folder.is_dir():
                return
            names = {entry.name for entry in self.folder.iterdir()}
        # Whoever made the lock has looked before: a first push that was killed leaves no more than that.
        begun = LOCK in names or any((self.folder / name / ABOUT).is_file() for name in names)
        if names and not begun:
            raise GalleryError(
                f"{self.place} holds something else than a pushed gallery: name another folder"
            )

    def _hold(self) -> Lock:
        try:
            return Lock(self.folder / LOCK)
        except Busy as error:
            raise GalleryError(f"another process writes to {self.place}: wait for it to end") from error
        except OSError as error:
            raise GalleryError(f"cannot write to {self.place}: {error.strerror or error}") from error

    def about(self) -> dict[str, Any] | None:
        """What is remembered with the collection that answers, which is not opened; None if there is none."""
        token = self._current_token()
        return _read(self.folder / token / ABOUT) if token else None

    def current(self) -> EdgeCollection | None:
        """The collection that answers; None if there is none."""
        token = self._current_token()
        return self._open(token) if token else None

    def _current_token(self) -> str:
        file = self.folder / CURRENT
        if not file.is_file():
            return ""
        token = _read(file).get("collection")
        if not isinstance(token, str) or not (self.folder / token / ABOUT).is_file():
            raise GalleryError(f"{file} is damaged: it names {token!r}, which is not there")
        return token

    def staged(self, token: str) -> EdgeCollection | None:
        """One that was begun and does not answer yet; None if it is not there, or was begun only."""
        return self._open(token) if (self.folder / token / ABOUT).is_file() else None

    def create(
        self,
        token: str,
        fields: Sequence[VectorField],
        about: Mapping[str, Any],
        *,
        fewest_for_graph: int = FEWEST_FOR_GRAPH,
    ) -> EdgeCollection:
        """A new, empty one beside the current; what a killed attempt left of it is removed.

        Args:
            token: its name.
            fields: vectors of each point.
            about: what is remembered with it.
            fewest_for_graph: KiB of vectors up to which all are compared in spite of a graph.
        """
        place = self.folder / token
        with system_errors(f"make {place}"):
            shutil.rmtree(place, ignore_errors=True)
            (place / SHARD).mkdir(parents=True)
        config = qe.EdgeConfig(
            vectors={field.name: _params(field, fewest_for_graph) for field in fields},
            optimizers=qe.EdgeOptimizersConfig(indexing_threshold=1),
        )
        with saying(self.place):
            qe.EdgeShard.create(str(place / SHARD), config).close()
        # Last: a collection is there when this is.
        _write(place / ABOUT, dict(about))
        return self._open(token)

    def _open(self, token: str) -> EdgeCollection:
        for known in self._opened:
            if known.folder.name == token and known.is_open:
                return known
        engine = EdgeCollection(self.folder / token, self.place)
        self._opened.append(engine)
        return engine

    def publish(self, token: str) -> None:
        """Have a staged one answer, in one moment; others are removed, but for one that somebody reads."""
        _write(self.folder / CURRENT, {"collection": token})
        for engine in self._opened:
            if engine.folder.name != token:
                engine.close()
        for place in self.folder.iterdir():
            if place.name != token and (place / SHARD).is_dir() and not _in_use(place / SHARD):
                shutil.rmtree(place, ignore_errors=True)

    def close(self) -> None:
        """Close all shards, and let others write."""
        for engine in self._opened:
            engine.close()
        if self._lock is not None:
            self._lock.release()


class EdgeCollection:
    """One shard, with a file beside it that says what it holds."""

    # Its Python binding takes them for the numbers 0 and 1, which no truth value is.
    truth_values = False

    def __init__(self, folder: Path, place: str) -> None:
        self.folder, self.place = folder, place
        self.is_open = False
        self._last_filter: tuple[Condition | None, Any] = (None, None)
        with saying(place):
            self.shard = qe.EdgeShard.load(str(folder / SHARD))
        self.is_open = True

    def about(self) -> dict[str, Any]:
        """What is remembered with it."""
        return _read(self.folder / ABOUT)

    def note(self, values: Mapping[str, Any]) -> None:
        """Remember some more; points that were put in before are on the disk first."""
        with saying(self.place):
            self.shard.flush()
        _write(self.folder / ABOUT, self.about() | dict(values))

    def upsert(
        self, keys: Ints, vectors: Mapping[str, Floats], payloads: Sequence[Mapping[str, Any]]
    ) -> None:
        """Put points in, in the place of those with the same keys."""
        self._require_room(4 * sum(array.nbytes for array in vectors.values()))
        for first in range(0, len(keys), POINTS_AT_ONCE):
            part = slice(first, first + POINTS_AT_ONCE)
            some = {name: array[part] for name, array in vectors.items()}
            with saying(self.place):
                points = _points(keys[part], some, payloads[part])
                self.shard.update(qe.UpdateOperation.upsert_points(points))

    def delete(self, keys: Ints) -> None:
        """Take points out; keys that are not there are passed over."""
        with saying(self.place):
            self.shard.update(qe.UpdateOperation.delete_points(keys.tolist()))

    def count(self, condition: Condition | None = None) -> int:
        """How many points there are, exactly; with a condition, that fulfil it."""
        with saying(self.place):
            return int(self.shard.count(qe.CountRequest(exact=True, filter=edge_filter(condition))))

    def keys(self, first: int = 0) -> Iterator[Ints]:
        """All keys from `first` on, ascending, in blocks."""
        ahead: int | None = first
        while ahead is not None:
            request = qe.ScrollRequest(
                offset=ahead, limit=KEYS_AT_ONCE, with_payload=False, with_vector=False
            )
            with saying(self.place):
                records, ahead = self.shard.scroll(request)
            if records:
                yield np.array([record.id for record in records], dtype=np.int64)

    def retrieve(self, keys: Ints, vectors: Sequence[str] = (), *, payload: bool = True) -> list[StoredPoint]:
        """Points by their keys, in this order; those that are not there are left out."""
        with saying(self.place):
            records = self.shard.retrieve(keys.tolist(), payload, list(vectors) or False)
        found = {int(record.id): record for record in records}
        return [StoredPoint.of(found[key], vectors) for key in keys.tolist() if key in found]

    def query(
        self, stages: Sequence[Stage], condition: Condition | None = None, *, payload: bool = True
    ) -> list[list[ScoredPoint]]:
        """The best points for each query, in one call: see `Collection`."""
        found = self._filter_of(condition)
        requests = [edge_request(stages, row, found, payload) for row in range(len(stages[0].xq))]
        with saying(self.place):
            if len(requests) == 1:
                answers = [self.shard.query(requests[0])]
            else:
                answers = self.shard.query_batch(qe.QueryBatchRequest(requests)) if requests else []
        return [
            [ScoredPoint(each.id, each.score, each.payload or {}) for each in answer] for answer in answers
        ]

    def _filter_of(self, condition: Condition | None) -> Any:
        """The last one is kept: many queries ask with one condition, which nobody changes."""
        known, found = self._last_filter
        if condition is not known:
            found = edge_filter(condition)
            self._last_filter = condition, found
        return found

    def scroll(self, condition: Condition, parts: Sequence[str] = ()) -> Iterator[list[StoredPoint]]:
        """Points that fulfil a condition, by ascending keys, in blocks."""
        found, ahead = edge_filter(condition), 0
        while ahead is not None:
            request = qe.ScrollRequest(
                offset=ahead,
                limit=KEYS_AT_ONCE,
                filter=found,
                with_payload=list(parts) or False,
                with_vector=False,
            )
            with saying(self.place):
                records, ahead = self.shard.scroll(request)
            yield [StoredPoint.of(record, ()) for record in records]

    def index_payload(self, name: str, kind: str) -> None:
        """Index a part of the payload."""
        with saying(self.place):
            info = self.shard.info()
            known = info.payload_schema.get(name)
            wanted = getattr(qe.PayloadSchemaType, kind.capitalize()) if kind else None
            if known is not None and known.data_type != wanted:
                self.shard.update(qe.UpdateOperation.delete_field_index(name))
            if wanted is not None and (known is None or known.data_type != wanted):
                self._require_room(INDEXED_BYTES * info.points_count)
                self.shard.update(qe.UpdateOperation.create_field_index(name, wanted))

    def finish(self, fields: Sequence[VectorField]) -> None:
        """Merge segments, drop what was deleted, build graphs and codes."""
        if any(field.links or field.quantisation for field in fields):
            # Written anew beside what is there.
            with system_errors(f"look into {self.folder}"):
                there = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
            self._require_room(there)
            with saying(self.place):
                self.shard.optimize()
        with saying(self.place):
            self.shard.flush()

    def _require_room(self, size: int) -> None:
        with system_errors(f"look for room at {self.folder}"):
            free = shutil.disk_usage(self.folder).free
        if free < size + ROOM:
            raise GalleryError(
                f"the disk of {self.place} is full: {free / 2**20:,.0f} MiB are left, and"
                f" {(size + ROOM) / 2**20:,.0f} are needed; what was pushed is kept"
            )

    def close(self) -> None:
        """Let other processes open it."""
        if self.is_open:
            self.is_open = False
            self.shard.close()


def _points(keys: Ints, vectors: Mapping[str, Floats], payloads: Sequence[Mapping[str, Any]]) -> list[Any]:
    names = list(vectors)
    # By row: lists of all rows at once leave the processor's cache before the engine has read them.
    rows = zip(*(map(np.ndarray.tolist, array) for array in vectors.values()), strict=True)
    return [
        qe.Point(key, dict(zip(names, row, strict=True)), dict(payload))
        for key, row, payload in zip(keys.tolist(), rows, payloads, strict=True)
    ]


def _params(field: VectorField, fewest_for_graph: int) -> Any:
    quantised = {
        INT8: lambda: qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=0.99, memory=qe.Memory.Pinned),
        BINARY: lambda: qe.BinaryQuantizationConfig(memory=qe.Memory.Pinned),
    }
    return qe.EdgeVectorParams(
        size=field.dim,
        distance=qe.Distance.Dot,
        datatype=qe.VectorStorageDatatype.Float16 if field.datatype == FLOAT16 else None,
        quantization_config=quantised[field.quantisation]() if field.quantisation else None,
        memory=qe.Memory.Cold if field.on_disk else qe.Memory.Cached,
        hnsw_config=qe.HnswIndexConfig(
            m=field.links, ef_construct=field.effort, full_scan_threshold=fewest_for_graph
        ),
    )


@contextmanager
def saying(place: str) -> Iterator[None]:
    """Turn what the engine refuses into one line that names the place."""
    try:
        yield
    except GalleryError:
        raise
    # The engine raises nothing more special than this; where it gives up, not even that.
    except BaseException as error:
        if not _of_engine(error):
            raise
        raise GalleryError(f"{place} {_words(error)}") from error


def _of_engine(error: BaseException) -> bool:
    return isinstance(error, Exception) or type(error).__name__ == PANIC


def _words(error: BaseException) -> str:
    """What the engine says, behind a place."""
    first = str(error).partition("\n")[0]
    if "WouldBlock" in first:
        return "is in use by another process: wait for it to end"
    if any(f"(os error {number})" in first for number in (errno.EACCES, errno.EROFS)):
        return f"cannot be written to, which the engine does even to be asked: {first}"
    if type(error).__name__ == PANIC:
        return f"is damaged: the engine gave up ({first}); `push` with `replace` makes it anew"
    return f"cannot be used: {first}"


def _in_use(shard: Path) -> bool:
    try:
        qe.EdgeShard.load(str(shard)).close()
    except BaseException as error:
        if not _of_engine(error):
            raise
        return "WouldBlock" in str(error)
    return False


def _read(file: Path) -> dict[str, Any]:
    with system_errors(f"read {file}"):
        content = file.read_bytes()
    try:
        found = json.loads(content.decode())
    except ValueError as error:
        raise GalleryError(f"{file} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise GalleryError(f"{file} is damaged: it is no JSON object")
    return found


def _write(file: Path, values: Mapping[str, Any]) -> None:
    """A whole file or the one before."""
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    with system_errors(f"write {file}"):
        try:
            with partial.open("w", encoding="utf-8") as opened:
                json.dump(values, opened, ensure_ascii=False, indent=1)
                opened.flush()
                os.fsync(opened.fileno())
            partial.replace(file)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    flush_folder(file.parent)
