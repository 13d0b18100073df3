"""Look into a gallery, change it, keep it whole, and carry it elsewhere.

  matmamba gallery info      images, version, what made it, indexes, bytes on the disk
  matmamba gallery list      its images, or those that fulfil a condition
  matmamba gallery delete    delete images by id or condition; files are never touched
  matmamba gallery export    write it, or a part, to a Parquet file, to the bit
  matmamba gallery import    add the images of such a file to a gallery
  matmamba gallery atlas     write a Parquet file for Embedding Atlas: a map and neighbours
  matmamba gallery push      carry it to a Qdrant server, or to the same engine in a folder
  matmamba gallery verify    compare every byte with its checksum
  matmamba gallery repair    build again what can be built again
  matmamba gallery freeze    keep encoders with it, so that a search needs no PyTorch
  matmamba gallery encoder   say which encoder made its vectors
  matmamba gallery relocate  say where the files are now
  matmamba gallery compact   leave out what was deleted, and put vectors in few files

examples:
  matmamba gallery info G
  matmamba gallery list G --where "label IS NULL"
  matmamba gallery export G gallery.parquet

Each has more examples: `matmamba gallery list --help`.
"""

from __future__ import annotations

from collections.abc import Callable

from . import (
    gallery_care,
    gallery_contents,
    gallery_encoder,
    gallery_exchange,
    gallery_push,
    gallery_relocate,
)
from .arguments import dispatch

_ACTIONS: dict[str, Callable[[list[str]], int]] = {
    "info": gallery_contents.info,
    "list": gallery_contents.show,
    "delete": gallery_contents.delete,
    "export": gallery_exchange.export,
    "import": gallery_exchange.take_in,
    "atlas": gallery_exchange.atlas,
    "push": gallery_push.carry,
    "verify": gallery_care.verify,
    "repair": gallery_care.repair,
    "freeze": gallery_care.freeze,
    "encoder": gallery_encoder.encoder,
    "relocate": gallery_relocate.relocate,
    "compact": gallery_care.compact,
}


def run(arguments: list[str]) -> int:
    """Run one action; returns the exit status."""
    return dispatch(_ACTIONS, "gallery", __doc__, arguments)
