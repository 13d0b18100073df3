"""What the public search takes beside its parts: one query of 512 dims, `ivfpq` over 256 of them.

The parts are the prefix of the query, the search of the index and the rerank, called one by one: nothing is
checked, counted or timed. Both give the same answers, which is required first. Each query is asked by both,
in turns whose order changes from query to query, so that whatever else the machine does meets both alike; a
side is the median over the queries. One thread: FAISS takes no more for one query.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np
from matmamba_retrieval import Encoded, EncodedQueries, Gallery, Strategy, prefix, rerank, search
from matmamba_retrieval.strategies.indexes import require_index
from measuring import Case, Plan, Ratio, measure_case, run
from million import made_gallery
from structured import Structured

ROWS, QUERIES, DIM, K = 500_000, 200, 256, 10
# Effort and length of the list: as the index was built, and a default strategy asks; then ever more exact.
SETTINGS: tuple[tuple[int | None, int], ...] = ((None, 200), (4, 200), (8, 400))
Answer = tuple[np.ndarray, np.ndarray]


def main(arguments: Sequence[str] | None = None, rows: int = ROWS) -> None:
    """Make the gallery, measure, print and write."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("--scratch", type=Path, metavar="FOLDER", help="keep the vectors and the index here")
    given, _ = flags.parse_known_args(arguments)

    def cases(plan: Plan) -> Iterator[Case]:
        faiss.omp_set_num_threads(1)
        with opened(given.scratch, rows) as gallery:
            for effort, length in SETTINGS:
                yield measured(gallery, Strategy.shortlist(
                    width="full", dim=DIM, length=min(length, rows), effort=effort
                ), plan)  # fmt: skip

    run(__file__, __doc__, cases, arguments, [flags])


@contextmanager
def opened(scratch: Path | None, rows: int) -> Iterator[Gallery]:
    """The gallery, with its index."""
    with tempfile.TemporaryDirectory() as folder:
        gallery = made_gallery((scratch or Path(folder)) / "gallery", structured(rows), rows)
        if DIM not in gallery.shortlist_dims():
            gallery.build_shortlist(DIM, "ivfpq")
        with gallery:
            yield gallery


def structured(rows: int) -> Structured:
    """The distribution of the vectors."""
    return Structured(classes=max(10, min(1000, rows // 100)))


def measured(gallery: Gallery, strategy: Strategy, plan: Plan) -> Case:
    """Both sides, in microseconds a query, and the ratio of the public call to its parts."""
    xq = structured(len(gallery)).queries(QUERIES)
    queries = [EncodedQueries({"full": Encoded(one[None], 0.0, 0.0)}) for one in xq]
    for one, query in zip(xq, queries, strict=True):
        hits, (D, I) = search(gallery, strategy, query, K), parts(gallery, strategy, one[None])  # noqa: E741
        if not (np.array_equal(hits.I, I) and np.array_equal(hits.D, np.minimum(D, 1))):
            raise RuntimeError("the public search and its parts answer differently")
    found: dict[str, float] = {}

    def both() -> float:
        found.update(turns(gallery, strategy, xq, queries))
        return found["parts"]

    (step,) = strategy.steps
    settings = {"rows": len(gallery), "dim": DIM, "effort": step.effort, "shortlist": step.length, "k": K}
    name = f"effort {step.effort or 'as built'}, shortlist {step.length}"
    sides = {"parts": both, "search": lambda: found["search"]}
    return measure_case(name, sides, [Ratio("search / parts", "search", "parts")], plan, settings, "us")


def parts(gallery: Gallery, strategy: Strategy, xq: np.ndarray) -> Answer:
    """D and I (nq, K) by the parts of the search, one by one."""
    (step,) = strategy.steps
    found = require_index(gallery, step).search(prefix(xq, step.dim), step.length, None, step.effort)
    return rerank(xq, found, gallery.segments, K)


def turns(
    gallery: Gallery, strategy: Strategy, xq: np.ndarray, queries: Sequence[EncodedQueries]
) -> dict[str, float]:
    """Median microseconds of each side over all queries."""
    spent: dict[str, list[int]] = {"parts": [], "search": []}
    for number, query in enumerate(queries):
        one = xq[number : number + 1]
        works: dict[str, Callable[[], Any]] = {
            "parts": partial(parts, gallery, strategy, one),
            "search": partial(search, gallery, strategy, query, K),
        }
        for name in ("parts", "search") if number % 2 else ("search", "parts"):
            work, start = works[name], time.perf_counter_ns()
            work()
            spent[name].append(time.perf_counter_ns() - start)
    return {name: median(times) / 1e3 for name, times in spent.items()}


if __name__ == "__main__":
    main()
