"""`matmamba gallery relocate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from matmamba_retrieval import Gallery

from ..upkeep.moving import relocate as move
from .arguments import parse
from .console import Console

_RELOCATE = """Tell a gallery that its files have moved: nothing is encoded again.

Paths that begin with OLD begin with NEW afterwards. OLD need not exist any more; at least one file has to be
below NEW.

examples:
  matmamba gallery relocate G /old/photos /new/photos
  matmamba gallery relocate G photos.parquet archive/photos.parquet
"""


@dataclass
class RelocateFlags:
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]
    # Folder or file where the images were.
    old: Annotated[Path, tyro.conf.Positional]
    # Where they are now.
    new: Annotated[Path, tyro.conf.Positional]


def relocate(arguments: list[str]) -> int:
    """Change the paths, and say how many files are there."""
    args = parse(RelocateFlags, "gallery relocate", _RELOCATE, arguments)
    with Gallery(args.gallery, write=True) as gallery:
        moved = move(gallery, args.old, args.new)
    missing = (
        f"; {moved.paths - moved.there} of their files are not there" if moved.paths > moved.there else ""
    )
    Console(highlight=False).print(
        f"{args.gallery}: {moved.paths} paths changed{missing}", markup=False, soft_wrap=True
    )
    return 0
