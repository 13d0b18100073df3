"""Several collections as one to train on, some of them seen more often than others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import DataError
from .folder import HELD_OUT_NAMES, TRAIN_NAMES, Folder, beside, named_part
from .listing import Listing
from .registry import open_images
from .sample import NO_LABEL, Images
from .texts import Texts


class JoinedImages(Images):
    """The images of some collections, each as often as its repeat says; classes one after the other.

    Attributes:
        sources: the collections.
        source: (n,) which of them each image is of.
        row: (n,) its position there.
        unique: (n,) its position among the images of all sources, each counted once.
        turn: (n,) how often it stands before.
        repeats: how often each source's images are there.

    Args:
        repeats: of each source, 1 or more.
        labelled: whether a source's labels count; without, its images have none, and its classes are not
            among those of the whole.

    Raises:
        DataError: no source, or not one number for each.
    """

    def __init__(self, sources: Sequence[Images], repeats: Sequence[int], labelled: Sequence[bool]) -> None:
        if not sources or not len(sources) == len(repeats) == len(labelled) or min(repeats) < 1:
            raise DataError(
                f"{len(sources)} collections, repeats {list(repeats)}, labelled {list(labelled)}: one number"
                " of 1 or more, and one yes or no, for each"
            )
        self.sources = tuple(sources)
        counts = [len(images) for images in sources]
        rows = [np.tile(np.arange(count), repeat) for count, repeat in zip(counts, repeats, strict=True)]
        self.row: NDArray[np.int64] = np.concatenate(rows)
        self.source: NDArray[np.int64] = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        self.unique = self.row + np.cumsum([0, *counts[:-1]])[self.source]
        turns = [np.repeat(np.arange(times), count) for count, times in zip(counts, repeats, strict=True)]
        self.turn: NDArray[np.int64] = np.concatenate(turns)
        self.repeats = tuple(repeats)
        self.classes, starts = _classes(sources, labelled)
        labels = [_shifted(images.labels, start) for images, start in zip(sources, starts, strict=True)]
        self.labels = np.concatenate([part[row] for part, row in zip(labels, rows, strict=True)])
        self.ids: Sequence[str] = _Named(self, [images.ids for images in sources])
        self.paths: Sequence[str] = _Named(self, [images.paths for images in sources])
        self.groups: Sequence[int] = (len(self.row),)
        self.left_out = {path: why for images in sources for path, why in images.left_out.items()}

    def __len__(self) -> int:
        return len(self.row)

    def stored(self, index: int) -> bytes | Image.Image:
        return self.sources[self.source[index]].stored(int(self.row[index]))


class _Named(Texts):
    def __init__(self, joined: JoinedImages, texts: Sequence[Sequence[str]]) -> None:
        self._joined, self._texts = joined, texts

    def __len__(self) -> int:
        return len(self._joined)

    def text(self, index: int) -> str:
        return self._texts[self._joined.source[index]][int(self._joined.row[index])]


def _classes(sources: Sequence[Images], labelled: Sequence[bool]) -> tuple[tuple[str, ...], list[int | None]]:
    """All classes, and the number of each source's first one; None for a source without labels."""
    classes, starts = list[str](), list[int | None]()
    for images, counts in zip(sources, labelled, strict=True):
        starts.append(len(classes) if counts else None)
        classes += images.classes if counts else ()
    return tuple(classes), starts


def _shifted(labels: NDArray[np.int64], start: int | None) -> NDArray[np.int64]:
    if start is None:
        return np.full_like(labels, NO_LABEL)
    return np.where(labels == NO_LABEL, NO_LABEL, labels + start)


def open_training_images(place: Path | str) -> Images:
    """All images of a place to train on, labelled or not: of a folder that has a split, its training part.

    Raises:
        DataError: nothing there.
    """
    root = Path(place)
    # Not one that lies beside images.
    if root.is_dir() and (files := sorted(root.glob("*.parquet"))) and not len(Listing(root).images):
        from .parquet import Parquet

        train = [file for file in files if file.name.startswith(TRAIN_NAMES)]
        return Parquet(train or files)
    inner, held_out = named_part(root, TRAIN_NAMES), named_part(root, HELD_OUT_NAMES)
    if inner is not None and held_out is not None:
        return beside(Folder(inner), root, [inner, held_out])
    return open_images(root)
