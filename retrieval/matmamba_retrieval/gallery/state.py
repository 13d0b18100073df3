"""One state of a gallery, as a whole."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..index.gallery_index import search_index
from ..index.rerank import Floats, Ints
from ..index.shortlist_index import ShortlistIndex
from ..storage.records import Generation, ShortlistRecord, Version
from ..storage.segments import Segments


@dataclass(frozen=True)
class OpenIndex:
    """An index with all that a search of it takes.

    Attributes:
        record: what the catalogue knows of it.
        index: in memory.
        segments: the vectors that it was built of, and newer ones.
        file_bytes: of its file.
    """

    record: ShortlistRecord
    index: ShortlistIndex
    segments: Segments
    file_bytes: int

    def search(
        self, xq: Floats, shortlist: int, allowed: NDArray[np.bool_] | None = None, effort: int | None = None
    ) -> Ints:
        """(nq, K) keys whose prefixes are nearest to (nq, dim) normalised ones: see `search_index`."""
        return search_index(self.index, self.segments, xq, shortlist, allowed, effort or 0)

    def finder(self, shortlist: int, effort: int | None) -> Callable[[Floats], Ints]:
        """`search` without a filter, for many calls: what is the same for all of them is found out once."""
        rows = self.index.ntotal
        if rows != len(self.segments) or not self.index.is_at_once:
            return partial(self.search, shortlist=shortlist, effort=effort)
        wanted, index = (min(shortlist, rows), effort or 0), self.index

        def find(xq: Floats) -> Ints:
            if len(xq) == 1:
                keys = index.one_query(*wanted)(xq)[1]
                # Where its cells or its walk run dry, more is looked at.
                if keys.item(-1) >= 0:
                    return keys
            return self.search(xq, shortlist, None, effort)

        return find


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One state of a gallery: what is seen changes as a whole.

    Attributes:
        generation: what made its vectors.
        version: which state it is.
        live: (keys,) which were not deleted, None if all were not.
        segments: by width.
        shortlists: its indexes.
        indexes: those that were loaded, by file.
        opened: those that were searched in this state, by dim and width.
        bound: strategies that were asked for in this state, with what was found out for them, by strategy and
            number of hits.
    """

    generation: Generation
    version: Version
    live: NDArray[np.bool_] | None
    segments: dict[str, Segments]
    shortlists: list[ShortlistRecord]
    indexes: dict[str, ShortlistIndex]
    opened: dict[tuple[int, str], OpenIndex] = field(default_factory=dict)
    # Of the room above, which alone knows strategies.
    bound: dict[tuple[Hashable, int], Any] = field(default_factory=dict)
