"""Indexing on Ray beside the same on one machine without it: images a second, and what starting takes.

    python benchmarks/ray_rate.py

Photos (crops of scikit-learn's two) are indexed by the shipped model, in each round by `index` on one thread
and on two, and by `index_on_ray` with one process and with two, each with a core. Ray on this machine was
started before; the rate counts from when the images are begun with (without Ray: when the model is open; on
Ray: when the first process is ready) to when the gallery is complete, its index built and shards merged. What
comes before is measured apart: starting Ray in a process of its own, and starting its processes. Every
gallery is compared with the first one, to the bit. Writes results/ray_rate.json.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from indexing import PHOTO_EDGE, write_photos
from markdown_tables import markdown
from matmamba_retrieval import Gallery
from matmamba_vision import RayCluster, index, index_on_ray
from matmamba_vision.cluster.ray_cluster import connected
from matmamba_vision.galleries.gallery_model import SHIPPED
from matmamba_vision.progress import Event, Progress
from measuring import Case, Plan, Ratio, in_fresh_process, measure_case, run

PHOTOS, ROUNDS, STARTS, BATCH = 1024, 3, 3, 64
# Without Ray and with it, on as many cores.
PAIRS = {1: ("1 thread", "Ray, 1 process"), 2: ("2 threads", "Ray, 2 processes")}


def cases(plan: Plan, photos: int = PHOTOS) -> Iterator[Case]:
    """The rates, then what starting takes."""
    photos = photos if plan.repeats > ROUNDS else min(photos, 128)
    waits: dict[str, list[float]] = {ray: [] for _, ray in PAIRS.values()}
    with tempfile.TemporaryDirectory() as folder, connected(RayCluster(), 0):
        images, same = Path(folder) / "photos", Same()
        write_photos(images, photos)
        sides: dict[str, Callable[[], float]] = {}
        for count, (alone, ray) in PAIRS.items():
            cluster, made = RayCluster(processes=count), Path(folder) / "g"
            plain: dict[str, Any] = {"threads": count}
            sides[alone] = partial(rate, index, images, made, plain, same, [])
            sides[ray] = partial(rate, index_on_ray, images, made, {"cluster": cluster}, same, waits[ray])
        settings = {"model": SHIPPED, "images": photos, "edge": PHOTO_EDGE, "batch": BATCH}
        settings |= {"cores": os.cpu_count()}
        ratios = [Ratio(f"{ray} / {alone}", ray, alone) for alone, ray in PAIRS.values()]
        yield measure_case("index photos", sides, ratios, plan.at_most(ROUNDS), settings, "images/s")
    # As they were measured beside the rates.
    taken = {name: iter(found[-plan.at_most(ROUNDS).repeats :]) for name, found in waits.items()}
    parts: dict[str, Callable[[], float]] = {
        f"processes: {name}": partial(next, values) for name, values in taken.items()
    }
    parts["Ray itself"] = lambda: in_fresh_process(starting)
    few = Plan(0, min(STARTS, plan.at_most(ROUNDS).repeats))
    yield measure_case("what starting takes", parts, [], few, {}, "s")


class Same:
    """Sees to it that all galleries are the same."""

    def __init__(self) -> None:
        self._first: object = None

    def require(self, folder: Path) -> None:
        """Raise `RuntimeError` if a gallery is not like the first one: rows, vectors, indexes, to the bit."""
        with Gallery(folder) as gallery:
            keys = gallery.live_keys()
            indexes = [(one.name, one.sha256) for one in gallery.shortlists()]
            found = gallery.rows(keys), gallery.segments.read(keys).tobytes(), indexes
        self._first = self._first or found
        if found != self._first:
            raise RuntimeError(f"{folder} differs from the first gallery")


def rate(
    job: Callable[..., Any],
    images: Path,
    gallery: Path,
    options: Mapping[str, Any],
    same: Same,
    waits: list[float],
) -> float:
    """Images a second of one call; how long it took to begin is added to `waits`."""
    shutil.rmtree(gallery, ignore_errors=True)
    begun: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "indexing" and not begun:
            begun.append(time.perf_counter())

    start = time.perf_counter()
    done = job(images, gallery, batch_size=BATCH, progress=listen, **options)
    end = time.perf_counter()
    waits.append(begun[0] - start)
    same.require(gallery)
    return done.added / (end - begun[0])


def starting() -> float:
    """Seconds until Ray is there, its import included."""
    start = time.perf_counter()
    with connected(RayCluster(), 0):
        return time.perf_counter() - start


def table(result: dict[str, Any]) -> str:
    """A row for each number of cores, and a line on what starting takes."""
    rates, starts = result["cases"]
    rows = []
    for count, (alone, ray) in PAIRS.items():
        ratio = rates["ratios"][f"{ray} / {alone}"]
        sides = [rates["sides"][name] for name in (alone, ray)]
        rows.append((str(count), *(_spread(side, 1) for side in sides), _spread(ratio, 2)))
    names = ("cores", "`index`, images/s", "`--engine ray`, images/s", "ratio")
    known, took = rates["settings"], {name: _spread(side, 1) for name, side in starts["sides"].items()}
    processes = ", ".join(took[f"processes: {ray}"] for _, ray in PAIRS.values())
    return "\n".join(
        (
            markdown(names, rows),
            "",
            f"{known['images']:,} photos of {known['edge']} px by `{known['model']}`, batches of"
            f" {known['batch']}, on {known['cores']} cores of an {result['machine']['processor']}; medians of"
            f" {rates['repeats']} rounds with quartiles. All galleries were the same to the bit. Before that,"
            f" starting Ray took {took['Ray itself']} s, and its processes until the first was ready"
            f" {processes} s for one and for two.",
        )
    )


def _spread(found: Mapping[str, float], digits: int) -> str:
    median, low, high = (f"{found[name]:,.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    run(__file__, __doc__, cases)
