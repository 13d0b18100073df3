"""From images into a gallery."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
from matmamba_datasets import NO_LABEL, BrokenTally, Images, TableReading
from matmamba_retrieval import Gallery, GalleryError, Row
from matmamba_retrieval.curation.annotations import Annotations
from matmamba_retrieval.gallery.destination import Destination, parse_shard
from matmamba_retrieval.gallery.image_files import Changes, ImageFiles, compare
from numpy.typing import NDArray

from ..device import limit_threads
from ..given import require_path, require_texts
from ..progress import Listener, Reporter
from ..public_call import public_call
from .encoding import ImageEncoder
from .gallery_model import ModelLike, embedder_for
from .given_images import ImageLike, collection_of
from .image_places import Place, facts_from_now, files_of, place_of, require_told
from .intake import Indexed, Wanted, annotated, finish, intake
from .shortlists import require_dims


@public_call
def index(
    images: str | os.PathLike[str] | Images | Sequence[ImageLike],
    gallery: str | os.PathLike[str],
    *,
    model: ModelLike | None = None,
    ids: Sequence[str] | None = None,
    labels: Sequence[str | None] | None = None,
    prefix: str = "",
    widths: Sequence[str] = (),
    dims: Sequence[int] = (),
    factory: str = "",
    metadata: str | os.PathLike[str] | None = None,
    reading: TableReading | None = None,
    upsert: bool = False,
    changed: bool = False,
    prune: bool = False,
    shard: str = "",
    max_broken: float = 0.01,
    batch_size: int = 64,
    workers: int = 0,
    threads: int = 0,
    progress: Listener | None = None,
) -> Indexed:
    """Add images to a gallery, encoded at full width; what it has is left alone.

    The gallery is made if it is not there, and remembers its checkpoint. Images are committed while others
    are encoded: whatever stops a call, the next one with the same images goes on from there.

    Args:
        images: a folder of images, of Parquet files or of shards, or a single Parquet file or shard; images
            and shards also by the URL of their folder; or a sequence of images, each a path, a PIL image, an
            array (H, W, 3) of uint8, or the bytes of a file.
        gallery: its folder.
        model: run folder, checkpoint file, or the name of a model whose weights are shipped; any encoder, as
            `timm:NAME`, `open_clip:ARCH/TAG` or an ONNX file with a JSON file beside it; or a checkpoint or
            encoder that is loaded; or a student with its teacher, as `with_teacher` gives it. By default what
            made the gallery, and for a new one `matmamba_mini_patch16_128`.
        ids: of a sequence of images, one each; by default their paths, so images in memory need them.
        labels: of a sequence of images, one each, None for an image without.
        prefix: put before each id: keeps two folders apart.
        widths: further widths, such as "1/8", at which each image gets a vector; by default those of the
            gallery.
        dims: embedding dims over which shortlist indexes are built; by default 32, or those that the gallery
            has.
        factory: kind of these indexes: flat, hnsw, ivf, ivfpq, sq8, rabitq, binary,
            pca-ivfpq:COORDINATES:CELLS, adanns-ivf:CELLS:COMPARED, adanns-opq:BYTES, or a FAISS factory
            string; "auto" chooses by the number of images. By default flat, or what the gallery has.
        metadata: CSV file or JSON lines with what is known about the images, found by a column id or path.
        reading: what is read of a place; by default everything within the usual limits.
        upsert: encode images that the gallery has once more, and replace them.
        changed: encode images of a place once more whose files changed since.
        prune: delete images of a place whose files are gone.
        shard: only the i-th of n parts, as "i/n", into a gallery of its own.
        max_broken: share of files that may be unreadable before the call stops; three of a small collection
            may be. 0 for none.
        batch_size: images encoded at once.
        workers: processes that decode images; with 0, a thread does.
        threads: that encode; 0 for as many as torch takes.
        progress: is told how far it is.

    Returns:
        What became of the images.

    Raises:
        MatMambaError: the model, the images or the gallery cannot be read; another model made the gallery; an
            id is there from another path; more files are broken than allowed; an argument cannot be.
        TypeError: an argument is of another type.
    """
    start, report = time.monotonic(), Reporter(progress)
    folder, texts = require_path("gallery", gallery), require_texts("widths", widths)
    wanted = Wanted(
        gallery=folder,
        prefix=prefix,
        dims=dims,
        factory=factory,
        shard=shard,
        report=report,
        metadata=None if metadata is None else require_path("metadata", metadata),
        upsert=upsert,
        changed=changed,
        prune=prune,
        max_broken=max_broken,
        place=place_of(images),
    )
    limit_threads(threads)
    encoder = ImageEncoder.of(embedder_for(folder, model), texts, batch_size, workers)
    collection = collection_of(images, ids, labels, reading)
    require_told(wanted, collection)
    report.left_out(collection.left_out)
    return replace(index_images(wanted, encoder, collection), seconds=time.monotonic() - start)


def index_images(
    wanted: Wanted, encoder: ImageEncoder, images: Images, tally: BrokenTally | None = None
) -> Indexed:
    """Add what the gallery lacks, then build its shortlists.

    Args:
        wanted: how.
        encoder: of the images.
        images: all of the collection, of which a shard takes its part.
        tally: counts broken files; by default one that allows what is wanted.

    Raises:
        GalleryError: the gallery was made by another checkpoint, or has an id under another path.
        DataError: more files are broken than allowed.
    """
    spec, path = encoder.embedder.spec(), encoder.embedder.place
    dims = require_dims(wanted.dims, wanted.factory, spec.dim)
    part = parse_shard(wanted.shard, len(images), encoder.batch_size)
    describe = Described(wanted, images)
    tally = tally or BrokenTally(len(part), wanted.max_broken, "max_broken")
    target = Destination(wanted.gallery, spec, path, encoder.widths, upsert=wanted.upsert, shard=wanted.shard)
    with closing(target):
        # Of a gallery that was there before, all its widths.
        encoder = replace(encoder, widths=target.widths)
        left = left_to_encode(target, images, wanted, part)
        with (
            intake(target.commit) as writer,
            wanted.report.meter("indexing", len(part)) as bar,
        ):
            bar.skip(len(part) - len(left))
            for batch, vectors in encoder.encode(images, left, tally, bar):
                target.open()
                writer.add(describe.rows(batch.indices.numpy()), vectors)
        if wanted.shard:
            target.open()
        if target.gallery is None:
            raise none_readable(wanted.place, tally)
        changes, pruned = look_for_changes(target.gallery, wanted, files_of(wanted.place, images))
        total = finish(target, dims, wanted, writer.committed)
    wanted.report.broken(tally)
    return Indexed(
        gallery=wanted.gallery,
        added=writer.committed,
        known=len(part) - len(left),
        total=total,
        broken=tally.found,
        left_out={**images.left_out, **tally.foreign},
        changed=tuple(changes.changed),
        gone=tuple(changes.gone[pruned:]),
        pruned=pruned,
        unknown=changes.unknown,
        unreachable=changes.unreachable,
    )


def left_to_encode(target: Destination, images: Images, wanted: Wanted, part: range) -> NDArray[np.int64]:
    """Positions of the images that are to be encoded; from here on the facts of their files are noted.

    Raises:
        GalleryError: the gallery has an id from another path.
    """
    left = target.missing(images.ids, images.paths, wanted.prefix, part)
    if wanted.among is not None:
        left = np.intersect1d(left, wanted.among)
    if wanted.changed:
        left = np.union1d(left, _changed(target, images, wanted, part))
        target.upsert = True
    target.facts = facts_from_now(images)
    return left


def none_readable(place: Place, tally: BrokenTally) -> GalleryError:
    """What is raised where no image could be read, with the reasons."""
    every = BrokenTally(0, 1.0, found=tally.found | tally.foreign)
    named = place or "what is to be indexed"
    return GalleryError(f"{named} has no readable images:\n{every.listing()}")


def _changed(target: Destination, images: Images, wanted: Wanted, part: range) -> NDArray[np.int64]:
    """Positions of the images whose files differ from those that were encoded."""
    files = files_of(wanted.place, images)
    if target.gallery is None or files is None:
        return np.empty(0, np.int64)
    changed = set(compare(target.gallery, files).changed)
    ids = images.ids if changed else ()
    return np.array(
        [place for place in part if ids and wanted.prefix + ids[place] in changed], dtype=np.int64
    )


def look_for_changes(gallery: Gallery, wanted: Wanted, files: ImageFiles | None) -> tuple[Changes, int]:
    """What has become of the files of images that were there before, and how many images were deleted."""
    changes = Changes() if files is None else compare(gallery, files)
    gone = changes.gone if wanted.prune else []
    return changes, gallery.delete(gone) if gone else 0


class Described:
    """What a gallery keeps with each image of a collection.

    Raises:
        GalleryError: the file of metadata is damaged, or speaks of images that are not in the collection.
    """

    def __init__(self, wanted: Wanted, images: Images) -> None:
        self._images, self._prefix = images, wanted.prefix
        self._known = None if wanted.metadata is None else Annotations(wanted.metadata)
        if self._known is not None:
            by_path = self._known.by == "path"
            self._known.require_known(images.paths if by_path else (self._prefix + one for one in images.ids))
            wanted.report.left_out(self._known.left_out)

    def rows(self, positions: NDArray[np.int64]) -> list[Row]:
        """The images at these positions."""
        found = [self._row(int(position)) for position in positions]
        return found if self._known is None else annotated(found, self._known)

    def _row(self, index: int) -> Row:
        label = int(self._images.labels[index])
        name = None if label == NO_LABEL else self._images.classes[label]
        return Row(self._prefix + self._images.ids[index], self._images.paths[index], name)
