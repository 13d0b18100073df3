"""A gallery moves to another model: its images are read again from where they were, and encoded anew."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_common.settings import require
from matmamba_datasets import BrokenTally, Limits, StoredImages
from matmamba_retrieval import Gallery, GalleryError
from matmamba_retrieval.gallery.merging import merge_segments
from matmamba_retrieval.gallery.renewal import Renewal
from numpy.typing import NDArray

from ..device import limit_threads
from ..galleries.encoding import ImageEncoder
from ..galleries.gallery_model import ModelLike, embedder_at
from ..galleries.intake import intake
from ..galleries.shortlists import build_shortlists
from ..given import require_path, require_texts
from ..progress import Listener, Reporter
from ..public_call import public_call

# Batches whose images' paths are in memory at once.
WINDOW = 1024


@dataclass(frozen=True, kw_only=True)
class Reindexed:
    """What a change of model did.

    Attributes:
        gallery: its folder.
        encoded: images that were encoded by this call.
        total: images of the gallery now.
        seconds: how long it took.
        broken: of images that are missing or cannot be read, and were left out: reason by name.
        left_out: of what is no image at all: reason by name.
        needed: False where the gallery was of this model already, and nothing was done.
    """

    gallery: Path
    encoded: int
    total: int
    seconds: float = 0.0
    broken: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    needed: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**vars(self), "gallery": str(self.gallery)}


@public_call
def reindex(
    folder: str | os.PathLike[str],
    model: ModelLike,
    *,
    widths: Sequence[str] = (),
    max_broken: float = 0.01,
    batch_size: int = 64,
    workers: int = 0,
    threads: int = 0,
    limits: Limits | None = None,
    progress: Listener | None = None,
) -> Reindexed:
    """Give a gallery the vectors of another model.

    It goes on answering with its old vectors until all of the new ones and their indexes are there; then it
    changes in one moment. A run that was stopped goes on with the same call. A plan of the old model is
    dropped. With the same model and other widths, the gallery gets vectors of these widths.

    Args:
        folder: of the gallery.
        model: as for `index`.
        widths: further widths at which each image gets a vector; by default those that the gallery has.
        max_broken: share of images that may be missing or unreadable before the run stops.
        batch_size: images encoded at once.
        workers: processes that decode images; with 0, a thread does.
        threads: that encode; 0 for as many as torch takes.
        limits: of every image.
        progress: is told how far it is.

    Raises:
        GalleryError: no gallery there, or no image can be read.
        DataError: more images are missing or broken than allowed. What was encoded stays for the next run.
        CheckpointError: the model cannot be read.
        EncoderError: an encoder that cannot be had.
        WidthError: no such width.
        ConfigError: a number that cannot be.
        TypeError: an argument is of another type.
    """
    start, place, wanted = time.monotonic(), require_path("folder", folder), require_texts("widths", widths)
    require("limits", limits, Limits | None)
    limit_threads(threads)
    embedder, report = embedder_at(model), Reporter(progress)
    with Gallery(place, write=True) as gallery:
        encoder = ImageEncoder.of(embedder, wanted or gallery.generation.widths, batch_size, workers)
        # What is left out here, the gallery loses.
        tally = BrokenTally(len(gallery), max_broken, few=0)
        if _is_there(gallery, encoder):
            return Reindexed(gallery=place, encoded=0, total=len(gallery), needed=False)
        encoded = _encode_anew(gallery, encoder, tally, report, limits)
        report.broken(tally)
        return Reindexed(
            gallery=place,
            encoded=encoded,
            total=len(gallery),
            seconds=time.monotonic() - start,
            broken=tally.found,
            left_out=tally.foreign,
        )


def _is_there(gallery: Gallery, encoder: ImageEncoder) -> bool:
    same = gallery.spec == encoder.embedder.spec()
    return same and set(gallery.generation.widths) == set(encoder.widths)


def _encode_anew(
    gallery: Gallery, encoder: ImageEncoder, tally: BrokenTally, report: Reporter, limits: Limits | None
) -> int:
    """Encode what lacks, and switch; returns how many images were encoded."""
    path, full = encoder.embedder.place, encoder.embedder.spec().width
    renewal = Renewal(gallery, encoder.embedder.spec(), path, encoder.widths)

    def commit(keys: Sequence[int], vectors: Mapping[str, NDArray[np.floating]]) -> int:
        renewal.add(np.array(keys), vectors[full], {width: vectors[width] for width in encoder.widths})
        return len(keys)

    with intake(commit) as writer, report.meter("encoding anew", len(gallery)) as meter:
        keys, pending = gallery.live_keys(), renewal.pending()
        meter.skip(len(keys) - len(pending))
        for window, left in _windows(keys, pending, WINDOW * encoder.batch_size):
            # What is encoded here is written by a thread: nothing else may use the catalogue then.
            writer.flush()
            rows = gallery.rows(window)
            images = StoredImages([row.id for row in rows], [row.path for row in rows], limits)
            for batch, vectors in encoder.encode(images, left, tally, meter):
                writer.add(window[batch.indices.numpy()].tolist(), vectors)
    if 0 < len(gallery) == len(renewal.pending()):
        raise GalleryError(f"none of the images of {gallery.folder} can be read:\n{tally.listing()}")
    _switch(gallery, renewal, report)
    return writer.committed


def _windows(
    keys: NDArray[np.int64], pending: NDArray[np.int64], size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Some keys, and the positions among them of those that are pending; both arrays are sorted."""
    for start in range(0, len(keys), size):
        window = keys[start : start + size]
        first, last = np.searchsorted(pending, (window[0], window[-1] + 1))
        if first < last:
            yield window, np.searchsorted(window, pending[first:last])


def _switch(gallery: Gallery, renewal: Renewal, report: Reporter) -> None:
    """Make the new vectors current, with those indexes that fit them, and one at least."""
    before = {record.name for record in gallery.shortlists()}
    renewal.finish()
    if lost := before - {record.name for record in gallery.shortlists()}:
        report.say(f"indexes that do not fit the new model: {', '.join(sorted(lost))}")
    merge_segments(gallery)
    if len(gallery):
        build_shortlists(gallery, [], "", 0)
