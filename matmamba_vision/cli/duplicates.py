"""Find near-duplicates in a gallery: groups of images whose embeddings are nearly equal.

Each image of a group has at least the threshold's cosine similarity to the one that was added first, which is
the one to keep. Which threshold means "the same picture" depends on the model: look at the page (--html).
exact compares all pairs; shortlist compares each image with those that an index finds near it, and may miss
pairs; auto takes exact up to 100,000 images.

--delete shows what would be deleted; with --yes, all but the first of each group are deleted from the
gallery. Files are never touched.

examples:
  matmamba duplicates --gallery G
  matmamba duplicates --gallery G --threshold 0.95 --html duplicates.html
  matmamba duplicates --gallery G --where "label = 'cat'" --json
  matmamba duplicates --gallery G --threshold 0.99 --delete --yes
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matmamba_retrieval import Gallery, GalleryError, Row
from matmamba_retrieval.curation.duplicates import Group, find_duplicates
from rich.markup import escape
from rich.table import Table

from ..device import limit_threads
from ..galleries.answers import row_of
from ..galleries.page import Page, Section, image_card
from ..galleries.pictures import Pictures
from ..galleries.strategies import Method, is_exact, own_strategy
from .arguments import parse
from .console import Console, say
from .progress import reporter


@dataclass
class Args:
    # Folder of the gallery.
    gallery: Path
    # Least cosine similarity to the first image of a group, in (0, 1].
    threshold: float = 0.98
    # Condition on the images to compare, in SQL, as in `matmamba search`.
    where: str = ""
    # How pairs are found, see above.
    method: Method = "auto"
    # Nearest others that shortlist looks at, for each image.
    neighbours: int = 32
    # Groups to print; --json, --html and --delete take all.
    top: int = 20
    # Threads that compare; 0 for as many as there are.
    threads: int = 0
    # Print JSON instead of tables.
    json: bool = False
    # Write a page with the pictures, which holds everything and opens from disk.
    html: Path | None = None
    # Show what would be deleted from the gallery: all but the first image of each group.
    delete: bool = False
    # With --delete: do it.
    yes: bool = False


def run(arguments: list[str]) -> None:
    """Find, print, delete if told to."""
    args = parse(Args, "duplicates", __doc__, arguments)
    if args.yes and not args.delete:
        raise GalleryError("--yes goes with --delete")
    if args.neighbours < 1:
        raise GalleryError(f"--neighbours is {args.neighbours}: it can be 1 or more")
    limit_threads(args.threads)
    console = Console(highlight=False, stderr=args.json)
    # Nobody else adds or deletes between finding and deleting.
    with Gallery(args.gallery, write=args.delete and args.yes) as gallery:
        groups = _find(args, gallery, console)
        rows = [gallery.rows(group.keys) for group in groups]
        doomed = [row.id for found in rows for row in found[1:]]
        if args.html is not None:
            _write_page(args, args.html, groups, rows)
        deleted = gallery.delete(doomed) if args.delete and args.yes and doomed else 0
        if args.json:
            say(json.dumps(_as_json(args, gallery, groups, rows, deleted), indent=2))
        else:
            _print(args, console, groups, rows, deleted)


def _find(args: Args, gallery: Gallery, console: Console) -> list[Group]:
    allowed = gallery.allowed(args.where or None)
    count = len(gallery) if allowed is None else int(allowed.sum())
    exact = is_exact(gallery, args.method)
    strategy = None if exact else own_strategy(gallery, args.method, args.neighbours)
    with reporter(console).meter("comparing", count) as bar:
        return find_duplicates(gallery, args.threshold, allowed, strategy, args.neighbours, bar.advance)


def _as_json(
    args: Args, gallery: Gallery, groups: list[Group], rows: list[list[Row]], deleted: int
) -> dict[str, Any]:
    listed = [
        {
            "keep": row_of(found[0]),
            "others": [
                {"score": min(1.0, float(score)), **row_of(row)}
                for score, row in zip(group.scores[1:], found[1:], strict=True)
            ],
        }
        for group, found in zip(groups, rows, strict=True)
    ]
    method = "exact" if is_exact(gallery, args.method) else "shortlist"
    return {"threshold": args.threshold, "method": method, "deleted": deleted, "groups": listed}


def _print(args: Args, console: Console, groups: list[Group], rows: list[list[Row]], deleted: int) -> None:
    for group, found in list(zip(groups, rows, strict=True))[: args.top]:
        console.print(_table(group, found))
    if len(groups) > args.top:
        console.print(f"... and {len(groups) - args.top} more groups: --top, --json or --html show them")
    extra = sum(len(found) - 1 for found in rows)
    console.print(
        f"{len(groups)} groups at a similarity of {args.threshold:g} or more: {extra} images too many"
    )
    if deleted:
        console.print(
            f"{deleted} images deleted from {escape(str(args.gallery))}; their files are untouched",
            soft_wrap=True,
        )
    elif args.delete and extra:
        console.print(f"nothing was deleted: --delete --yes deletes these {extra} images from the gallery")


def _table(group: Group, rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True)
    for _ in range(3):
        table.add_column(overflow="fold")
    for place, (score, row) in enumerate(zip(group.scores, rows, strict=True)):
        said = "first" if place == 0 else f"{min(1.0, float(score)):.4f}"
        table.add_row(said, escape(row.label or ""), escape(row.id), escape(row.path))
    return table


def _write_page(args: Args, file: Path, groups: list[Group], rows: list[list[Row]]) -> None:
    pictures = Pictures()
    intro = (
        f"Images of {args.gallery} that are {args.threshold:g} or more similar to the first of their group."
    )
    extra = sum(len(found) - 1 for found in rows)
    with Page(file, "Near-duplicates", intro) as page:
        page.facts.update({"groups": f"{len(groups):,}", "images too many": f"{extra:,}"})
        for number, (group, found) in enumerate(zip(groups, rows, strict=True), 1):
            labels = {row.label for row in found}
            note = f"labels differ: {', '.join(sorted(map(str, labels)))}" if len(labels) > 1 else ""
            lead = image_card(pictures, found[0], badge="kept", mark="lead")
            cards = [
                image_card(pictures, row, min(1.0, float(score)), f"{min(1.0, float(score)):.4f}")
                for score, row in zip(group.scores[1:], found[1:], strict=True)
            ]
            page.write(Section(f"Group {number}: {len(found)} images", cards, lead, note, bool(note)))
