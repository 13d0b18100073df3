"""The videos of a place: a folder of them, or a single file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError
from .kinds import why_no_video
from .left_out import left_out_text
from .listing import Listing, absolute
from .reading import Reading


@dataclass(frozen=True)
class Videos:
    """Files that may be videos; none of them was opened.

    Attributes:
        ids: one each: its path below the folder, with "/" on every system, or the name of the single file.
        paths: absolute.
        left_out: what is there beside them: reason by path.
    """

    ids: Sequence[str]
    paths: Sequence[str]
    left_out: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.ids)


def open_videos(place: Path | str, reading: Reading | None = None) -> Videos:
    """The videos of a folder, sorted by their names, or a file whatever it is called.

    Args:
        place: folder or file.
        reading: what is taken of a folder; all that is called like a video if None.

    Raises:
        DataError: there is nothing, or no video.
    """
    root = Path(place)
    if root.is_file():
        return Videos([root.name], [str(absolute(root))], {})
    if not root.is_dir():
        raise DataError(f"{root} is {'neither a file nor a folder' if root.exists() else 'not there'}")
    listing = Listing(root, reading, why_no_video)
    found, left_out = list(listing.images), dict(listing.left_out)
    if not found:
        raise DataError(f"no videos in {root}" + (f"\n{left_out_text(left_out)}" if left_out else ""))
    return Videos(found, [f"{absolute(root)}{os.sep}{name}" for name in found], left_out)
