"""Find near-duplicates in a gallery: groups of images whose embeddings are nearly equal.

Each image of a group has at least the threshold's cosine similarity to the one that was added first, which is
the one to keep. Which threshold means "the same picture" depends on the model: look at the page (--html).
exact compares all pairs; shortlist compares each image with those that an index finds near it, and may miss
pairs; auto takes exact up to 100,000 images.

--scenes finds scenes of videos that come again instead: at least half of the frames of the shorter have their
like in the other.

--delete shows what would be deleted; with --yes, all but the first of each group are deleted from the
gallery. Files are never touched.

examples:
  matmamba duplicates --gallery G
  matmamba duplicates --gallery G --threshold 0.95 --html duplicates.html
  matmamba duplicates --gallery G --where "label = 'cat'" --json
  matmamba duplicates --gallery G --threshold 0.99 --delete --yes
  matmamba duplicates --gallery V --scenes --threshold 0.9
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from matmamba_common.counts import counted
from matmamba_retrieval import Gallery
from rich.markup import escape
from rich.table import Table

from ..device import limit_threads
from ..errors import ConfigError
from ..galleries.strategies import Method
from ..given import require_place
from ..upkeep.duplicates import DuplicateGroup, DuplicatesFound, duplicates
from ..video.repeated_scenes import repeated_scenes, write_repeats_page
from .arguments import parse
from .bars import Shown
from .console import Console, say


@dataclass
class DuplicatesFlags:
    # Folder of the gallery.
    gallery: Path
    # Least cosine similarity to the first image of a group, in (0, 1].
    threshold: float = 0.98
    # Condition on the images to compare, in SQL, as in `matmamba search`.
    where: str = ""
    # Scenes of videos that come again, instead of images; all pairs of frames are compared.
    scenes: bool = False
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
    args = parse(DuplicatesFlags, "duplicates", __doc__, arguments)
    if args.yes and not args.delete:
        raise ConfigError("--yes goes with --delete")
    if args.html is not None:
        require_place("--html", args.html)
    limit_threads(args.threads)
    if args.scenes:
        _run_scenes(args)
        return
    console = Console(highlight=False, stderr=args.json)
    # Nobody else adds or deletes between finding and deleting.
    with Gallery(args.gallery, write=args.delete and args.yes) as gallery, Shown(console) as listener:
        found = duplicates(
            gallery,
            threshold=args.threshold,
            where=args.where,
            method=args.method,
            neighbours=args.neighbours,
            progress=listener,
        )
        if args.html is not None:
            found.write_page(args.html)
        doomed = found.surplus if args.delete and args.yes else []
        deleted = gallery.delete(doomed) if doomed else 0
    if args.json:
        say(json.dumps(found.to_dict(deleted), indent=2))
    else:
        _print(args, console, found, deleted)
        if args.html is not None:
            say(f"page with the pictures: {args.html}")


def _run_scenes(args: DuplicatesFlags) -> None:
    """Find scenes that come again, and print them."""
    if args.delete:
        raise ConfigError("--delete means nothing for --scenes: `matmamba gallery delete` takes a condition")
    console = Console(highlight=False, stderr=args.json)
    with Gallery(args.gallery) as gallery, Shown(console) as listener:
        groups = repeated_scenes(gallery, threshold=args.threshold, where=args.where, progress=listener)
    if args.html is not None:
        write_repeats_page(groups, args.html)
    if args.json:
        say(json.dumps({"threshold": args.threshold, "groups": [one.to_dict() for one in groups]}, indent=2))
        return
    for group in groups[: args.top]:
        for share, span in zip(group.shares, group.spans, strict=True):
            console.print(f"{share:.2f}  {span}", markup=False, soft_wrap=True)
        console.print("")
    console.print(f"scenes that come again at a similarity of {args.threshold:g} or more: {len(groups)}")
    if args.html is not None:
        say(f"page with the pictures: {args.html}")


def _print(args: DuplicatesFlags, console: Console, found: DuplicatesFound, deleted: int) -> None:
    for group in found.groups[: args.top]:
        console.print(_table(group))
    if len(found.groups) > args.top:
        more = counted(len(found.groups) - args.top, "more group")
        console.print(f"... and {more}: --top, --json or --html show all")
    extra = len(found.surplus)
    console.print(
        f"{counted(len(found.groups), 'group')} at a similarity of {args.threshold:g} or more:"
        f" {counted(extra, 'image')} too many"
    )
    if deleted:
        console.print(
            f"{counted(deleted, 'image')} deleted from {escape(str(args.gallery))}; no file was touched",
            soft_wrap=True,
        )
    elif args.delete and extra:
        console.print(
            f"nothing was deleted: --delete --yes deletes {counted(extra, 'image')} from the gallery"
        )


def _table(group: DuplicateGroup) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True)
    for _ in range(3):
        table.add_column(overflow="fold")
    for place, (score, row) in enumerate(zip(group.scores, group.rows, strict=True)):
        said = "first" if place == 0 else f"{score:.4f}"
        table.add_row(said, escape(row.label or ""), escape(row.id), escape(row.path))
    return table
