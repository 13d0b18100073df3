"""Collections of a Qdrant server: `qdrant://host:port/collection`."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matmamba_common.lazy import Deferred

from ..errors import GalleryError
from .engine import (
    BINARY,
    FLOAT16,
    INT8,
    OVERSAMPLING,
    Condition,
    Floats,
    Ints,
    ScoredPoint,
    Stage,
    StoredPoint,
    VectorField,
)
from .layout import ABOUT
from .missing import needed

qm = Deferred("qdrant_client.models")
qc = Deferred("qdrant_client")
KEYS_AT_ONCE = 10_000
# The first version whose collections keep metadata.
OLDEST = (1, 16)
# Between a collection's name and what tells those that were made for it apart.
BETWEEN = "--"
SECONDS = 60
POLL_SECONDS, POLLS = 0.5, 3
# KiB of vectors in a segment from which it is indexed; none is while a collection is filled.
INDEXED_FROM = 10_000


class ServerStore:
    """A name on a server: an alias of the collection that answers, beside which others are made.

    Args:
        client: of qdrant-client: of a server, or its local mode.
        collection: the name.
        place: as users named it.

    Raises:
        GalleryError: the server is down or too old, or qdrant-client is missing.
    """

    def __init__(self, client: Any, collection: str, place: str) -> None:
        self.client, self.collection, self.place = client, collection, place
        require_version(client, place)

    @staticmethod
    def connect(url: str, collection: str, place: str, api_key: str | None = None) -> ServerStore:
        """Reach a server by its URL, http or https."""
        needed("qdrant_client", "qdrant-client")
        with warnings.catch_warnings(), saying(place):
            # Of versions and of keys over http: the first is refused below, the second is the user's choice.
            warnings.simplefilter("ignore")
            client = qc.QdrantClient(url=url, api_key=api_key, timeout=SECONDS, check_compatibility=False)
        return ServerStore(client, collection, place)

    def about(self) -> dict[str, Any] | None:
        """What is remembered with the collection that answers; None if there is none."""
        current = self.current()
        return None if current is None else current.about()

    def current(self) -> ServerCollection | None:
        """The collection that answers; None if there is none."""
        with saying(self.place):
            aliases = {each.alias_name: each.collection_name for each in self.client.get_aliases().aliases}
            if self.collection in aliases:
                return ServerCollection(self.client, aliases[self.collection], self.place)
            if self.client.collection_exists(self.collection):
                return ServerCollection(self.client, self.collection, self.place)
        return None

    def staged(self, token: str) -> ServerCollection | None:
        """One that was begun and does not answer yet; None if it is not there."""
        with saying(self.place):
            there = self.client.collection_exists(self._name(token))
        return ServerCollection(self.client, self._name(token), self.place) if there else None

    def create(self, token: str, fields: Sequence[VectorField], about: Mapping[str, Any]) -> ServerCollection:
        """A new, empty one beside the current."""
        with saying(self.place):
            self.client.create_collection(
                self._name(token),
                vectors_config={field.name: _params(field) for field in fields},
                metadata=dict(about),
                optimizers_config=qm.OptimizersConfigDiff(indexing_threshold=0),
            )
        return ServerCollection(self.client, self._name(token), self.place)

    def publish(self, token: str) -> None:
        """Have a staged one answer, in one moment; others that were made for this name are removed."""
        with saying(self.place):
            known = {each.alias_name for each in self.client.get_aliases().aliases}
            drop = [qm.DeleteAliasOperation(delete_alias=qm.DeleteAlias(alias_name=self.collection))]
            put = qm.CreateAlias(collection_name=self._name(token), alias_name=self.collection)
            operations = [
                *(drop if self.collection in known else []),
                qm.CreateAliasOperation(create_alias=put),
            ]
            self.client.update_collection_aliases(change_aliases_operations=operations)
            for each in self.client.get_collections().collections:
                if each.name != self._name(token) and self._is_of_a_push(each.name):
                    self.client.delete_collection(each.name)

    def _is_of_a_push(self, name: str) -> bool:
        """Whether a push made a collection for this name; others may have made some that are called alike."""
        if not name.startswith(self.collection + BETWEEN):
            return False
        return ABOUT in ServerCollection(self.client, name, self.place).about()

    def _name(self, token: str) -> str:
        return f"{self.collection}{BETWEEN}{token}"

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


class ServerCollection:
    """One collection of a server."""

    truth_values = True

    def __init__(self, client: Any, name: str, place: str) -> None:
        self.client, self.name, self.place = client, name, place

    def about(self) -> dict[str, Any]:
        """What is remembered with it: its metadata."""
        with saying(self.place):
            return dict(self.client.get_collection(self.name).config.metadata or {})

    def note(self, values: Mapping[str, Any]) -> None:
        """Remember some more; every change before it was acknowledged."""
        with saying(self.place):
            self.client.update_collection(self.name, metadata=dict(values))

    def upsert(
        self, keys: Ints, vectors: Mapping[str, Floats], payloads: Sequence[Mapping[str, Any]]
    ) -> None:
        """Put points in, in the place of those with the same keys."""
        by_name = {name: rows.tolist() for name, rows in vectors.items()}
        with saying(self.place):
            batch = qm.Batch(ids=keys.tolist(), vectors=by_name, payloads=[dict(each) for each in payloads])
            self.client.upsert(self.name, batch, wait=True)

    def delete(self, keys: Ints) -> None:
        """Take points out; keys that are not there are passed over."""
        with saying(self.place):
            self.client.delete(self.name, qm.PointIdsList(points=keys.tolist()), wait=True)

    def count(self, condition: Condition | None = None) -> int:
        """How many points there are, exactly; with a condition, that fulfil it."""
        with saying(self.place):
            return int(self.client.count(self.name, _filter(condition), exact=True).count)

    def keys(self, first: int = 0) -> Iterator[Ints]:
        """All keys from `first` on, ascending, in blocks."""
        ahead: Any = first
        while ahead is not None:
            with saying(self.place):
                records, ahead = self.client.scroll(
                    self.name, offset=ahead, limit=KEYS_AT_ONCE, with_payload=False, with_vectors=False
                )
            if records:
                yield np.array([record.id for record in records], dtype=np.int64)

    def retrieve(self, keys: Ints, vectors: Sequence[str] = (), *, payload: bool = True) -> list[StoredPoint]:
        """Points by their keys, in this order; those that are not there are left out."""
        with saying(self.place):
            records = self.client.retrieve(
                self.name, keys.tolist(), with_payload=payload, with_vectors=list(vectors) or False
            )
        found = {int(record.id): record for record in records}
        return [StoredPoint.of(found[key], vectors) for key in keys.tolist() if key in found]

    def query(
        self, stages: Sequence[Stage], condition: Condition | None = None, *, payload: bool = True
    ) -> list[list[ScoredPoint]]:
        """The best points for each query, in one call: see `Collection`."""
        found = _filter(condition)
        requests = [_request(stages, row, found, payload) for row in range(len(stages[0].xq))]
        if not requests:
            return []
        with saying(self.place):
            answers = self.client.query_batch_points(self.name, requests)
        return [
            [ScoredPoint(int(each.id), each.score, each.payload or {}) for each in answer.points]
            for answer in answers
        ]

    def scroll(self, condition: Condition, parts: Sequence[str] = ()) -> Iterator[list[StoredPoint]]:
        """Points that fulfil a condition, by ascending keys, in blocks."""
        ahead: Any = 0
        while ahead is not None:
            with saying(self.place):
                records, ahead = self.client.scroll(
                    self.name,
                    _filter(condition),
                    offset=ahead,
                    limit=KEYS_AT_ONCE,
                    with_payload=list(parts) or False,
                )
            yield [StoredPoint.of(record, ()) for record in records]

    def index_payload(self, name: str, kind: str) -> None:
        """Index a part of the payload."""
        with saying(self.place), warnings.catch_warnings():
            # The local mode says that it has no indexes.
            warnings.simplefilter("ignore")
            known = (self.client.get_collection(self.name).payload_schema or {}).get(name)
            wanted = getattr(qm.PayloadSchemaType, kind.upper()) if kind else None
            if known is not None and known.data_type != wanted:
                self.client.delete_payload_index(self.name, name, wait=True)
            if wanted is not None and (known is None or known.data_type != wanted):
                self.client.create_payload_index(self.name, name, wanted, wait=True)

    def finish(self, fields: Sequence[VectorField]) -> None:
        """Have the server build graphs and codes, and wait until it has done so."""
        if not any(field.links or field.quantisation for field in fields):
            return
        with saying(self.place):
            threshold = qm.OptimizersConfigDiff(indexing_threshold=INDEXED_FROM)
            self.client.update_collection(self.name, optimizers_config=threshold)
        quiet = 0
        while quiet < POLLS:
            with saying(self.place):
                status = self.client.get_collection(self.name).status
            if status == qm.CollectionStatus.RED:
                raise GalleryError(
                    f"{self.place}: the server failed to build its index, and says why in its log"
                )
            # It begins a little after it was asked to.
            quiet = quiet + 1 if status == qm.CollectionStatus.GREEN else 0
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Nothing: the connection is the target's."""


def require_version(client: Any, place: str) -> None:
    """Raise `GalleryError` if a server is too old, or does not answer."""
    with saying(place):
        version = str(client.info().version)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(numbers) == 2 and numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise GalleryError(
            f"{place} is a Qdrant server of version {version}: {oldest} is the oldest that does"
        )


def _params(field: VectorField) -> Any:
    quantised = {
        INT8: lambda: qm.ScalarQuantization(
            scalar=qm.ScalarQuantizationConfig(type=qm.ScalarType.INT8, quantile=0.99, always_ram=True)
        ),
        BINARY: lambda: qm.BinaryQuantization(binary=qm.BinaryQuantizationConfig(always_ram=True)),
    }
    return qm.VectorParams(
        size=field.dim,
        distance=qm.Distance.DOT,
        datatype=qm.Datatype.FLOAT16 if field.datatype == FLOAT16 else None,
        quantization_config=quantised[field.quantisation]() if field.quantisation else None,
        on_disk=field.on_disk,
        hnsw_config=qm.HnswConfigDiff(m=field.links, ef_construct=field.effort),
    )


def _filter(condition: Condition | None) -> Any:
    """As the client has it: its JSON, checked."""
    return None if condition is None else qm.Filter.model_validate(_whole(condition))


def _whole(condition: Condition) -> Condition:
    """A filter, of what may be a single condition."""
    return condition if condition.keys() & {"must", "should", "must_not"} else {"must": [condition]}


def _request(stages: Sequence[Stage], row: int, condition: Any, payload: bool) -> Any:
    """One query, each stage but the last inside of the one that compares what it keeps."""
    inner: Any = None
    for place, stage in enumerate(stages):
        last = place == len(stages) - 1
        values = {
            "prefetch": inner,
            "query": stage.xq[row].tolist(),
            "using": stage.field.name,
            "limit": stage.length,
            "filter": condition if place == 0 else None,
            "params": _search_params(stage),
        }
        inner = qm.QueryRequest(**values, with_payload=payload) if last else [qm.Prefetch(**values)]
    return inner


def _search_params(stage: Stage) -> Any:
    """How a stage is searched: an exact one by no graph, and by no codes."""
    effort = 0 if stage.exact else stage.effort or stage.field.search_effort
    codes = qm.QuantizationSearchParams(ignore=stage.exact, rescore=True, oversampling=OVERSAMPLING)
    quantised = codes if stage.field.quantisation else None
    return qm.SearchParams(exact=stage.exact, hnsw_ef=effort or None, quantization=quantised)


@contextmanager
def saying(place: str) -> Iterator[None]:
    """Turn what the client and the server refuse into one line that names the place."""
    try:
        yield
    except GalleryError:
        raise
    except Exception as error:
        raise GalleryError(f"{place}: {_words(error)}") from error


def _words(error: Exception) -> str:
    """What an error says, on one line."""
    status, kind = getattr(error, "status_code", None), type(error).__name__
    if status is not None:
        content = getattr(error, "content", b"") or b""
        return f"the server refused ({status}): {_line(_said(content.decode(errors='replace')))}"
    if kind == "ResponseHandlingException":
        return f"the server cannot be reached, or went away: {_line(str(error))}"
    return _line(str(error).partition("\n")[0]) or kind


def _said(content: str) -> str:
    """What a server says went wrong; of a proxy it may be a page, which stays as it is."""
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return content


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
