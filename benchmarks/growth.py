"""How indexing rate, latency at a fixed recall and memory grow with the gallery: "auto" over 64 of 512 dims.

One gallery grows from size to size (structured.py). At each: the rate of adding, merging segments and
building the index, together in images a second; then, with the least shortlist whose ann_recall@10 is at
least 0.99, the median latency of one query, shortlist and rerank. Memory is what the process itself holds
while it indexes and searches, without the vectors that the system maps: its peak over the imports, which is
to stay below 2 GiB and 64 bytes an image.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from matmamba_retrieval import (
    EmbeddingSpec,
    Encoded,
    EncodedQueries,
    Gallery,
    Row,
    Strategy,
    prefix,
    search,
)
from matmamba_retrieval.gallery.merging import merge_segments
from matmamba_vision.measures.environment import environment
from measuring import RESULTS, prepare, spread, write_json
from structured import Structured, exact_keys, overlap

SIZES = (10_000, 100_000, 1_000_000, 3_000_000, 10_000_000)
DIM, K, RECALL, QUERIES = 64, 10, 0.99, 200
LENGTHS = (100, 150, 200, 250, 300, 400, 500, 600, 800, 1000, 1500, 2000)


def main(arguments: Sequence[str] | None = None, sizes: Sequence[int] = SIZES) -> None:
    """Grow, measure, write."""
    options = parse(arguments)
    prepare(options.threads)
    faiss.omp_set_num_threads(options.threads)
    if options.scratch is not None:
        options.scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=options.scratch))
    found: list[dict[str, Any]] = []
    try:
        with Gallery.create(folder / "gallery", EmbeddingSpec("0" * 64, "full", 512)) as gallery:
            for rows in [size for size in sizes if size <= options.rows]:
                found.append(measure(gallery, rows, found[-1] if found else None))
                print(found[-1], flush=True)
                if options.output:
                    write(options, found)
    finally:
        shutil.rmtree(folder)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="only the first size; writes to a given --output"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results/growth.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--rows", type=int, default=SIZES[-1], help="the largest size; 1 GB of disk a million"
    )
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where there is room for it")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rows = min(options.rows, SIZES[0])
    elif options.output is None:
        options.output = RESULTS / "growth.json"
    return options


def write(options: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    """Write what was measured so far."""
    command = f"benchmarks/growth.py --threads {options.threads} --rows {options.rows}"
    first = found[0]
    growth = [
        {
            "rows": size["rows"],
            "rate / first": size["images_per_second"] / first["images_per_second"],
            "latency / first": size["ms_one"]["median"] / first["ms_one"]["median"],
            "square root of rows / first": (size["rows"] / first["rows"]) ** 0.5,
        }
        for size in found
    ]
    result = {"command": command, "threads": options.threads, "dim": DIM, **environment()}
    write_json(options.output, {**result, "sizes": found, "growth": growth})


def measure(gallery: Gallery, rows: int, before: dict[str, Any] | None) -> dict[str, Any]:
    """Grow to `rows` images, index, search."""
    data, xq = Structured(), Structured().queries(QUERIES)
    with own_memory() as peak:
        seconds = {"add": (before or {}).get("add_seconds", 0.0) + grow(gallery, data, rows)}
        seconds["merge"] = (before or {}).get("merge_seconds", 0.0) + timed(lambda: merge_segments(gallery))
        seconds["build"] = timed(lambda: gallery.build_shortlist(DIM, "auto"))
        index = gallery.shortlist_index(gallery.shortlists()[0])
        exact = exact_keys((prefix(xb, 512) for _, xb in gallery.segments.blocks()), xq, K)
        length, recall = least_length(gallery, xq, exact)
        ms = [1e3 * timed(partial(answer, gallery, xq[q : q + 1], length)) for q in range(QUERIES)]
    return {
        "rows": rows, **{f"{what}_seconds": round(spent, 2) for what, spent in seconds.items()},
        "images_per_second": rows / sum(seconds.values()), "recipe": index.recipe, "effort": index.effort,
        "shortlist": length, "ann_recall": recall, "ms_one": spread(ms), "index_bytes": index.memory,
        "peak_bytes": peak[0], "bound_bytes": (2 << 30) + 64 * rows,
    }  # fmt: skip


def grow(gallery: Gallery, data: Structured, rows: int) -> float:
    """Add what is missing; the seconds of adding, without those of making the vectors."""
    seconds = 0.0
    for first, xb in data.blocks(rows, gallery.key_count):
        names = [Row(f"{key:08d}", "") for key in range(first, first + len(xb))]
        seconds += timed(partial(gallery.add, names, xb))
    return seconds


def least_length(gallery: Gallery, xq: np.ndarray, exact: np.ndarray) -> tuple[int, float]:
    """The least shortlist that reaches the recall, else the longest, and its recall."""
    for length in [length for length in LENGTHS if length <= len(gallery)]:
        recall = overlap(answer(gallery, xq, length), exact)
        if recall >= RECALL:
            break
    return length, recall


def answer(gallery: Gallery, xq: np.ndarray, length: int) -> np.ndarray:
    """Shortlist by a prefix, then rerank: keys (nq, 10)."""
    strategy = Strategy.shortlist(width="full", dim=DIM, length=length)
    return search(gallery, strategy, EncodedQueries({"full": Encoded(xq, 0.0, 0.0)}), K).I


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def own_memory() -> Iterator[list[int]]:
    """The most bytes of its own, in a list of one, that the process had over those at the start."""
    before, peak, done = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous_bytes() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def anonymous_bytes() -> int:
    """Memory of this process that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
