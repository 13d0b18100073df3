"""From images, or vectors made elsewhere, into a gallery."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matmamba_datasets import NO_LABEL, BrokenTally, Images
from matmamba_datasets.listing import absolute
from matmamba_retrieval import GalleryError, Row
from matmamba_retrieval.curation.annotations import Annotations
from matmamba_retrieval.exchange.importing import VectorFile, checked, elsewhere, open_vectors
from matmamba_retrieval.gallery.destination import Destination, parse_shard
from matmamba_retrieval.gallery.merging import merge_segments
from matmamba_retrieval.gallery.upkeep import Changes, compare
from matmamba_retrieval.storage.distinct import first_repeated
from numpy.typing import NDArray

from ..checkpoint import Checkpoint
from ..galleries.encoding import ImageEncoder
from ..galleries.intake import annotated, intake
from ..galleries.shortlists import build_shortlists, require_dims
from .console import Console
from .progress import reporter

if TYPE_CHECKING:
    from .index import Args


@dataclass(frozen=True)
class Indexed:
    """What became of some images.

    Attributes:
        added: images encoded. known: how many were left as they are. tally: the broken ones. changes: of the
            files of those that the gallery has. pruned: how many were deleted because their files are gone.
    """

    added: int
    known: int
    tally: BrokenTally
    changes: Changes
    pruned: int


def index_images(args: Args, checkpoint: Checkpoint, images: Images, console: Console) -> Indexed:
    """Add what the gallery lacks, then build its shortlists.

    Raises:
        GalleryError: the gallery was made by another checkpoint, or has an id under another path.
        DataError: more files are broken than allowed.
    """
    encoder = ImageEncoder.of(checkpoint, args.widths, args.batch_size, args.workers)
    spec, path = encoder.embedder.spec(), str(checkpoint.path.absolute())
    dims = require_dims(args.dims, args.factory, spec.dim)
    part = parse_shard(args.shard, len(images), args.batch_size)
    describe = _Describe(args, images, console)
    tally = BrokenTally(len(part), args.max_broken)
    target = Destination(args.gallery, spec, path, encoder.widths, upsert=args.upsert, shard=args.shard)
    with closing(target):
        # Of a gallery that was there before, all its widths.
        encoder = ImageEncoder.of(checkpoint, target.widths, args.batch_size, args.workers)
        left = target.missing(images.ids, images.paths, args.prefix, part)
        if args.changed:
            left = np.union1d(left, _changed(target, images, args, part))
            target.upsert = True
        target.since = time.time_ns()
        with intake(target.commit) as writer, reporter(console).meter("indexing", len(part)) as bar:
            bar.skip(len(part) - len(left))
            for batch, vectors in encoder.encode(images, left, tally, bar):
                target.open()
                writer.add(describe.rows(batch.indices.numpy()), vectors)
        if args.shard:
            target.open()
        if target.gallery is None:
            broken = BrokenTally(0, 1.0, found=tally.found | tally.foreign)
            raise GalleryError(f"{args.images} has no readable images:\n{broken.listing()}")
        changes = compare(target.gallery, _spellings(args.images)) if args.images else Changes()
        gone = changes.gone if args.prune else []
        pruned = target.gallery.delete(gone) if gone else 0
        _finish(target, dims, args, writer.committed)
    return Indexed(writer.committed, len(part) - len(left), tally, changes, pruned)


def _spellings(place: Path) -> tuple[str, ...]:
    """A place as it may have been called before: as it is called now, and without links."""
    return tuple({str(absolute(place)), str(place.resolve())})


def _changed(target: Destination, images: Images, args: Args, part: range) -> NDArray[np.int64]:
    """Positions of the images whose files differ from those that were encoded."""
    if target.gallery is None or args.images is None:
        return np.empty(0, np.int64)
    wanted = set(compare(target.gallery, _spellings(args.images)).changed)
    ids = images.ids if wanted else ()
    return np.array([place for place in part if ids and args.prefix + ids[place] in wanted], dtype=np.int64)


def _finish(target: Destination, dims: Sequence[int], args: Args, added: int) -> None:
    gallery = target.open()
    merge_segments(gallery)
    if not args.shard:
        build_shortlists(gallery, dims, args.factory, added)


class _Describe:
    """What a gallery keeps with each image of a collection.

    Raises:
        GalleryError: the file of metadata is damaged, or speaks of images that are not in the collection.
    """

    def __init__(self, args: Args, images: Images, console: Console) -> None:
        self._images, self._prefix = images, args.prefix
        self._known = None if args.metadata is None else Annotations(args.metadata)
        if self._known is not None:
            by_path = self._known.by == "path"
            self._known.require_known(images.paths if by_path else (self._prefix + one for one in images.ids))
            reporter(console).left_out(self._known.left_out)

    def rows(self, positions: NDArray[np.int64]) -> list[Row]:
        """The images at these positions."""
        found = [self._row(int(position)) for position in positions]
        return found if self._known is None else annotated(found, self._known)

    def _row(self, index: int) -> Row:
        label = int(self._images.labels[index])
        name = None if label == NO_LABEL else self._images.classes[label]
        return Row(self._prefix + self._images.ids[index], self._images.paths[index], name)


def index_vectors(args: Args, console: Console) -> tuple[int, int]:
    """Add the vectors of a file that the gallery lacks, then build its shortlists.

    Returns:
        How many were added, and how many were there already.

    Raises:
        GalleryError: the file is damaged or has an id twice, vectors are not of length 1, or the gallery was
            made by another model.
    """
    assert args.vectors is not None
    file = open_vectors(args.vectors, args.ids)
    if file.left_out:
        console.print(f"columns that are not taken: {', '.join(file.left_out)}", soft_wrap=True, markup=False)
    dims = require_dims(args.dims, args.factory, file.dim)
    if (twice := first_repeated(file.ids)) is not None:
        raise GalleryError(f"{file.file}: the id {twice!r} is there twice")
    part = parse_shard(args.shard, len(file))
    known = _annotations(args, file)
    if known is not None:
        reporter(console).left_out(known.left_out)
    target = Destination(args.gallery, elsewhere(file, args.model_name), upsert=args.upsert, shard=args.shard)
    with closing(target):
        with (
            # Every part is large enough to be committed alone.
            intake(target.commit_new, rows=1) as writer,
            reporter(console).meter("indexing", len(part), "vectors") as bar,
        ):
            for rows, xb in file.parts(part):
                named = [replace(row, id=args.prefix + row.id) for row in rows]
                unit = checked(file.file, named, xb, normalise=args.normalise)
                writer.add(named if known is None else annotated(named, known), {target.spec.width: unit})
                bar.advance(len(rows))
        _finish(target, dims, args, writer.committed)
    return writer.committed, len(part) - writer.committed


def _annotations(args: Args, file: VectorFile) -> Annotations | None:
    """What the file of metadata says about the images whose vectors these are."""
    if args.metadata is None:
        return None
    known = Annotations(args.metadata)
    if known.by != "id":
        raise GalleryError(f"{args.metadata}: vectors are found by a column id, not path")
    known.require_known(args.prefix + one for part in file.ids() for one in part)
    return known
