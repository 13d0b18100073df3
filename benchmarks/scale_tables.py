"""The tables of docs/scale.md, from results/scale.json and what other benchmarks measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import scale
from capacity import index_bytes
from markdown_tables import digits, markdown
from matmamba_retrieval.index.recipes import RECIPES

Result = Mapping[str, Any]
SIZES = (1e8, 1e9)
PREFIXES = (32, 64, 128, 256)
# Words of a command line by what they are for: each is asked at every size.
PLANS = {
    "10 machines of 32 cores": ["--machines", "10", "--cores", "32"],
    "the same, encoded at width 1/8": ["--machines", "10", "--cores", "32", "--width", "1/8"],
    "10 machines of 32 cores, a prefix of 32": ["--machines", "10", "--cores", "32", "--prefix", "32"],
    "2 machines of 96 cores and 8 GPUs, `matmamba_small_patch16_224`": [
        "--machines", "2", "--cores", "96", "--gpus", "8", "--memory-gb", "1024",
        "--encoder", "matmamba_small_patch16_224",
    ],
}  # fmt: skip


def checks_table(result: Result) -> str:
    """Every prediction beside what was measured."""
    rows = [
        (
            one["what"],
            one["case"],
            digits(one["predicted"]),
            digits(one["measured"]),
            one["unit"],
            f"{100 * one['error']:+.0f} %",
        )
        for one in result["checks"]
    ]
    known, machine = result["settings"], result["machine"]
    # In figures from before there was a list: one size, and its multiples.
    sizes = known.get("fitted_rows") or [times * known["small_rows"] for times in known["times"]]
    about = (
        f"{known['cores']} cores of an {machine['processor']}, version"
        f" {result['versions']['matmamba-vision']}; photos of {known['photo_edge']} px by"
        f" `{known['model']}`; vectors of {known['dim']} dims, an index"
        f" `{known['recipe']}` over {known['prefix']}, {known['effort']} cells looked into,"
        f" {known['shortlist']} rows reranked, one thread. The figures come from"
        f" {' and '.join(f'{count:,}' for count in known['calibrated_images'])} photos by one worker, and"
        f" from galleries of {' and '.join(f'{size:,}' for size in sizes)} vectors."
    )
    names = ("what", "at", "predicted", "measured", "unit", "error")
    return _page(names, rows, about)


def figures_table(result: Result) -> str:
    """What predictions are made of."""
    figures = result["figures"]
    decoding, indexing, search = (figures[name] for name in ("decoding", "indexing", "search"))
    rows = [
        ("start of a worker", f"{indexing['start_seconds']:.1f} s of a core"),
        ("a photo, decoded and encoded, by one worker alone", f"{1e3 * indexing['alone_seconds']:.2f} ms"),
        ("the same, of all cores that it takes", f"{1e3 * indexing['core_seconds']:.2f} ms"),
        ("a second busy core adds", f"{100 * indexing['second_core']:.0f} % of the first"),
        (
            "decoding and preparing",
            f"{decoding['ms']:.2f} ms and {decoding['ms_per_megapixel']:.1f} ms a megapixel",
        ),
        ("a photo's file", f"{decoding['bytes_per_pixel']:.2f} bytes a pixel"),
        ("a merged row", f"{1e6 * indexing['merge_seconds']:.0f} µs"),
        ("an added row", f"{1e6 * search['add_seconds']:.0f} µs"),
        (
            "an indexed row",
            f"{1e6 * search['build_row_seconds']:.0f} µs, and {1e9 * search['build_seconds']:.2f} ns a"
            " coordinate compared with a centroid",
        ),
        (
            "a query, and 200 rows reranked",
            f"{search['call_ms']:.2f} ms, and {1e6 * search['compared_ms']:.2f} ns a compared coordinate",
        ),
        ("a further row reranked", f"{1e3 * search['candidate_ms']:.2f} µs"),
        (
            "exact search",
            f"{search['exact_call_ms']:.2f} ms, and {1e6 * search['exact_ms']:.2f} ns a coordinate",
        ),
        *fixed_costs(search),
        ("adding and indexing, beside the rows", f"{search['start_seconds']:.2f} s of a core"),
        ("a row in the catalogue on the disk", f"{search['catalogue_bytes']:.0f} bytes"),
        ("the process without a gallery", f"{search['base_bytes'] / 1e6:.0f} MB"),
    ]
    return markdown(("figure", "measured"), rows) + "\n"


def fixed_costs(search: Result) -> list[tuple[str, str]]:
    """What the cache and a start take; nothing where figures are from before they were measured."""
    if "cache_bytes" not in search:
        return []
    of_cache = f"{search['cache_bytes'] / 2**20:.0f} MiB of the processor's cache"
    return [
        (f"the same, beyond the {of_cache}", f"{1e6 * search['exact_far_ms']:.2f} ns a coordinate more"),
        (
            "a command that asks once, `search --like`",
            f"{search['first_answer_seconds']:.2f} s of a core, and"
            f" {1e9 * search['first_answer_row_seconds']:.0f} ns a row",
        ),
    ]


def encoders_table() -> str:
    """Encoders by width: rates, and what two collections cost."""
    rows = []
    for name, widths in scale.encoders().items():
        for width, known in widths.items():
            core, gpu = 1e3 / known["core_ms"], known.get("gpu_per_second")
            hours = [size / core / 3600 for size in SIZES]
            of_gpus = [f"{size / gpu / 3600:,.1f}" for size in SIZES] if gpu else ["-", "-"]
            rate = f"{gpu:,.0f}" if gpu else "-"
            rows.append(
                (f"`{name}`", width, f"{core:,.0f}", *(f"{one:,.0f}" for one in hours), rate, *of_gpus)
            )
    names = ("encoder", "width", "images/s a core", *(f"core hours, {size:.0e}" for size in SIZES))
    more = ("images/s a GPU", *(f"GPU hours, {size:.0e}" for size in SIZES))
    about = (
        "Encoding alone: results/latency_1_thread.json and results/photos.json (one thread of an AMD EPYC),"
        " results/gpu.json (an H200, bfloat16, 128 at a time). `-`: not measured."
    )
    return _page((*names, *more), rows, about)


def bytes_table() -> str:
    """Bytes of memory for an image, by index and prefix; and what lies on the disk."""
    rows = []
    for name in ("flat", "sq8", "hnsw", "ivf", "ivfpq", "rabitq", "binary"):
        per_row = [index_bytes(1e9, prefix, name) / 1e9 for prefix in PREFIXES]
        rows.append((f"`{name}`", RECIPES[name].recall, *(f"{one:,.0f}" for one in per_row)))
    growth = scale.read("growth")
    largest = growth["sizes"][-1]
    about = (
        "Bytes of memory for an image by FAISS's layout, which is 1 GB for each billion images and byte;"
        f" `{largest['recipe']}` over {growth['dim']} dims measured"
        f" {largest['index_bytes'] / largest['rows']:.1f} at {largest['rows']:,} images"
        " (results/growth.json). Recall: up to which a shortlist of ten times as many can be counted on. On"
        " the disk, beside the index: 2 bytes for each stored coordinate, and the catalogue's row."
    )
    return _page(("index", "recall", *(f"{prefix} dims" for prefix in PREFIXES)), rows, about)


def plans_table(result: Result) -> str:
    """Some machines, at both sizes."""
    rows = []
    for title, words in PLANS.items():
        for size in SIZES:
            said = scale.predicted(scale.parse(["--predict", "--images", str(size), *words]))
            made, search = said["indexing"], said["search"]
            rows.append(
                (
                    title,
                    f"{size:.0e}",
                    f"{made['hours']:,.1f}",
                    f"{made['core_hours']:,.0f} / {made['gpu_hours']:,.0f}",
                    f"{made['read_tb']:,.0f} / {search['disk_tb']:,.2f}",
                    made["bottleneck"],
                    f"{search['memory_gb']:,.1f}",
                    f"{search['query_ms']:,.1f}",
                    f"{search['queries_per_second']:,.0f}",
                    search["bottleneck"],
                )
            )
    names = ("machines", "images", "hours", "core / GPU hours", "TB read / stored", "indexing waits for")
    more = ("GB of memory a machine", "ms a query", "queries/s", "search waits for")
    asked = scale.parse(["--predict"])
    about = (
        f"Predicted, not run. Unless it is said: `{asked.encoder}` at full width, photos of {asked.edge} px,"
        f" {asked.dim} stored dims, `{asked.recipe}` over {asked.prefix}, {asked.effort} cells looked into,"
        f" {asked.shortlist} rows reranked, queries at width {asked.query_width}, {asked.memory_gb:.0f} GB of"
        f" memory a machine; assumed, not measured: {asked.read_mb:,.0f} MB/s read by a machine,"
        f" {asked.random_reads:,.0f} rows/s found on a disk."
    )
    return _page((*names, *more), rows, about)


def _page(names: Iterable[str], rows: Iterable[Iterable[object]], about: str) -> str:
    return f"{markdown(names, rows)}\n\n{about}\n"
