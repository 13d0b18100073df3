"""The service under load: always the full width, always the smallest, and the width that the load allows.

    .venv/bin/python benchmarks/serving.py --photos PHOTOS

A gallery of photos is served in a process of its own by `matmamba serve`, and asked over HTTP with JPEGs by
this one, on the same cores. Requests come at random at stated rates, two of every ten seconds at twice the
rate of the others, whether or not earlier ones were answered; times count from when a request was to be sent.
Rates are multiples of the capacity c of the full width: the highest rate without bursts at which 99 % are
answered in time. Besides: what a request takes beside the library's own call, the memory of a long run
(--soak), and how soon a service answers again that was killed (--restart, with a gallery of any size). Writes
results/serving.json and .png.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
from matmamba_vision.measures.environment import environment
from measuring import parse, prepare, spread, write_json
from open_loop import Response, arrivals, drive, summary, upload
from PIL import Image

MODEL, GALLERY, HITS, SLO_MS = "matmamba_mini_patch16_128", "photos", 10, 100.0
# What requests say of their width, by policy.
POLICIES: dict[str, dict[str, str]] = {
    "always full": {"width": "full"},
    "always 1/8": {"width": "1/8"},
    "by slack": {},
}
LOADS = (0.5, 1.0, 1.5, 2.5, 3.5)
# Share that is in time at the capacity, and how closely that is looked for.
IN_TIME, STEPS = 0.99, 6
# What it has to reach.
TARGETS = {"overhead_ms": 5.0, "ready_s": 5.0}
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        images: of the gallery.
        queries: different ones.
        seconds: of each run.
        search_seconds: of each run that looks for the capacity.
        loads: multiples of the capacity.
        pairs: requests that are compared with the library's call.
    """

    images: int = 5000
    queries: int = 400
    seconds: float = 20.0
    search_seconds: float = 8.0
    loads: tuple[float, ...] = LOADS
    pairs: int = 200


QUICK = Scale(images=40, queries=10, seconds=1.5, search_seconds=0.5, loads=(0.5, 2.5), pairs=4)


@dataclass(frozen=True)
class Served:
    """A service that listens.

    Attributes:
        port: where.
        process: that it is.
        ready_s: seconds from its start until it answered.
    """

    port: int
    process: subprocess.Popen[str]
    ready_s: float

    @property
    def memory_mb(self) -> float:
        """Memory of the process, in 10^6 bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmRSS"))


@dataclass(frozen=True)
class Queries:
    """What is asked.

    Attributes:
        files: JPEGs.
        labels: of each.
    """

    files: Sequence[bytes]
    labels: Sequence[int]

    def requests(self, policy: str) -> list[bytes]:
        """As they are sent."""
        asked = {"k": HITS, **POLICIES[policy]}
        return [upload("127.0.0.1", GALLERY, file, asked) for file in self.files]


def main(arguments: Sequence[str] | None = None, scale: Scale | None = None) -> None:
    """Serve, ask, print and write."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("--photos", type=Path, required=True, help="data set with the parts train and heldout")
    flags.add_argument("--soak", type=float, default=0.0, metavar="S", help="seconds at 1.5 c; 0 for none")
    flags.add_argument("--restart", type=Path, metavar="GALLERY", help="to be served, killed, served again")
    options = parse(Path(__file__), __doc__, arguments, [flags])
    prepare(options.threads)
    scale = scale or (QUICK if options.quick else Scale())
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        folder, queries = indexed(Path(place), options.photos, scale)
        with served(folder) as service:
            found = measured(service, folder, queries, scale, options.soak)
    if options.restart:
        found["restart"] = restarted(options.restart)
    soak = f" --soak {options.soak:g}" if options.soak else ""
    command = f"benchmarks/serving.py --photos PHOTOS{soak}{' --restart GALLERY' if options.restart else ''}"
    known = {"command": command, "load_average_before": load, "slo_ms": SLO_MS, "targets": TARGETS}
    result = {**known, "model": MODEL, "images": scale.images, **environment(), **found}
    if options.output:
        write_json(options.output, result)
        draw(found["rows"], options.output.with_suffix(".png"))


def indexed(place: Path, photos: Path, scale: Scale) -> tuple[Path, Queries]:
    """A gallery that keeps an encoder of each width, and what it is asked."""
    images, labels = pictures(photos, "train", scale.images)
    ids = [str(number) for number in range(len(images))]
    folder = place / GALLERY
    mv.index(images, folder, model=MODEL, ids=ids, labels=list(map(str, labels)))
    with mv.open_gallery(folder, write=True) as gallery:
        gallery.freeze(["full", "1/2", "1/4", "1/8"])
    asked, classes = pictures(photos, "heldout", scale.queries)
    return folder, Queries([_jpeg(image) for image in asked], classes)


def pictures(photos: Path, part: str, count: int) -> tuple[list[Image.Image], list[int]]:
    import pyarrow.parquet as pq

    rng, images, labels = np.random.default_rng(0), list[Image.Image](), list[int]()
    for file in sorted(photos.glob(f"{part}-*.parquet")):
        rows = pq.read_table(file, columns=["image", "label"])
        # Of each file some, because a file may hold some classes alone.
        for number in rng.permutation(len(rows))[: -(-count // len(list(photos.glob(f"{part}-*.parquet"))))]:
            row = rows.slice(int(number), 1).to_pylist()[0]
            images.append(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
            labels.append(row["label"])
    return images[:count], labels[:count]


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A service of a gallery, for the block."""
    service = started(folder)
    try:
        yield service
    finally:
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(60)


def started(folder: Path) -> Served:
    """A service of a gallery, once it answers."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "matmamba_vision", "serve", "--gallery", f"{GALLERY}={folder}"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--slo", f"{SLO_MS:g}ms", "--quiet"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    port = int(line.rstrip("/\n").rpartition(":")[2])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
        assert answer.status == 200
    return Served(port, process, time.perf_counter() - start)


def measured(service: Served, folder: Path, queries: Queries, scale: Scale, soak: float) -> Row:
    """All that is measured with one service."""
    overhead = beside_the_library(service, folder, queries, scale.pairs)
    print(f"beside the library's call: {overhead['overhead_ms']['median']:.2f} ms", flush=True)
    capacity = found_capacity(service, queries, scale.search_seconds)
    print(f"capacity of the full width: {capacity['per_second']:.1f} requests/s", flush=True)
    rows = []
    for load in scale.loads:
        for policy in POLICIES:
            rate = load * capacity["per_second"]
            found = ran(service, queries, policy, rate, scale.seconds, seed=round(10 * load))
            rows.append({"policy": policy, "load": load, "rate": rate, "seconds": scale.seconds, **found})
            print(line_of(rows[-1]), flush=True)
    more = {"soak": soaked(service, queries, 1.5 * capacity["per_second"], soak)} if soak else {}
    return {
        "overhead": overhead,
        "capacity": capacity,
        "rows": rows,
        "ready_s": service.ready_s,
        "memory_mb": service.memory_mb,
        **more,
    }


def asked(
    service: Served, requests: Sequence[bytes], rate: float, seconds: float, *, seed: int, bursts: bool = True
) -> list[Response]:
    """Answers to requests that come at a rate."""
    times = arrivals(rate, seconds, seed, bursts)
    return asyncio.run(drive("127.0.0.1", service.port, times, requests))


def ran(service: Served, queries: Queries, policy: str, rate: float, seconds: float, seed: int) -> Row:
    """What became of the requests of a run with bursts; the next one begins with an empty queue."""
    responses = asked(service, queries.requests(policy), rate, seconds, seed=seed)
    time.sleep(1.0 if seconds > 5 else 0.1)
    return summary(responses, seconds, SLO_MS, queries.labels)


def found_capacity(service: Served, queries: Queries, seconds: float) -> Row:
    """The highest rate at which the full width answers 99 % in time, halving the interval."""
    requests, tried = queries.requests("always full"), list[Row]()
    # As fast as it can answer one by one, and twice as fast.
    alone = asked(service, requests, 20.0, max(1.0, seconds / 4), seed=0, bursts=False)
    low, high = 0.0, 4e3 / float(np.median([one.ms for one in alone]))
    for step in range(STEPS):
        rate = (low + high) / 2
        responses = asked(service, requests, rate, seconds, seed=step, bursts=False)
        share = summary(responses, seconds, SLO_MS, queries.labels)["in_time"]
        tried.append({"rate": rate, "in_time": share})
        low, high = (rate, high) if share >= IN_TIME else (low, rate)
    return {"per_second": low or high, "tried": tried}


def beside_the_library(service: Served, folder: Path, queries: Queries, pairs: int) -> Row:
    """Milliseconds of a request and of the library's call for the same file, in turn, one at a time."""
    requests = queries.requests("always full")
    http, library = list[float](), list[float]()
    with mv.open_gallery(folder) as gallery:
        for number in range(pairs + 3):
            place = number % len(requests)
            (response,) = asyncio.run(drive("127.0.0.1", service.port, [0.0], [requests[place]]))
            start = time.perf_counter()
            gallery.search(queries.files[place], HITS, query_width="full", strategy="single-shot")
            library.append(1e3 * (time.perf_counter() - start))
            http.append(response.ms)
    # The first ones load.
    http, library = http[3:], library[3:]
    more = [a - b for a, b in zip(http, library, strict=True)]
    return {"http_ms": spread(http), "library_ms": spread(library), "overhead_ms": spread(more)}


def soaked(service: Served, queries: Queries, rate: float, seconds: float) -> Row:
    """A long run by slack, in parts: errors, and the memory behind each part."""
    part, memory, rows = min(60.0, seconds), [service.memory_mb], list[Row]()
    for number in range(max(1, round(seconds / part))):
        rows.append(ran(service, queries, "by slack", rate, part, seed=100 + number))
        memory.append(service.memory_mb)
        print(f"{memory[-1]:.0f} MB, {rows[-1]['errors']} errors", flush=True)
    return {"rate": rate, "seconds": seconds, "memory_mb": memory, "errors": sum(r["errors"] for r in rows)}


def restarted(folder: Path) -> Row:
    """Seconds until a service answers, and again behind a kill."""
    first = started(folder)
    first.process.kill()
    first.process.wait()
    with served(folder) as again:
        return {"images": len(mv.open_gallery(folder)), "first_s": first.ready_s, "again_s": again.ready_s}


def line_of(row: Row) -> str:
    """A run on one line."""
    mix = ", ".join(f"{width} {share:.0%}" for width, share in row["widths"].items())
    p50, p99 = (f"{row['ms'][name]:.0f}" if row["ms"][name] else "-" for name in ("p50", "p99"))
    return (
        f"{row['load']:>4} c {row['policy']:<12} in time {row['in_time']:.1%}, shed {row['shed']:.1%},"
        f" {row['answered_per_second']:.0f}/s, p50 {p50}, p99 {p99} ms, 1-NN {row['knn1'] or 0:.3f}; {mix}"
    )


def table(result: Row) -> str:
    """The runs as a table in Markdown, the load first.

    Args:
        result: as it is written.
    """
    lines = [
        "| load | policy | in time | of those not sent away | sent away | answers/s | p50, p95, p99 ms"
        " | widths | 1-NN |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        ms = ", ".join("-" if value is None else f"{value:.0f}" for value in row["ms"].values())
        mix = ", ".join(f"{width} {share:.0%}" for width, share in row["widths"].items())
        knn = "-" if row["knn1"] is None else f"{row['knn1']:.3f}"
        lines.append(
            f"| {row['load']:g} c | {row['policy']} | {row['in_time']:.1%} | {row['in_time_of_not_shed']:.1%}"
            f" | {row['shed']:.1%} | {row['answered_per_second']:.0f} | {ms} | {mix} | {knn} |"
        )
    return "\n".join(lines)


def page(result: Row) -> str:
    """The same, and what stands beside the runs.

    Args:
        result: as it is written.
    """
    machine, capacity = result["machine"], result["capacity"]["per_second"]
    lines = [
        f"{result['images']:,} photos, {machine['processor']}, {machine['threads']} threads; c is"
        f" {capacity:.0f} requests a second, in time is within {result['slo_ms']:g} ms. One request at a time"
        f" takes {result['overhead']['overhead_ms']['median']:.1f} ms more than the library's own call."
    ]
    if soak := result.get("soak"):
        first, last = soak["memory_mb"][1], soak["memory_mb"][-1]
        lines.append(
            f"In {soak['seconds'] / 60:.0f} minutes at 1.5 c there were {soak['errors']} errors, and the"
            f" process held {first:.0f} MB behind the first minute and {last:.0f} MB at the end."
        )
    if restart := result.get("restart"):
        lines.append(
            f"With {restart['images']:,} images it was ready {restart['again_s']:.1f} s after it was started"
            " again behind a kill."
        )
    return f"{table(result)}\n\n{' '.join(lines)}\n"


def draw(rows: Sequence[Row], file: Path) -> None:
    """Requests in time by load, and how wide the answers by slack were."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    loads = sorted({row["load"] for row in rows})
    for policy in POLICIES:
        known = {row["load"]: row for row in rows if row["policy"] == policy}
        left.plot(loads, [known[load]["in_time"] for load in loads], marker="o", label=policy)
    left.set(xlabel="load, of the capacity of the full width", ylabel="share in time", ylim=(0, 1.02))
    left.legend()
    left.grid(alpha=0.3)
    bottom = np.zeros(len(loads))
    by_slack = {row["load"]: row for row in rows if row["policy"] == "by slack"}
    for width in ("full", "1/2", "1/4", "1/8"):
        answered = [1 - by_slack[load]["shed"] for load in loads]
        shares = np.array([by_slack[load]["widths"].get(width, 0.0) for load in loads]) * answered
        right.bar([f"{load:g}" for load in loads], shares, bottom=bottom, label=width)
        bottom += shares
    right.bar([f"{load:g}" for load in loads], 1 - bottom, bottom=bottom, label="sent away", color="0.85")
    right.set(xlabel="load, of the capacity of the full width", ylabel="share of the requests, by slack")
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)
    figure.savefig(file, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
