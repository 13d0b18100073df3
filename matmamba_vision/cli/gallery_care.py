"""`matmamba gallery verify`, `repair` and `compact`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from matmamba_datasets import BrokenImageError, eval_transform
from matmamba_retrieval import Gallery, GalleryError, Row
from matmamba_retrieval.embedder import Embedder
from matmamba_retrieval.gallery import inspection, renewal, repairing
from matmamba_retrieval.storage.records import Generation
from numpy.typing import NDArray
from PIL import Image

from ..checkpoint import CheckpointError
from ..galleries.checkpoints import checkpoint_of
from ..galleries.pictures import Pictures
from .arguments import parse
from .console import Console

_VERIFY = """Read every byte of a gallery and compare it with its checksum.

With --images some images, taken by chance, are encoded again besides, and compared with their vectors: a file
that was replaced by another picture, or is gone, is found so. The exit status is 0 if all is well, 1 if
anything is damaged, 2 if there is no gallery.

examples:
  matmamba gallery verify G
  matmamba gallery verify G --images 100
"""
_REPAIR = """Build again what a gallery can build again: indexes from vectors, vectors from images.

Vectors are encoded again from the image files if the checkpoint is where it was, or is named. What is left
damaged is listed, and the exit status is 1: so are the images that cannot be encoded again. Put their files
back, or delete them from the gallery, and repair again.

examples:
  matmamba gallery repair G
  matmamba gallery repair G --checkpoint runs/photos
"""
_COMPACT = """Leave out for good what was deleted, and put the vectors in few files.

Who reads the gallery meanwhile keeps what they opened. Older versions can no longer be opened.

examples:
  matmamba gallery compact G
"""


@dataclass
class Args:
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]


@dataclass
class RepairArgs(Args):
    # Where the checkpoint is, if it was moved.
    checkpoint: Path | None = None


@dataclass
class VerifyArgs(RepairArgs):
    # Images to encode again.
    images: int = 0


def verify(arguments: list[str]) -> int:
    """List what is damaged."""
    args = parse(VerifyArgs, "gallery verify", _VERIFY, arguments)
    if args.images < 0:
        raise GalleryError(f"--images is {args.images}: it can be 0 or more")
    damages, compared = inspection.verify(args.gallery), ""
    if args.images and not damages:
        with Gallery(args.gallery) as gallery:
            encoder = _Encoder(args.gallery, gallery.generation, args.checkpoint)
            damages = inspection.verify_vectors(gallery, encoder, args.images)
            compared = f"; {min(args.images, len(gallery)):,} images were compared with their vectors"
    return _report(args.gallery, damages, Console(highlight=False), compared)


def _report(folder: Path, damages: list[inspection.Damage], console: Console, compared: str = "") -> int:
    for damage in damages:
        console.print(
            f"{damage.file} {damage.what}; to restore it: {damage.remedy}", markup=False, soft_wrap=True
        )
    if not damages:
        console.print(f"{folder}: every byte is as it was written{compared}", markup=False, soft_wrap=True)
    return 1 if damages else 0


def repair(arguments: list[str]) -> int:
    """Restore what can be restored, and list what is left."""
    args = parse(RepairArgs, "gallery repair", _REPAIR, arguments)
    console = Console(highlight=False)
    said = repairing.repair(args.gallery, partial(_Encoder, args.gallery, named=args.checkpoint))
    for line in said:
        console.print(line, markup=False, soft_wrap=True)
    left = any(line.startswith(repairing.LEFT) for line in said)
    return 1 if left else _report(args.gallery, [], console)


class _Encoder:
    """Vectors of images that are read again, by the model of a generation.

    Args:
        named: where its checkpoint may be, if that was moved.

    Raises:
        GalleryError, CheckpointError: that model is not to be had.
    """

    def __init__(self, folder: Path, generation: Generation, named: Path | None = None) -> None:
        self._pictures = Pictures()
        self._embedder = _embedder(folder, generation, named)

    def __call__(self, rows: Sequence[Row], width: str) -> list[NDArray[np.float32] | str]:
        """Embeddings at a width; in the place of an image that cannot be read, why."""
        transform = eval_transform(self._embedder.model.input)
        images = [self._image(row, transform) for row in rows]
        readable = [image for image in images if isinstance(image, torch.Tensor)]
        xb = iter(self._embedder.embed(torch.stack(readable), width) if readable else ())
        return [image if isinstance(image, str) else next(xb) for image in images]

    def _image(self, row: Row, transform: Callable[[Image.Image], torch.Tensor]) -> torch.Tensor | str:
        try:
            return transform(self._pictures.read(row.path))
        except BrokenImageError as error:
            return str(error)


def _embedder(folder: Path, generation: Generation, named: Path | None) -> Embedder:
    """The model named, or the one that is where the generation's was: a gallery may have one of another."""
    try:
        return _fitting(folder, generation, named)
    except (GalleryError, CheckpointError):
        if named is None or not Path(generation.checkpoint_path).exists():
            raise
        return _fitting(folder, generation, None)


def _fitting(folder: Path, generation: Generation, named: Path | None) -> Embedder:
    embedder = Embedder(checkpoint_of(folder, generation, named))
    generation.spec.require_same(embedder.spec(generation.spec.width), str(folder))
    return embedder


def compact(arguments: list[str]) -> int:
    """Make a gallery small again."""
    args = parse(Args, "gallery compact", _COMPACT, arguments)
    console = Console(highlight=False)
    with Gallery(args.gallery, write=True) as gallery:
        gone = renewal.compact(gallery)
        console.print(
            f"{args.gallery}: {gone:,} deleted images left out, {len(gallery):,} images", soft_wrap=True
        )
    return 0
