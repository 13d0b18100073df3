"""One state of a gallery, as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..index.shortlist_index import ShortlistIndex
from ..storage.records import Generation, ShortlistRecord, Version
from ..storage.segments import Segments


@dataclass(frozen=True)
class Seen:
    """One state of a gallery: what is seen changes as a whole.

    Attributes:
        live: (keys,) which were not deleted, None if all were not. segments: by width. indexes: those that
            were loaded, by file.
    """

    generation: Generation
    version: Version
    live: NDArray[np.bool_] | None
    segments: dict[str, Segments]
    shortlists: list[ShortlistRecord]
    indexes: dict[str, ShortlistIndex]
