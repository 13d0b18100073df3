"""What a collection of any size takes: a model of indexing and of search, from figures that were measured.

A worker is one process of `index(..., shard="i/n")` with one thread: it decodes in one thread while it
encodes in another, so that alone it takes more than one core. Workers that want more than the machine's
cores share them. Whatever is the slowest of a machine's stages sets its rate. A query compares the
centroids of all cells and the vectors of some, and reranks K rows that it reads in the stored vectors.

All of it is arithmetic: no model is loaded and nothing is measured here (scale.py does that).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from matmamba_retrieval.index.recipes import RECIPES, cells, split

HALF = 2  # bytes of a stored coordinate
# Rows that cells are trained with, at most: by the library, and for each cell by FAISS; its passes over them.
TRAINING_ROWS, ROWS_OF_A_CELL, PASSES = 262_144, 256, 10
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Indexing:
    """What a worker on one machine takes.

    Attributes:
        start_seconds: of one core, before the first image: imports, weights, list of files.
        alone_seconds: an image, by a worker that is alone.
        core_seconds: an image, of all cores that it takes.
        merge_start_seconds: of a merge, before the first row.
        merge_seconds: a row.
        second_core: how much a second busy core adds to the first one, 1 for all of it.
    """

    start_seconds: float
    alone_seconds: float
    core_seconds: float
    merge_start_seconds: float
    merge_seconds: float
    second_core: float = 1.0

    def speed(self, cores: float) -> float:
        """What so many busy cores do, over what one does."""
        return min(cores, 1 + self.second_core * (cores - 1)) if cores > 1 else cores

    def seconds(self, images: int, workers: int, cores: int) -> float:
        """Wall time until the last of some workers of one machine is done; without the merge."""
        can = self.speed(cores)
        started = shared([self.start_seconds] * workers, 1.0, can)
        parts = [images // workers + (place < images % workers) for place in range(workers)]
        return started + shared(parts, 1 / self.alone_seconds, can / self.core_seconds)

    def merged(self, images: int) -> float:
        """Wall time of putting the workers' galleries into one."""
        return self.merge_start_seconds + self.merge_seconds * images


def shared(work: Sequence[float], alone: float, together: float) -> float:
    """Seconds until the last of several jobs is done that share a machine.

    Args:
        work: of each, in any unit.
        alone: how much of it one does in a second, if it has all that it wants.
        together: how much all can do in a second; they share it evenly.
    """
    seconds, done = 0.0, 0.0
    ordered = sorted(work)
    for place, wanted in enumerate(ordered):
        active = len(ordered) - place
        seconds += (wanted - done) / min(alone, together / active)
        done = wanted
    return seconds


@dataclass(frozen=True, kw_only=True)
class Searching:
    """What the public search takes of one core, and what a gallery of vectors takes.

    Attributes:
        call_ms: a query, whatever the gallery: the call, and a rerank of `candidates` rows.
        compared_ms: a coordinate compared in an index of cells, of a centroid or a vector.
        exact_ms: a stored coordinate compared by exact search.
        exact_call_ms: a query by exact search, whatever the gallery.
        candidates: rows reranked in these measurements.
        candidate_ms: a row reranked.
        add_seconds: a row added.
        build_row_seconds: a row of an index that is built: read, cut, coded, and compared with the few rows
            by which the effort of searches is chosen.
        build_seconds: a coordinate of a row compared with a centroid while an index is built.
        start_seconds: of adding and building, whatever the number of rows.
        catalogue_bytes: a row of the catalogue on the disk.
        base_bytes: own memory of the process without a gallery.
        exact_far_ms: a stored coordinate more, of those that the processor's cache does not hold.
        cache_bytes: of that cache.
        first_answer_seconds: of a command that asks once: imports, opening, the first query; it and the three
            others are 0 where figures are from before they were measured.
        first_answer_row_seconds: a row of the gallery that is opened for it.
    """

    call_ms: float
    compared_ms: float
    exact_ms: float
    exact_call_ms: float
    candidates: int
    candidate_ms: float
    add_seconds: float
    build_row_seconds: float
    build_seconds: float
    start_seconds: float
    catalogue_bytes: float
    base_bytes: float
    exact_far_ms: float = 0.0
    cache_bytes: float = 0.0
    first_answer_seconds: float = 0.0
    first_answer_row_seconds: float = 0.0

    def exact(self, rows: float, dim: int) -> float:
        """Milliseconds of a query by exact search."""
        far = beyond(rows * dim, self.cache_bytes)
        return self.exact_call_ms + self.exact_ms * rows * dim + self.exact_far_ms * far

    def shortlist(self, rows: float, prefix: int, effort: int, candidates: int | None = None) -> float:
        """Milliseconds of a query that looks into `effort` cells, and reranks."""
        more = 0 if candidates is None else candidates - self.candidates
        return self.call_ms + self.compared_ms * compared(rows, prefix, effort) + self.candidate_ms * more

    def first_answer(self, rows: float) -> float:
        """Seconds of one core of a command that asks once, by a stored vector."""
        return self.first_answer_seconds + self.first_answer_row_seconds * rows

    def building(self, rows: float, prefix: int) -> float:
        """Seconds of building an index of cells, of one core, beside its start."""
        return self.build_row_seconds * rows + self.build_seconds * building_work(rows, prefix)

    def adding(self, rows: float, prefix: int) -> float:
        """Seconds of adding rows to a new gallery, and of building its index, of one core."""
        return self.start_seconds + self.add_seconds * rows + self.building(rows, prefix)

    def memory(self, rows: float, prefix: int, recipe: str) -> float:
        """Bytes of its own that a process holds that searches."""
        return self.base_bytes + index_bytes(rows, prefix, recipe)

    def disk(self, rows: float, dim: int, prefix: int, recipe: str) -> float:
        """Bytes of a gallery's folder."""
        return rows * (HALF * dim + self.catalogue_bytes) + index_bytes(rows, prefix, recipe)


def beyond(coordinates: float, cache_bytes: float) -> float:
    """Of stored coordinates that are read one after the other, those that a cache does not hold."""
    return max(0.0, coordinates - cache_bytes / HALF)


def building_work(rows: float, prefix: int) -> float:
    """Coordinates of rows that are compared with centroids while an index of cells is built."""
    number = cells(max(1, int(rows)))
    trained = PASSES * min(rows, TRAINING_ROWS, ROWS_OF_A_CELL * number)
    return (trained + rows) * number * prefix


def compared(rows: float, prefix: int, effort: int) -> float:
    """Coordinates that a query is compared with: of all centroids, and of the vectors of `effort` cells."""
    number = cells(max(1, int(rows)))
    return prefix * (number + min(effort, number) * rows / number)


def index_bytes(rows: float, prefix: int, recipe: str) -> float:
    """Bytes of an index in memory, by FAISS's own layout: codes and ids of the rows, and the centroids."""
    name, _ = split(recipe)
    centroids = 4 * prefix * cells(max(1, int(rows))) if name in ("ivf", "ivfpq", "rabitq") else 0
    return rows * RECIPES[name].row_bytes(prefix) + centroids


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """What encodes, as it was measured.

    Attributes:
        core_ms: an image on one core; None where that was not measured.
        gpu_per_second: images a second on one GPU; None where that was not measured.
        decoded_ms: an image of the asked size, from its file to what the encoder takes, on one core.
    """

    core_ms: float | None
    gpu_per_second: float | None
    decoded_ms: float


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What is there.

    Attributes:
        number: of machines, all alike.
        cores: of each.
        gpus: of each.
        memory: bytes of each.
        read_bytes: that each reads in a second from where the images lie; an assumption.
        random_reads: of a row on its disk, in a second, where the vectors do not fit into memory; an
            assumption.
    """

    number: int
    cores: int
    gpus: int
    memory: float
    read_bytes: float
    random_reads: float


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What it is to hold and to answer.

    Attributes:
        images: how many.
        image_bytes: of an image's file.
        dim: of the stored vectors.
        prefix: dims of the shortlist.
        recipe: of its index, one with cells.
        effort: cells that a query looks into.
        candidates: rows that are reranked.
        queries: a second.
        query_ms: of encoding a query, on one core.
    """

    images: float
    image_bytes: float
    dim: int
    prefix: int
    recipe: str
    effort: int
    candidates: int
    queries: float
    query_ms: float


def indexing_plan(wanted: Wanted, encoder: Encoder, machines: Machines, figures: Indexing) -> dict[str, Any]:
    """How long all machines index, what sets their rate, and what it costs without money.

    Raises:
        ValueError: the encoder was not measured on what the machines have.
    """
    rates = stage_rates(wanted, encoder, machines, figures)
    slowest = min(rates, key=lambda name: rates[name])
    on_cores = encoder.decoded_ms + (0 if machines.gpus else encoder.core_ms or 0)
    seconds = wanted.images / (rates[slowest] * machines.number)
    gpu_seconds = wanted.images / encoder.gpu_per_second if machines.gpus and encoder.gpu_per_second else 0.0
    return {
        "images_per_second": rates[slowest] * machines.number,
        "rates_of_a_machine": rates,
        "bottleneck": slowest,
        "hours": seconds / 3600,
        "core_hours": wanted.images * on_cores / 3.6e6,
        "gpu_hours": gpu_seconds / 3600,
        "read_tb": wanted.images * wanted.image_bytes / 1e12,
        # One process writes, whatever there is around it.
        "merge_into_one_hours": figures.merged(int(wanted.images)) / 3600,
    }


def energy(
    indexing: Mapping[str, Any], images: float, core_watts: float | None, gpu_watts: float | None
) -> dict[str, float] | None:
    """Watt hours are hours times watts: joules of an image, and all of indexing.

    Args:
        indexing: of `indexing_plan`.
        images: of it.
        core_watts: of a busy core, measured where it is; None where it was not.
        gpu_watts: of a busy GPU.

    Returns:
        None where the watts of something that works are not known.
    """
    hours = ((indexing["core_hours"], core_watts), (indexing["gpu_hours"], gpu_watts))
    if any(watts is None for busy, watts in hours if busy):
        return None
    watt_hours = sum(busy * (watts or 0.0) for busy, watts in hours)
    return {"kilowatt_hours": watt_hours / 1e3, "joules_an_image": 3600 * watt_hours / images}


def stage_rates(wanted: Wanted, encoder: Encoder, machines: Machines, figures: Indexing) -> dict[str, float]:
    """Images a second that each stage of one machine can do."""
    speed = figures.speed(machines.cores)
    rates = {"reading": machines.read_bytes / wanted.image_bytes}
    if machines.gpus:
        if encoder.gpu_per_second is None:
            raise ValueError("this encoder was not measured on a GPU")
        rates["decoding on the cores"] = 1e3 * speed / encoder.decoded_ms
        rates["encoding on the GPUs"] = machines.gpus * encoder.gpu_per_second
    else:
        if encoder.core_ms is None:
            raise ValueError("this encoder was not measured on a core")
        rates["decoding and encoding on the cores"] = 1e3 * speed / (encoder.decoded_ms + encoder.core_ms)
    return rates


def search_plan(wanted: Wanted, machines: Machines, figures: Searching) -> dict[str, Any]:
    """What a gallery takes that is spread evenly over the machines, each asked by every query."""
    part = wanted.images / machines.number
    memory = figures.memory(part, wanted.prefix, wanted.recipe)
    vectors = part * HALF * wanted.dim
    search_ms = figures.shortlist(part, wanted.prefix, wanted.effort, wanted.candidates)
    # Each query is encoded once, by any of the machines.
    rates = {
        "search on the cores": 1e3 * machines.cores / (search_ms + wanted.query_ms / machines.number),
    }
    fits = memory + vectors <= machines.memory
    if not fits:
        rates["reading rows from the disk"] = machines.random_reads / wanted.candidates
    slowest = min(rates, key=lambda name: rates[name])
    return {
        "rows_of_a_machine": part,
        "index_fits": memory <= machines.memory,
        "vectors_fit": fits,
        "memory_gb": memory / 1e9,
        "disk_tb": machines.number * figures.disk(part, wanted.dim, wanted.prefix, wanted.recipe) / 1e12,
        "search_ms": search_ms,
        "query_ms": search_ms + wanted.query_ms,
        "queries_per_second": rates[slowest],
        "per_core": 1e3 / (search_ms + wanted.query_ms / machines.number) / machines.number,
        "bottleneck": slowest,
        "copies_for_queries": max(1, math.ceil(wanted.queries / rates[slowest])),
        "build_core_hours": machines.number * figures.building(part, wanted.prefix) / 3600,
        "add_core_hours": wanted.images * figures.add_seconds / 3600,
    }


def taken(kind: type[T], known: Mapping[str, Any]) -> T:
    """A dataclass from what a file has of it, and perhaps more; `TypeError` if it lacks what is needed."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: known[name] for name in names if name in known})


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The line through points whose squared relative errors are least: its value at 0, and its slope.

    Neither is below 0: nothing takes less than no time.
    """
    weights = [1 / value**2 for value in y]
    total = sum(weights)
    mean_x = sum(w * a for w, a in zip(weights, x, strict=True)) / total
    mean_y = sum(w * b for w, b in zip(weights, y, strict=True)) / total
    across = sum(w * (a - mean_x) ** 2 for w, a in zip(weights, x, strict=True))
    slope = sum(w * (a - mean_x) * (b - mean_y) for w, a, b in zip(weights, x, y, strict=True)) / across
    slope = max(0.0, slope)
    if mean_y - slope * mean_x >= 0:
        return mean_y - slope * mean_x, slope
    return 0.0, sum(w * a * b for w, a, b in zip(weights, x, y, strict=True)) / sum(
        w * a * a for w, a in zip(weights, x, strict=True)
    )
