"""Many small segments into few large ones: a row is then found in fewer steps, and fewer files are open."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ..storage.records import SegmentRecord
from ..storage.segments import SEGMENT_ROWS, write_segment
from .gallery import Gallery
from .place import SEGMENTS

# So many small files in a row are worth writing once more.
MERGE_FILES = 8


def merge_segments(gallery: Gallery) -> int:
    """Put runs of small segments into one file each, keys as they are; returns how many files are gone."""
    gallery.require_writer()
    gone = 0
    for width in (gallery.spec.width, *gallery.generation.widths):
        for run in runs(gallery.catalog.segments(gallery.generation.number, width)):
            with gallery.changing("the files are merged"):
                _merge(gallery, run)
            gone += len(run) - 1
    if gone:
        gallery.tidy()
    return gone


def runs(records: list[SegmentRecord]) -> Iterator[list[SegmentRecord]]:
    """Adjacent segments that together make no more than one large one, where there are enough of them."""
    for small, neighbours in groupby(records, lambda record: record.rows < SEGMENT_ROWS // 2):
        run: list[SegmentRecord] = []
        for record in neighbours if small else ():
            if sum(other.rows for other in run) + record.rows > SEGMENT_ROWS:
                yield run
                run = []
            run.append(record)
        if len(run) >= MERGE_FILES:
            yield run


def _merge(gallery: Gallery, run: list[SegmentRecord]) -> None:
    width, start, rows = run[0].width, run[0].start, sum(record.rows for record in run)
    blocks = (xb for _, xb in gallery.segments_of(width).blocks(start, start + rows))
    folder, dim = gallery.folder / SEGMENTS, gallery.spec.dim
    merged = write_segment(folder, blocks, width=width, start=start, rows=rows, dim=dim)
    catalog = gallery.catalog
    with catalog.transaction():
        catalog.run_many(
            "DELETE FROM segments WHERE generation = ? AND width = ? AND start = ?",
            ((gallery.generation.number, width, record.start) for record in run),
        )
        catalog.put_segment(gallery.generation.number, merged)
