"""A gallery that was pushed to an engine: asked like one in a folder, and answering the same."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import require_text, require_texts, require_wholes
from ..errors import GalleryError
from ..index.rerank import NO_KEY
from ..storage.records import Generation, Row, Version
from ..storage.spec import EmbeddingSpec
from ..strategies.engines import IndexChoice
from ..strategies.hits import Hits
from ..strategies.queries import Queries
from ..strategies.searchable import Selection
from ..strategies.stages import MOST_BOUND, require_fit, require_k
from ..strategies.strategy import Step, Strategy
from .address import open_store
from .answers import Asking
from .conditions_of_points import every, field_names, none_of
from .engine import Condition, Ints, ScoredPoint, Store, VectorField
from .layout import ID, LABEL, Contents, row_of, text_of
from .matching import Matching
from .pushed_state import FLOAT32_BYTES, PushedState, bytes_of

# Ids that are looked up at once, and rows of hits that are kept until they are asked for.
IDS_AT_ONCE, MOST_ROWS = 1_000, 20_000


class PushedGallery:
    """A collection that holds a gallery, at one version: what is pushed later is seen after `refresh`.

    Images that a push deletes are gone at once. Several threads may search it at once.

    Args:
        store: where it is; closed with this.

    Attributes:
        folder: its address, as messages name it.

    Raises:
        GalleryError: no gallery was pushed there, or not to its end; the engine does not answer.
    """

    def __init__(self, store: Store) -> None:
        self.folder = store.place
        self._store: Store | None = store
        self._rows: dict[int, Row] = {}
        self._seen = self._look()

    @staticmethod
    def open(address: str | os.PathLike[str]) -> PushedGallery:
        """The gallery at an address: see `open_store`."""
        store = open_store(os.fspath(address))
        try:
            return PushedGallery(store)
        except BaseException:
            store.close()
            raise

    def _look(self) -> PushedState:
        if self._store is None:
            raise GalleryError(f"{self.folder} is closed: open it again")
        collection = self._store.current()
        if collection is None:
            raise GalleryError(f"{self.folder} holds no gallery: push one there")
        contents = Contents.from_json(collection.about(), self.folder)
        if not contents.complete:
            raise GalleryError(f"{self.folder} was not pushed to its end: push the gallery once more")
        return PushedState(collection, contents)

    def refresh(self) -> None:
        """See what was pushed since; where that fails, what was seen before stays."""
        self._seen = self._look()
        self._rows = {}

    def newest(self) -> tuple[Any, ...]:
        """What a newer state differs in from that which is seen, as the engine has it now."""
        now = self._look().contents
        plan = json.dumps(now.plan, sort_keys=True)
        return now.gallery, now.generation, now.spec, now.version, now.keys, now.live, plan

    def close(self) -> None:
        """Let go of it."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def _asked(self) -> PushedState:
        if self._store is None:
            raise GalleryError(f"{self.folder} is closed: open it again")
        return self._seen

    @property
    def state(self) -> PushedState:
        """All that is seen, together; `GalleryError` if the gallery was closed."""
        return self._asked()

    @property
    def contents(self) -> Contents:
        """What the collection says of it."""
        return self._seen.contents

    def __len__(self) -> int:
        return self.contents.live

    @property
    def key_count(self) -> int:
        """How many keys there are, those of deleted images too."""
        return self.contents.keys

    @property
    def spec(self) -> EmbeddingSpec:
        """What made its vectors."""
        return self.contents.spec

    @property
    def checkpoint_path(self) -> str:
        """Where the checkpoint was."""
        return self.contents.checkpoint_path

    @property
    def generation(self) -> Generation:
        """What made its vectors, and which widths there are."""
        known = self.contents
        return Generation(known.generation, known.spec, known.checkpoint_path, known.widths, known.version)

    @property
    def version(self) -> Version:
        """Which state of the gallery it was pushed from."""
        known = self.contents
        return Version(known.version, known.generation, known.keys, known.live, "")

    @property
    def plan(self) -> Any:
        """The plan of the gallery as JSON, without what it says of FAISS indexes; None if there is none."""
        plan = self.contents.plan
        if not isinstance(plan, dict) or not isinstance(settings := plan.get("settings"), dict):
            return plan
        if settings.get("index") in [field.index for field in self.contents.fields]:
            return plan
        return {**plan, "settings": {**settings, "index": "", "effort": None}}

    def described(self) -> dict[str, Any]:
        """Which vectors it has, and what it was pushed from, as plain values."""
        known = self.contents
        return {
            "pushed_from": known.folder,
            "version": known.version,
            "vectors": [
                {"name": each.name, "dim": each.dim, "width": each.width, "index": each.index}
                for each in known.fields
            ],
        }

    def save_plan(self, plan: Any) -> None:
        """Keep a plan with the collection, until another one is pushed."""
        seen = self._asked()
        contents = replace(seen.contents, plan=plan)
        seen.collection.note(contents.to_json())
        self._seen = PushedState(seen.collection, contents)

    def require_queries(self, spec: EmbeddingSpec) -> None:
        """Raise `GalleryError` if embeddings of `spec`, of any width, cannot be compared with those here."""
        self.spec.require(spec, f"{self.folder}, made with {self.checkpoint_path or 'another model'},")

    def rows(self, keys: Iterable[int]) -> list[Row]:
        """The images with these keys, in this order; `GalleryError` if one is not there any more."""
        wanted, seen, known = require_wholes(keys, "keys"), self._asked(), self._rows
        lacking = [key for key in wanted if key not in known]
        if lacking:
            points = seen.collection.retrieve(np.array(lacking, dtype=np.int64))
            known = known | {point.key: row_of(point.payload, self.folder) for point in points}
        return [known[key] if key in known else seen.gone(key) for key in wanted]

    def keys_of(self, ids: Iterable[str]) -> dict[str, int]:
        """Key by id, of those ids that the gallery has."""
        wanted, found = require_texts(ids, "ids"), dict[str, int]()
        for start in range(0, len(wanted), IDS_AT_ONCE):
            some: Condition = {"key": ID, "match": {"any": wanted[start : start + IDS_AT_ONCE]}}
            for points in self._asked().collection.scroll(some, [ID]):
                found |= {text_of(point.payload, ID, self.folder): point.key for point in points}
        return found

    def vectors(self, keys: Ints, width: str = "") -> NDArray[np.floating]:
        """(n, D) stored vectors: of a further width if the gallery has them, else those of its own."""
        return self._asked().vectors(keys, width)

    def classes(self, keys: Ints) -> Ints | None:
        """Numbers of the labels of images, of the shape of `keys`; None if no image has a label.

        Equal labels have equal numbers, from 0; without a label it is below -1, another one for each image.
        """
        distinct = np.unique(keys[keys != NO_KEY])
        labels = [row.label for row in self.rows(distinct)]
        if not any(label is not None for label in labels) and not self._seen.has_labels:
            return None
        number = {label: place for place, label in enumerate(dict.fromkeys(labels)) if label is not None}
        codes = [-2 - place if label is None else number[label] for place, label in enumerate(labels)]
        found = np.full(keys.shape, NO_KEY, dtype=np.int64)
        there = keys != NO_KEY
        found[there] = np.array(codes, dtype=np.int64)[np.searchsorted(distinct, keys[there])]
        return found

    def fields(self) -> list[str]:
        """Names of the metadata by which images can be filtered."""
        return field_names(self.contents.kinds)

    def allowed(self, where: str | None = None, without: Sequence[int] | Ints = ()) -> Matching | None:
        """Which images a search may answer with: those that fulfil a condition; None for all.

        Args:
            where: in SQL, over id, path, label and metadata, such as "label = 'cat' AND year >= 2020".
            without: keys that are left out.

        Raises:
            GalleryError: `where` does not parse, or is more than a condition over known columns.
        """
        parts = list[Condition]()
        if where:
            # Its parser takes longer to load than a gallery without a filter to open.
            from .deciding import decided

            found = decided(require_text(where, "where"), self._asked())
            if found is None:
                return Matching(None)
            parts.append(found)
        if len(without):
            parts.append(none_of([{"has_id": [int(key) for key in without]}]))
        return Matching(every(parts)) if parts else None

    def keys_where(self, where: str = "") -> Ints:
        """Keys of the images that fulfil a condition, by default all, ascending; raises as `allowed` does."""
        allowed, collection = self.allowed(where or None), self._asked().collection
        if allowed is None:
            blocks = list(collection.keys())
        elif allowed.condition is None:
            blocks = []
        else:
            found = collection.scroll(allowed.condition)
            blocks = [np.array([point.key for point in points], dtype=np.int64) for points in found]
        return np.concatenate([np.empty(0, dtype=np.int64), *blocks])

    def total(self, allowed: Selection | None) -> int:
        """How many images may be answered."""
        matching = Matching.of(allowed)
        return len(self) if matching is None else matching.total(self._asked())

    def labelled(self) -> bool:
        """Whether any image has a label."""
        return self._asked().has_labels

    def shortlist_dims(self) -> list[int]:
        """Dims of the prefixes that were pushed, ascending."""
        known = self.contents
        return sorted({each.dim for each in known.fields if each.dim < known.spec.dim})

    def index_choices(self, dims: Sequence[int]) -> list[IndexChoice]:
        """What is searched over these dims, with the efforts around the one it was built for.

        Raises:
            GalleryError: a prefix that was not pushed.
        """
        fields = [self._seen.field(self.spec.width, dim) for dim in dims]
        return [IndexChoice(field.dim, field.index, effort) for field in fields for effort in _efforts(field)]

    def index_bytes(self, step: Step | None) -> int:
        """Bytes of the vectors that a step compares, without a graph over them; by default of whole ones."""
        if step is None:
            return len(self) * self.spec.dim * FLOAT32_BYTES
        width = self.spec.width if step.gallery_width == "full" else step.gallery_width
        return len(self) * bytes_of(self._seen.field(width, step.dim))

    def labels(self) -> list[str | None]:
        """Labels of all images, by key; None for those of deleted ones."""
        # What a later push has put in is answered before that push has come to its end, or was stopped.
        ahead = [int(keys[-1]) + 1 for keys in self._asked().collection.keys(self.key_count)]
        found: list[str | None] = [None] * max([self.key_count, *ahead])
        for points in self._asked().collection.scroll(none_of([{"is_empty": {"key": LABEL}}]), [LABEL]):
            for point in points:
                if point.key < len(found):
                    found[point.key] = text_of(point.payload, LABEL, self.folder)
        return found

    def step_dims(self) -> list[int] | None:
        """By how many leading coordinates later steps can compare: those that were pushed."""
        width = self.spec.width
        return sorted(each.dim for each in self.contents.fields if each.width == width)

    def staged(self, strategy: Strategy, queries: Queries, k: int, allowed: Selection | None = None) -> Hits:
        """The k best images for each query: see `AnsweringGallery`."""
        hits, found = self._bound(strategy, k).hits(queries, Matching.of(allowed))
        self._keep(found)
        return hits

    def _bound(self, strategy: Strategy, k: int) -> Asking:
        """The strategy, checked once against what is seen."""
        seen = self._asked()
        if (known := seen.bound.get((strategy, k))) is None:
            require_k(self, k, len(self))
            if strategy.steps:
                require_fit(strategy, k, self.spec.dim)
            if len(seen.bound) >= MOST_BOUND:
                seen.bound.clear()
            known = seen.bound[strategy, k] = Asking(seen, strategy, k)
        return known

    def _keep(self, found: Iterable[Iterable[ScoredPoint]]) -> None:
        """Keep the rows of hits, which whoever asked for them will ask for next."""
        if len(self._rows) > MOST_ROWS:
            self._rows = {}
        rows = self._rows
        for points in found:
            for point in points:
                rows[point.key] = row_of(point.payload, self.folder)


def _efforts(field: VectorField) -> list[int | None]:
    """Half as much as it was built for, as much, and twice; None where all are compared."""
    known = field.search_effort or field.effort
    return [max(1, known // 2), known, 2 * known] if field.links else [None]
