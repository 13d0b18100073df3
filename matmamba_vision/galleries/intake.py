"""What comes into a gallery: how it is wanted, committed while more is made, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matmamba_common.settings import require
from matmamba_retrieval import Row
from matmamba_retrieval.curation.annotations import Annotations
from matmamba_retrieval.gallery.destination import Destination
from matmamba_retrieval.gallery.merging import merge_segments
from matmamba_retrieval.overlap import COMMIT_ROWS, Commit, Intake
from numpy.typing import NDArray

from ..errors import ConfigError
from ..given import require_folder, require_number, require_whole
from ..progress import Reporter
from .shortlists import build_shortlists

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """What became of some images.

    Attributes:
        gallery: its folder.
        added: images that were taken in.
        known: images that were there already, and are left as they are.
        total: images of the gallery now.
        seconds: how long it took.
        broken: of files that could not be read: reason by name.
        left_out: of what is no image at all: reason by path.
        changed: ids whose files differ from those that were encoded, and were not encoded anew.
        gone: ids whose files are no longer there, and that were not deleted.
        pruned: images deleted because their files are gone.
        unknown: images of which no size and time were noted, so that nobody knows whether they changed.
        unreachable: images whose files cannot be looked at.
    """

    gallery: Path
    added: int
    known: int = 0
    total: int = 0
    seconds: float = 0.0
    broken: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    pruned: int = 0
    unknown: int = 0
    unreachable: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {
            "gallery": str(self.gallery),
            "changed": list(self.changed),
            "gone": list(self.gone),
        }


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How images or vectors are to be taken in, and what is told of it; the arguments of `index`.

    Attributes:
        place: where the images lie, of this machine or a URL; None for what lies in no place.
        among: ascending positions in the collection; the others are left alone. None for all.
    """

    gallery: Path
    prefix: str
    dims: Sequence[int]
    factory: str
    metadata: Path | None
    upsert: bool = False
    shard: str
    report: Reporter
    changed: bool = False
    prune: bool = False
    max_broken: float = 0.0
    place: Path | str | None = None
    among: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        require_folder("gallery", self.gallery)
        for name in ("prefix", "factory", "shard"):
            require(name, getattr(self, name), str)
        require("dims", self.dims, Sequence[int])
        for place, dim in enumerate(self.dims):
            require_whole(f"dims[{place}]", dim, 1)
        require_number("max_broken", self.max_broken)
        if self.shard and (self.dims or self.factory):
            name = "dims" if self.dims else "factory"
            raise ConfigError(
                f"{name} means nothing for a shard: merge takes it, when the shards are put together"
            )
        for name in ("changed", "prune"):
            if getattr(self, name) and self.place is None:
                raise ConfigError(f"{name} means nothing for images that lie in no place")


def annotated(rows: Sequence[Row], known: Annotations) -> list[Row]:
    """The same images with what a file says about them; a column `label` there is their label."""
    entries = known.of([getattr(row, known.by) for row in rows])
    found = []
    for row, entry in zip(rows, entries, strict=True):
        label = entry.pop("label", row.label)
        name = label if label is None or isinstance(label, str) else str(label)
        found.append(Row(row.id, row.path, name, {**row.metadata, **entry}))
    return found


@contextmanager
def intake(commit: Commit[T], rows: int = COMMIT_ROWS) -> Iterator[Intake[T]]:
    """What collects and commits; when the block ends all is safe, also if it is interrupted or fails."""
    writer = Intake(commit, rows)
    with closing(writer):
        try:
            yield writer
        finally:
            writer.flush()


def finish(target: Destination, dims: Sequence[int], wanted: Wanted, added: int) -> int:
    """Put what was added into few files, and build the indexes; returns how many images there are."""
    gallery = target.open()
    merge_segments(gallery)
    if not wanted.shard:
        build_shortlists(gallery, dims, wanted.factory, added)
    return len(gallery)
