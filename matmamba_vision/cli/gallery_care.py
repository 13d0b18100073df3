"""`matmamba gallery verify`, `repair`, `compact` and `freeze`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from matmamba_common.counts import counted
from matmamba_retrieval import Gallery

from ..upkeep import health
from ..upkeep.image_gallery import open_gallery
from .arguments import parse
from .bars import Shown
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
_FREEZE = """Keep encoders with a gallery, so that searching it needs neither PyTorch nor the checkpoint.

An encoder is one width, frozen: "native" for the kernels in C, "onnx" for ONNX Runtime, "onnx-int8" for the
same with weights of 8 bits, which is smaller and loses precision. Each is compared with the model and timed
here, and a search takes the fastest. They lie in the gallery's folder encoders/, with checksums; a damaged
one is never used, and `plan` makes those of its widths by itself.

examples:
  matmamba gallery freeze G
  matmamba gallery freeze G --widths 1/8 full --kinds native onnx
"""


@dataclass
class GalleryFlags:
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]


@dataclass
class RepairFlags(GalleryFlags):
    # Where the checkpoint is, if it was moved.
    checkpoint: Path | None = None


@dataclass
class FreezeFlags(RepairFlags):
    # Widths that may encode queries; by default those of the gallery's plan, or all that were trained.
    widths: list[str] = field(default_factory=list)
    # Of native, onnx, onnx-int8; by default the best that this machine can make.
    kinds: list[str] = field(default_factory=list)


@dataclass
class VerifyGalleryFlags(RepairFlags):
    # Images to encode again.
    images: int = 0


def verify(arguments: list[str]) -> int:
    """List what is damaged."""
    args = parse(VerifyGalleryFlags, "gallery verify", _VERIFY, arguments)
    console = Console(highlight=False)
    found = health.verify(args.gallery, images=args.images, model=args.checkpoint)
    for damage in found.damages:
        said = f"{damage.file} {damage.what}; to restore it: {damage.remedy}"
        console.print(said, markup=False, soft_wrap=True)
    if found.whole:
        compared = (
            f"; {counted(found.compared, 'image')} encoded again and compared" if found.compared else ""
        )
        _say_whole(console, args.gallery, compared)
    return 0 if found.whole else 1


def _say_whole(console: Console, folder: Path, more: str = "") -> None:
    console.print(f"{folder}: every byte is as it was written{more}", markup=False, soft_wrap=True)


def repair(arguments: list[str]) -> int:
    """Restore what can be restored, and list what is left."""
    args = parse(RepairFlags, "gallery repair", _REPAIR, arguments)
    console = Console(highlight=False)
    done = health.repair(args.gallery, model=args.checkpoint)
    for line in done.said:
        console.print(line, markup=False, soft_wrap=True)
    if done.whole:
        _say_whole(console, args.gallery)
    return 0 if done.whole else 1


def compact(arguments: list[str]) -> int:
    """Make a gallery small again."""
    args = parse(GalleryFlags, "gallery compact", _COMPACT, arguments)
    gone = health.compact(args.gallery)
    with Gallery(args.gallery) as gallery:
        said = f"{args.gallery}: {counted(gone, 'deleted image')} left out, {counted(len(gallery), 'image')}"
    Console(highlight=False).print(said, soft_wrap=True)
    return 0


def freeze(arguments: list[str]) -> int:
    """Make encoders, and list them."""
    args = parse(FreezeFlags, "gallery freeze", _FREEZE, arguments)
    console = Console(highlight=False)
    with open_gallery(args.gallery, model=args.checkpoint, write=True) as gallery:
        made = gallery.freeze(args.widths, kinds=args.kinds, progress=Shown(console))
    for one in made:
        size = f"{one.bytes / 2**20:.1f} MiB"
        said = f"{one.file}: width {one.width} by {one.kind}, {one.ms:.2f} ms an image, {size}"
        console.print(said, markup=False, soft_wrap=True)
    return 0
