"""Look into a gallery, change it, keep it whole, and carry it elsewhere.

  matmamba gallery info      images, version, what made it, indexes, bytes on the disk
  matmamba gallery list      its images, or those that fulfil a condition
  matmamba gallery delete    delete images by id or condition; files are never touched
  matmamba gallery export    write it, or a part, to a Parquet file, to the bit
  matmamba gallery import    add the images of such a file to a gallery
  matmamba gallery atlas     write a Parquet file for Embedding Atlas: a map and neighbours
  matmamba gallery verify    compare every byte with its checksum
  matmamba gallery repair    build again what can be built again
  matmamba gallery compact   leave out what was deleted, and put vectors in few files

examples:
  matmamba gallery info G
  matmamba gallery list G --where "label IS NULL"
  matmamba gallery export G gallery.parquet

Each has more examples: `matmamba gallery list --help`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from matmamba_retrieval import GalleryError

from . import gallery_care, gallery_contents, gallery_exchange

_ACTIONS: dict[str, Callable[[list[str]], int]] = {
    "info": gallery_contents.info,
    "list": gallery_contents.show,
    "delete": gallery_contents.delete,
    "export": gallery_exchange.export,
    "import": gallery_exchange.take_in,
    "atlas": gallery_exchange.atlas,
    "verify": gallery_care.verify,
    "repair": gallery_care.repair,
    "compact": gallery_care.compact,
}


def run(arguments: list[str]) -> int:
    """Dispatch to the action; returns the exit status."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(f"usage: matmamba gallery {{{','.join(_ACTIONS)}}} ...\n\n{__doc__}")
        sys.exit(0)
    if name not in _ACTIONS:
        raise GalleryError(f"unknown action {name!r} of matmamba gallery: one of {', '.join(_ACTIONS)}")
    return _ACTIONS[name](rest)
