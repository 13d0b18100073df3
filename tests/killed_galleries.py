"""A gallery whose writer is killed again and again, at moments left to chance.

Each writer is a fork that changes the gallery, says what it begins and what is done, and is killed with
SIGKILL some milliseconds later. The gallery must then be as it was before the change that was begun, or
after it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from lookups import by_index
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_retrieval.gallery.inspection import verify
from matmamba_retrieval.gallery.merging import merge_segments
from matmamba_retrieval.gallery.renewal import Renewal, compact

DIM, WIDTH = 16, "1/8"
LONGEST_SECONDS = 0.05
# What a gallery holds: for each id, which content its image has, and by which model all of them were encoded.
State = dict[str, Any]


def spec(model: int) -> EmbeddingSpec:
    return EmbeddingSpec(f"{model:064d}", "full", DIM)


def vectors(rows: list[Row], model: int, width: str) -> np.ndarray:
    """What the model makes of the images at a width: a function of nothing else."""
    seeds = [zlib.crc32(f"{row.id} {row.metadata['content']} {model} {width}".encode()) for row in rows]
    x = np.array([np.random.default_rng(seed).standard_normal(DIM) for seed in seeds], dtype=np.float32)
    return x.reshape(-1, DIM) / np.linalg.norm(x.reshape(-1, DIM), axis=1, keepdims=True)


def choose(state: State, chance: random.Random) -> dict[str, Any]:
    """A change by chance, as JSON."""
    known = sorted(state["images"])
    kind = chance.choice(["add", "add", "upsert", "delete", "compact", "build", "reindex", "merge"])
    fresh = chance.randrange(10**9)
    if kind == "add":
        return {"kind": kind, "images": {f"{fresh}-{n}": 0 for n in range(chance.randint(1, 40))}}
    if kind == "upsert":
        some = chance.sample(known, min(len(known), chance.randint(1, 20)))
        return {"kind": kind, "images": dict.fromkeys(some, fresh)}
    if kind == "delete":
        return {"kind": kind, "ids": chance.sample(known, min(len(known), chance.randint(0, 15)))}
    if kind == "build":
        return {"kind": kind, "dim": chance.choice([4, 8]), "width": chance.choice(["full", WIDTH])}
    return {"kind": kind, "model": state["model"] + (kind == "reindex")}


def changed(state: State, change: dict[str, Any]) -> State:
    """What the gallery holds after a change."""
    images = {**state["images"], **change.get("images", {})}
    for image_id in change.get("ids", ()):
        del images[image_id]
    return {"model": change.get("model", state["model"]), "images": images}


def apply(gallery: Gallery, state: State, change: dict[str, Any]) -> None:
    """Make a change."""
    kind, model = change["kind"], state["model"]
    if kind in ("add", "upsert"):
        rows = [
            Row(image_id, "", None, {"content": content}) for image_id, content in change["images"].items()
        ]
        small = {WIDTH: vectors(rows, model, WIDTH)}
        gallery.add(rows, vectors(rows, model, "full"), small, replace=kind == "upsert")
    elif kind == "delete":
        gallery.delete(change["ids"])
    elif kind == "build" and gallery.key_count:
        gallery.build_shortlist(change["dim"], "Flat", change["width"])
    elif kind == "compact":
        compact(gallery)
    elif kind == "merge":
        merge_segments(gallery)
    elif kind == "reindex":
        reindex(gallery, change["model"])


def reindex(gallery: Gallery, model: int) -> None:
    """Move to another model, in small steps."""
    renewal = Renewal(gallery, spec(model), "", (WIDTH,))
    pending = renewal.pending()
    for first in range(0, len(pending), 50):
        keys = pending[first : first + 50]
        rows = gallery.rows(keys)
        renewal.add(keys, vectors(rows, model, "full"), {WIDTH: vectors(rows, model, WIDTH)})
    renewal.finish()


def write_until_killed(folder: Path, state: State, seed: int, pipe: int) -> None:
    """Change the gallery and tell of each change before and after it, one JSON line each."""
    chance = random.Random(seed)
    gallery = Gallery(folder, write=True)
    while True:
        change = choose(state, chance)
        os.write(pipe, json.dumps({"begin": change}).encode() + b"\n")
        apply(gallery, state, change)
        state = changed(state, change)
        os.write(pipe, b'{"end": 1}\n')


def killed(folder: Path, state: State, seed: int, seconds: float) -> list[dict[str, Any]]:
    """Start a writer, kill it after some time; what it said."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            write_until_killed(folder, state, seed, writing)
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as said:
        lines = [json.loads(line) for line in said.read().splitlines()]
    assert os.WIFSIGNALED(status), f"the writer ended by itself, after {lines[-1:]}"
    return lines


def seen(folder: Path) -> State:
    """What a reader finds, every vector compared with what its image and model give, every index searched."""
    with Gallery(folder) as gallery:
        keys, model = gallery.live_keys(), int(gallery.spec.checkpoint)
        rows = gallery.rows(keys)
        for width in ("full", WIDTH):
            expected = vectors(rows, model, width).astype(np.float16)
            assert np.array_equal(gallery.segments_of(width).read(keys), expected)
        for record in gallery.shortlists():
            found = by_index(gallery, np.eye(1, record.dim, dtype=np.float32), 3, gallery_width=record.width)
            assert (found < gallery.key_count).all()
        assert len(gallery) == len(keys)
        return {"model": model, "images": {row.id: row.metadata["content"] for row in rows}}


def kill_writers(folder: Path, kills: int, seed: int = 0) -> dict[str, int]:
    """Kill so many writers of one gallery; counts of the changes during which they were killed.

    Raises:
        AssertionError: the gallery is neither as before the interrupted change nor as after it.
    """
    # Forks after a parallel region would wait for threads that they do not have.
    faiss.omp_set_num_threads(1)
    chance = random.Random(seed)
    Gallery.create(folder, spec(1), widths=(WIDTH,)).close()
    state: State = {"model": 1, "images": {}}
    counts: Counter[str] = Counter()
    for number in range(kills):
        lines = killed(folder, state, seed * 1_000_003 + number, chance.uniform(0.003, LONGEST_SECONDS))
        begun = None
        for line in lines:
            if "begin" in line:
                begun = line["begin"]
            else:
                assert begun is not None
                state, begun = changed(state, begun), None
        possible = [state, *([changed(state, begun)] if begun else [])]
        found = seen(folder)
        assert found in possible, (number, begun)
        counts[begun["kind"] if begun else "opening"] += 1
        state = found
        if number % 20 == 0:
            assert verify(folder) == []
    assert verify(folder) == []
    return dict(counts)
