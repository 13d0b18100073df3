"""`matmamba gallery export`, `import` and `atlas`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from matmamba_common.counts import counted
from matmamba_retrieval import Gallery

from ..galleries.strategies import Method
from ..upkeep.exchange import Existing, export_atlas, export_gallery, import_gallery
from .arguments import parse
from .bars import Shown
from .console import Console

_EXPORT = """Write the images of a gallery to a Parquet file, to the bit.

What made the vectors stands in the file; `matmamba gallery import` reads it. Columns: id, path, label,
metadata (JSON), vector (float16), and one vector for each further width. Pictures are not in it.

examples:
  matmamba gallery export G gallery.parquet
  matmamba gallery export G cats.parquet --where "label = 'cat'"
"""
_IMPORT = """Add the images of an exported Parquet file to a gallery, which is made if it is not there.

Into a gallery that is there only what the same model made can be taken in.

examples:
  matmamba gallery import gallery.parquet G
  matmamba gallery import gallery.parquet G --existing skip
"""
_ATLAS = """Write a Parquet file that Embedding Atlas reads: a map of the images and the neighbours of each.

x and y are the two principal components of the embeddings (PCA): honest, but flatter than UMAP; Embedding
Atlas computes UMAP itself from an export. Then: embedding-atlas FILE --x x --y y --neighbors neighbors
--image image

examples:
  matmamba gallery atlas G atlas.parquet
  matmamba gallery atlas G atlas.parquet --where "label IS NOT NULL" --pictures 96
"""


@dataclass
class ExportFlags:
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]
    # Parquet file to write.
    file: Annotated[Path, tyro.conf.Positional]
    # Condition on the images to write, in SQL, as in `matmamba search`.
    where: str = ""


@dataclass
class ImportFlags:
    # Parquet file that `matmamba gallery export` wrote.
    file: Annotated[Path, tyro.conf.Positional]
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]
    # Images that the gallery has already: refuse the file, skip them (which continues a stopped import), or
    # replace them.
    existing: Existing = "refuse"


@dataclass
class AtlasFlags(ExportFlags):
    # Neighbours of each image, the image itself among them.
    k: int = 15
    # Longer side of the pictures that are put into the file, in pixels; 0 for none.
    pictures: int = 0
    # How neighbours are found: exact, shortlist (by an index), or auto by the gallery's size.
    method: Method = "auto"


def export(arguments: list[str]) -> int:
    """Write a Parquet file."""
    args = parse(ExportFlags, "gallery export", _EXPORT, arguments)
    console = Console(highlight=False)
    with Gallery(args.gallery) as gallery, Shown(console) as listener:
        count = export_gallery(gallery, args.file, where=args.where, progress=listener)
    _say_written(console, args.file, count)
    return 0


def take_in(arguments: list[str]) -> int:
    """Read a Parquet file."""
    args = parse(ImportFlags, "gallery import", _IMPORT, arguments)
    console = Console(highlight=False)
    with Shown(console) as listener:
        count = import_gallery(args.file, args.gallery, existing=args.existing, progress=listener)
    with Gallery(args.gallery) as gallery:
        console.print(
            f"{args.gallery}: {counted(count, 'image')} imported, {len(gallery):,} in all", soft_wrap=True
        )
        if not gallery.shortlists():
            console.print("it has no index yet, and is searched exactly until `matmamba index` builds one")
    return 0


def atlas(arguments: list[str]) -> int:
    """Write a Parquet file for Embedding Atlas."""
    args = parse(AtlasFlags, "gallery atlas", _ATLAS, arguments)
    console = Console(highlight=False)
    with Gallery(args.gallery) as gallery, Shown(console) as listener:
        count = export_atlas(
            gallery,
            args.file,
            where=args.where,
            k=args.k,
            pictures=args.pictures,
            method=args.method,
            progress=listener,
        )
    _say_written(console, args.file, count)
    image = " --image image" if args.pictures else ""
    console.print(
        f"next: embedding-atlas {args.file} --x x --y y --neighbors neighbors{image}", soft_wrap=True
    )
    return 0


def _say_written(console: Console, file: Path, count: int) -> None:
    console.print(f"{file}: {counted(count, 'image')}, {file.stat().st_size:,} bytes", soft_wrap=True)
