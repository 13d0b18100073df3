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

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matmamba_retrieval import Gallery, GalleryError, Row
from matmamba_retrieval.curation.labels import Votes, vote
from matmamba_retrieval.index.rerank import NO_KEY
from matmamba_retrieval.metrics import VOTE_TEMPERATURE
from rich.markup import escape
from rich.table import Table

from ..device import limit_threads
from ..galleries.page import Page, Section, image_card
from ..galleries.pictures import Pictures
from ..galleries.strategies import Method, own_strategy, say_few
from .arguments import parse
from .console import Console, safe_cell, say
from .progress import reporter

Kind = Literal["suggestion", "suspicious"]
_COLUMNS = ("kind", "id", "path", "label", "suggested", "confidence", "own_share")
_PICTURES = 6
# Share of confirmed labels below which the votes are worth little.
FEW_CONFIRMED = 0.5


@dataclass
class Args:
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


@dataclass(frozen=True)
class Finding:
    """An image and what its neighbours say. `position` is its place in the votes."""

    kind: Kind
    position: int
    row: Row
    suggested: str
    confidence: float
    own_share: float

    def values(self) -> dict[str, Any]:
        """As a row of the CSV file, and as JSON."""
        row = self.row
        found = (self.kind, row.id, row.path, row.label, self.suggested, self.confidence, self.own_share)
        return dict(zip(_COLUMNS, found, strict=True))


def run(arguments: list[str]) -> None:
    """Let the neighbours vote, and print."""
    args = parse(Args, "knn-label", __doc__, arguments)
    if args.k < 1:
        raise GalleryError(f"--k is {args.k}: it can be 1 or more")
    limit_threads(args.threads)
    console = Console(highlight=False, stderr=args.json)
    with Gallery(args.gallery) as gallery:
        votes = _vote(args, gallery, console)
        findings = _findings(args, gallery, votes)
        if args.csv is not None:
            _write_csv(args.csv, findings)
        if args.html is not None:
            _write_page(args, args.html, gallery, votes, findings)
    if args.json:
        listed = [finding.values() for finding in findings]
        about = {"k": args.k, "temperature": args.temperature, "confirmed": votes.accuracy()}
        say(json.dumps({**about, "images": listed}, indent=2))
    else:
        _print(args, console, votes, findings)


def _vote(args: Args, gallery: Gallery, console: Console) -> Votes:
    judged = gallery.allowed(args.where or None)
    keys = gallery.live_keys() if judged is None else np.flatnonzero(judged)
    strategy = own_strategy(gallery, args.method, args.k)
    say_few(reporter(console), gallery, args.k)
    with reporter(console).meter("asking neighbours", len(keys)) as bar:
        return vote(gallery, strategy, keys, args.k, args.temperature, gallery.allowed(), bar.advance)


def _findings(args: Args, gallery: Gallery, votes: Votes) -> list[Finding]:
    found: list[Finding] = []
    confidence = votes.calibrated()
    kinds: tuple[tuple[Kind, Any], ...] = (
        ("suggestion", votes.suggestions()),
        ("suspicious", votes.doubts()),
    )
    for kind, positions in kinds:
        certain = positions[confidence[positions] >= args.min_confidence]
        for position, row in zip(certain, gallery.rows(votes.keys[certain]), strict=True):
            suggested = votes.classes[votes.winners[position]]
            shares = float(confidence[position]), float(votes.own_share[position])
            found.append(Finding(kind, int(position), row, suggested, *shares))
    return found


def _write_csv(file: Path, findings: list[Finding]) -> None:
    # Names of files can hold bytes that are no text.
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as opened:
        writer = csv.DictWriter(opened, _COLUMNS)
        writer.writeheader()
        for finding in findings:
            writer.writerow({name: safe_cell(value) for name, value in finding.values().items()})


def _print(args: Args, console: Console, votes: Votes, findings: list[Finding]) -> None:
    for kind, title in (("suggestion", "images without a label"), ("suspicious", "suspicious labels")):
        found = [finding for finding in findings if finding.kind == kind]
        if found:
            console.print(_table(found[: args.top], kind == "suspicious"))
        more = f", {len(found) - args.top} not shown: --top, --csv" if len(found) > args.top else ""
        console.print(f"{len(found)} {title}{more}\n")
    confirmed = votes.accuracy()
    if confirmed is not None:
        labelled = int((votes.own >= 0).sum())
        console.print(f"the neighbours confirm {confirmed:.1%} of {labelled:,} labels")
        if confirmed < FEW_CONFIRMED:
            console.print(
                "warning: that is little; most suggestions are wrong, and most suspicious labels right: this"
                " model does not tell these classes apart",
                soft_wrap=True,
            )


def _table(findings: list[Finding], suspicious: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("confidence", "suggested", *(("label", "own share") if suspicious else ()), "id"):
        table.add_column(
            name, overflow="fold", justify="right" if name in ("confidence", "own share") else "left"
        )
    for finding in findings:
        own = (escape(finding.row.label or ""), f"{finding.own_share:.3f}") if suspicious else ()
        table.add_row(f"{finding.confidence:.3f}", escape(finding.suggested), *own, escape(finding.row.id))
    return table


def _write_page(args: Args, file: Path, gallery: Gallery, votes: Votes, findings: list[Finding]) -> None:
    pictures = Pictures()
    confirmed = votes.accuracy()
    intro = (
        f"What the {args.k} nearest labelled images say about images of {args.gallery}. Nothing was changed."
    )
    with Page(file, "Labels by neighbours", intro) as page:
        if confirmed is not None:
            page.facts["labels confirmed by neighbours"] = f"{confirmed:.1%}"
        for kind in ("suspicious", "suggestion"):
            found = [finding for finding in findings if finding.kind == kind]
            page.facts[{"suspicious": "suspicious labels", "suggestion": "suggestions"}[kind]] = (
                f"{len(found):,}, {min(args.top, len(found))} shown"
            )
            for finding in found[: args.top]:
                page.write(_section(finding, gallery, votes, pictures))


def _section(finding: Finding, gallery: Gallery, votes: Votes, pictures: Pictures) -> Section:
    near = votes.neighbours[finding.position]
    rows = gallery.rows(near[near != NO_KEY][:_PICTURES])
    mark = "doubt" if finding.kind == "suspicious" else "lead"
    cards = [image_card(pictures, row) for row in rows]
    lead = image_card(pictures, finding.row, badge=finding.row.label or "no label", mark=mark)
    heading = f"{finding.row.label or 'no label'} → {finding.suggested}?"
    note = f"{finding.confidence:.0%} sure of {finding.suggested}"
    if finding.kind == "suspicious":
        note += f"; {finding.own_share:.0%} of the votes for {finding.row.label}"
    return Section(heading, cards, lead, note, finding.kind == "suspicious")
