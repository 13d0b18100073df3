"""Images through a model in fixed batches, decoded ahead while others are encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matmamba_common.settings import require_crew
from matmamba_datasets import BrokenTally, Images, Subset
from matmamba_retrieval.overlap import ahead
from numpy.typing import NDArray

from ..encoders.names import EncoderError
from ..errors import ConfigError
from ..given import require_whole
from ..progress import Meter

if TYPE_CHECKING:
    from matmamba_datasets import Batch
    from matmamba_datasets.transforms import Transform

    from .embedder import Embedder

# Batches that are decoded, but not encoded yet.
AHEAD = 2
ByWidth = dict[str, NDArray[np.floating]]
Ints = NDArray[np.int64]


def some(images: Images, count: int | None, seed: int) -> Images:
    """At most `count` of the images, picked by chance, in their order; all by default.

    Args:
        images: to pick from.
        count: how many at most, None for all.
        seed: of the choice.
    """
    if count is None or count >= len(images):
        return images
    chosen = np.random.default_rng(seed).choice(len(images), count, replace=False)
    return Subset(images, np.sort(chosen))


def embed_batches(
    embedder: Embedder, batches: Iterable[Batch], widths: Sequence[str]
) -> tuple[dict[str, NDArray[np.float32]], Ints, Ints]:
    """(n, D) embeddings by width, (n,) labels and (n,) positions in the collection, of all batches.

    Raises:
        NotFiniteError: a width gives embeddings that are not numbers.
    """
    parts = {width: [np.empty((0, embedder.dim), np.float32)] for width in widths}
    labels, indices = ([np.empty(0, np.int64)] for _ in range(2))
    for batch in batches:
        if not len(batch):
            continue
        labels.append(batch.labels.numpy())
        indices.append(batch.indices.numpy())
        for width, part in parts.items():
            part.append(embedder.embed(batch.images, width))
    by_width = {width: np.concatenate(part) for width, part in parts.items()}
    return by_width, np.concatenate(labels), np.concatenate(indices)


def embed_images(
    embedder: Embedder, widths: Sequence[str], batches: Callable[[Transform], Iterable[Batch]]
) -> tuple[dict[str, NDArray[np.float32]], Ints, Ints]:
    """The same of images that are read once for each way in which the widths want them prepared.

    Args:
        embedder: of the widths.
        widths: their labels.
        batches: one pass over the images, prepared in one way.

    Raises:
        NotFiniteError: a width gives embeddings that are not numbers.
    """
    alike: dict[Transform, list[str]] = {}
    for width in widths:
        alike.setdefault(embedder.transform_of(width), []).append(width)
    passes = [embed_batches(embedder, batches(transform), some) for transform, some in alike.items()]
    found = {width: vectors for by_width, _, _ in passes for width, vectors in by_width.items()}
    return {width: found[width] for width in widths}, *passes[0][1:]


@dataclass(frozen=True)
class ImageEncoder:
    """A model that encodes images at its full width and at some others.

    Attributes:
        widths: labels of the others.
        batch_size: images that are encoded together.
        workers: processes that decode; with 0 a thread does.
    """

    embedder: Embedder
    widths: tuple[str, ...]
    batch_size: int
    workers: int

    @staticmethod
    def of(embedder: Embedder, widths: Sequence[str], batch_size: int, workers: int) -> ImageEncoder:
        """One for widths as a user writes them; `ConfigError` if a number cannot be."""
        require_whole("batch_size", batch_size, 1)
        require_crew(workers=workers)
        labels = dict.fromkeys(embedder.label(width) for width in widths)
        labels.pop(embedder.spec().width, None)
        if labels and embedder.taught is not None:
            raise ConfigError(
                f"widths {next(iter(labels))}: a gallery that the teacher encodes has its vectors alone,"
                " which all widths of the student ask"
            )
        return ImageEncoder(embedder, tuple(labels), batch_size, workers)

    def encode(
        self, images: Images, left: NDArray[np.int64], tally: BrokenTally, bar: Meter
    ) -> Iterator[tuple[Batch, ByWidth]]:
        """Batches with their vectors by width, of the images at the positions `left`.

        Which images are together in a batch depends on their positions alone, so an interrupted run gives
        each the same vector as an unbroken one.

        Raises:
            DataError: more images are broken than `tally` allows.
            EncoderError: an image is encoded to nothing but zeros.
        """
        from matmamba_datasets import make_loader

        embedder = self.embedder.for_many(len(images))
        transform = embedder.transform_of(embedder.spec().width)
        loader = make_loader(images, transform, self.batch_size, workers=self.workers, left=left)
        for batch in ahead(iter(loader), AHEAD):
            tally.add(batch.broken)
            if len(batch):
                vectors = self._embed(embedder, batch)
                _require_directions(embedder.name, batch.ids, vectors)
                yield batch, vectors
            bar.advance(len(batch) + len(batch.broken), f"{len(tally.found)} broken" if tally.found else "")

    def _embed(self, embedder: Embedder, batch: Batch) -> ByWidth:
        full = embedder.spec().width
        return {width: embedder.embed(batch.images, width) for width in (full, *self.widths)}


def _require_directions(name: str, ids: Sequence[str], vectors: ByWidth) -> None:
    """Raise `EncoderError` if what encodes gives nothing but zeros for an image.

    Before anything is written: a gallery would remember this encoder and refuse the next.
    """
    for found in vectors.values():
        if len(empty := np.flatnonzero(~found.any(axis=1))):
            raise EncoderError(
                f"{name} gives nothing but zeros for {ids[empty[0]]}: a vector of length 0 is like none"
            )
