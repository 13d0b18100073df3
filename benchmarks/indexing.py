"""Indexing on one machine: whether its rate stays, what memory it takes, and what overlap brings.

    python benchmarks/indexing.py

Random vectors of 64 dims are indexed by `index_vectors` with an inverted file of product-quantised vectors,
100,000 and 1,000,000 of them, each in a fresh process: the rate in each tenth of the rows, as the call tells
its progress, and the most memory that the process held. Then photos (crops of scikit-learn's two) are indexed
by the shipped model, in turn with decoding, encoding and writing at the same time, and one after the other.
Writes results/indexing.json.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matmamba_datasets import BrokenTally, Images, eval_transform, make_loader, open_images
from matmamba_retrieval import Row
from matmamba_retrieval.gallery.destination import Destination
from matmamba_vision import Checkpoint, Event, Progress, index, index_vectors, load_checkpoint
from matmamba_vision.galleries.embedder import Embedder
from matmamba_vision.measures.environment import environment
from measuring import QUICK, Plan, Ratio, in_fresh_process, measure_case, parse, prepare, timed, write_json
from PIL import Image

DIM, FACTORY = 64, "IVF1024,PQ32x4fs"
COUNTS = (100_000, 1_000_000)
SLICES = 10
SAMPLE_SECONDS = 0.02
MODEL, PHOTOS, PHOTO_EDGE, BATCH = "matmamba_nano_patch4_32", 512, 256, 64
# What is promised: bytes at most, whatever the number of images, and bytes for each image.
PROMISED = (2 << 30, 64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print and write."""
    options = parse(Path(__file__), __doc__, arguments)
    prepare(options.threads)
    counts, photos, plan = (COUNTS, PHOTOS, Plan(1, 10)) if not options.quick else ((5_000,), 32, QUICK)
    result = {
        "settings": {"dim": DIM, "factory": FACTORY, "slices": SLICES},
        "vectors": [vectors(count, "IVF16,PQ32x4fs" if options.quick else FACTORY) for count in counts],
        "cases": [overlap(photos, plan)],
        **environment(),
    }
    print(json.dumps(result, indent=1))
    if options.output:
        write_json(options.output, result)


def vectors(count: int, factory: str) -> dict[str, Any]:
    """Index so many vectors in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        xb = np.lib.format.open_memmap(file, "w+", np.float32, (count, DIM))
        rng = np.random.default_rng(0)
        for start in range(0, count, 100_000):
            part = xb[start : start + 100_000]
            part[:] = rng.standard_normal(part.shape)
        xb.flush()
        return in_fresh_process(index_once, file, Path(folder) / "gallery", count, factory)


def index_once(file: Path, gallery: Path, count: int, factory: str) -> dict[str, Any]:
    """Rates and memory of one call, in this process."""
    passed, start = [(0, time.monotonic(), time.process_time())], time.monotonic()

    def noted(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "indexing" and event.done > passed[-1][0]:
            passed.append((event.done, time.monotonic(), time.process_time()))

    before = memory()
    with Peak() as peak:
        index_vectors(
            file, gallery, model_name="random", normalise=True, dims=[DIM], factory=factory, progress=noted
        )
        seconds = time.monotonic() - start
    allowed = PROMISED[0] + PROMISED[1] * count
    return {
        "rows": count,
        "factory": factory,
        "seconds": round(seconds, 1),
        "rows_per_second": slices([(rows, clock) for rows, clock, _ in passed], count),
        # Where others use the machine too, this says more.
        "rows_per_cpu_second": slices([(rows, cpu) for rows, _, cpu in passed], count),
        "mib_before": {name: round(value / 2**20) for name, value in before.items()},
        "peak_mib": {name: round(value / 2**20) for name, value in peak.most.items()},
        "promised_mib": round(allowed / 2**20),
        "kept": peak.most["own"] <= allowed,
    }


def slices(passed: Sequence[tuple[int, float]], count: int) -> list[int]:
    """Rows per second in each tenth of the rows, between the parts that end nearest to its ends."""
    rows, seconds = np.array(passed).T
    places = [int(np.abs(rows - count * part / SLICES).argmin()) for part in range(SLICES + 1)]
    pairs = [(first, last) for first, last in pairwise(places) if first < last]
    return [round((rows[last] - rows[first]) / (seconds[last] - seconds[first])) for first, last in pairs]


def memory() -> dict[str, int]:
    """Bytes that this process holds: its own, and pages of files, which the system can take back."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        name: 1024 * int(status[field].split()[0])
        for name, field in (("own", "RssAnon"), ("files", "RssFile"), ("all", "VmRSS"))
    }


class Peak:
    """The most of each kind of memory while the block runs, looked at some times a second."""

    def __init__(self) -> None:
        self.most, self._stop = memory(), threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.most = {name: max(value, self.most[name]) for name, value in memory().items()}


def overlap(count: int, plan: Plan) -> dict[str, Any]:
    """Milliseconds for an image with and without overlap, in turn; encoding on one thread."""
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        write_photos(photos, count)
        images, made = open_images(photos), iter(range(10**6))

        def together(workers: int) -> None:
            gallery = Path(folder) / f"g{next(made)}"
            index(images, gallery, model=checkpoint, batch_size=BATCH, workers=workers)

        def in_turn() -> None:
            one_after_the_other(checkpoint, images, Path(folder) / f"g{next(made)}")

        per_image = {
            "overlapping": lambda: timed(lambda: together(0))() / count,
            "overlapping, 1 worker": lambda: timed(lambda: together(1))() / count,
            "one after the other": lambda: timed(in_turn)() / count,
        }
        ratios = [
            Ratio("gain by overlap", "one after the other", "overlapping"),
            Ratio("gain by a worker", "one after the other", "overlapping, 1 worker"),
        ]
        settings = {"model": MODEL, "images": count, "edge": PHOTO_EDGE, "batch": BATCH, "threads": 1}
        return measure_case("index photos", per_image, ratios, plan, settings, "ms")


def one_after_the_other(checkpoint: Checkpoint, images: Images, gallery: Path) -> None:
    """The same as the call, without its threads."""
    embedder = Embedder(checkpoint)
    target, tally = Destination(gallery, embedder.spec()), BrokenTally(len(images), 0)
    left = target.missing(images.ids, images.paths)
    rows: list[Row] = []
    found = []
    for batch in make_loader(images, eval_transform(checkpoint.model.input), BATCH, left=left):
        tally.add(batch.broken)
        found.append(embedder.embed(batch.images))
        rows += [Row(images.ids[index], images.paths[index]) for index in batch.indices.tolist()]
    target.commit(rows, {embedder.spec().width: np.concatenate(found)})
    target.open().build_shortlist(32)
    target.close()


def write_photos(folder: Path, count: int) -> None:
    """Crops of two photos as JPEG."""
    from sklearn.datasets import load_sample_images

    folder.mkdir()
    photos, rng = load_sample_images().images, np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (int(rng.integers(0, edge - PHOTO_EDGE)) for edge in photo.shape[:2])
        crop = photo[top : top + PHOTO_EDGE, left : left + PHOTO_EDGE]
        Image.fromarray(crop).save(folder / f"{number:05d}.jpg", quality=90)


if __name__ == "__main__":
    main()
