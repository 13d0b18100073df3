"""Images as callers hand them over: a path, a PIL image, an array of pixels, or the bytes of a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matmamba_common.settings import require
from matmamba_common.words import shown
from matmamba_datasets import NO_LABEL, BrokenImageError, Images, Limits, TableReading
from matmamba_datasets.image_file import to_rgb
from matmamba_datasets.listing import absolute
from matmamba_datasets.regular import read_regular
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import ConfigError
from ..given import require_texts, require_type

# One image.
ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | bytes"
ALLOWED = "a path, a PIL image, an array (H, W, 3) of uint8, or the bytes of an image file"


def require_image(name: str, value: Any) -> None:
    """Raise `TypeError` if an argument is no image.

    Args:
        name: of the argument.
        value: as it was given.
    """
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3 or not value.size:
            raise TypeError(f"{name} is an array of {value.dtype}, shape {value.shape}: it can be {ALLOWED}")
        return
    require_type(name, value, (str, os.PathLike, Image.Image, bytes, bytearray, memoryview), ALLOWED)


def content_of(value: ImageLike, name: str, limits: Limits) -> bytes | Image.Image:
    """The file of one image, or its pixels, upright RGB.

    Args:
        value: the image.
        name: what errors call it.
        limits: that files are read within.

    Raises:
        BrokenImageError: there is no such file, or a PIL image cannot be read.
    """
    if isinstance(value, (str, os.PathLike)):
        return read_regular(os.fspath(value), limits.max_bytes)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(value))
    try:
        return to_rgb(ImageOps.exif_transpose(value))
    # What Pillow raises for an image whose file is damaged or closed, which it reads only now.
    except (OSError, ValueError, SyntaxError) as error:
        raise BrokenImageError(name, str(error) or type(error).__name__) from error


class GivenImages(Images):
    """A sequence of images as a collection.

    Args:
        images: one each.
        ids: of the images; by default the paths as they were given.
        labels: of the images, None for one without.
        limits: that files are read within, the default ones if None.
        name: of the argument that holds the images.

    Raises:
        TypeError: an image, id or label of another type.
        ConfigError: images in memory without ids, an id twice, or not as many as images.
    """

    def __init__(
        self,
        images: Sequence[ImageLike],
        ids: Sequence[str] | None = None,
        labels: Sequence[str | None] | None = None,
        limits: Limits | None = None,
        name: str = "images",
    ) -> None:
        for place, image in enumerate(images):
            require_image(f"{name}[{place}]", image)
        if not len(images):
            raise ConfigError(f"{name} is empty: there is no image")
        self._images, self.limits = images, limits or Limits()
        self.ids: Sequence[str] = _ids(images, ids)
        self.paths: Sequence[str] = [_path(image) for image in images]
        named = [None] * len(images) if labels is None else _labels(labels, len(images))
        self.classes = tuple(sorted({label for label in named if label is not None}))
        places = {label: place for place, label in enumerate(self.classes)}
        self.labels = np.array([places.get(label, NO_LABEL) for label in named], dtype=np.int64)  # type: ignore[arg-type]
        self.groups: Sequence[int] = (len(images),)

    def __len__(self) -> int:
        return len(self._images)

    def stored(self, index: int) -> bytes | Image.Image:
        return content_of(self._images[index], self.ids[index], self.limits)


def _path(image: ImageLike) -> str:
    return str(absolute(Path(os.fspath(image)))) if isinstance(image, (str, os.PathLike)) else ""


def _ids(images: Sequence[ImageLike], ids: Sequence[str] | None) -> Sequence[str]:
    if ids is None:
        for place, image in enumerate(images):
            if not isinstance(image, (str, os.PathLike)):
                raise ConfigError(f"images[{place}] has no path: give ids, text for each image")
        ids = [os.fspath(image) for image in images]  # type: ignore[arg-type]
    ids = require_texts("ids", ids)
    if len(ids) != len(images):
        raise ConfigError(f"ids has {len(ids)} texts for {len(images)} images")
    seen = set[str]()
    for one in ids:
        if one in seen:
            raise ConfigError(f"ids: {one!r} is there twice")
        seen.add(one)
    return ids


def _labels(labels: Sequence[str | None], count: int) -> Sequence[str | None]:
    if isinstance(labels, str):
        raise TypeError(f"labels is {shown(labels)}: it can be a list, with text or nothing for each image")
    require("labels", labels, Sequence[str | None])
    if len(labels) != count:
        raise ConfigError(f"labels has {len(labels)} for {count} images")
    return labels


def collection_of(
    images: Any,
    ids: Sequence[str] | None,
    labels: Sequence[str | None] | None,
    reading: TableReading | None,
    name: str = "images",
) -> Images:
    """Images that are to be indexed, as a collection.

    Args:
        images: a folder, Parquet file, shard or a folder of these; a collection; or a sequence of images.
        ids: of a sequence.
        labels: of a sequence.
        reading: what is read of a place.
        name: of the argument that holds the images.

    Raises:
        TypeError: none of these.
        ConfigError: ids or labels that do not fit the images.
        DataError: there is nothing at the place.
    """
    if reading is not None:
        require("reading", reading, TableReading)
    if isinstance(images, (str, os.PathLike)) or _is_collection(images):
        unused = [name for name, value in (("ids", ids), ("labels", labels)) if value is not None]
        if unused:
            raise ConfigError(f"{unused[0]} means nothing for a place or a collection, which has its own")
    if isinstance(images, str) and not images:
        raise ConfigError(f"{name} is empty: it can be a folder, a Parquet file or a shard")
    if isinstance(images, (str, os.PathLike)):
        from matmamba_datasets import open_images

        return open_images(os.fspath(images), reading)
    if _is_collection(images):
        return images
    if isinstance(images, (bytes, bytearray, memoryview)) or not isinstance(images, Sequence):
        raise TypeError(
            f"{name} is {shown(images)}: it can be a folder, a Parquet file or a shard, or a"
            f" list whose items are {ALLOWED}"
        )
    return GivenImages(images, ids, labels, reading, name)


def _is_collection(images: Any) -> bool:
    return all(hasattr(images, name) for name in ("stored", "ids", "paths", "labels", "classes"))
