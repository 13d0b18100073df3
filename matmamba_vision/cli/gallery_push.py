"""`matmamba gallery push`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from matmamba_common.counts import counted
from matmamba_retrieval import Gallery
from matmamba_retrieval.backends.comparison import PushCheck
from matmamba_retrieval.backends.pushing import Pushed

from ..upkeep.push import MIB, push, verify_pushed
from .arguments import parse
from .bars import Shown
from .console import Console, say

_PUSH = """Carry a gallery to a Qdrant server, or to the same engine in a folder, and compare what is there.

Full vectors, and the prefixes that the gallery's plan compares (--dims for more); ids, paths, labels and
metadata, with indexes for filters. The first push fills a collection beside the one that answers, and takes
its place at the end; later ones carry over what was added and deleted. Whatever stops a push, the same
command goes on where it was. A server's key is taken from the environment, QDRANT_API_KEY.

How prefixes are searched (all compared, by a graph, or by codes) is chosen by recall measured on stored
vectors, within a budget in the words of `matmamba plan`; what is left open stays as it was pushed before.

examples:
  matmamba gallery push G --to qdrant://localhost:6333/photos
  matmamba gallery push G --to edge:PUSHED --dims 16 --target recall=0.95 --budget memory_mb=64
  matmamba gallery push G --to qdrant://localhost:6333/photos --verify-only
"""


@dataclass
class PushFlags:
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]
    # qdrant://host:port/collection, qdrants://host:port/collection for TLS, or edge:FOLDER.
    to: str
    # Further prefixes, beside those that the plan compares.
    dims: list[int] = field(default_factory=list)
    # recall=0.99: share of the 10 nearest by a prefix that a list of 100 has to hold.
    target: list[str] = field(default_factory=list)
    # memory_mb=512: MiB of prefixes, graphs and codes, which every query goes through.
    budget: list[str] = field(default_factory=list)
    # Take the place of another gallery's collection, or make the same anew.
    replace: bool = False
    # Compare with what is there, every key of it, and change nothing; the exit status is 1 if it differs.
    verify_only: bool = False
    # Print JSON.
    json: bool = False


def carry(arguments: list[str]) -> int:
    """Push, or compare only, and say what is there."""
    args = parse(PushFlags, "gallery push", _PUSH, arguments)
    console = Console(highlight=False, quiet=args.json)
    with Gallery(args.gallery) as gallery, Shown(console) as listener:
        if args.verify_only:
            compared = verify_pushed(gallery, args.to, progress=listener)
        else:
            pushed = push(
                gallery,
                args.to,
                dims=args.dims,
                target=args.target,
                budget=args.budget,
                replace=args.replace,
                progress=listener,
            )
    if args.verify_only:
        _say_compared(console, args, compared)
        return 0 if compared.whole else 1
    _say_pushed(console, args, pushed)
    return 0


def _say_pushed(console: Console, args: PushFlags, pushed: Pushed) -> None:
    if args.json:
        say(json.dumps(pushed.to_dict(), indent=2))
        return
    found = pushed.comparison
    lines = [
        f"{pushed.place}: {counted(pushed.images, 'image')};"
        f" {pushed.added:,} put in, {pushed.deleted:,} taken out"
        + (", in a new collection" if pushed.anew else ""),
        f"counted {found.counted:,}; {found.sampled:,} compared with the gallery, vectors and metadata",
    ]
    for each in pushed.vectors:
        recall = pushed.recall.get(each["name"])
        where = "disk" if each["on_disk"] else "memory"
        lines.append(
            f"  {each['name']}: {each['dim']} dims, {each['index']}, {where}"
            + ("" if recall is None else f", recall {recall:.4f}")
        )
    lines.append(f"every query goes through {pushed.memory_bytes / MIB:,.1f} MiB")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _say_compared(console: Console, args: PushFlags, found: PushCheck) -> None:
    if args.json:
        say(json.dumps(asdict(found), indent=2))
        return
    for fault in found.faults:
        console.print(f"{args.to}: {fault}", markup=False, soft_wrap=True)
    if found.whole:
        said = f"{args.to}: {counted(found.counted, 'image')}, as pushed; {found.sampled:,} compared"
        console.print(said, markup=False, soft_wrap=True)
    if found.added or found.deleted:
        since = f"{found.added:,} added, {found.deleted:,} deleted"
        said = f"the gallery has changed since: {since}; push it again"
        console.print(said, markup=False, soft_wrap=True)
