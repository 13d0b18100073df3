"""One state of a gallery, as a whole."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..index.gallery_index import OpenIndex
from ..index.shortlist_index import ShortlistIndex
from ..storage.records import Generation, ShortlistRecord, Version
from ..storage.segments import Segments


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
