"""Suggest labels for images without one, and find labels that the neighbours contradict.

Each image's k nearest labelled others vote; a vote weighs exp(similarity / temperature). Confidence is how
often the winner of such a share of the votes is right, by the labelled images (of fewer than 50 it is the
share itself). Suspicious images are those whose neighbours vote for another label than theirs,
the most certain first: some are mislabelled, others are simply hard, so look before you change anything
(--html). As no image votes for itself, the share of labelled images whose neighbours confirm their label is a
fair test of the votes; it is printed beside them. Nothing is changed in the gallery.

examples:
  matmamba knn-label --gallery G
  matmamba knn-label --gallery G --csv labels.csv --html labels.html
  matmamba knn-label --gallery G --where "path LIKE '%/inbox/%'" --min-confidence 0.9 --json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from matmamba_common.counts import counted
from matmamba_retrieval import Gallery
from matmamba_retrieval.metrics import VOTE_TEMPERATURE
from rich.markup import escape
from rich.table import Table

from ..device import limit_threads
from ..galleries.strategies import Method
from ..given import require_place
from ..upkeep.labels import LabelFinding, LabelFindings, suggest_labels
from .arguments import parse
from .bars import Shown
from .console import Console, say

# Share of confirmed labels below which the votes are worth little.
FEW_CONFIRMED = 0.5


@dataclass
class KnnLabelFlags:
    # Folder of the gallery.
    gallery: Path
    # Condition on the images to judge, in SQL, as in `matmamba search`; all labelled images vote.
    where: str = ""
    # Neighbours that vote.
    k: int = 20
    # Of the votes: the smaller, the more the nearest count.
    temperature: float = VOTE_TEMPERATURE
    # Confidence below which nothing is said.
    min_confidence: float = 0.0
    # How neighbours are found: exact, shortlist (by an index), or auto by the gallery's size.
    method: Method = "auto"
    # Rows of each table to print, and images of each kind on the page; --json and --csv take all.
    top: int = 20
    # Threads that compare; 0 for as many as there are.
    threads: int = 0
    # Print JSON instead of tables.
    json: bool = False
    # Write all rows to this CSV file.
    csv: Path | None = None
    # Write a page with the pictures and their neighbours.
    html: Path | None = None


def run(arguments: list[str]) -> None:
    """Let the neighbours vote, and print."""
    args = parse(KnnLabelFlags, "knn-label", __doc__, arguments)
    for name, file in (("--csv", args.csv), ("--html", args.html)):
        if file is not None:
            require_place(name, file)
    limit_threads(args.threads)
    console = Console(highlight=False, stderr=args.json)
    with Gallery(args.gallery) as gallery, Shown(console) as listener:
        found = suggest_labels(
            gallery,
            where=args.where,
            k=args.k,
            temperature=args.temperature,
            min_confidence=args.min_confidence,
            method=args.method,
            progress=listener,
        )
        if args.csv is not None:
            found.write_csv(args.csv)
        if args.html is not None:
            found.write_page(args.html, gallery, top=args.top)
    if args.json:
        say(json.dumps(found.to_dict(), indent=2))
    else:
        _print(args, console, found)


def _print(args: KnnLabelFlags, console: Console, findings: LabelFindings) -> None:
    suggestions, doubts = findings.of("suggestion"), findings.of("suspicious")
    for found, title in ((suggestions, "unlabelled image"), (doubts, "suspicious label")):
        if found:
            console.print(_table(found[: args.top], found is doubts))
        more = f", {len(found) - args.top} not shown: --top, --csv" if len(found) > args.top else ""
        console.print(f"{counted(len(found), title)}{more}\n")
    if findings.confirmed is not None:
        console.print(
            f"the neighbours confirm {findings.confirmed:.1%} of {counted(findings.labelled, 'label')}"
        )
        if findings.confirmed < FEW_CONFIRMED:
            console.print(
                "warning: that is little; most suggestions are wrong, and most suspicious labels right: this"
                " model does not tell these classes apart",
                soft_wrap=True,
            )


def _table(findings: list[LabelFinding], suspicious: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("confidence", "suggested", *(("label", "own share") if suspicious else ()), "id"):
        table.add_column(
            name, overflow="fold", justify="right" if name in ("confidence", "own share") else "left"
        )
    for finding in findings:
        own = (escape(finding.row.label or ""), f"{finding.own_share:.3f}") if suspicious else ()
        table.add_row(f"{finding.confidence:.3f}", escape(finding.suggested), *own, escape(finding.row.id))
    return table
