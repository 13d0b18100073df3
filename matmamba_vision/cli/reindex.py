"""Move a gallery to another model: its images are read again from where they were, and encoded anew.

The gallery goes on answering with its old vectors until all of the new ones and their indexes are there; then
it changes in one moment. A run that was stopped goes on with the same command. Images that can no longer be
read are left out, counted and listed; the run stops if they are too many. A plan of the old model is dropped.
With the same model and other --widths, the gallery gets vectors of these widths.

examples:
  matmamba reindex --gallery G --checkpoint runs/better
  matmamba reindex --gallery G --checkpoint runs/better --widths 1/8 --max-broken 0.05
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import numpy as np
import tyro
from matmamba_datasets import BrokenTally, Limits, StoredImages
from matmamba_retrieval import Gallery, GalleryError
from matmamba_retrieval.gallery.merging import merge_segments
from matmamba_retrieval.gallery.renewal import Renewal
from numpy.typing import NDArray

from ..checkpoint import load_checkpoint
from ..device import limit_threads
from ..galleries.encoding import ImageEncoder
from ..galleries.intake import intake
from ..galleries.shortlists import build_shortlists
from .arguments import parse
from .console import Console
from .progress import reporter
from .summary import continuable, summarise

# Batches whose images' paths are in memory at once.
WINDOW = 1024


@dataclass
class Args:
    # Folder of the gallery.
    gallery: Path
    # Run folder, checkpoint file, or the name of a model whose weights are shipped.
    checkpoint: Path
    # Further widths at which each image gets a vector; by default those that the gallery has.
    widths: list[str] = field(default_factory=list)
    # Share of images that may be missing or unreadable before the run stops.
    max_broken: float = 0.01
    # Images encoded at once.
    batch_size: int = 64
    # Processes that decode images; with 0, a thread does.
    workers: int = 0
    # Threads that encode; 0 for as many as torch takes.
    threads: int = 0
    # Of every image.
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)


def run(arguments: list[str]) -> None:
    """Encode all images anew, switch, print a summary."""
    args = parse(Args, "reindex", __doc__, arguments)
    console, start = Console(), time.monotonic()
    limit_threads(args.threads)
    checkpoint = load_checkpoint(args.checkpoint)
    with continuable(args.gallery), Gallery(args.gallery, write=True) as gallery:
        encoder = ImageEncoder.of(
            checkpoint, args.widths or gallery.generation.widths, args.batch_size, args.workers
        )
        if _is_there(gallery, encoder):
            console.print(f"{args.gallery} is of this model already: nothing to do", soft_wrap=True)
            return
        count, tally = reindex(gallery, encoder, args.max_broken, console, args.limits)
        total = len(gallery)
    summarise(console, args.gallery, "encoded anew", count, total, time.monotonic() - start)
    reporter(console).broken(tally)
    console.print(f"next: matmamba search --gallery {quote(str(args.gallery))} IMAGE", soft_wrap=True)


def _is_there(gallery: Gallery, encoder: ImageEncoder) -> bool:
    same = gallery.spec == encoder.embedder.spec()
    return same and set(gallery.generation.widths) == set(encoder.widths)


def reindex(
    gallery: Gallery, encoder: ImageEncoder, max_broken: float, console: Console, limits: Limits | None = None
) -> tuple[int, BrokenTally]:
    """Give a gallery the vectors of another model; returns images encoded now, and those left out.

    Raises:
        GalleryError: no image can be read.
        DataError: more images are missing or broken than allowed. What was encoded stays for the next run.
    """
    path, full = str(encoder.checkpoint.path.absolute()), encoder.embedder.spec().width
    renewal = Renewal(gallery, encoder.embedder.spec(), path, encoder.widths)
    tally = BrokenTally(len(gallery), max_broken)

    def commit(keys: Sequence[int], vectors: Mapping[str, NDArray[np.floating]]) -> int:
        renewal.add(np.array(keys), vectors[full], {width: vectors[width] for width in encoder.widths})
        return len(keys)

    with intake(commit) as writer, reporter(console).meter("encoding anew", len(gallery)) as bar:
        keys, pending = gallery.live_keys(), renewal.pending()
        bar.skip(len(keys) - len(pending))
        for window, left in _windows(keys, pending, WINDOW * encoder.batch_size):
            # What is encoded here is written by a thread: nothing else may use the catalogue then.
            writer.flush()
            rows = gallery.rows(window)
            images = StoredImages([row.id for row in rows], [row.path for row in rows], limits)
            for batch, vectors in encoder.encode(images, left, tally, bar):
                writer.add(window[batch.indices.numpy()].tolist(), vectors)
    if 0 < len(gallery) == len(renewal.pending()):
        raise GalleryError(f"none of the images of {gallery.folder} can be read:\n{tally.listing()}")
    _switch(gallery, renewal, console)
    return writer.committed, tally


def _windows(
    keys: NDArray[np.int64], pending: NDArray[np.int64], size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Some keys, and the positions among them of those that are pending; both arrays are sorted."""
    for start in range(0, len(keys), size):
        window = keys[start : start + size]
        first, last = np.searchsorted(pending, (window[0], window[-1] + 1))
        if first < last:
            yield window, np.searchsorted(window, pending[first:last])


def _switch(gallery: Gallery, renewal: Renewal, console: Console) -> None:
    """Make the new vectors current, with those indexes that fit them, and one at least."""
    before = {record.name for record in gallery.shortlists()}
    renewal.finish()
    if lost := before - {record.name for record in gallery.shortlists()}:
        console.print(f"indexes that do not fit the new model: {', '.join(sorted(lost))}", soft_wrap=True)
    merge_segments(gallery)
    if len(gallery):
        build_shortlists(gallery, [], "", 0)
