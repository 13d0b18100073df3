"""What commands that fill a gallery say at their end, and when they are stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from matmamba_common.counts import counted
from matmamba_retrieval import Gallery

from .console import Console


@contextmanager
def continuable(gallery: Path) -> Iterator[None]:
    """Say, when the block is interrupted, what is in the gallery and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if Gallery.exists(gallery):
            with Gallery(gallery) as stopped:
                images = counted(len(stopped), "image")
                Console(stderr=True).print(
                    f"\nstopped: {gallery} has {images}; the same command goes on from there",
                    soft_wrap=True,
                    highlight=False,
                )
        raise


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Say, when the block is interrupted, that what is in a folder by then is not done again."""
    try:
        yield
    except KeyboardInterrupt:
        if folder.exists():
            Console(stderr=True).print(
                f"\nstopped: what was done is kept in {folder}; the same command goes on from there",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
        raise


def summarise(console: Console, folder: Path, verb: str, *, count: int, total: int, seconds: float) -> None:
    """Print how many images were taken in how long.

    Args:
        console: where.
        folder: of the gallery.
        verb: what was done with the images, such as "added".
        count: how many these were.
        total: how many the gallery has now.
        seconds: how long it took.
    """
    seconds = max(1e-9, seconds)
    took = f" in {timedelta(seconds=round(seconds))} ({count / seconds:,.0f}/s)" if count else ""
    console.print(f"{folder}: {counted(count, 'image')} {verb}, {total:,} in all{took}", soft_wrap=True)
