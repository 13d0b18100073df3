"""The indexes that a job builds when it has added images."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matmamba_common.settings import require
from matmamba_retrieval import Gallery, GalleryError
from matmamba_retrieval.index.gallery_index import empty_index

from ..device import limit_threads
from ..given import require_path
from ..progress import Listener, Reporter
from ..public_call import public_call

DEFAULT_DIM = 32


def require_dims(dims: Sequence[int], factory: str, embed_dim: int) -> list[int]:
    """The dims asked for; refuses, before anything is encoded, what could never be built.

    Raises:
        GalleryError: a dim that embeddings do not have, or an index that FAISS does not know.
        TypeError: they are no list of whole numbers.
    """
    require("dims", dims, Sequence[int])
    for dim in dims:
        if not 1 <= dim <= embed_dim:
            raise GalleryError(f"dims: {dim} is not in 1..{embed_dim}")
    for dim in dims or [min(DEFAULT_DIM, embed_dim)]:
        empty_index(dim, factory or "Flat")
    return sorted(set(dims))


def build_shortlists(gallery: Gallery, dims: Sequence[int], factory: str, added: int) -> None:
    """Build those asked for, refresh the others if images were added, and see that there is one.

    Those asked for are built over each width whose vectors the gallery has. A kind without dims is for those
    dims that have an index, or for the usual one.

    Raises:
        GalleryError: one cannot be built; the images are in the gallery, as they were before.
    """
    built = {(record.width, record.dim) for record in gallery.shortlists()}
    if factory and not dims:
        dims = sorted({dim for _, dim in built}) or [min(DEFAULT_DIM, gallery.spec.dim)]
    widths = (gallery.spec.width, *gallery.generation.widths)
    wanted = {(width, dim) for width in widths for dim in dims}
    refreshed = built if added else set()
    if not wanted and not built:
        refreshed = {(width, min(DEFAULT_DIM, gallery.spec.dim)) for width in widths}
        built = set()
    for width, dim in sorted(wanted | refreshed):
        asked = (width, dim) in wanted or (width, dim) not in built
        try:
            gallery.build_shortlist(dim, factory if asked else "", width)
        except (GalleryError, RuntimeError, OSError) as error:
            # FAISS names its source file before the reason.
            reason = str(error).rpartition("failed: ")[2]
            raise GalleryError(
                f"{len(gallery)} images are in {gallery.folder}, but an index over {dim} dims could not be"
                f" built: {reason}"
            ) from error


@public_call
def build_indexes(
    gallery: str | os.PathLike[str],
    *,
    dims: Sequence[int] = (),
    factory: str = "",
    threads: int = 0,
    progress: Listener | None = None,
) -> tuple[str, ...]:
    """Build shortlist indexes over the images that a gallery has; nothing is encoded.

    Args:
        gallery: its folder.
        dims: leading dims over which indexes are built; by default those that have one, or 32.
        factory: kind of the indexes, such as flat, hnsw or ivfpq; by default what the gallery has.
        threads: that build; 0 for as many as there are.
        progress: is told how far it is.

    Returns:
        Names of all indexes that the gallery has now.

    Raises:
        MatMambaError: there is no gallery, or an index cannot be built.
        TypeError: an argument is of another type.
    """
    folder, report = require_path("gallery", gallery), Reporter(progress)
    require("factory", factory, str)
    limit_threads(threads)
    with Gallery(folder, write=True) as opened:
        sorted_dims = require_dims(dims, factory, opened.spec.dim)
        with report.stage("building indexes"):
            build_shortlists(opened, sorted_dims, factory, 0)
        return tuple(record.name for record in opened.shortlists())
