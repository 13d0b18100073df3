"""What requests take here, measured before any is answered, by the calls that answer them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..galleries.cores import compute_on, cores, products_on
from ..galleries.latency_table import LatencyTable, Samples, table_of, time_batches
from .answering import found_by
from .job import Job
from .question import Question
from .served_version import IMAGE, STORED, KindLane, ServedVersion

# Share of the time that goes to images; the rest to requests that need no encoding.
OF_IMAGES = 0.8
# Images whose time together says which way of sharing the cores is better.
COMPARED = 4
# A picture as it may come: pixels each side.
PIXELS = 256
# Of requests that no policy looks at.
NOTHING = LatencyTable(("",), np.ones((1, 1)), 1.0)


@dataclass(frozen=True, kw_only=True)
class Crew:
    """How many batches are computed at the same time, and on how many threads each.

    Attributes:
        workers: that compute.
        threads: of each.
    """

    workers: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a version's requests take.

    Attributes:
        crew: that was measured.
        image: of those with an image; None where no width encodes.
        stored: of those that need no encoding.
    """

    crew: Crew
    image: LatencyTable | None
    stored: LatencyTable

    @property
    def per_second(self) -> float:
        """Requests at the widest width that are computed in a second, some at a time."""
        table = self.image or self.stored
        count = min(COMPARED, table.most)
        return self.crew.workers * count / float(table.typical[0, count - 1])


def crews(workers: int, threads: int, device: str) -> list[Crew]:
    """Ways to share the cores, to be compared.

    Args:
        workers: how many there are to be; 0 for whichever is better.
        threads: of all workers together; 0 for as many as there are cores.
        device: that encodes; a GPU is used by one at a time.
    """
    count = threads or cores()
    if workers:
        return [Crew(workers=workers, threads=max(1, count // workers))]
    if device != "cpu" or count == 1:
        return [Crew(workers=1, threads=count)]
    return [Crew(workers=1, threads=count), Crew(workers=count, threads=1)]


def best_measured(version: ServedVersion, ways: list[Crew], most: int, seconds: float) -> Measured:
    """What requests take with the crew that answers most of them.

    Args:
        version: that is to answer; it has images.
        ways: to share the cores.
        most: images of the largest batch.
        seconds: that all of it may take.
    """
    found = [measured(version, crew, most, seconds / len(ways)) for crew in ways]
    return max(found, key=lambda one: one.per_second)


def measured(version: ServedVersion, crew: Crew, most: int, seconds: float) -> Measured:
    """What requests take, all workers computing at the same time.

    Raises:
        MatMambaError: a width that cannot encode, or a gallery that cannot be searched.
    """
    widths = version.widths
    with products_on(crew.threads):
        stored = _table(version, STORED, ("",), crew, most, seconds * (1 - OF_IMAGES if widths else 1))
        image = _table(version, IMAGE, widths, crew, most, seconds * OF_IMAGES) if widths else None
    return Measured(crew=crew, image=image, stored=stored)


def try_once(version: ServedVersion) -> None:
    """Answer one request at each width, and one that needs no encoding: nobody else waits for what loads.

    Raises:
        MatMambaError: a width that cannot encode, or a gallery that cannot be searched.
    """
    if len(version):
        _run(version, STORED)(0, 1)
        for rank in range(len(version.widths)):
            _run(version, IMAGE)(rank, 1)


def _table(
    version: ServedVersion, kind: str, widths: tuple[str, ...], crew: Crew, most: int, seconds: float
) -> LatencyTable:
    run, together = _run(version, kind), threading.Barrier(crew.workers)

    def work(number: int) -> Samples:
        compute_on(crew.threads)
        try:
            # Each thread has memory of its own, which it takes before anything counts.
            run(len(widths) - 1, 1)
        except BaseException:
            together.abort()
            raise
        together.wait()
        return time_batches(run, len(widths), most, seconds)

    # Each width once: what loads at first use is loaded now, and what cannot be had is told.
    for rank in range(len(widths)):
        run(rank, 1)
    with ThreadPoolExecutor(crew.workers) as pool:
        return table_of(widths, most, *pool.map(work, range(crew.workers)))


def _run(version: ServedVersion, kind: str) -> Callable[[int, int], None]:
    """Answers so many trial requests at a width."""
    rng, lane = np.random.default_rng(0), KindLane(version, kind, NOTHING)
    vector = rng.standard_normal(version.gallery.spec.dim).astype(np.float32)
    picture = Image.fromarray(rng.integers(0, 256, (PIXELS, PIXELS, 3)).astype(np.uint8))
    asked = {"image": picture} if kind == IMAGE else {"vector": vector / np.linalg.norm(vector)}
    question = Question(gallery=version.name, deadline=time.monotonic(), **asked)
    job = Job(lane=lane, deadline=0.0, widest=0, narrowest=0, question=question, version=version, kind=kind)
    job.prepare()

    def run(rank: int, count: int) -> None:
        for _, found in found_by([job] * count, rank, lambda _: False, lambda _: None):
            if isinstance(found, Exception):
                raise found

    return run
