"""What a study works on: images encoded once, kept in files, and a gallery made of them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from matmamba_datasets import DataError, Images, Splits
from matmamba_retrieval import Encoded, EncodedQueries, Gallery, Row
from matmamba_retrieval.storage.sources import file_of
from numpy.typing import NDArray

from ..galleries.encoding import embed_images
from ..widths.held_out import BatchReader
from ..widths.quality_and_cost import Embeddings

ADDED_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class Side:
    """One split, encoded at some widths: (n, D) by width label, (n,) labels, and which images these are.

    Attributes:
        by_width: embeddings by the label of their width.
        labels: class indices.
        indices: positions of the images in their collection.
        name: digest of what made it.
    """

    by_width: dict[str, NDArray[np.float32]]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    name: str

    def at(self, width: str) -> Embeddings:
        """Embeddings of a width with their labels."""
        return Embeddings(self.by_width[width], self.labels)


@dataclass(frozen=True, eq=False)
class Experiment:
    """Encoded images, and a gallery of the training images.

    Attributes:
        gallery: of the training images, open for writing.
        stored: training images.
        asked: held-out images.
        queries: the held-out ones, as strategies take them, with the milliseconds of one image.
        labels: class name of each query.
        name: of the held-out images, as they were encoded.
    """

    gallery: Gallery
    stored: Side
    asked: Side
    queries: EncodedQueries
    labels: list[str]
    name: str

    def __enter__(self) -> Experiment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gallery.close()


class Workshop:
    """Encodes, and keeps what it encoded in a folder: the same images are not encoded again.

    Args:
        folder: files are named by what made them, so that nothing old is taken for new.
        reader: of the model that encodes.
    """

    def __init__(self, folder: Path, reader: BatchReader) -> None:
        self._folder, self._reader, self._embedder = folder, reader, reader.embedder
        self._model = {"checkpoint": self._embedder.digest}
        # A checkpoint of ours holds how its images are prepared: its digest says that, too.
        if self._embedder.trained is None:
            self._model["transform"] = self._embedder.spec().transform

    def open(
        self, splits: Splits, data: Mapping[str, Any], widths: Sequence[str], gallery_widths: Sequence[str]
    ) -> Experiment:
        """Encode both splits as far as that was not done before, and open their gallery.

        Args:
            splits: training images, which become the gallery, and held-out ones, which are asked.
            data: what says which images these are, as plain values.
            widths: labels, of the queries.
            gallery_widths: labels, of the gallery, beside full.

        Raises:
            DataError: no image can be read, or too many are broken.
        """
        data = {**data, "state": [state_of(splits.train), state_of(splits.held_out)]}
        stored_widths = list(dict.fromkeys(["full", *gallery_widths]))
        stored = self._side("gallery", splits.train, data, stored_widths)
        asked = self._side("queries", splits.held_out, data, widths)
        names = splits.train.classes
        labels = [names[label] for label in asked.labels]
        gallery = self._gallery(splits.train, stored, data)
        return Experiment(gallery, stored, asked, self._queries(asked), labels, asked.name)

    def _side(self, part: str, images: Images, data: Mapping[str, Any], widths: Sequence[str]) -> Side:
        wanted = {**self._model, "images": len(images), "part": part, **data}
        name = _digest(wanted | {"widths": list(widths)})
        file = self._folder / f"{part}-{name}.npz"
        if file.is_file():
            with np.load(file, allow_pickle=False) as known:
                by_width = {width: known[f"width {width}"] for width in widths}
                return Side(by_width, known["labels"], known["indices"], name)
        side = self._encode(part, images, widths, name)
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_name("partial.npz")
        vectors = {f"width {width}": side.by_width[width] for width in widths}
        np.savez(partial, labels=side.labels, indices=side.indices, **vectors)  # type: ignore[arg-type]
        partial.replace(file)
        return side

    def _encode(self, part: str, images: Images, widths: Sequence[str], name: str) -> Side:
        batches = partial(self._reader.batches, f"encoding {part}", images)
        by_width, labels, indices = embed_images(self._embedder.for_many(len(images)), widths, batches)
        if not len(labels):
            raise DataError(f"no image for the {part} can be read: name another data set, or another root")
        return Side(by_width, labels, indices, name)

    def _gallery(self, images: Images, side: Side, data: Mapping[str, Any]) -> Gallery:
        """Made whole beside its place, then moved there: one that is there is complete."""
        known = {**self._model, "widths": list(side.by_width), **data}
        place = self._folder / f"gallery-{_digest(known | {'images': len(side.labels)})}"
        if not Gallery.exists(place):
            partial = place.with_name(place.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            more = [width for width in side.by_width if width != "full"]
            with Gallery.create(partial, self._embedder.spec(), self._embedder.place, more) as made:
                for start in range(0, len(side.labels), ADDED_AT_ONCE):
                    chosen = slice(start, start + ADDED_AT_ONCE)
                    small = {width: side.by_width[width][chosen] for width in more}
                    made.add(_rows(images, side, chosen), side.by_width["full"][chosen], small)
            partial.replace(place)
        return Gallery(place, write=True)

    def _queries(self, side: Side) -> EncodedQueries:
        with self._reader.report.stage("measuring latency"):
            times = self._embedder.latencies(list(side.by_width))
        return EncodedQueries(
            {
                width: Encoded(xq, self._embedder.macs(width), time.median)
                for (width, xq), time in zip(side.by_width.items(), times, strict=True)
            }
        )


def state_of(images: Images) -> str:
    """What tells a collection from a changed one without reading it: ids, labels, sizes, times of files."""
    known = hashlib.sha256(np.ascontiguousarray(images.labels).tobytes())
    for name in images.ids:
        known.update(name.encode(errors="surrogateescape") + b"\n")
    for file in dict.fromkeys(map(file_of, images.paths)):
        # A file of the local machine; of a URL the name is all there is.
        if (path := Path(file)).exists():
            known.update(f"{path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    return known.hexdigest()


def _rows(images: Images, side: Side, chosen: slice) -> list[Row]:
    pairs = zip(side.indices[chosen].tolist(), side.labels[chosen].tolist(), strict=True)
    return [Row(images.ids[index], images.paths[index], images.classes[label]) for index, label in pairs]


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
