"""The report of a demonstration: plots as PNG, and one HTML page that holds all and opens from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matmamba_common.counts import counted
from PIL import Image

from ..galleries.page import Card, Page, PageTable, Section
from ..galleries.pictures import Pictures
from .demo_words import full_width, million, milliseconds, share, times, way_words, width_words
from .examples import Example, Picture
from .goals import GOALS, DemoGoal

Row = dict[str, Any]
INTRO = (
    "One network was trained once on handwritten digits. Each width below is its leading heads, used without"
    " training again: a smaller and faster network in the same weights. A gallery of the training images was"
    " encoded once at full width. Held-out digits then asked for images like them: encoded at a small width,"
    " compared on the first numbers of their embeddings, and the shortlist compared again at full width."
)
MISSED = "missed"
# Pixels of a digit in the page, which has few of its own.
ENLARGED = 96


def write_report(folder: Path, results: dict[str, Any], examples: Sequence[Example]) -> Path:
    """Write the plots and report.html; returns the file of that.

    Args:
        folder: that exists.
        results: what results.json holds.
        examples: queries to show with their hits.
    """
    # Here, because importing it takes most of a second.
    from .demo_plots import draw_examples, draw_retrieval, draw_widths

    draw_widths(results["widths"], results["images"]["queries"], folder / "widths.png")
    draw_retrieval(results["retrieval"], folder / "retrieval.png")
    draw_examples(examples, _first_stage(results["retrieval"]), folder / "examples.png")
    with Page(folder / "report.html", "MatMamba Vision: what the demo reached", INTRO) as page:
        page.write(_goals(results))
        page.write(_widths(results, (folder / "widths.png").read_bytes()))
        page.write(_retrieval(results, (folder / "retrieval.png").read_bytes()))
        for example in examples:
            page.write(_example(example))
        page.facts.update(_made_with(results))
    return page.file


def _first_stage(rows: Sequence[Row]) -> str:
    """What found the shortlists of the examples: the first shortlist strategy."""
    row = next(row for row in rows if row["strategy"] == "shortlist")
    return f"{width_words(row['query_width'])}, first {row['dim']} of the embedding's numbers"


def _goals(results: dict[str, Any]) -> Section:
    rows = list(zip(GOALS, results["goals"], strict=True))
    heads = ["", "reached", "goal", ""]
    texts = [[goal.words, _figure(goal, row["value"]), _bound(goal), _verdict(row)] for goal, row in rows]
    # A slow machine misses nothing.
    missed = [number for number, (_, row) in enumerate(rows) if _verdict(row) == MISSED]
    heading = "All goals are met" if not missed else f"{len(missed)} of {len(rows)} goals are missed"
    return Section(heading, table=PageTable(heads, texts, missed), warning=bool(missed))


def _verdict(row: Row) -> str:
    return "met" if row["met"] else "slower here" if row["of_machine"] else MISSED


def _figure(goal: DemoGoal, value: float) -> str:
    return f"{value:,.0f} {goal.unit}" if goal.unit else share(value)


def _bound(goal: DemoGoal) -> str:
    return f"{'at most' if goal.at_most else 'at least'} {_figure(goal, goal.bound)}"


def _widths(results: dict[str, Any], plot: bytes) -> Section:
    rows, queries = results["widths"], results["images"]["queries"]
    full, least = rows[0], rows[-1]
    note = (
        f"The {width_words(least['width'])} recognises {share(least['top1'])} of {queries} held-out digits"
        f" with {share(least['gmacs'] / full['gmacs'])} of the multiply-adds of the {full_width()}, which"
        f" recognises {share(full['top1'])}."
    )
    heads = [
        "width",
        "parameters",
        "multiply-adds, millions",
        "time of one image",
        "digits recognised (top-1)",
        "first hit the same digit (1-NN)",
        "first 10 hits the same digit (mAP@10)",
    ]
    texts = [
        [
            width_words(row["width"]),
            f"{row['params']:,}",
            million(row["gmacs"]),
            milliseconds(row["encode_ms"]),
            *(share(row[name]) for name in ("top1", "knn1", "map10")),
        ]
        for row in rows
    ]
    caption = (
        f"How many of {queries} held-out digits are right, by what one image costs; bars are 95 % intervals:"
        " differences within them may be chance"
    )
    return Section("What each width is worth", (), None, note, False, plot, caption, PageTable(heads, texts))


def _retrieval(results: dict[str, Any], plot: bytes) -> Section:
    stored, queries = results["images"]["gallery"], results["images"]["queries"]
    note = (
        f"{queries} digits ask a gallery of {stored:,}, all at once; times are of one of them. The first"
        " row is the reference. So small a gallery is searched in no time, and a query that is encoded twice"
        " costs more than it saves: shortlists are for large galleries."
    )
    length = next(row["shortlist"] for row in results["retrieval"] if row["strategy"] == "shortlist")
    note += (
        f" A shortlist has {length} images, which the full width compares again: the rerank. A funnel halves"
        " them in steps. A width alone compares its vectors with all images."
    )
    heads = [
        "how a query goes",
        "encoder",
        "search",
        "time, times the reference",
        "multiply-adds, times the reference",
        "first hit the same digit",
        "first 10 hits the same digit (mAP@10)",
        "of the exact first 10, found",
    ]
    texts = [
        [
            way_words(row),
            *(milliseconds(row[name]) for name in ("encode_ms", "search_ms")),
            *(times(row[name]) for name in ("ms_over_single_shot", "macs_over_single_shot")),
            *(share(row[name]) for name in ("top1", "map10", "ann_recall10")),
        ]
        for row in results["retrieval"]
    ]
    caption = "Time of one query, encoder and search apart, and how good its hits are"
    return Section("How a query goes", (), None, note, False, plot, caption, PageTable(heads, texts))


def _example(example: Example) -> Section:
    answer, shown = example.query.label, len(example.reranked)
    before, after = (
        sum(picture.label == answer for picture in found) for found in (example.shortlist, example.reranked)
    )
    lead = _card(example.query, f"asked: {answer}", "lead")
    wrong = [picture.label != answer for picture in example.reranked]
    cards = [
        _card(picture, f"{picture.label} ✗" if missed else picture.label, "doubt" if missed else "")
        for picture, missed in zip(example.reranked, wrong, strict=True)
    ]
    note = f"Of the first {shown} of its shortlist {before} show a {answer}; of its hits {after}."
    return Section(f"A query that shows a {answer}", cards, lead, note, dense=True)


def _card(picture: Picture, title: str, mark: str) -> Card:
    large = picture.image.resize((ENLARGED, ENLARGED), Image.Resampling.NEAREST)
    return Card(Pictures().data_url(large), title, mark=mark)


def _made_with(results: Mapping[str, Any]) -> dict[str, str]:
    """How it was made, in words."""
    machine, images = results["machine"], results["images"]
    spent = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in results["seconds"].items())
    parts = (machine.get("processor"), machine.get("instructions"), machine.get("gpu"))
    known = [str(part) for part in parts if part]
    return {
        "time": spent,
        "images": f"{images['gallery']:,} in the gallery, {images['queries']:,} held out",
        "machine": f"{', '.join(known)}, {counted(machine['threads'], 'thread')}, {machine['system']}",
        "most memory": f"{results['peak_memory_mib']:,} MiB",
        "seed": str(results["seed"]),
        "commit": str(results["commit"]),
        "versions": ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    }
