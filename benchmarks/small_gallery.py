"""From how many images on is a shortlist worth it? One query, single-shot against shortlist, encoder apart.

Random vectors: times only, no quality. Writes results/small_gallery.json.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_retrieval import EmbeddingSpec, Encoded, EncodedQueries, Gallery, Row, Strategy, search
from matmamba_vision.measures.environment import environment
from measuring import QUICK, Plan, alternate, parse, prepare, write_json

ROWS, DIMS = (1_000, 10_000, 50_000, 200_000), (128, 512)
PLAN = Plan(warm_up=3, repeats=15)


def main(arguments: Sequence[str] | None = None, counts: Sequence[int] = ROWS) -> None:
    """Measure every size, print and write."""
    options = parse(Path(__file__), __doc__, arguments)
    prepare(options.threads)
    rows = []
    for dim in DIMS:
        for count in counts:
            rows.append(measure(count, dim, QUICK if options.quick else PLAN))
            print(rows[-1])
    if options.output:
        write_json(options.output, {"rows": rows, **environment()})


def measure(count: int, dim: int, plan: Plan) -> dict[str, Any]:
    """Search time of both strategies, taken in turn: quartiles in ms."""
    xb = np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32)
    xb /= np.linalg.norm(xb, axis=1, keepdims=True)
    spec = EmbeddingSpec("0" * 64, "full", dim)
    with tempfile.TemporaryDirectory() as folder, Gallery.create(Path(folder) / "g", spec) as gallery:
        gallery.add([Row(str(key), "") for key in range(count)], xb)
        gallery.build_shortlist(32)
        times = alternate(strategies(gallery, xb[:1]), plan)
    quartiles = {name: np.percentile(ms, [25, 50, 75]).round(3).tolist() for name, ms in times.items()}
    return {"images": count, "dim": dim, "repeats": plan.repeats, "search_ms_quartiles": quartiles}


def strategies(gallery: Gallery, xq: np.ndarray) -> dict[str, Callable[[], float]]:
    """Both strategies as functions that search the query (1, D) and return the milliseconds of it."""
    query = Encoded(xq, 0.0, 0.0)
    queries = EncodedQueries({"full": query, "1/8": query})

    def search_ms(strategy: Strategy) -> float:
        return search(gallery, strategy, queries, 10).cost.search_ms

    known = {"single-shot": Strategy.single_shot(), "shortlist": Strategy.shortlist()}
    return {name: partial(search_ms, strategy) for name, strategy in known.items()}


if __name__ == "__main__":
    main()
