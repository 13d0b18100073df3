"""From how many images on is a shortlist worth it? One query, single-shot against shortlist, encoder apart.

Writes benchmarks/results/small_gallery.json. Random vectors: times only, no quality.

    .venv/bin/python benchmarks/small_gallery.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_retrieval import EmbeddingSpec, Encoded, EncodedQueries, Gallery, Row, Shortlist, SingleShot
from matmamba_vision.cli.environment import environment

RESULT = Path(__file__).parent / "results" / "small_gallery.json"
ROWS, DIMS = (1_000, 10_000, 50_000, 200_000), (128, 512)
REPEATS, WARM_UP = 15, 3


def main() -> None:
    """Measure every size, print and write."""
    rows = [measure(count, dim) for dim in DIMS for count in ROWS]
    for row in rows:
        print(row)
    RESULT.write_text(json.dumps({"rows": rows, **environment()}, indent=2) + "\n")


def measure(count: int, dim: int) -> dict[str, Any]:
    """Search time of both strategies, taken in turn: median and quartiles in ms."""
    xb = np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32)
    xb /= np.linalg.norm(xb, axis=1, keepdims=True)
    query = Encoded(xb[:1], 0.0, 0.0)
    queries = EncodedQueries({"full": query, "1/8": query})
    spec = EmbeddingSpec("0" * 64, "full", dim)
    with tempfile.TemporaryDirectory() as folder, Gallery.create(Path(folder) / "g", spec) as gallery:
        gallery.add([Row(str(key), "") for key in range(count)], xb)
        gallery.build_shortlist(32)
        strategies = {"single-shot": SingleShot(gallery), "shortlist": Shortlist(gallery)}
        times: dict[str, list[float]] = {name: [] for name in strategies}
        for _ in range(WARM_UP + REPEATS):
            for name, strategy in strategies.items():
                times[name].append(strategy.search(queries, 10).cost.search_ms)
    quartiles = {name: np.percentile(ms[WARM_UP:], [25, 50, 75]).round(3) for name, ms in times.items()}
    listed = {name: values.tolist() for name, values in quartiles.items()}
    return {"images": count, "dim": dim, "repeats": REPEATS, "search_ms_quartiles": listed}


if __name__ == "__main__":
    main()
