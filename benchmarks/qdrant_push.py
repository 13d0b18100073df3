"""A gallery pushed to Qdrant's engine in this process: rate over time, memory, and pushes killed at random.

A million structured rows of 512 dims (structured.py), with a prefix of 64, are pushed as `gallery push` does
it for recall=1: exact lists, without a graph. The rate of each 50,000 is to stay within 20 % of the median,
and so are the seconds of the cores that an image takes, of all threads of the process. Both change with what
else the machine does, the rate the most; so between the parts a work is timed that is always the same, and
what changes there is the machine. What a push does before and behind that is given apart. A smaller
gallery is pushed for recall=0.99, with a graph, and one with SIGKILL at 20 random moments; in the end every
key is to be there, once, and every vector of a sample equal to the bit.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from growth import own_memory
from markdown_tables import markdown
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_vision.measures.environment import environment
from matmamba_vision.progress import Event, Progress
from matmamba_vision.upkeep.push import push, verify_pushed
from measuring import RESULTS, prepare, write_json
from numpy.typing import NDArray
from structured import Structured

ROWS, GRAPH_ROWS, KILLED_ROWS, KILLS = 1_000_000, 50_000, 20_000, 20
FULL, DIM, EVERY = 512, 64, 50_000
SEED = 7
Floats = NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> None:
    """Push, kill, write."""
    options = parse(arguments)
    prepare(options.threads)
    if options.scratch is not None:
        options.scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=options.scratch))
    command = f"benchmarks/qdrant_push.py --threads {options.threads} --rows {options.rows}"
    result: dict[str, Any] = {"command": command, "threads": options.threads, **environment()}
    try:
        # First, in forks of a process that the engine has no threads in yet.
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "killed": lambda: killed(folder / "killed", options.killed_rows, options.kills),
            "push": lambda: measured(folder / "whole", options.rows, options.every, "recall=1"),
            "graph": lambda: measured(folder / "graph", options.graph_rows, options.every, "recall=0.99"),
        }
        for name, part in parts.items():
            result[name] = part()
            print(result[name], flush=True)
            # As they come: a part takes minutes.
            if options.output:
                write_json(options.output, result)
    finally:
        shutil.rmtree(folder)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small; writes to a given --output only")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results/qdrant_push.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=ROWS, help="5 GB of disk a million")
    parser.add_argument("--graph-rows", type=int, default=GRAPH_ROWS)
    parser.add_argument("--killed-rows", type=int, default=KILLED_ROWS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where there is room for it")
    options = parser.parse_args(arguments)
    options.every = EVERY
    if options.quick:
        options.rows, options.graph_rows, options.every = 4000, 2000, 1000
        options.killed_rows, options.kills = 2000, 2
    elif options.output is None:
        options.output = RESULTS / "qdrant_push.json"
    return options


def made(folder: Path, rows: int) -> Path:
    """A gallery of so many rows, each with metadata."""
    folder.mkdir()
    with Gallery.create(folder / "gallery", EmbeddingSpec("0" * 64, "full", FULL)) as gallery:
        for first, xb in Structured().blocks(rows):
            keys = range(first, first + len(xb))
            gallery.add([Row(f"{key:08d}", f"/photos/{key}.jpg", None, {"n": key}) for key in keys], xb)
    return folder / "gallery"


class Clock:
    """When how much of each stage was done, by the clock and by the cores; and what the machine does.

    Args:
        every: images between two times that the same work is done.
    """

    def __init__(self, every: int) -> None:
        self.every, self.same_ms = every, list[float]()
        self.begun: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.done: list[tuple[float, float, int]] = []

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Progress):
            return
        now = time.perf_counter()
        self.begun.setdefault(event.stage, now)
        if event.finished:
            self.took[event.stage] = now - self.begun[event.stage]
        elif event.stage == "pushing":
            self.done.append((now, time.process_time(), event.done))
            if event.done >= self.every * len(self.same_ms):
                self.same_ms.append(same_work())

    def parts(self, every: int) -> tuple[Floats, Floats]:
        """Seconds of the clock, and of the cores, of each so many images; a shorter last part is left out."""
        clock, cores, counts = (np.array(values, dtype=float) for values in zip(*self.done, strict=True))
        marks = np.arange(0, counts[-1] + 1, every)
        return np.diff(np.interp(marks, counts, clock)), np.diff(np.interp(marks, counts, cores))


def same_work() -> float:
    """Milliseconds of a core for a work that is always the same: numbers of a part of the rows, as lists."""
    numbers = np.zeros((1000, FULL + DIM), dtype=np.float32)
    begun = time.process_time()
    for row in numbers:
        row.tolist()
    return 1e3 * (time.process_time() - begun)


def measured(folder: Path, rows: int, every: int, target: str) -> dict[str, Any]:
    """One push of all rows; of few, a quarter has a rate of its own."""
    every = min(every, rows // 4)
    gallery_folder, clock = made(folder, rows), Clock(every)
    with Gallery(gallery_folder) as gallery, own_memory() as peak:
        done = push(gallery, f"edge:{folder / 'pushed'}", dims=(DIM,), target=target, progress=clock)
    seconds, cores = clock.parts(every)
    rates, core_us = every / seconds, 1e6 * cores / every
    return {
        "rows": rows,
        "target": target,
        "dims": [DIM, FULL],
        "every": every,
        "rates": np.round(rates, 1).tolist(),
        "rate": float(np.median(rates)),
        "largest_deviation": deviation(rates),
        "core_us": np.round(core_us, 1).tolist(),
        "core_us_an_image": float(np.median(core_us)),
        "largest_deviation_of_cores": deviation(core_us),
        "same_work_ms": np.round(clock.same_ms, 2).tolist(),
        "seconds": {stage: round(seconds, 2) for stage, seconds in clock.took.items()},
        "own_memory_bytes": peak[0],
        "disk_bytes": sum(
            file.stat().st_blocks * 512 for file in (folder / "pushed").rglob("*") if file.is_file()
        ),
        "vectors": done.vectors,
        "first_stage_bytes": done.memory_bytes,
        "recall": done.recall,
        "compared": done.comparison.sampled,
    }


def deviation(values: Floats) -> float:
    """The largest, from the median, as a share of that."""
    return float(np.abs(values / np.median(values) - 1).max())


def killed(folder: Path, rows: int, kills: int) -> dict[str, Any]:
    """Pushes killed at random moments of the time that one takes, each going on where the last was."""
    gallery_folder, chance = made(folder, rows), random.Random(SEED)
    whole = forked(gallery_folder, f"edge:{folder / 'timed'}") or 0.0
    count, ended = 0, 0
    place = folder / "pushed"
    while count < kills:
        # A push that goes on has less to do: what is killed is spread over all of it by beginning anew.
        if forked(gallery_folder, f"edge:{place}", chance.uniform(0, whole / 2)) is None:
            count += 1
        else:
            ended += 1
            shutil.rmtree(place)
    last = forked(gallery_folder, f"edge:{place}")
    with Gallery(gallery_folder) as gallery:
        found = verify_pushed(gallery, f"edge:{place}")
    return {
        "rows": rows, "kills": count, "ended_before": ended, "whole_seconds": whole, "last_seconds": last,
        "images": found.images, "points": found.counted, "compared": found.sampled, "faults": found.faults,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Rates of pushes, and what became of those that were killed."""
    rows = [
        (
            f"{push['rows']:,}",
            ", ".join(f"{vector['name']} {vector['index']}" for vector in push["vectors"]),
            f"{push['rate']:,.0f}",
            f"{min(push['rates']):,.0f} to {max(push['rates']):,.0f}",
            *cores_of(push),
            f"{push['seconds']['building indexes']:.0f}",
            f"{push['own_memory_bytes'] / 1e6:,.0f}",
        )
        for push in (result["push"], result["graph"])
    ]
    names = ("images", "vectors", "images/s", "of each part", "µs of a core an image", "of each part")
    heads = (*names, "building, s", "own memory, MB")
    dead = result["killed"]
    told = (
        f"{dead['kills']} pushes of {dead['rows']:,} images were killed at random moments: in the end"
        f" {dead['points']:,} points were there, {dead['compared']} compared, {len(dead['faults'])} faults."
    )
    return f"{markdown(heads, rows)}\n\n{told}{same_work_of(result['push'])}"


def same_work_of(push: dict[str, Any]) -> str:
    """What the same work took between the parts of a push; nothing if it was not measured."""
    if not (spent := push.get("same_work_ms")):
        return ""
    return (
        f" Between the parts of the first push the same work took {min(spent):.1f} to {max(spent):.1f} ms of"
        " a core: so much of what differs is the machine."
    )


def cores_of(push: dict[str, Any]) -> tuple[str, str]:
    """What an image takes of the cores, and the least and the most of the parts; "-" if not measured."""
    if "core_us" not in push:
        return "-", "-"
    return f"{push['core_us_an_image']:,.0f}", f"{min(push['core_us']):,.0f} to {max(push['core_us']):,.0f}"


def forked(gallery_folder: Path, to: str, seconds: float | None = None) -> float | None:
    """Seconds of a push in a fork; None if it was killed after so many."""
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        status = 1
        try:
            with Gallery(gallery_folder) as gallery:
                push(gallery, to, dims=(DIM,), target="recall=1")
            status = 0
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    if os.WEXITSTATUS(status):
        raise RuntimeError(f"a push to {to} failed")
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
