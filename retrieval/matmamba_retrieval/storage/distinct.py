"""Whether millions of ids are distinct, in 8 bytes for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

Ids = Callable[[], Iterator[Iterable[str]]]


def first_repeated(ids: Ids) -> str | None:
    """An id that is there more than once, None if there is none.

    Args:
        ids: all ids in parts, as often as it is called.
    """
    hashes = np.concatenate([_hashes(part) for part in ids()] or [np.empty(0, np.int64)])
    hashes.sort()
    alike = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not alike:
        return None
    # Equal hashes can belong to different ids: only those are looked at once more.
    seen: set[str] = set()
    for part in ids():
        for one in part:
            if hash(one) in alike:
                if one in seen:
                    return one
                seen.add(one)
    return None


def _hashes(part: Iterable[str]) -> np.ndarray:
    return np.fromiter(map(hash, part), dtype=np.int64)
