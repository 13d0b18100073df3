"""A million vectors: shortlist + rerank against FAISS's exact search, HNSW32 and IVF + PQ fast scan + refine.

All sides see the same vectors (structured.py, 512 dims) and are tuned alike: the setting that answers
single queries fastest of those whose ann_recall@10 is at least 0.99, over the same 1,000 queries. FAISS's
sides index all 512 dims and keep float32; ours is a gallery, whose index covers a prefix, or principal
coordinates of all dims, and whose float16 vectors stay on the disk, mapped. Ours is timed by the public call
alone: queries in, hits out, with its costs. Memory is that of the indexes; what the system's page cache may
keep of the mapped vectors stands apart, as `mapped_bytes`. FAISS with a principal component analysis finds
by itself the structure that Matryoshka training puts into the coordinates.

Single queries are asked with the threads given, and with one. With --scratch, files stay there (4 GB), so
that HNSW32, which takes a quarter of an hour to build, is built once.

Single queries are asked in two ways, which differ by several times for every side: one right after another,
as a service is asked, and each behind a rest, in which the core falls asleep and loses what it has in caches.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from matmamba_retrieval import EmbeddingSpec, Encoded, EncodedQueries, Gallery, Row, Strategy, prefix
from matmamba_retrieval import search as search_gallery
from matmamba_retrieval.gallery.merging import merge_segments
from matmamba_retrieval.index.threads import one_thread
from matmamba_vision.measures.environment import environment
from measuring import QUICK, RESULTS, Plan, alternate, prepare, spread, timed, write_json
from structured import Structured, exact_keys, overlap

K, RECALL, EFC = 10, 0.99, 64
# Settings of a side that are timed with care, of all that reach the recall.
CLOSEST = 5
ROWS, QUERIES, SINGLE = 1_000_000, 1000, 50
IVF = ("IVF1024,PQ128x4fsr", "IVF1024,PQ256x4fsr", "IVF4096,PQ256x4fsr")
# Ours: indexes by dim.
INDEXES = {128: "ivfpq", 256: "ivfpq", 512: "pca-ivfpq:128:1024"}
# Of the processor: what FAISS and NumPy choose their code by.
INSTRUCTIONS = ("avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "f16c", "asimd", "sve")
LENGTHS = (70, 80, 85, 90, 95, 100, 105, 110, 115, 120, 125, 130, 135, 140, 150, 160, 180, 200, 240)
PCA_IVF = ("PCA128,IVF1024,PQ128x4fsr",)
REFINED = (80, 100, 120, 140, 160, 200, 250, 300, 350, 370, 400, 450, 500, 650, 800)
IP = faiss.METRIC_INNER_PRODUCT
Search = Callable[[np.ndarray], np.ndarray]


@dataclass
class Side:
    """One way to search: all its settings as functions of queries (nq, 512) that return keys (nq, 10)."""

    name: str
    settings: dict[str, Search]
    memory_bytes: int
    build_seconds: float
    mapped_bytes: int = 0
    costs: Callable[[str, np.ndarray], dict[str, float]] = lambda setting, xq: {}


def main(arguments: Sequence[str] | None = None, rows: int | None = None) -> None:
    """Build, tune, measure, write."""
    options = parse(arguments)
    prepare(options.threads)
    faiss.omp_set_num_threads(options.threads)
    scratch = options.scratch or Path(tempfile.mkdtemp())
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        plan = QUICK if options.quick else Plan(warm_up=1, repeats=options.rounds)
        write(options, measure(scratch, rows or options.rows, plan, options.hnsw))
    finally:
        if options.scratch is None:
            shutil.rmtree(scratch)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds; writes only to a given --output")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results/million.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=ROWS, help="vectors")
    parser.add_argument("--rounds", type=int, default=15, help="that count, of all sides in turn")
    parser.add_argument(
        "--no-hnsw", dest="hnsw", action="store_false", help="leave out what takes longest to build"
    )
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="keep the vectors and indexes here")
    options = parser.parse_args(arguments)
    if options.output is None and not options.quick:
        options.output = RESULTS / "million.json"
    return options


def write(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print, and write if there is where to."""
    for name, side in result["sides"].items():
        print(name, side)
    if options.output:
        # Its own row count is the default, and what the results of before were measured with.
        rows = f" --rows {result['rows']}" if result["rows"] != ROWS else ""
        rows += "" if options.hnsw else " --no-hnsw"
        command = f"benchmarks/million.py --threads {options.threads}{rows}"
        known = {"threads": options.threads, **environment(), "instructions": instructions()}
        write_json(options.output, {"command": command, **known, **result})


def instructions() -> list[str]:
    """Of `INSTRUCTIONS`, those that the processor has; none where the system does not say."""
    about = Path("/proc/cpuinfo")
    words = set(about.read_text().split()) if about.is_file() else set()
    return [name for name in INSTRUCTIONS if name in words]


def measure(scratch: Path, rows: int, plan: Plan, hnsw: bool = True) -> dict[str, Any]:
    """Everything, on `rows` vectors."""
    data = Structured(classes=max(10, min(1000, rows // 100)))
    with made_gallery(scratch / "gallery", data, rows) as gallery:
        return measured(gallery, data, scratch, plan, hnsw)


def measured(gallery: Gallery, data: Structured, scratch: Path, plan: Plan, hnsw: bool) -> dict[str, Any]:
    """All sides on the vectors of a gallery."""
    rows, xq = len(gallery), data.queries(QUERIES)
    exact = exact_keys((prefix(xb, data.dim) for _, xb in gallery.segments.blocks()), xq, K)
    flat = exact_index(gallery)
    sides = [
        Side("FAISS exact", {"": lambda asked: flat.search(asked, K)[1]}, rows * data.dim * 4, 0.0),
        *([hnsw_side(gallery, scratch)] if hnsw else []),
        ivf_side(gallery, flat, "FAISS IVF-PQfs + refine", IVF),
        ivf_side(gallery, flat, "FAISS PCA + IVF-PQfs + refine", PCA_IVF),
        our_side(gallery),
    ]
    chosen = {side.name: tuned(side, xq, exact) for side in sides}
    searches = {side.name: side.settings[chosen[side.name]] for side in sides}
    times = measured_times(searches, xq, plan)
    return {
        "rows": rows, "dim": data.dim, "k": K, "queries": len(xq), "repeats": plan.repeats,
        "prefix_recall": prefix_recall(gallery.segments, xq[:100], exact[:100]),
        "sides": {
            side.name: {
                "setting": chosen[side.name],
                "ann_recall": overlap(searches[side.name](xq), exact),
                "memory_bytes": side.memory_bytes, "mapped_bytes": side.mapped_bytes,
                "build_seconds": round(side.build_seconds, 1),
                **{f"ms_{how}": spread(found[side.name]) for how, found in times.items()},
                **side.costs(chosen[side.name], xq),
            }
            for side in sides
        },
        "ratios": {
            f"{how}: {name} / ours": spread((np.array(found[name]) / found["ours"]).tolist())
            for how, found in times.items() for name in found if name != "ours"
        },
    }  # fmt: skip


def measured_times(
    searches: dict[str, Search], xq: np.ndarray, plan: Plan
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of a query in each round: single ones, by one thread as well, and all at once."""
    single = xq[np.random.default_rng(0).choice(len(xq), SINGLE, replace=False)]
    times = {
        # Exact search of them all takes a good part of a minute.
        "batch": alternate({name: at_once(search, xq) for name, search in searches.items()}, plan.at_most(5)),
        **singly(searches, single, plan, ""),
    }
    with one_thread():
        return times | singly(searches, single, plan, "_thread")


def singly(
    searches: dict[str, Search], xq: np.ndarray, plan: Plan, named: str
) -> dict[str, dict[str, list[float]]]:
    """In the two ways in which single queries are asked."""
    ways = {"one": in_a_row, "rested": behind_rests}
    return {
        way + named: alternate({name: asked(search, xq) for name, search in searches.items()}, plan)
        for way, asked in ways.items()
    }


def made_gallery(folder: Path, data: Structured, rows: int) -> Gallery:
    """The gallery of these vectors, made once; one that was left unfinished is completed."""
    gallery = Gallery.open_or_create(folder, EmbeddingSpec("0" * 64, "full", data.dim))
    for first, xb in data.blocks(rows, gallery.key_count):
        gallery.add([Row(f"{key:08d}", "") for key in range(first, first + len(xb))], xb)
    merge_segments(gallery)
    return gallery


def vectors(gallery: Gallery) -> Iterable[np.ndarray]:
    """The stored vectors as FAISS wants them."""
    return (prefix(xb, gallery.spec.dim) for _, xb in gallery.segments.blocks())


def exact_index(gallery: Gallery) -> Any:
    """FAISS's exact search, which also is what the refining sides refine by."""
    index = faiss.IndexFlatIP(gallery.spec.dim)
    for xb in vectors(gallery):
        index.add(xb)
    return index


def hnsw_side(gallery: Gallery, scratch: Path) -> Side:
    """HNSW32 over all dims, and all lengths of the walk."""
    file, start = scratch / f"hnsw32-efc{EFC}.faiss", time.perf_counter()
    if not file.exists():
        index = faiss.IndexHNSWFlat(gallery.spec.dim, 32, IP)
        index.hnsw.efConstruction = EFC
        for xb in vectors(gallery):
            index.add(xb)
        faiss.write_index(index, str(file))
    seconds, index = time.perf_counter() - start, faiss.read_index(str(file))

    def setting(effort: int) -> Search:
        parameters = faiss.SearchParametersHNSW(efSearch=effort)
        return lambda xq: index.search(xq, K, params=parameters)[1]

    efforts = (16, 32, 64, 96, 128, 160, 192, 224, 240, 256, 288, 320, 400, 512)
    return Side("FAISS HNSW32", {f"efSearch {e}": setting(e) for e in efforts}, file.stat().st_size, seconds)


def ivf_side(gallery: Gallery, exact: Any, name: str, factories: Sequence[str]) -> Side:
    """IVF + PQ fast scan, refined by all dims: cells, code lengths, cells looked into, vectors refined."""
    rows, settings, sizes, start = len(gallery), {}, [], time.perf_counter()
    keys = np.sort(np.random.default_rng(0).choice(rows, min(rows, 160_000), replace=False))
    xt = prefix(gallery.segments.read(keys), gallery.spec.dim)
    for factory in factories:
        factory = re.sub(r"IVF(\d+)", lambda cells: f"IVF{min(int(cells[1]), rows // 40)}", factory)
        base = faiss.index_factory(gallery.spec.dim, factory, IP)
        base.train(xt)
        for xb in vectors(gallery):
            base.add(xb)
        index = faiss.IndexRefine(base, exact)
        sizes.append(len(faiss.serialize_index(base)))
        for probes in (2, 4, 8, 16):
            for refined in REFINED:
                setting = f"{factory},RFlat nprobe {probes} k_factor {refined // K}"
                settings[setting] = refine_setting(index, probes, refined)
    return Side(name, settings, max(sizes) + rows * exact.d * 4, time.perf_counter() - start)


def refine_setting(index: Any, probes: int, refined: int) -> Search:
    """The search with these parameters."""
    parameters = faiss.IndexRefineSearchParameters(
        k_factor=refined / K, base_index_params=faiss.SearchParametersIVF(nprobe=probes)
    )
    return lambda xq: index.search(xq, K, params=parameters)[1]


def our_side(gallery: Gallery) -> Side:
    """Indexes over prefixes and principal coordinates: cells looked into, and lengths of the shortlist."""
    strategies, sizes, start = {}, [], time.perf_counter()
    for dim, recipe in INDEXES.items():
        known = gallery.shortlist_record(dim, gallery.spec.width)
        if known is None or known.recipe != recipe or known.rows != len(gallery):
            gallery.build_shortlist(dim, recipe)
        sizes += [gallery.shortlist_index(built).memory for built in gallery.shortlists() if built.dim == dim]
        for effort in (2, 3, 4, 8):
            for length in LENGTHS:
                name = f"{recipe} over {dim} dims, effort {effort}, shortlist {length}"
                strategies[name] = Strategy.shortlist(width="full", dim=dim, length=length, effort=effort)
    return Side(
        "ours",
        {name: partial(our_answer, gallery, strategy) for name, strategy in strategies.items()},
        max(sizes),
        time.perf_counter() - start,
        len(gallery) * gallery.spec.dim * 2,
        lambda name, xq: our_costs(gallery, strategies[name], xq),
    )


def our_answer(gallery: Gallery, strategy: Strategy, xq: np.ndarray) -> np.ndarray:
    """Shortlist, then rerank: the search that every user makes."""
    return search_gallery(gallery, strategy, EncodedQueries({"full": Encoded(xq, 0.0, 0.0)}), K).I


def our_costs(gallery: Gallery, strategy: Strategy, xq: np.ndarray) -> dict[str, float]:
    """What the answers say that they spent, per query; and the memory of the index that they used."""
    cost = search_gallery(gallery, strategy, EncodedQueries({"full": Encoded(xq, 0.0, 0.0)}), K).cost
    (used,) = (index for index in gallery.shortlists() if index.dim == strategy.longest_dim)
    return {
        "memory_bytes": gallery.shortlist_index(used).memory,
        "search_macs": sum(cost.search_macs.values()),
        "bytes_read": cost.bytes_read,
        "candidates": cost.candidates,
    }


def tuned(side: Side, xq: np.ndarray, exact: np.ndarray) -> str:
    """The setting that answers single queries fastest of those that reach the recall; else the most exact."""
    if len(side.settings) == 1:
        return next(iter(side.settings))
    recalls = {name: overlap(search(xq), exact) for name, search in side.settings.items()}
    able = [name for name, recall in recalls.items() if recall >= RECALL]
    if not able:
        return max(recalls, key=recalls.__getitem__)
    hurried = alternate({name: in_a_row(side.settings[name], xq[:SINGLE]) for name in able}, Plan(1, 3))
    closest = sorted(able, key=lambda name: float(np.median(hurried[name])))[:CLOSEST]
    found = alternate({name: in_a_row(side.settings[name], xq[:SINGLE]) for name in closest}, Plan(1, 9))
    return min(closest, key=lambda name: float(np.median(found[name])))


def in_a_row(search: Search, xq: np.ndarray) -> Callable[[], float]:
    """A side that asks each query alone, one right after another, and returns the milliseconds of one."""

    def ask() -> None:
        for q in range(len(xq)):
            search(xq[q : q + 1])

    return lambda: timed(ask)() / len(xq)


def behind_rests(search: Search, xq: np.ndarray) -> Callable[[], float]:
    """A side that asks each query alone, behind a rest (`timed`), and returns the median milliseconds."""
    sides = [timed(partial(search, xq[q : q + 1])) for q in range(len(xq))]
    return lambda: float(np.median([side() for side in sides]))


def at_once(search: Search, xq: np.ndarray) -> Callable[[], float]:
    """A side that asks all queries at once, and returns the milliseconds of one."""
    return lambda: timed(lambda: search(xq))() / len(xq)


def prefix_recall(segments: Any, xq: np.ndarray, exact: np.ndarray) -> dict[str, dict[str, float]]:
    """By dim: the share of the exact 10 that are among the nearest 10 and 100 by the prefix."""
    found = {}
    for dim in (32, 64, 85, 128, 256):
        near = exact_keys((prefix(xb, dim) for _, xb in segments.blocks()), prefix(xq, dim), 100)
        found[str(dim)] = {str(length): overlap(near[:, :length], exact) for length in (10, 80, 100)}
    return found


if __name__ == "__main__":
    main()
