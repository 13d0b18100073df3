"""What a pushed gallery's answer takes beyond the engine's own call, and how good it is.

Structured rows of 512 dims (structured.py), with a prefix of 64, are pushed to Qdrant's engine in this
process: once so that every prefix is compared, and once with a graph over them. Each query finds a
shortlist by its prefix and ranks it by all of it, in one call: of the engine alone, its request made
beforehand, its answer left as it comes; as the public search of arrays, with rows of the hits; and through
the door. The sides take turns query by query, in an order that changes. Overhead is the difference of two
sides at one query, in milliseconds; medians and quartiles are over the queries. recall@10 is against exact
search by all coordinates, of those that fulfil the condition.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_retrieval import EmbeddingSpec, Encoded, EncodedQueries, Gallery, Row, Strategy, prefix, search
from matmamba_retrieval.backends.edge import EdgeCollection
from matmamba_retrieval.backends.edge_requests import edge_filter, edge_request
from matmamba_retrieval.backends.engine import Stage
from matmamba_retrieval.backends.pushed_gallery import PushedGallery
from matmamba_vision.upkeep.image_gallery import ImageGallery, open_gallery
from matmamba_vision.upkeep.push import push
from measuring import Case, Plan, run, spread
from structured import Structured

ROWS, QUERIES, FULL, DIM, LENGTH, K = 100_000, 200, 512, 64, 200, 10
# One row in ten, and one in a hundred.
CONDITIONS = ("", "year = 3", "year = 3 AND part = 7")
STRATEGY = Strategy.shortlist(width="full", dim=DIM, length=LENGTH)
AT_ONCE = 10_000


def main(arguments: Sequence[str] | None = None, rows: int = ROWS) -> None:
    """Push, measure, print and write."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("--scratch", type=Path, metavar="FOLDER", help="make galleries below this")
    given, _ = flags.parse_known_args(arguments)

    def cases(plan: Plan) -> Iterator[Case]:
        with tempfile.TemporaryDirectory(dir=given.scratch) as folder, filled(Path(folder), rows) as gallery:
            for recall in ("1", "0.99"):
                place = f"edge:{folder}/{recall}"
                push(gallery, place, dims=[DIM], target=f"recall={recall}")
                with open_gallery(place) as pushed:
                    for where in CONDITIONS:
                        yield measured(gallery, pushed, where, QUERIES if plan.repeats > 3 else 10)

    run(__file__, __doc__, cases, arguments, [flags])


def filled(folder: Path, rows: int) -> Gallery:
    """The gallery, open."""
    made = structured(rows)
    spec = EmbeddingSpec("vectors:structured", "full", FULL)
    with Gallery.create(folder / "gallery", spec) as gallery:
        for first, xb in made.blocks(rows):
            for start in range(0, len(xb), AT_ONCE):
                part = xb[start : start + AT_ONCE]
                gallery.add([row(first + start + place) for place in range(len(part))], part)
    return Gallery(folder / "gallery")


def structured(rows: int) -> Structured:
    """The distribution of the vectors."""
    return Structured(dim=FULL, classes=max(10, min(1000, rows // 100)))


def row(key: int) -> Row:
    """An image."""
    return Row(
        f"{key}.jpg", f"/photos/{key}.jpg", f"class {key % 7}", {"year": key % 10, "part": key // 10 % 10}
    )


def measured(gallery: Gallery, opened: ImageGallery, where: str, count: int) -> Case:
    """A case: milliseconds of each side, overheads, and recall."""
    xq = structured(len(gallery)).queries(count)
    with opened.reading() as pushed:
        assert isinstance(pushed, PushedGallery)
        values = turns(pushed, opened, xq, where)
        found = search(pushed, STRATEGY, asked(xq), K, pushed.allowed(where or None)).I
        name = next(field.index for field in pushed.contents.fields if field.dim == DIM)
    exact = search(gallery, Strategy.single_shot(), asked(xq), K, gallery.allowed(where or None)).I
    recall = np.mean([len({*one} & {*other}) / K for one, other in zip(found, exact, strict=True)])
    over = {
        f"{side} - engine": spread(np.subtract(values[side], values["engine"]).tolist())
        for side in ("search", "door")
    }
    return {
        "name": f"{name}, {where or 'no condition'}",
        "settings": {"rows": len(gallery), "dims": [DIM, FULL], "shortlist": LENGTH, "k": K, "where": where},
        "unit": "ms",
        "warm_up": 1,
        "repeats": count,
        "sides": {side: spread(times) for side, times in values.items()},
        "overhead_ms": over,
        "recall_at_10": float(recall),
        "ratios": {},
    }


def asked(xq: np.ndarray) -> EncodedQueries:
    """Vectors as queries."""
    return EncodedQueries({"full": Encoded(xq, 0.0, 0.0)})


def turns(pushed: PushedGallery, opened: ImageGallery, xq: np.ndarray, where: str) -> dict[str, list[float]]:
    """Milliseconds of each side, by query; the first query is asked once before, and does not count."""
    found: dict[str, list[float]] = {"engine": [], "search": [], "door": []}
    for number in (0, *range(len(xq))):
        works = sides(pushed, opened, xq[number : number + 1], where)
        # Each is the first as often as the others: what comes first meets cold caches.
        turn, names = number % len(works), [*works]
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            works[name]()
            found[name].append(1e3 * (time.perf_counter() - start))
    return {name: times[1:] for name, times in found.items()}


def sides(
    pushed: PushedGallery, opened: ImageGallery, xq: np.ndarray, where: str
) -> dict[str, Callable[[], Any]]:
    """One query by each side."""
    seen = pushed.state
    assert isinstance(seen.collection, EdgeCollection)
    first = seen.field("full", DIM)
    exact = not (first.links or first.quantisation)
    stages = [
        Stage(field=first, xq=prefix(xq, DIM), length=LENGTH, exact=exact),
        Stage(field=seen.field("full", FULL), xq=xq, length=K),
    ]
    matching, query = pushed.allowed(where or None), asked(xq)
    condition = edge_filter(None if matching is None else matching.condition)
    request, shard = edge_request(stages, 0, condition, payload=True), seen.collection.shard

    def public() -> None:
        hits = search(pushed, STRATEGY, query, K, matching)
        pushed.rows(hits.I[0])

    return {
        "engine": lambda: shard.query(request),
        "search": public,
        "door": lambda: opened.search(xq[0], K, where=where, strategy=STRATEGY),
    }


if __name__ == "__main__":
    main()
