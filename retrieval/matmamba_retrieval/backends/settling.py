"""What one call to an engine finds, in one order: by score, and equal ones by key.

An engine sums in single precision, and orders equal scores as it likes. Where scores lie that near to each
other, they are computed anew from the stored vectors, by the same arithmetic as in a folder's gallery.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..index.rerank import NO_KEY, rerank
from .conditions_of_points import among
from .engine import Collection, Condition, Floats, Ints, ScoredPoint, Stage

# Engines' scores of vectors of length 1 are off by less than half of it.
NEAR = 1e-6


def settled(
    collection: Collection, stages: Sequence[Stage], condition: Condition | None
) -> list[list[ScoredPoint]]:
    """The best points for each query, as many as the last stage keeps, in order.

    One call for all queries. A query whose answer holds equal scores, or is cut between them, is asked again,
    stage by stage, so that equal candidates are cut by key, too; where none of them reaches the answer, that
    cannot be seen, and which of equal candidates a longer list ends with is the engine's choice.

    Args:
        collection: that is asked.
        stages: of all queries.
        condition: on the first stage.
    """
    k = stages[-1].length
    # One more, to see where the answer is cut.
    asked = [*stages[:-1], stages[-1]._replace(length=k + 1)]
    found = collection.query(asked, condition)
    for row, points in enumerate(found):
        if any(better.score - worse.score <= NEAR for better, worse in pairwise(points)):
            found[row] = _step_by_step(collection, stages, row, condition)
    return [points[:k] for points in found]


def _step_by_step(
    collection: Collection, stages: Sequence[Stage], row: int, condition: Condition | None
) -> list[ScoredPoint]:
    points: list[ScoredPoint] = []
    for stage in stages:
        points = _listed(collection, stage._replace(xq=stage.xq[row : row + 1]), condition)
        condition = among([point.key for point in points])
    return points


def _listed(collection: Collection, stage: Stage, condition: Condition | None) -> list[ScoredPoint]:
    """The points that one stage keeps of one query: equal ones are all looked at before the list is cut."""
    length, limit = stage.length, stage.length + 1
    while True:
        points = collection.query([stage._replace(length=limit)], condition)[0]
        if len(points) < limit or points[length - 1].score - points[-1].score > NEAR:
            return _ordered(collection, stage, points)[:length]
        limit *= 2


def _ordered(collection: Collection, stage: Stage, points: list[ScoredPoint]) -> list[ScoredPoint]:
    """By score and key; what is near to another is scored anew."""
    doubtful = set[int]()
    for better, worse in pairwise(points):
        if better.score - worse.score <= NEAR:
            doubtful |= {better.key, worse.key}
    if doubtful:
        scores = _scores(collection, stage, np.array(sorted(doubtful), dtype=np.int64))
        points = [point._replace(score=scores.get(point.key, point.score)) for point in points]
    return sorted(points, key=lambda point: (-point.score, point.key))


def _scores(collection: Collection, stage: Stage, keys: Ints) -> dict[int, float]:
    """By key, of stored vectors, which are those of a gallery in half precision or the prefixes of these."""
    name = stage.field.name
    stored = {point.key: point.vectors[name] for point in collection.retrieve(keys, [name], payload=False)}

    def read(wanted: Ints) -> NDArray[np.floating]:
        xb = np.stack([stored[key] for key in wanted.tolist()])
        halves = xb.astype(np.float16)
        return halves if (halves == xb).all() else xb

    known = keys[np.isin(keys, list(stored))]
    D, I = rerank(stage.xq, known[None], read, len(known))  # noqa: E741
    return dict(zip(I[0].tolist(), D[0].tolist(), strict=True))


def arrays(found: Sequence[Sequence[ScoredPoint]], k: int) -> tuple[Floats, Ints]:
    """D and I (nq, k) of what was found; -inf and `NO_KEY` where that are fewer."""
    scores, keys = list[list[float]](), list[list[int]]()
    for points in found:
        lacking = k - len(points)
        scores.append([*(point.score for point in points[:k]), *[-math.inf] * lacking])
        keys.append([*(point.key for point in points[:k]), *[NO_KEY] * lacking])
    shape = len(found), k
    return np.array(scores, dtype=np.float32).reshape(shape), np.array(keys, dtype=np.int64).reshape(shape)
