"""Groups of images whose vectors are nearly equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..gallery.gallery import Gallery
from ..index.rerank import NO_KEY, prefix
from ..strategies.neighbours import neighbours
from ..strategies.strategy import Strategy

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
# Scores of so many images with so many others are in memory at once: 16 MiB.
ROWS, COLUMNS = 1024, 4096


@dataclass(frozen=True)
class Group:
    """Nearly equal images.

    Attributes:
        keys: the image that was added first, then the others, the most similar first.
        scores: cosine similarities to the first image, 1 for itself; none is below the threshold.
    """

    keys: Ints
    scores: Floats


def find_duplicates(
    gallery: Gallery,
    threshold: float,
    allowed: Bools | None = None,
    strategy: Strategy | None = None,
    k: int = 32,
    progress: Callable[[int], None] = lambda images: None,
) -> list[Group]:
    """Groups of images each of which has at least this cosine similarity to the group's first image.

    Similarity is no equivalence: of a chain of small changes, the ends may differ. So images that a chain
    connects are divided again: the one added first takes all that are similar to itself, the first of those
    left does the same, and so on. Every image is in one group at most.

    Args:
        threshold: in (0, 1].
        allowed: (keys,) which images to compare.
        strategy: finds the k nearest of each image, among which are looked for those above the threshold; by
            default all pairs are compared, which is exact and takes n^2 / 2 comparisons.
        progress: told how many images are done, as they are.

    Returns:
        The largest groups first, of equal ones that with the smaller first key.

    Raises:
        GalleryError: a threshold outside of (0, 1].
    """
    if not 0 < threshold <= 1:
        raise GalleryError(f"a similarity threshold is in (0, 1], not {threshold:g}")
    keys = gallery.live_keys() if allowed is None else np.flatnonzero(allowed)
    if strategy is None:
        pairs = similar_pairs(gallery, keys, threshold, progress)
    else:
        pairs = _near_pairs(gallery, strategy, keys, threshold, allowed, k, progress)
    sets = _Sets(gallery.key_count)
    for key, others in pairs:
        sets.unite(key, others)
    groups = [group for part in sets.connected() for group in _stars(gallery, part, threshold)]
    return sorted(groups, key=lambda group: (-len(group.keys), int(group.keys[0])))


def similar_pairs(
    gallery: Gallery, keys: Ints, threshold: float, progress: Callable[[int], None]
) -> Iterator[tuple[int, Ints]]:
    """Each image with those later ones that are similar to it; of those that have any.

    Args:
        gallery: an open one.
        keys: of the images to compare, ascending.
        threshold: least cosine similarity.
        progress: told how many images are done, as they are.
    """
    for start in range(0, len(keys), ROWS):
        mine = keys[start : start + ROWS]
        xq = _unit(gallery, mine)
        for first in range(start, len(keys), COLUMNS):
            others = keys[first : first + COLUMNS]
            near = (xq @ _unit(gallery, others).T >= _rounded(threshold)) & (others > mine[:, None])
            for row in np.flatnonzero(near.any(1)):
                yield int(mine[row]), others[near[row]]
        progress(len(mine))


def _near_pairs(
    gallery: Gallery,
    strategy: Strategy,
    keys: Ints,
    threshold: float,
    allowed: Bools | None,
    k: int,
    progress: Callable[[int], None],
) -> Iterator[tuple[int, Ints]]:
    """Each image with those of its k nearest that are similar to it."""
    lengths = _lengths(gallery, keys)
    for part, D, I in neighbours(gallery, strategy, keys, k, allowed):  # noqa: E741
        scores = D / (lengths[part][:, None] * lengths[I])
        near = (scores >= _rounded(threshold)) & (I != NO_KEY)
        for row in np.flatnonzero(near.any(1)):
            yield int(part[row]), I[row][near[row]]
        progress(len(part))


def _rounded(threshold: float) -> float:
    # So that a threshold of 1 finds what is equal, though its length is 1 but for rounding.
    return threshold - 1e-6


def _unit(gallery: Gallery, keys: Ints) -> Floats:
    """Vectors of length 1: as stored they may be longer or shorter by the rounding to float16."""
    xb = prefix(gallery.segments.read(keys), gallery.spec.dim)
    return xb / np.linalg.norm(xb, axis=1, keepdims=True)


def _lengths(gallery: Gallery, keys: Ints) -> Floats:
    """(keys,) lengths of some vectors as stored, 1 for the others."""
    lengths = np.ones(gallery.key_count, dtype=np.float32)
    for start in range(0, len(keys), COLUMNS):
        part = keys[start : start + COLUMNS]
        lengths[part] = np.linalg.norm(gallery.segments.read(part).astype(np.float32), axis=1)
    return lengths


def _stars(gallery: Gallery, keys: Ints, threshold: float) -> Iterator[Group]:
    """Divide connected images, keys ascending, into groups around the first that is left."""
    while len(keys) > 1:
        head = _unit(gallery, keys[:1])[0]
        parts = [keys[start : start + COLUMNS] for start in range(0, len(keys), COLUMNS)]
        scores = np.concatenate([np.einsum("nd,d->n", _unit(gallery, part), head) for part in parts])
        near = scores >= _rounded(threshold)
        near[0] = True
        order = np.lexsort((keys[near][1:], -scores[near][1:])) + 1
        order = np.concatenate([[0], order]).astype(np.int64)
        if near.sum() > 1:
            yield Group(keys[near][order], scores[near][order])
        keys = keys[~near]


class _Sets:
    """Which of n keys are connected, whoever connects them (union-find)."""

    def __init__(self, count: int) -> None:
        self._parents: Ints = np.arange(count, dtype=np.int64)

    def unite(self, key: int, others: Ints) -> None:
        """Connect a key with others."""
        members = np.append(others, key)
        roots = self._roots(members)
        self._parents[roots] = self._parents[members] = roots.min()

    def _roots(self, keys: Ints) -> Ints:
        roots = self._parents[keys]
        while np.any((above := self._parents[roots]) != roots):
            roots = above
        return roots

    def connected(self) -> list[Ints]:
        """Keys of each set of two or more, ascending."""
        roots = self._roots(np.arange(len(self._parents), dtype=np.int64))
        touched = np.flatnonzero(np.bincount(roots, minlength=len(roots))[roots] > 1)
        order = touched[np.argsort(roots[touched], kind="stable")]
        return np.split(order, np.flatnonzero(np.diff(roots[order])) + 1) if len(order) else []
