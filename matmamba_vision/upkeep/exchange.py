"""Galleries as Parquet files: written, read, and as a map for Embedding Atlas."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import numpy as np
from matmamba_common.settings import OneOf, require, require_least
from matmamba_retrieval import Gallery, GalleryError
from numpy.typing import NDArray

from ..galleries.pictures import Pictures
from ..galleries.strategies import Method, own_strategy, say_few
from ..given import PathLike, require_folder, require_path, require_place
from ..progress import Listener, Reporter
from ..public_call import public_call
from .contents import keys_where

# What becomes of images that a gallery has already.
Existing = Literal["refuse", "skip", "replace"]


@public_call
def export_gallery(
    gallery: Gallery, file: PathLike, *, where: str = "", progress: Listener | None = None
) -> int:
    """Write the images of a gallery to a Parquet file, to the bit; pictures are not in it.

    Columns: id, path, label, metadata (JSON), vector (float16), and one vector for each further width. What
    made the vectors stands in the file's metadata.

    Args:
        gallery: an open one.
        file: to write.
        where: condition on the images to write, in SQL.
        progress: is told how far it is.

    Returns:
        How many images were written.

    Raises:
        GalleryError: no image fulfils the condition.
        MissingPackageError: pyarrow is not installed.
        SystemRefusalError: the file cannot be written.
    """
    # Here, because it needs pyarrow.
    from matmamba_retrieval.exchange.gallery_parquet import export_parquet

    place, keys = require_place("file", file), _some_keys(gallery, where)
    with Reporter(progress).meter("exporting", len(keys)) as meter:
        return export_parquet(gallery, place, keys, meter.advance)


@public_call
def import_gallery(
    file: PathLike, gallery: PathLike, *, existing: Existing = "refuse", progress: Listener | None = None
) -> int:
    """Add the images of a file that `export_gallery` wrote to a gallery, which is made if it is not there.

    Args:
        file: the Parquet file.
        gallery: folder; into one that is there only what the same model made can be taken in.
        existing: of images that the gallery has already: "refuse" the file, "skip" them, which continues a
            stopped import, or "replace" them.
        progress: is told how far it is.

    Returns:
        How many images were imported.

    Raises:
        GalleryError: a damaged file, vectors of another model, or images that are there already.
        MissingPackageError: pyarrow is not installed.
    """
    from matmamba_retrieval.exchange.gallery_parquet import Exported, import_parquet

    require("existing", existing, Annotated[str, OneOf(get_args(Existing))])
    source, folder = require_path("file", file), require_folder("gallery", gallery)
    with Reporter(progress).meter("importing", len(Exported(source))) as meter:
        return import_parquet(source, folder, existing, meter.advance)


@public_call
def export_atlas(
    gallery: Gallery,
    file: PathLike,
    *,
    where: str = "",
    k: int = 15,
    pictures: int = 0,
    method: Method = "auto",
    progress: Listener | None = None,
) -> int:
    """Write a Parquet file that Embedding Atlas reads: a map of the images and the neighbours of each.

    x and y are the two principal components of the embeddings.

    Args:
        gallery: an open one.
        file: to write.
        where: condition on the images to write, in SQL.
        k: neighbours of each image, the image itself among them.
        pictures: longer side of the pictures that are put into the file, in pixels; 0 for none.
        method: how neighbours are found: "exact", "shortlist" (by an index), or "auto" by the gallery's size.
        progress: is told how far it is.

    Returns:
        How many images were written.

    Raises:
        ConfigError: a number that is too small.
        GalleryError: no image fulfils the condition.
    """
    require_least(2, k=k)
    require_least(0, pictures=pictures)
    from matmamba_retrieval.exchange.atlas import export_atlas as write_atlas

    report, store, place = Reporter(progress), Pictures(), require_place("file", file)
    keys = _some_keys(gallery, where)
    strategy = own_strategy(gallery, method, k)
    say_few(report, gallery, k)
    picture = (lambda path: store.thumbnail(path, pictures)) if pictures else None
    with report.meter("mapping", len(keys)) as meter:
        return write_atlas(gallery, strategy, place, keys, k, picture, meter.advance)


def _some_keys(gallery: Gallery, where: str) -> NDArray[np.int64]:
    keys = keys_where(gallery, where)
    if not len(keys):
        raise GalleryError(f"{gallery.folder} has no images to write" + (f" where {where}" if where else ""))
    return keys
