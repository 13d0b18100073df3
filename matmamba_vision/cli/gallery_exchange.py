"""`matmamba gallery export`, `import` and `atlas`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from matmamba_retrieval import Gallery, GalleryError

from ..galleries.pictures import Pictures
from ..galleries.strategies import Method, own_strategy, say_few
from .arguments import parse
from .console import Console
from .progress import reporter

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
class ExportArgs:
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]
    # Parquet file to write.
    file: Annotated[Path, tyro.conf.Positional]
    # Condition on the images to write, in SQL, as in `matmamba search`.
    where: str = ""


@dataclass
class ImportArgs:
    # Parquet file that `matmamba gallery export` wrote.
    file: Annotated[Path, tyro.conf.Positional]
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]
    # Images that the gallery has already: refuse the file, skip them (which continues a stopped import), or
    # replace them.
    existing: Literal["refuse", "skip", "replace"] = "refuse"


@dataclass
class AtlasArgs(ExportArgs):
    # Neighbours of each image, the image itself among them.
    k: int = 15
    # Longer side of the pictures that are put into the file, in pixels; 0 for none.
    pictures: int = 0
    # How neighbours are found: exact, shortlist (by an index), or auto by the gallery's size.
    method: Method = "auto"


def _keys(gallery: Gallery, where: str) -> np.ndarray:
    allowed = gallery.allowed(where or None)
    keys = gallery.live_keys() if allowed is None else np.flatnonzero(allowed)
    if not len(keys):
        raise GalleryError(f"{gallery.folder} has no images to write" + (f" where {where}" if where else ""))
    return keys


def export(arguments: list[str]) -> int:
    """Write a Parquet file."""
    args = parse(ExportArgs, "gallery export", _EXPORT, arguments)
    # Here, because it needs pyarrow.
    from matmamba_retrieval.exchange.exchange import export_parquet

    console = Console(highlight=False)
    with Gallery(args.gallery) as gallery:
        keys = _keys(gallery, args.where)
        with reporter(console).meter("exporting", len(keys)) as bar:
            count = export_parquet(gallery, args.file, keys, bar.advance)
    console.print(f"{args.file}: {count:,} images, {args.file.stat().st_size:,} bytes", soft_wrap=True)
    return 0


def take_in(arguments: list[str]) -> int:
    """Read a Parquet file."""
    args = parse(ImportArgs, "gallery import", _IMPORT, arguments)
    from matmamba_retrieval.exchange.exchange import Exported, import_parquet

    console = Console(highlight=False)
    with reporter(console).meter("importing", len(Exported(args.file))) as bar:
        count = import_parquet(args.file, args.gallery, args.existing, bar.advance)
    with Gallery(args.gallery) as gallery:
        console.print(f"{args.gallery}: {count:,} images imported, {len(gallery):,} in all", soft_wrap=True)
        if not gallery.shortlists():
            console.print("it has no index yet, and is searched exactly until `matmamba index` builds one")
    return 0


def atlas(arguments: list[str]) -> int:
    """Write a Parquet file for Embedding Atlas."""
    args = parse(AtlasArgs, "gallery atlas", _ATLAS, arguments)
    if args.k < 2 or args.pictures < 0:
        raise GalleryError(f"--k is {args.k} and --pictures {args.pictures}: they can be 2 and 0 or more")
    from matmamba_retrieval.exchange.atlas import export_atlas

    console = Console(highlight=False)
    pictures = Pictures()
    with Gallery(args.gallery) as gallery:
        keys = _keys(gallery, args.where)
        strategy = own_strategy(gallery, args.method, args.k)
        say_few(reporter(console), gallery, args.k)
        with reporter(console).meter("mapping", len(keys)) as bar:
            picture = (lambda path: pictures.thumbnail(path, args.pictures)) if args.pictures else None
            count = export_atlas(gallery, strategy, args.file, keys, args.k, picture, bar.advance)
    console.print(f"{args.file}: {count:,} images, {args.file.stat().st_size:,} bytes", soft_wrap=True)
    image = " --image image" if args.pictures else ""
    console.print(
        f"next: embedding-atlas {args.file} --x x --y y --neighbors neighbors{image}", soft_wrap=True
    )
    return 0
