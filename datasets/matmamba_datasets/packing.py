"""Images as they go into shards: their own files where these can be kept, and keys for them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from .errors import BrokenImageError
from .image_file import formats, read_image
from .kinds import IMAGE_SUFFIXES
from .processes import in_order
from .sample import Images
from .texts import Packed

# Images that a process hands over at once.
TOGETHER = 16
# Of images that are made smaller.
JPEG_QUALITY = 95
PACKED_SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "jp2", "avif")
_SUFFIX_OF_FORMAT = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}


@dataclass(frozen=True)
class Entry:
    """An image's file for a shard, its position in the collection, and what its name ends with."""

    index: int
    content: bytes
    suffix: str


def entries(
    images: Images, order: NDArray[Any], max_size: int, workers: int
) -> Iterator[Entry | BrokenImageError]:
    """The images at the positions in `order`, each decoded once to see that it is whole.

    Args:
        max_size: longer side in pixels beyond which an image is made smaller; 0 for none.
        workers: processes.
    """
    for part in in_order(_Entries(images, max_size), order.tolist(), workers=workers, together=TOGETHER):
        yield from part


@dataclass(frozen=True)
class _Entries:
    images: Images
    max_size: int

    def __call__(self, index: int) -> Entry | BrokenImageError:
        try:
            return Entry(index, *_pack(self.images, index, self.max_size))
        except BrokenImageError as error:
            return error


def _pack(images: Images, index: int, max_size: int) -> tuple[bytes, str]:
    """File and suffix: the file that is stored, byte for byte, unless it is too large or there is none."""
    stored = images.stored(index)
    if isinstance(stored, Image.Image):
        return _encode(_shrink(stored, max_size), "PNG")
    image = read_image(io.BytesIO(stored), images.paths[index], limits=images.limits)
    if max_size and max(image.size) > max_size:
        return _encode(_shrink(image, max_size), "JPEG")
    with Image.open(io.BytesIO(stored), formats=formats()) as opened:
        kind = str(opened.format)
    suffix = _SUFFIX_OF_FORMAT.get(kind, kind.lower())
    # What few programs read becomes a PNG.
    return (stored, suffix) if suffix in PACKED_SUFFIXES else _encode(image, "PNG")


def _shrink(image: Image.Image, max_size: int) -> Image.Image:
    if max_size:
        image.thumbnail((max_size, max_size), Image.Resampling.LANCZOS)
    return image


def _encode(image: Image.Image, kind: str) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": JPEG_QUALITY} if kind == "JPEG" else {}))
    return buffer.getvalue(), _SUFFIX_OF_FORMAT.get(kind, kind.lower())


def shard_keys(ids: Iterable[str]) -> Packed:
    """A key for each image: its id without the suffix and without other dots, which would end a key."""
    return Packed.of(_unique(map(_key, ids)))


def _key(image_id: str) -> str:
    folder, slash, name = image_id.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    name = stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name
    return f"{folder}{slash}{name.replace('.', '_') or '_'}"


def _unique(keys: Iterable[str]) -> Iterator[str]:
    """A key that was there already gets underscores, as for `a.jpg` and `a.png`."""
    seen = set()
    for key in keys:
        while key in seen:
            key += "_"
        seen.add(key)
        yield key
