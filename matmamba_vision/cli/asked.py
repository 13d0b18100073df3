"""What a user may ask with: files, folders, file:// URLs, standard input, images of the gallery."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch
from matmamba_datasets import BrokenImageError, read_image
from matmamba_datasets.folder import relative_paths
from matmamba_retrieval import Gallery, GalleryError
from PIL import Image
from torch import Tensor

STDIN = "-"


@dataclass(frozen=True)
class Asked:
    """A query image. `name` is what answers call it; `source` is its path or its bytes."""

    name: str
    source: Path | bytes

    def read(self) -> Image.Image:
        """The image; `BrokenImageError` if it cannot be read."""
        return read_image(
            io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source, self.name
        )


def asked_images(arguments: Sequence[str], stdin: BinaryIO) -> list[Asked]:
    """The images that arguments name; those of a folder in the order of their names.

    Raises:
        GalleryError: a folder without files, a URL that is not of a file here, or standard input twice.
    """
    if arguments.count(STDIN) > 1:
        raise GalleryError("standard input can be read once: '-' is given twice")
    return [asked for argument in arguments for asked in _expand(argument, stdin)]


def _expand(argument: str, stdin: BinaryIO) -> Iterator[Asked]:
    if argument == STDIN:
        yield Asked("standard input", stdin.read())
        return
    path = local_path(argument)
    if not path.is_dir():
        yield Asked(argument, path)
        return
    found = sorted(relative_paths(path))
    if not found:
        raise GalleryError(f"no files in {path}")
    yield from (Asked(os.path.join(argument, name), path / name) for name in found)  # noqa: PTH118


def local_path(argument: str) -> Path:
    """The path that an argument names, itself or as a file:// URL; `GalleryError` for another URL."""
    if "://" not in argument:
        return Path(argument)
    url = urlsplit(argument)
    if url.scheme.lower() != "file" or url.netloc not in ("", "localhost"):
        raise GalleryError(f"{argument} is not a file here: download it, or pipe it in as '-'")
    return Path(url2pathname(url.path))


def read_batch(
    asked: Sequence[Asked], transform: Callable[[Image.Image], Tensor]
) -> tuple[list[int], Tensor, dict[int, str]]:
    """Positions of those that can be read, their images (n, C, S, S), and what is wrong with the others."""
    images: dict[int, Tensor] = {}
    broken: dict[int, str] = {}
    for position, query in enumerate(asked):
        try:
            images[position] = transform(query.read())
        except BrokenImageError as error:
            broken[position] = error.reason
    return list(images), torch.stack([*images.values()]) if images else torch.empty(0), broken


def key_of(gallery: Gallery, image_id: str) -> int:
    """Key of an image; `GalleryError` if the gallery does not have it."""
    keys = gallery.keys_of([image_id])
    if image_id not in keys:
        raise GalleryError(f"{gallery.folder} has no image of id {image_id!r}")
    return keys[image_id]
