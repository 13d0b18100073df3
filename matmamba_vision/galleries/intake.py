"""What comes into a gallery: committed while more is made, with what is known about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TypeVar

from matmamba_retrieval import Row
from matmamba_retrieval.curation.annotations import Annotations
from matmamba_retrieval.overlap import COMMIT_ROWS, Commit, Intake

T = TypeVar("T")


@contextmanager
def intake(commit: Commit[T], rows: int = COMMIT_ROWS) -> Iterator[Intake[T]]:
    """What collects and commits; when the block ends all is safe, also if it is interrupted or fails."""
    writer = Intake(commit, rows)
    with closing(writer):
        try:
            yield writer
        finally:
            writer.flush()


def annotated(rows: Sequence[Row], known: Annotations) -> list[Row]:
    """The same images with what a file says about them; a column `label` there is their label."""
    entries = known.of([getattr(row, known.by) for row in rows])
    found = []
    for row, entry in zip(rows, entries, strict=True):
        label = entry.pop("label", row.label)
        name = label if label is None or isinstance(label, str) else str(label)
        found.append(Row(row.id, row.path, name, {**row.metadata, **entry}))
    return found
