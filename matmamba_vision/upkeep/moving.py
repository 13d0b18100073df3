"""Files that moved: a gallery is told where its images are now."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from matmamba_datasets.listing import absolute
from matmamba_retrieval import Gallery
from matmamba_retrieval.gallery import image_files

from ..given import require_path
from ..public_call import public_call


@dataclass(frozen=True)
class Moved:
    """What a change of paths did.

    Attributes:
        paths: how many changed.
        there: how many of their files are where they are said to be.
    """

    paths: int
    there: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dict(vars(self))


@public_call
def relocate(gallery: Gallery, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> Moved:
    """Tell a gallery that its files have moved: nothing is encoded again.

    Paths that begin with `old` begin with `new` afterwards.

    Args:
        gallery: open for writing.
        old: folder or file where the images were; it need not exist any more.
        new: where they are now; at least one file has to be below it.

    Raises:
        GalleryError: no path begins with `old`, or no file is there; nothing was changed.
        TypeError: an argument is no path.
    """
    before, now = absolute(require_path("old", old)), absolute(require_path("new", new))
    return Moved(*image_files.move(gallery, before, now))
