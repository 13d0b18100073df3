"""Filters that an engine cannot say in full: points that are in doubt are looked at, by the folder's SQL."""

from __future__ import annotations

from collections.abc import Iterator

from ..storage.loose_rows import keys_among
from ..storage.records import Row
from .conditions_of_points import among, field_names
from .engine import Condition
from .filters import compile_filter
from .layout import EXACT, ID, LABEL, METADATA, PATH, row_of
from .pushed_state import PushedState

# Filters that are remembered: pages of one answer, and many queries, ask for the same.
REMEMBERED = 16
# Of the payload, what images are told by.
_OF_ROWS = (ID, PATH, LABEL, METADATA, EXACT)

# Other than None, which says that no point fulfils a filter.
_UNKNOWN: Condition = {}


def decided(where: str, state: PushedState) -> Condition | None:
    """The condition of the points that fulfil a filter; None if none can.

    Where the engine can say all of it, nothing is read. Else its points that are in doubt are, with what is
    known of their images: a LIKE reads all that the rest of the filter leaves.

    Raises:
        GalleryError: not a filter, an unknown name, or the engine does not answer.
    """
    known = state.decided.get(where, _UNKNOWN)
    if known is _UNKNOWN:
        known = _decide(where, state)
        if len(state.decided) >= REMEMBERED:
            state.decided.clear()
        state.decided[where] = known
    return known


def _decide(where: str, state: PushedState) -> Condition | None:
    kinds = state.contents.kinds
    found = compile_filter(where, kinds, truth_values=state.collection.truth_values)
    if found.doubtful is None:
        return found.true
    keys = keys_among(where, field_names(kinds), _rows(state, found.doubtful))
    parts = [part for part in (found.true, among(keys) if keys else None) if part is not None]
    return parts[0] if len(parts) == 1 else {"should": parts} if parts else None


def _rows(state: PushedState, condition: Condition) -> Iterator[list[tuple[int, Row]]]:
    for points in state.collection.scroll(condition, _OF_ROWS):
        yield [(point.key, row_of(point.payload, state.place)) for point in points]
