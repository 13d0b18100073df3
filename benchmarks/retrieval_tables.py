"""What the README shows of retrieval, from the files in benchmarks/results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adaptive import chosen, points
from markdown_tables import markdown
from matmamba_retrieval.planning.savings import COSTS

Result = Mapping[str, Any]
EXACT, OURS = "FAISS exact", "ours"
# Query widths and kinds of strategies that the README's table keeps.
SHOWN = ("full", "1/4", "1/8")
# How the million is asked, and what the columns are called.
ASKED = {
    "one": "ms, queries in a row",
    "one_thread": "on one thread",
    "rested": "ms, behind a rest",
    "rested_thread": "on one thread",
    "batch": "ms, of 1,000 at once",
}
KEPT = ("single-shot", "small width alone", "shortlist of", "cheapest within", "gated")


def million_table(result: Result) -> str:
    """Ways to search a million vectors at equal recall: memory and time, in one run."""
    sides, ratios = result["sides"], result["ratios"]
    rows = []
    for name, side in sides.items():
        against = [
            "1" if name == OURS else f"{ratios[f'{how}: {name} / ours']['median']:.3g}" for how in ASKED
        ]
        times = [f"{side[f'ms_{how}']['median']:.3f}" for how in ASKED]
        setting = f" ({side['setting']})" if side["setting"] else ""
        memory = f"{side['memory_bytes'] / 1e6:,.0f}"
        rows.append((name + setting, f"{side['ann_recall']:.3f}", memory, *_paired(times, against)))
    names = ("search", "recall@10", "MB in memory", *_paired(ASKED.values(), ["times ours"] * len(ASKED)))
    mapped = sides[OURS]["mapped_bytes"] / 1e6
    about = (
        f"{result['rows']:,} vectors of {result['dim']} dims, {result['threads']} threads, medians of"
        f" {result['repeats']} rounds; recall of the exact {result['k']}. Beside its memory ours reads"
        f" {mapped:,.0f} MB of float16 vectors on the disk, by memory map."
    )
    return markdown(names, rows) + "\n\n" + about + "\n"


def _paired(first: Iterable[str], second: Iterable[str]) -> list[str]:
    return [text for pair in zip(first, second, strict=True) for text in pair]


def growth_table(result: Result) -> str:
    """What grows with a gallery, and what hardly does."""
    rows = [
        (
            f"{size['rows']:,}",
            size["recipe"],
            f"{size['ann_recall']:.3f}",
            f"{size['ms_one']['median']:.2f}",
            f"{size['images_per_second']:,.0f}",
            f"{size['peak_bytes'] / 2**20:,.0f}",
            f"{size['bound_bytes'] / 2**20:,.0f}",
        )
        for size in result["sizes"]
    ]
    names = (
        "images",
        "index",
        "recall@10",
        "ms, one query",
        "indexed a second",
        "own MiB at peak",
        "promised MiB",
    )
    about = (
        f"An index over {result['dim']} of 512 dims and a rerank, {result['threads']} threads; `flat`"
        " compares everything and trains nothing."
    )
    return markdown(names, rows) + "\n\n" + about + "\n"


# Comparisons of benchmarks/distilled.py that are shown: query, gallery and dims; title and encoders.
_BEFORE = "matmamba_mini_patch8_64"
_STUDENT = "`matmamba_mini_patch16_128`"
_PHOTOS = {
    ("histogram", "histogram", 512): ("colour histogram", ()),
    (f"{_BEFORE} full", f"{_BEFORE} full", 256): (f"`{_BEFORE}`", (f"{_BEFORE} full",)),
    ("student full", "student full", 256): (f"{_STUDENT}, full", ("student full",)),
    ("student full", "student full", 64): (f"{_STUDENT}, full", ("student full",)),
    ("student 1/8", "student full", 256): ("1/8 in its full gallery", ("student 1/8",)),
    ("student 1/8, reranked", "student full", 64): (
        "1/8 in its full gallery, 200 reranked",
        ("student 1/8", "student full"),
    ),
    ("student full", "teacher", 256): ("full in the teacher's gallery", ("student full",)),
    ("student 1/8", "teacher", 256): ("1/8 in the teacher's gallery", ("student 1/8",)),
    ("teacher at 128", "teacher at 128", 1280): ("teacher, at 128 px", ("teacher at 128",)),
    ("teacher", "teacher", 1280): ("teacher, at 192 px", ("teacher at 192",)),
    ("teacher", "teacher", 256): ("teacher, at 192 px", ("teacher at 192",)),
}


def photos_table(result: Result, data: str = "photos") -> str:
    """A student beside its teacher, a histogram and the weights shipped before, on held-out images."""
    found = result["data"][data]
    known = _by_cell(result, data)
    costs = {row["encoder"]: row for row in result["costs"]}
    rows = []
    for cell, (title, encoders) in _PHOTOS.items():
        spent = [sum(costs[encoder][what] for encoder in encoders) for what in ("macs", "ms")]
        paid = (f"{spent[0] / 1e6:,.0f}", f"{spent[1]:.0f}") if encoders else ("-", "-")
        over = over_full(costs, encoders) if cell[1] == "student full" else "-"
        rows.append((title, cell[2], *_quality(known.get(cell)), *paid, over))
    names = ("encoder", "dims", "1-NN", "mAP@10", "MMACs", "ms", "over its full width: MACs, ms")
    about = (
        f"{found['queries']:,} held-out images asked in {found['gallery']:,} of the training images, a hit"
        " being of the same class; per cent, 1-NN with 95 % bootstrap intervals; milliseconds for one image"
        f" on {_threads(result)}{_by(result)}. {result['note']}"
    )
    return markdown(names, rows) + "\n\n" + about + "\n"


# The rows of the README: those that a user chooses among.
_CHOICES = (
    ("histogram", "histogram", 512),
    (f"{_BEFORE} full", f"{_BEFORE} full", 256),
    ("student full", "student full", 256),
    ("student 1/8", "student full", 256),
    ("student 1/8, reranked", "student full", 64),
    ("student 1/8", "teacher", 256),
    ("teacher", "teacher", 1280),
)


def scaling_table(before: Result, now: Result) -> str:
    """1-NN and mAP@10 of each width of a student, before and after its coordinates were scaled."""
    rows = []
    for width in ("full", "1/2", "1/4", "1/8"):
        cells = [(data, gallery) for data in _DATA for gallery in ("student full", "teacher")]
        found = []
        for data, gallery in cells:
            cell = (f"student {width}", gallery, 256)
            old, new = (_by_cell(result, data)[cell] for result in (before, now))
            found += [f"{100 * old[name]:.1f} to {100 * new[name]:.1f}" for name in ("knn1", "map10")]
        rows.append((width, *map(", ".join, zip(found[::2], found[1::2], strict=True))))
    places = ("its full gallery", "the teacher's")
    names = [f"{data}, {place}" for data in ("photos", "Tiny-ImageNet") for place in places]
    return markdown(("width", *names), rows) + "\n\n1-NN, then mAP@10, in per cent.\n"


_DATA = ("photos", "tinyimagenet")


def _by_cell(result: Result, data: str) -> dict[tuple[str, str, int], Result]:
    """Rows of a comparison by query, gallery and dims."""
    return {(row["query"], row["in"], row["dim"]): row for row in result["data"][data]["rows"]}


def encoders_table(result: Result) -> str:
    """1-NN on photos and on Tiny-ImageNet, and what one query costs, of each encoder."""
    costs = {row["encoder"]: row for row in result["costs"]}
    tables = [_by_cell(result, data) for data in _DATA]
    rows = []
    for cell in _CHOICES:
        title, encoders = _PHOTOS[cell]
        macs, ms = (sum(costs[encoder][what] for encoder in encoders) for what in ("macs", "ms"))
        paid = (f"{macs / 1e6:,.0f}", f"{ms:.1f}") if encoders else ("-", "-")
        rows.append((title, *(_quality(known.get(cell))[0] for known in tables), *paid))
    names = ("query, and gallery if it is another's", "1-NN, photos", "1-NN, Tiny-ImageNet", "MMACs", "ms")
    sizes = [f"{result['data'][data]['queries']:,} in {result['data'][data]['gallery']:,}" for data in _DATA]
    asked = f"Queries in a gallery: {' and '.join(sizes)}."
    about = f"{asked} Milliseconds for one image on {_threads(result)}{_by(result)}."
    return markdown(names, rows) + "\n\n" + about + "\n"


def _by(result: Result) -> str:
    """What computed the teacher, where that is not PyTorch."""
    by = {row.get("by") for row in result["costs"] if row["encoder"].startswith("teacher")}
    return ", the teacher's by ONNX Runtime, which is faster than PyTorch" if by == {"onnx"} else ""


def over_full(costs: Mapping[str, Result], encoders: Sequence[str]) -> str:
    """Multiply-adds and ms of encodings over those of the student's full width: above 1 they cost more."""
    ratios = (
        sum(costs[one][what] for one in encoders) / costs["student full"][what] for what in ("macs", "ms")
    )
    return ", ".join(f"{ratio:.2f}" for ratio in ratios)


def _quality(row: Result | None) -> tuple[str, str]:
    if row is None:
        return "not run", "not run"
    low, high = (100 * end for end in row["knn1_interval"])
    return f"{100 * row['knn1']:.1f} ({low:.1f} to {high:.1f})", f"{100 * row['map10']:.1f}"


def _threads(result: Result) -> str:
    machine = result["machine"]
    return f"{machine['threads']} thread{'s' * (machine['threads'] > 1)} of an {machine['processor']}"


def adaptive_table(result: Result) -> str:
    """What small queries lose and cost on real images: the best of each kind."""
    found = [
        (title, row)
        for title, row in chosen(result["rows"])
        if row["query_width"] in SHOWN and title.startswith(KEPT)
    ]
    full = next(row for title, row in found if title == "single-shot")
    rows = [
        (
            row["query_width"],
            title + ", expanded" * bool(row["expand"]),
            *(points(row, name) for name in ("knn1_loss", "map_loss")),
            f"{100 * row['by_full']:.0f} %",
            f"{100 * row['encoder_macs'] / full['encoder_macs']:.0f} %",
            *(f"{row[f'{cost}_over_single_shot']:.2f}" for cost in COSTS),
        )
        for title, row in found
    ]
    over = tuple(f"{words} over single-shot" for words in ("ms", "multiply-adds"))
    names = ("query", "strategy", "1-NN lost", "mAP@10 lost", "by full", "encoder", *over)
    images = result["images"]
    about = (
        f"{images['queries']:,} queries to {images['gallery']:,} images; single-shot at full width: 1-NN"
        f" {100 * full['knn1']:.1f} %, mAP@10 {100 * full['map']:.1f} %. Points lost against it, with 95 %"
        " bootstrap intervals. Over single-shot: all that one query takes, both encodings and the search; the"
        f" milliseconds on {_threads(result)}, row after row beside other work.{_unpaid(found)}"
    )
    return markdown(names, rows) + "\n\n" + about + "\n"


def _unpaid(found: Sequence[tuple[str, Result]]) -> str:
    """How many of the rows with a small query save nothing, or no time over the full width's shortlist."""
    small = [row for _, row in found if row["query_width"] != "full"]
    full = [row for title, row in found if row["query_width"] == "full" and title.startswith("shortlist")]
    nothing = sum(not row["saves"] for row in small)
    slower = sum(row["ms_over_single_shot"] >= full[0]["ms_over_single_shot"] for row in small)
    return (
        f" Of {len(small)} rows with a small query, {nothing} save neither milliseconds nor multiply-adds;"
        f" and {slower} take no fewer milliseconds than the full width with a shortlist, which a small query"
        " has to beat where there is an index."
    )


def qdrant_table(results: dict[str, Any]) -> str:
    """The engine's own call, what the public search and the door take beyond it, and recall, by case."""

    def shown(found: dict[str, float]) -> str:
        return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"

    rows = [
        (
            case["name"],
            shown(case["sides"]["engine"]),
            *(shown(case["overhead_ms"][f"{side} - engine"]) for side in ("search", "door")),
            f"{case['recall_at_10']:.3f}",
        )
        for case in results["cases"]
    ]
    names = (
        "way of the prefix, condition",
        "the engine, ms",
        "search beyond it, ms",
        "the door beyond it, ms",
    )
    return markdown((*names, "recall@10"), rows)
