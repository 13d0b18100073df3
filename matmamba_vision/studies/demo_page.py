"""The report of a demonstration: plots as PNG, and one HTML page that holds all and opens from disk."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from .examples import Example

PLOTS = {
    "widths.png": "Accuracy against multiply-adds, 95 % intervals. 1-NN: small query, gallery at full width.",
    "retrieval.png": "Search quality against time per query (all in one batch), encoder and search apart.",
    "examples.png": "Queries with their shortlists and hits, from the easiest to the hardest shortlist.",
}


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
    page = folder / "report.html"
    page.write_text(_page(folder, results), encoding="utf-8")
    return page


def _first_stage(rows: Sequence[dict[str, Any]]) -> str:
    """What found the shortlists of the examples: the first shortlist strategy."""
    row = next(row for row in rows if row["strategy"] == "shortlist")
    return f"{row['query_width']} width, {row['dim']} dims"


def _page(folder: Path, results: dict[str, Any]) -> str:
    figures = "\n".join(_figure(folder / name, caption) for name, caption in PLOTS.items())
    about = {name: results[name] for name in ("commit", "versions", "machine", "seed", "images", "seconds")}
    details = ("dims", "lengths", "encoder_gmacs", "candidates", "bytes_read")
    return _PAGE.substitute(
        goals=_table(results["goals"], leave_out=("of_machine",)),
        widths=_table(results["widths"], leave_out=("heads",)),
        retrieval=_table(results["retrieval"], leave_out=details),
        figures=figures,
        about=escape(json.dumps(about, indent=2)),
    )


def _figure(file: Path, caption: str) -> str:
    encoded = base64.b64encode(file.read_bytes()).decode()
    alt = escape(caption, quote=True)
    image = f'<img alt="{alt}" src="data:image/png;base64,{encoded}">'
    return f"<figure>{image}<figcaption>{alt}</figcaption></figure>"


def _table(rows: Sequence[dict[str, Any]], leave_out: Iterable[str] = ()) -> str:
    names = [name for name in rows[0] if name not in leave_out]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(_cell(row.get(name)) for name in names) + "</tr>" for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "<td>yes</td>" if value else "<td class=missed>no</td>"
    if isinstance(value, int | float):
        return (
            f"<td class=number>{value:,.4g}</td>"
            if isinstance(value, float)
            else f"<td class=number>{value:,}</td>"
        )
    return f"<td>{escape('-' if value is None else str(value))}</td>"


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MatMamba Vision: report</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; font-size: .9rem; }
  th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #8884; white-space: nowrap; }
  td.number { text-align: right; font-variant-numeric: tabular-nums; }
  td.missed { color: #c22; font-weight: bold; }
  figure { margin: 1.5rem 0; }
  img { max-width: 100%; background: white; }
  figcaption { color: #777; }
</style>
</head>
<body>
<h1>MatMamba Vision: report</h1>
<p>One network was trained once; each width below is its leading heads, used without retraining. The gallery
was encoded once at full width. A query is encoded by a small width and compared on a short prefix, and its
shortlist is reranked by full-width embeddings; single-shot compares everything: the reference.</p>
$figures
<h2>Goals</h2>
$goals
<h2>Widths</h2>
<p>encode_ms: median for one image. map10: precision at each hit's rank, summed and divided by 10.</p>
$widths
<h2>Retrieval</h2>
<p>ann_recall10: share of the exact top 10 that was found. Times are per query, all queries in one batch.
ms_over_single_shot, macs_over_single_shot: what a query costs over single-shot at full width, both encodings
of a rerank counted; above 1 it costs more.</p>
$retrieval
<h2>Made with</h2>
<pre>$about</pre>
</body>
</html>
""")
