"""Query images: files, folders of them, file:// URLs, standard input, and images in memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from matmamba_datasets import BrokenImageError, Limits, Reading, left_out_text, read_image
from matmamba_datasets.frame_names import frame_of
from matmamba_datasets.kinds import is_video_name
from matmamba_datasets.listing import Listing
from matmamba_datasets.video_frames import VideoFrames
from matmamba_retrieval import GalleryError
from PIL import Image

from .given_images import ImageLike, content_of

T = TypeVar("T")
STDIN = "-"


@dataclass(frozen=True)
class Asked:
    """A query image.

    Attributes:
        name: what answers call it.
        source: its path, its file, or its pixels.
        reading: limits that files are read within.
    """

    name: str
    source: Path | bytes | Image.Image
    reading: Limits = field(default_factory=Limits)

    @staticmethod
    def of(name: str, value: ImageLike, reading: Limits) -> Asked:
        """The query image that a caller hands over.

        Args:
            name: what answers call it.
            value: path, PIL image, array (H, W, 3) of uint8, or the bytes of a file.
            reading: limits that files are read within.
        """
        if isinstance(value, (str, os.PathLike)):
            return Asked(name, Path(value), reading)
        if isinstance(value, Image.Image):
            return Asked(name, value, reading)
        return Asked(name, content_of(value, name, reading), reading)

    def read(self) -> Image.Image:
        """The image; `BrokenImageError` if it cannot be read."""
        if isinstance(self.source, Image.Image):
            pixels = content_of(self.source, self.name, self.reading)
            assert isinstance(pixels, Image.Image)
            return pixels
        if isinstance(self.source, Path) and frame_of(str(self.source)) and not self.source.exists():
            return VideoFrames(self.reading, 1).picture(str(self.source))
        source = io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source
        try:
            return read_image(source, self.name, limits=self.reading)
        except BrokenImageError as error:
            if not isinstance(source, Path) or not source.is_file() or not is_video_name(source.name):
                raise
            moment = f"{self.name}#t=0:05"
            raise BrokenImageError(
                self.name, f"a video, and a query is one frame of it, as {moment}"
            ) from error


def asked_images(
    arguments: Sequence[str], stdin: BinaryIO, reading: Reading
) -> tuple[list[Asked], dict[str, str]]:
    """The images that arguments name, those of a folder in the order of their names; and what is left out.

    Raises:
        GalleryError: a folder without images, a URL that is not of a file here, or standard input twice.
    """
    if arguments.count(STDIN) > 1:
        raise GalleryError("standard input can be read once: '-' is given twice")
    left_out = dict[str, str]()
    asked = [one for argument in arguments for one in _expand(argument, stdin, reading, left_out)]
    return asked, left_out


def _expand(argument: str, stdin: BinaryIO, reading: Reading, left_out: dict[str, str]) -> Iterator[Asked]:
    if argument == STDIN:
        # One byte more than is allowed, so that a stream without an end ends here.
        yield Asked("standard input", stdin.read(reading.max_bytes + 1)[: reading.max_bytes], reading)
        return
    path = local_path(argument)
    if not path.is_dir():
        yield Asked(argument, path, reading)
        return
    listing = Listing(path, reading)
    left_out |= listing.left_out
    if not len(listing.images):
        listed = f"\n{left_out_text(left_out)}" if left_out else ""
        raise GalleryError(f"no images in {path}{listed}")
    yield from (Asked(os.path.join(argument, one), path / one, reading) for one in listing.images)  # noqa: PTH118


def local_path(argument: str) -> Path:
    """The path that an argument names, itself or as a file:// URL; `GalleryError` for another URL."""
    if "://" not in argument:
        return Path(argument)
    # Here, because they load what a network needs.
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    url = urlsplit(argument)
    if url.scheme.lower() != "file" or url.netloc not in ("", "localhost"):
        raise GalleryError(f"{argument} is not a file here: download it, or pipe it in as '-'")
    return Path(url2pathname(url.path))


def read_batch(
    asked: Sequence[Asked], read: Callable[[Image.Image], T]
) -> tuple[list[int], list[T], dict[int, str]]:
    """Positions of those that can be read, what is made of them, and what is wrong with the others."""
    images: dict[int, T] = {}
    broken: dict[int, str] = {}
    for position, query in enumerate(asked):
        try:
            images[position] = read(query.read())
        except BrokenImageError as error:
            broken[position] = error.reason
    return list(images), [*images.values()], broken
