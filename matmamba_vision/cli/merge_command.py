"""Put several galleries into one, such as the shards of `matmamba index --shard`.

Shards are taken in the order of their numbers, so the merged gallery has the same rows and vectors as that of
one run; other galleries in the order given. They must be of one model, and have no id in common. A merge that
was stopped goes on with the same command.

examples:
  matmamba merge G1 G2 G3 G4 --into G
  matmamba merge HOLIDAYS WORK --into ALL --dims 64 --factory HNSW32
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from ..upkeep.merge import merge
from .arguments import parse
from .bars import Shown
from .console import Console
from .summary import continuable, summarise


@dataclass
class MergeFlags:
    # Folders of the galleries.
    galleries: Annotated[list[Path], tyro.conf.Positional]
    # Folder of the merged gallery; made if it is not there, else it is added to.
    into: Path
    # Embedding dims over which shortlist indexes are built; by default 32, or those that the gallery has.
    dims: list[int] = field(default_factory=list)
    # FAISS factory string of the shortlist indexes; by default Flat, or what the gallery has.
    factory: str = ""


def run(arguments: list[str]) -> None:
    """Merge, build the shortlists, print a summary."""
    args = parse(MergeFlags, "merge", __doc__, arguments)
    console = Console()
    with continuable(args.into), Shown(console) as listener:
        merged = merge(args.galleries, args.into, dims=args.dims, factory=args.factory, progress=listener)
    if not merged.added:
        console.print(f"{args.into} holds these galleries already: nothing to do", soft_wrap=True)
        return
    summarise(console, args.into, "merged", count=merged.added, total=merged.total, seconds=merged.seconds)
    console.print(f"next: matmamba search --gallery {quote(str(args.into))} IMAGE", soft_wrap=True)
