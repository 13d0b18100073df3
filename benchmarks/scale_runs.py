"""The runs that scale.py's figures come from, and those that its predictions are held against."""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from capacity import Indexing, Searching, beyond, building_work, compared, line, taken
from matmamba_datasets import eval_transform, open_images
from matmamba_retrieval import Strategy
from matmamba_vision import index, index_vectors, load_checkpoint, merge, open_gallery
from matmamba_vision.galleries.embedder import Embedder
from matmamba_vision.measures.environment import environment
from matmamba_vision.progress import Event, Progress
from measuring import in_fresh_process, write_json
from numpy.typing import NDArray
from PIL import Image
from scale import SHIPPED
from structured import Structured

__all__ = ["measured", "write_json"]

CORES = 2  # that are measured: of this machine
DIM, PREFIX, RECIPE, K = 256, 64, "ivfpq", 10
# The figures of search come from these galleries. The first tells what takes a time of its own, whatever the
# rows, the others what a row takes: two have as many cells, and the last twice as many, which tells what a
# row takes to index from what comparing it with centroids takes.
FITTED_ROWS = (1_000, 50_000, 150_000, 200_000)
CHECKED_ROWS = (10_000, 100_000, 1_000_000)
EFFORTS, EFFORT = (1, 4, 16, 64), 16
LENGTHS, LENGTH = (50, 200, 800), 200
QUERIES, EXACT_QUERIES, FIRST_ANSWERS = 200, 20, 3
CALIBRATED, CHECKED_IMAGES = (200, 1000), 1600  # photos for the figures; photos of each check
PHOTO_EDGE = 256
# Decoding: the figures from the first and the last, held against the one between.
EDGES = (256, 512, 1024)
WORKERS = (1, 2, 4)
ROUNDS = 2


def measured(quick: bool, kept: dict[str, Any] | None = None) -> dict[str, Any]:
    """All figures, and every prediction beside what was measured.

    Args:
        quick: small runs, to try it.
        kept: an earlier result, of which all but search is taken; None to measure all.
    """
    rows = (1_000, 2_000) if quick else CHECKED_ROWS
    fitted = (500, 3_000, 9_000, 12_000) if quick else FITTED_ROWS
    images = ((8, 24), 32) if quick else (CALIBRATED, CHECKED_IMAGES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kept is None:
            decoding, decoded = decoding_of(folder, 4 if quick else 60)
            figures, indexed = indexing_of(folder, *images, rounds=1 if quick else ROUNDS)
        else:
            decoding, figures = (kept["figures"][part] for part in ("decoding", "indexing"))
            decoded = [one for one in kept["checks"] if not one["case"].endswith(" rows")]
            indexed = []
        search, searched = searching_of(folder, fitted, rows)
    return {
        "command": "benchmarks/scale.py" + " --quick" * quick + " --search-only" * (kept is not None),
        "settings": {
            "model": SHIPPED, "cores": CORES, "photo_edge": PHOTO_EDGE, "dim": DIM, "prefix": PREFIX,
            "recipe": RECIPE, "effort": EFFORT, "shortlist": LENGTH, "k": K, "fitted_rows": list(fitted),
            "calibrated_images": list(images[0]), "rounds": 1 if quick else ROUNDS,
        },
        "figures": {"decoding": decoding, "indexing": figures, "search": search},
        "checks": [*decoded, *indexed, *searched],
        **environment(),
    }  # fmt: skip


def check(what: str, case: str, unit: str, predicted: float, found: float) -> dict[str, Any]:
    """A prediction beside what was measured."""
    return {
        "what": what, "case": case, "unit": unit, "predicted": predicted, "measured": found,
        "error": (predicted - found) / found,
    }  # fmt: skip


def decoding_of(folder: Path, count: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Milliseconds of one core from a file to what the encoder takes, by pixels."""
    transform = eval_transform(load_checkpoint(SHIPPED).model.input)
    ms, size = {}, {}
    for edge in EDGES:
        place = folder / f"decoded{edge}"
        write_photos(place, count, edge)
        images = open_images(place)
        size[edge] = float(np.mean([file.stat().st_size for file in place.iterdir()]))
        best = []
        for _ in range(3):
            start = time.process_time()
            for number in range(count):
                transform(images[number].image)
            best.append(1e3 * (time.process_time() - start) / count)
        ms[edge] = float(np.median(best))
    ends = (EDGES[0], EDGES[-1])
    at_nothing, slope = line([edge * edge / 1e6 for edge in ends], [ms[edge] for edge in ends])
    per_pixel = sum(size[edge] for edge in ends) / sum(edge * edge for edge in ends)
    between, pixels = EDGES[1], EDGES[1] ** 2
    checks = [
        check("decoding", f"{between} px", "ms of a core", at_nothing + slope * pixels / 1e6, ms[between]),
        check("a photo's file", f"{between} px", "kB", per_pixel * pixels / 1e3, size[between] / 1e3),
    ]
    return {"ms": at_nothing, "ms_per_megapixel": slope, "bytes_per_pixel": per_pixel}, checks


def write_photos(folder: Path, count: int, edge: int) -> None:
    """Crops of scikit-learn's two photos, enlarged where they are too small, as JPEG."""
    from sklearn.datasets import load_sample_images

    folder.mkdir()
    rng = np.random.default_rng(0)
    scale = max(1.0, edge / 400)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    photos = [photo.resize((round(photo.width * scale), round(photo.height * scale))) for photo in photos]
    for number in range(count):
        photo = photos[number % len(photos)]
        left, top = (int(rng.integers(0, size - edge + 1)) for size in photo.size)
        photo.crop((left, top, left + edge, top + edge)).save(folder / f"{number:05d}.jpg", quality=90)


def indexing_of(
    folder: Path, calibrated: tuple[int, int], count: int, rounds: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """A worker's figures from two small runs, and runs of more workers beside what follows from them."""
    small, large = (folder / f"photos{number}" for number in calibrated)
    checked = folder / "photos"
    for place, number in ((small, calibrated[0]), (large, calibrated[1]), (checked, count)):
        write_photos(place, number, PHOTO_EDGE)
    made = [
        [workers_run(folder / f"c{turn}-{number}", place, 1) for turn in range(rounds)]
        for number, place in zip(calibrated, (small, large), strict=True)
    ]
    wall, cores = ([float(np.median([run[what] for run in runs])) for runs in made] for what in (0, 1))
    more = calibrated[1] - calibrated[0]
    alone, core = (wall[1] - wall[0]) / more, (cores[1] - cores[0]) / more
    figures = {
        "start_seconds": max(0.0, wall[0] - alone * calibrated[0]),
        "alone_seconds": alone,
        "core_seconds": core,
        "second_core": second_core(),
        **merging_of(folder, calibrated[0]),
    }
    model, checks = taken(Indexing, figures), []
    for workers in WORKERS:
        runs = [workers_run(folder / f"w{turn}-{workers}", checked, workers) for turn in range(rounds)]
        found = float(np.median([run[0] for run in runs]))
        case = f"{workers} workers" if workers > 1 else "1 worker"
        said = model.seconds(count, workers, CORES)
        checks.append(check(f"indexing {count:,} photos", case, "s", said, found))
        if workers > 1:
            parts = sorted((folder / f"w0-{workers}").iterdir())
            start = time.perf_counter()
            merge(parts, folder / f"m{workers}", dims=[32])
            spent = time.perf_counter() - start
            checks.append(check("merging them", f"of {workers} shards", "s", model.merged(count), spent))
    return figures, checks


def workers_run(output: Path, photos: Path, workers: int) -> tuple[float, float]:
    """Seconds, and seconds of cores, that so many workers take, each a process of the public call."""
    output.mkdir()
    before, start = _children_seconds(), time.perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(photos), str(output / f"shard{number}"), f"{number}/{workers}"],
        )
        for number in range(1, workers + 1)
    ]
    if any(process.wait() for process in running):
        raise RuntimeError("a worker failed")
    return time.perf_counter() - start, _children_seconds() - before


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def merging_of(folder: Path, count: int) -> dict[str, float]:
    """What a merge takes before its first row, and for each, by vectors: rows are alike."""
    seconds, sizes = [], (count, 250 * count)
    for rows in sizes:
        file = folder / f"merged{rows}.npy"
        np.save(file, Structured(dim=DIM).block(0, min(rows, 50_000)))
        parts = [folder / f"part{rows}-{number}" for number in (1, 2)]
        for number, part in enumerate(parts, start=1):
            index_vectors(file, part, model_name="structured", shard=f"{number}/2", threads=1)
        start = time.perf_counter()
        merge(parts, folder / f"merged{rows}", dims=[32])
        seconds.append(time.perf_counter() - start)
    at_nothing, slope = line([float(rows) for rows in sizes], seconds)
    return {"merge_start_seconds": at_nothing, "merge_seconds": slope}


def second_core() -> float:
    """How much more two processes encode together than one alone: 1 where each has a core of its own."""
    alone = _encode_together(1)
    return max(0.0, min(1.0, _encode_together(2) / alone - 1))


def _encode_together(processes: int) -> float:
    """Images a second that so many processes encode at the same time."""
    command = [sys.executable, __file__, "--encode"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return sum(float(process.communicate()[0]) for process in running)


def encode_for(seconds: float) -> float:
    """Images a second that this process encodes on one thread, once others had time to start."""
    embedder = Embedder(load_checkpoint(SHIPPED))
    images = np.random.default_rng(0).standard_normal((4, 3, 128, 128)).astype(np.float32)
    import torch

    torch.set_num_threads(1)
    batch, done = torch.from_numpy(images), 0
    embedder.embed(batch)
    time.sleep(1)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        embedder.embed(batch)
        done += len(batch)
    return done / (time.perf_counter() - start)


def searching_of(
    folder: Path, fitted: Sequence[int], checked: Sequence[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures of search from small galleries, and others beside what follows from them."""
    runs = [gallery_runs(folder / f"figures{rows}", rows, rows == fitted[1]) for rows in fitted]
    figures = search_figures(runs)
    model, checks = taken(Searching, figures), []
    for rows in checked:
        found = gallery_runs(folder / f"rows{rows}", rows, False)
        case = f"{rows:,} rows"
        short = model.shortlist(rows, PREFIX, EFFORT)
        checks += [
            check("a query, shortlist and rerank", case, "ms", short, found["shortlist_ms"]),
            check("a query, exact", case, "ms", model.exact(rows, DIM), found["exact_ms"]),
            check(
                "adding them",
                case,
                "s of a core",
                model.adding(rows, PREFIX),
                found["add_s"] + found["build_s"],
            ),
            check(
                "a command that asks once",
                case,
                "s of a core",
                model.first_answer(rows),
                found["first_answer_s"],
            ),
            check("memory", case, "MB", model.memory(rows, PREFIX, RECIPE) / 1e6, found["own_bytes"] / 1e6),
            check("disk", case, "MB", model.disk(rows, DIM, PREFIX, RECIPE) / 1e6, found["disk_bytes"] / 1e6),
        ]
    return figures, checks


def gallery_runs(folder: Path, rows: int, calibrate: bool) -> dict[str, Any]:
    """What one process measures of a gallery that it makes, and then others that only ask it once."""
    found = in_fresh_process(gallery_run, str(folder), rows, calibrate)
    seconds = [first_answer(folder / "gallery") for _ in range(FIRST_ANSWERS)]
    shutil.rmtree(folder)
    return found | {"first_answer_s": float(np.median(seconds))}


def first_answer(folder: Path) -> float:
    """Seconds of the cores that a command takes which asks once, by a stored vector."""
    words = ["search", "--gallery", str(folder), "--like", "0", "--k", str(K), "--json"]
    words += ["--strategy", "shortlist", "--dim", str(PREFIX), "--shortlist", str(LENGTH)]
    before = _children_seconds()
    command = [sys.executable, "-m", "matmamba_vision", *words, "--threads", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return _children_seconds() - before


def search_figures(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What small galleries say of any; one of them was asked in more ways."""
    first = next(run for run in runs if "by_effort" in run)
    rows = first["rows"]
    sizes = [float(run["rows"]) for run in runs]
    call, per_compared = line([compared(rows, PREFIX, e) for e in EFFORTS], first["by_effort"])
    _, candidate = line([float(length) for length in LENGTHS], first["by_length"])
    stored, cache = [size * DIM for size in sizes], cache_bytes()
    works = [[1.0] * len(runs), stored, [beyond(one, cache) for one in stored]]
    exact_call, exact, exact_far = parts(works, [run["exact_ms"] for run in runs])
    answer_start, answer = line(sizes, [run["first_answer_s"] for run in runs])
    add_start, add = line(sizes, [run["add_s"] for run in runs])
    works = [[1.0] * len(runs), sizes, [building_work(size, PREFIX) for size in sizes]]
    build_start, build_row, build = parts(works, [run["build_s"] for run in runs])
    one = Searching(
        call_ms=call, compared_ms=per_compared, exact_ms=exact, exact_far_ms=exact_far, cache_bytes=cache,
        exact_call_ms=exact_call, candidates=LENGTH, candidate_ms=candidate, add_seconds=add,
        start_seconds=add_start + build_start, build_row_seconds=build_row, build_seconds=build,
        first_answer_seconds=answer_start, first_answer_row_seconds=answer, catalogue_bytes=0.0,
        base_bytes=0.0,
    )  # fmt: skip
    known = vars(one) | {
        "catalogue_bytes": (first["disk_bytes"] - one.disk(rows, DIM, PREFIX, RECIPE)) / rows,
        "base_bytes": first["own_bytes"] - one.memory(rows, PREFIX, RECIPE),
    }
    return dict(known)


def cache_bytes() -> float:
    """Of the largest cache of this processor; 0 where the system does not say."""
    places = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((1024.0 * int(place.read_text().strip().removesuffix("K")) for place in places), default=0.0)


def parts(works: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """What a unit of each of several works takes, by what they took together; none is below 0.

    Args:
        works: of each kind, how much every run did.
        seconds: of every run; the squares of relative errors are least.
    """
    from scipy.optimize import nnls

    done = np.array(works).T
    # Of one size, for rows and coordinates differ by millions; of what no run did, nothing is known: 0.
    largest = np.maximum(done.max(axis=0), 1.0)
    found, _ = nnls(done / largest / np.array(seconds)[:, None], np.ones(len(seconds)))
    return [float(value) for value in found / largest]


def gallery_run(place: str, rows: int, calibrate: bool) -> dict[str, Any]:
    """Add rows to a new gallery, and search it, by the public calls, on one thread."""
    folder, data = Path(place), Structured(dim=DIM)
    folder.mkdir()
    file = folder / "vectors.npy"
    whole = np.lib.format.open_memmap(file, "w+", np.float32, (rows, DIM))
    for first, xb in data.blocks(rows):
        whole[first : first + len(xb)] = xb
    del whole
    added: list[float] = []

    def heard(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "indexing" and event.finished:
            added.append(time.process_time())

    # One thread: what else the machine does takes less of it than of the clock's time.
    start = time.process_time()
    index_vectors(
        file, folder / "gallery", model_name="structured", dims=[PREFIX], factory=RECIPE, threads=1,
        progress=heard,
    )  # fmt: skip
    end = time.process_time()
    file.unlink()
    found = {"rows": rows, "add_s": added[0] - start, "build_s": end - added[0]}
    return found | _searched(folder / "gallery", data.queries(QUERIES), calibrate)


def _searched(folder: Path, xq: NDArray[np.float32], calibrate: bool) -> dict[str, Any]:
    """Median milliseconds of a query, and what the gallery takes."""
    before = own_bytes()
    with open_gallery(folder, threads=1) as gallery:

        def ask(strategy: Strategy, count: int = len(xq)) -> float:
            return median_ms(lambda number: gallery.search(xq[number], K, strategy=strategy), count)

        found: dict[str, Any] = {"shortlist_ms": ask(shortlist())}
        found["own_bytes"] = own_bytes()
        found["gallery_bytes"] = found["own_bytes"] - before
        found["exact_ms"] = ask(Strategy.single_shot(), EXACT_QUERIES)
        if calibrate:
            found["by_effort"] = [ask(shortlist(effort=effort)) for effort in EFFORTS]
            found["by_length"] = [ask(shortlist(length=length)) for length in LENGTHS]
    found["disk_bytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return found


def shortlist(effort: int = EFFORT, length: int = LENGTH) -> Strategy:
    """The strategy of these runs."""
    return Strategy.shortlist(width="full", dim=PREFIX, length=length, effort=effort)


def median_ms(ask: Callable[[int], object], count: int) -> float:
    """Median milliseconds of a query, of a process that has read the same rows before.

    The first reading of a row maps its page, which takes longer than all else, and grows rarer as it runs.
    """
    spent = []
    for number in [*range(count), *range(count)]:
        start = time.perf_counter()
        ask(number)
        spent.append(1e3 * (time.perf_counter() - start))
    return float(np.median(spent[count:]))


def own_bytes() -> int:
    """Memory of this process that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(one.split()[1]) * 1024 for one in lines if one.startswith("RssAnon"))


def worker() -> None:
    """What a worker's process does: a part of the photos, or encoding for a while."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--encode", action="store_true")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    if options.encode:
        print(encode_for(3))
        return
    photos, gallery, part = options.words
    index(photos, gallery, model=SHIPPED, shard=part, threads=1)


if __name__ == "__main__":
    worker()
