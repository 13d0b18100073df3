"""Writers that get SIGINT at moments left to chance, and two processes that make one gallery at once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from drawn_vectors import unit_vectors
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row
from matmamba_retrieval.gallery.inspection import verify

SPEC = EmbeddingSpec("a" * 64, "full", 16)


def added(gallery: Gallery, name: str, count: int) -> None:
    """Add images whose vectors follow from their ids."""
    rows = [Row(f"{name}-{n}", "") for n in range(count)]
    gallery.add(rows, unit_vectors(count, SPEC.dim))


def ended(child: int, seconds: float = 30) -> int:
    """The exit status of a process, negative if a signal ended it; one that hangs is ended."""
    for _ in range(int(seconds / 0.01)):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def forked(work: Callable[[], None]) -> int:
    """Do something in a process of its own, which ends with 0, or with 1 and no word."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def interrupt_writers(folder: Path, count: int, seed: int = 0) -> dict[str, int]:
    """So many writers that get SIGINT; counts of what came of their last addition.

    Raises:
        AssertionError: the gallery has not what was said to be added, or is damaged.
    """
    chance, counts = random.Random(seed), {"kept": 0, "not begun": 0}
    # NumPy loads this when it is first used, and an interrupt is lost there.
    unit_vectors(1, SPEC.dim)
    Gallery.create(folder, SPEC).close()
    expected = 0
    for number in range(count):
        reading, writing = os.pipe()
        child = forked(partial(_write_on, folder, number, writing))
        os.close(writing)
        assert os.read(reading, 1) == b"o"
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGINT)
        assert ended(child) == 1, "the writer went on"
        with os.fdopen(reading, "rb") as said:
            told = said.read().count(b"+")
        with Gallery(folder) as gallery:
            # The one that was interrupted is there as a whole, or not.
            assert len(gallery) - expected in (10 * told, 10 * told + 10), (number, len(gallery), expected)
            counts["kept" if len(gallery) - expected > 10 * told else "not begun"] += 1
            expected = len(gallery)
            assert np.isfinite(gallery.segments.read(gallery.live_keys()).astype(np.float32)).all()
    assert verify(folder) == []
    return counts


def _write_on(folder: Path, number: int, pipe: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Gallery(folder, write=True) as gallery:
        os.write(pipe, b"o")
        for place in range(10**6):
            added(gallery, f"{number}-{place}", 10)
            os.write(pipe, b"+")


def create_at_once(folder: Path, count: int, seed: int = 0) -> dict[str, int]:
    """So many times, two processes make a gallery in one folder and add to it; counts of how many could.

    Raises:
        AssertionError: a gallery is broken, or images are gone that were added.
    """
    chance, counts = random.Random(seed), {"one": 0, "both": 0}
    folder.mkdir(exist_ok=True)
    for number in range(count):
        place = folder / str(number)
        waits = [0.0, chance.uniform(0, 0.01)]
        children = [forked(partial(_make, place, str(name), wait)) for name, wait in enumerate(waits)]
        codes = [ended(child) for child in children]
        with Gallery(place) as gallery:
            wanted = {f"{name}-{n}" for name, code in enumerate(codes) if code == 0 for n in range(50)}
            assert {row.id for row in gallery.rows(gallery.live_keys())} == wanted, (number, codes)
        assert verify(place) == []
        assert not [*place.glob("*partial*")]
        counts["both" if codes == [0, 0] else "one"] += 1
    return counts


def _make(folder: Path, name: str, wait: float) -> None:
    time.sleep(wait)
    while True:
        try:
            with Gallery.open_or_create(folder, SPEC) as gallery:
                return added(gallery, name, 50)
        except GalleryError as error:
            # Whoever is second waits, or is told to.
            if "another process" not in str(error) or name == "0":
                raise
            os._exit(2)
