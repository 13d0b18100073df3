"""From vectors that were made elsewhere into a gallery."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from matmamba_common.settings import require
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError
from matmamba_retrieval.curation.annotations import Annotations
from matmamba_retrieval.exchange.vector_files import VectorFile, checked, elsewhere, open_vectors
from matmamba_retrieval.gallery.destination import Destination, parse_shard
from matmamba_retrieval.storage.distinct import first_repeated

from ..device import limit_threads
from ..given import require_path
from ..progress import Listener, Reporter
from ..public_call import public_call
from .given_vectors import spec_of
from .intake import Indexed, Wanted, annotated, finish, intake
from .shortlists import require_dims


@public_call
def index_vectors(
    vectors: str | os.PathLike[str],
    gallery: str | os.PathLike[str],
    *,
    model_name: str = "",
    ids: str | os.PathLike[str] | None = None,
    normalise: bool = False,
    prefix: str = "",
    dims: Sequence[int] = (),
    factory: str = "",
    metadata: str | os.PathLike[str] | None = None,
    upsert: bool = False,
    shard: str = "",
    threads: int = 0,
    progress: Listener | None = None,
) -> Indexed:
    """Add vectors that were made elsewhere to a gallery, which is made if it is not there.

    Args:
        vectors: a NumPy file (n, D) of floats, or a Parquet file with columns id and vector, and if there
            path, label and whatever else is known about each image.
        gallery: its folder.
        model_name: of the model that made them, so that others of it can be added; by default the file's
            checksum stands for it.
        ids: of a NumPy file: text file with an id on each line; by default ids are row numbers.
        normalise: bring vectors to length 1; else they must have it.
        prefix: put before each id: keeps two files apart.
        dims: leading dims over which shortlist indexes are built; by default 32, or those that the gallery
            has.
        factory: kind of these indexes, such as flat, hnsw or ivfpq; by default flat, or what the gallery has.
        metadata: CSV file or JSON lines with what is known about the images, found by a column id.
        upsert: replace vectors that the gallery has.
        shard: only the i-th of n parts, as "i/n", into a gallery of its own.
        threads: that search and build; 0 for as many as there are.
        progress: is told how far it is.

    Returns:
        What became of the vectors.

    Raises:
        MatMambaError: the file is damaged or has an id twice, vectors are not of length 1, another model made
            the gallery, or an argument cannot be.
        TypeError: an argument is of another type.
    """
    start, report = time.monotonic(), Reporter(progress)
    require("model_name", model_name, str)
    wanted = Wanted(
        gallery=require_path("gallery", gallery),
        prefix=prefix,
        dims=dims,
        factory=factory,
        shard=shard,
        metadata=None if metadata is None else require_path("metadata", metadata),
        upsert=upsert,
        report=report,
    )
    limit_threads(threads)
    file = open_vectors(require_path("vectors", vectors), None if ids is None else require_path("ids", ids))
    indexed = _index_vectors(wanted, file, model_name, normalise)
    return replace(indexed, seconds=time.monotonic() - start)


def _index_vectors(wanted: Wanted, file: VectorFile, model_name: str, normalise: bool) -> Indexed:
    """Add the vectors of a file that the gallery lacks, then build its shortlists.

    Raises:
        GalleryError: the file is damaged or has an id twice, vectors are not of length 1, or the gallery was
            made by another model.
    """
    if file.left_out:
        wanted.report.say(f"columns that are not taken: {', '.join(file.left_out)}")
    dims = require_dims(wanted.dims, wanted.factory, file.dim)
    if (twice := first_repeated(file.ids)) is not None:
        raise GalleryError(f"{file.file}: the id {twice!r} is there twice")
    part, known = parse_shard(wanted.shard, len(file)), _annotations(wanted, file)
    spec = _spec(wanted, file, model_name)
    target = Destination(wanted.gallery, spec, upsert=wanted.upsert, shard=wanted.shard)
    with closing(target):
        with (
            # Every part is large enough to be committed alone.
            intake(target.commit_new, rows=1) as writer,
            wanted.report.meter("indexing", len(part), "vectors") as bar,
        ):
            for rows, xb in file.parts(part):
                named = [replace(row, id=wanted.prefix + row.id) for row in rows]
                unit = checked(file.file, named, xb, normalise=normalise)
                writer.add(named if known is None else annotated(named, known), {spec.width: unit})
                bar.advance(len(rows))
        total = finish(target, dims, wanted, writer.committed)
    added = writer.committed
    return Indexed(gallery=wanted.gallery, added=added, known=len(part) - added, total=total)


def _spec(wanted: Wanted, file: VectorFile, model_name: str) -> EmbeddingSpec:
    """What made the vectors, as the gallery knows it, if it is there."""
    if not Gallery.exists(wanted.gallery):
        return elsewhere(file, model_name)
    with Gallery(wanted.gallery) as gallery:
        return spec_of(file, model_name, gallery)


def _annotations(wanted: Wanted, file: VectorFile) -> Annotations | None:
    """What the file of metadata says about the images whose vectors these are."""
    if wanted.metadata is None:
        return None
    known = Annotations(wanted.metadata)
    if known.by != "id":
        raise GalleryError(f"{wanted.metadata}: vectors are found by a column id, not path")
    known.require_known(wanted.prefix + one for part in file.ids() for one in part)
    wanted.report.left_out(known.left_out)
    return known
