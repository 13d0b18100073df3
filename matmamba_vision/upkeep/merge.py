"""Several galleries into one."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matmamba_common.settings import require
from matmamba_common.words import shown
from matmamba_retrieval import Gallery, GalleryError
from matmamba_retrieval.exchange.joining import join

from ..galleries.shortlists import build_shortlists, require_dims
from ..given import PathLike, require_folder, require_path
from ..progress import Listener, Meter, Reporter
from ..public_call import public_call


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What became of several galleries.

    Attributes:
        gallery: its folder.
        added: images that were put into it now.
        total: images of the gallery now.
        seconds: how long it took.
    """

    gallery: Path
    added: int
    total: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**vars(self), "gallery": str(self.gallery)}


@public_call
def merge(
    galleries: Sequence[str | os.PathLike[str]],
    into: str | os.PathLike[str],
    *,
    dims: Sequence[int] = (),
    factory: str = "",
    progress: Listener | None = None,
) -> Merged:
    """Put several galleries into one, such as the shards of one collection.

    Shards are taken in the order of their numbers, so that the merged gallery has the same rows and vectors
    as that of one run; other galleries in the order given. A merge that was stopped goes on with the same
    call.

    Args:
        galleries: folders, of one model and without a common id.
        into: folder of the merged gallery; made if it is not there, else it is added to.
        dims: embedding dims over which shortlist indexes are built; by default 32, or those that it has.
        factory: kind of these indexes, by name or FAISS factory string; by default Flat, or what it has.
        progress: is told how far it is.

    Raises:
        GalleryError: no gallery, galleries that do not fit together, or an index that cannot be built.
        TypeError: an argument is of another type.
    """
    if isinstance(galleries, str | os.PathLike):
        raise TypeError(f"galleries is {shown(galleries)}: it can be a list of folders")
    if not galleries:
        raise GalleryError("galleries is empty: name the galleries to merge")
    require("galleries", galleries, Sequence[PathLike])
    folders = [require_path(f"galleries[{place}]", folder) for place, folder in enumerate(galleries)]
    return put_together(folders, require_folder("into", into), dims, factory, Reporter(progress))


def put_together(
    folders: Sequence[Path],
    into: Path,
    dims: Sequence[int],
    factory: str,
    report: Reporter,
    *,
    replace: bool = False,
) -> Merged:
    """`merge`, of arguments that were looked at.

    Args:
        folders: of the galleries.
        into: folder of the merged one.
        dims: of its indexes.
        factory: kind of these.
        report: is told how far it is.
        replace: images take the place of those with the same ids.
    """
    start = time.monotonic()
    sizes, dim = _survey(folders)
    wanted = require_dims(dims, factory, dim)
    with report.meter("merging", sum(sizes)) as meter:
        added = join(folders, into, _Told(meter), replace=replace)
    with Gallery(into, write=True) as gallery:
        if len(gallery):
            build_shortlists(gallery, wanted, factory, added)
        seconds = time.monotonic() - start
        return Merged(gallery=into, added=added, total=len(gallery), seconds=seconds)


def _survey(folders: Sequence[Path]) -> tuple[list[int], int]:
    """Images in each gallery, and dims of the first one's embeddings."""
    sizes, dim = [], 0
    for folder in folders:
        with Gallery(folder) as gallery:
            sizes.append(len(gallery))
            dim = dim or gallery.spec.dim
    return sizes, dim


class _Told:
    """Counts on a meter; the first number is what an interrupted merge had done."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._begun = meter, False

    def __call__(self, rows: int) -> None:
        (self._meter.advance if self._begun else self._meter.skip)(rows)
        self._begun = True
