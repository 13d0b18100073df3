"""Put several galleries into one, such as the shards of `matmamba index --shard`.

Shards are taken in the order of their numbers, so the merged gallery has the same rows and vectors as that of
one run; other galleries in the order given. They must be of one model, and have no id in common. A merge that
was stopped goes on with the same command.

examples:
  matmamba merge G1 G2 G3 G4 --into G
  matmamba merge HOLIDAYS WORK --into ALL --dims 64 --factory HNSW32
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro
from matmamba_retrieval import Gallery, GalleryError
from matmamba_retrieval.exchange.joining import join

from ..galleries.shortlists import build_shortlists, require_dims
from ..progress import Meter
from .arguments import parse
from .console import Console
from .progress import reporter
from .summary import continuable, summarise


@dataclass
class Args:
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
    args = parse(Args, "merge", __doc__, arguments)
    if not args.galleries:
        raise GalleryError("no gallery given: matmamba merge GALLERY ... --into GALLERY")
    console, start = Console(), time.monotonic()
    sizes, dim = _survey(args)
    dims = require_dims(args.dims, args.factory, dim)
    with continuable(args.into):
        with reporter(console).meter("merging", sum(sizes)) as bar:
            count = join(args.galleries, args.into, _Told(bar))
        with Gallery(args.into, write=True) as gallery:
            if len(gallery):
                build_shortlists(gallery, dims, args.factory, count)
            total = len(gallery)
    if not count:
        console.print(f"{args.into} holds these galleries already: nothing to do", soft_wrap=True)
        return
    summarise(console, args.into, "merged", count, total, time.monotonic() - start)
    console.print(f"next: matmamba search --gallery {quote(str(args.into))} IMAGE", soft_wrap=True)


def _survey(args: Args) -> tuple[list[int], int]:
    """Images in each gallery, and dims of the first one's embeddings."""
    sizes, dim = [], 0
    for folder in args.galleries:
        with Gallery(folder) as gallery:
            sizes.append(len(gallery))
            dim = dim or gallery.spec.dim
    return sizes, dim


class _Told:
    """Moves a bar; the first number is what an interrupted merge had done."""

    def __init__(self, bar: Meter) -> None:
        self._bar, self._begun = bar, False

    def __call__(self, rows: int) -> None:
        (self._bar.advance if self._begun else self._bar.skip)(rows)
        self._begun = True
