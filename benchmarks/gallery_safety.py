"""What a gallery survives: killed and interrupted writers, damage; and how long opening a large one takes.

    python benchmarks/gallery_safety.py

2,000 writers are killed with SIGKILL while they add, replace, delete, compact, merge, build indexes and move
to another model; it ends with an error at the first image that is lost or half written. 1,000 times a bit is
flipped in one of a gallery's files, or the file is cut short, and 900 times pages of its catalogue are
blanked, swapped or put in the place of another; what came of it is counted. 300 writers get SIGINT, and 200
times two processes make one gallery at the same time. The tests do the same on fewer. Writes
results/gallery_safety.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_vision.measures.environment import environment
from measuring import parse, write_json

TESTS = Path(__file__).parents[1] / "tests"
# Forks want a process without torch, whose threads would not survive them.
_RUN = """
import json, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import faiss
from damaged_galleries import damage_and_restore, some_gallery
from interrupted_galleries import create_at_once, interrupt_writers
from killed_galleries import kill_writers
from misplaced_pages import misplace_and_restore, wide_gallery
faiss.omp_set_num_threads(1)
attacks = {
    "kill": kill_writers,
    "damage": lambda gallery, *chance: damage_and_restore(some_gallery(gallery), *chance),
    "misplace": lambda gallery, *chance: misplace_and_restore(wide_gallery(gallery), *chance),
    "interrupt": interrupt_writers,
    "create": create_at_once,
}
with tempfile.TemporaryDirectory() as folder:
    found = attacks[sys.argv[2]](Path(folder) / "gallery", int(sys.argv[3]), int(sys.argv[4]))
print(json.dumps(found))
"""
# How often each attack is made.
ATTACKS = {
    "killed_writers": ("kill", 2_000),
    "damaged_files": ("damage", 1_000),
    "misplaced_pages": ("misplace", 900),
    "interrupted_writers": ("interrupt", 300),
    "made_at_once": ("create", 200),
}
ROWS = 1_000_000
SEED = 20  # not the one of the tests


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print and write."""
    options = parse(Path(__file__), __doc__, arguments)
    attacks = {
        name: _apart(attack, 20 if options.quick else count) for name, (attack, count) in ATTACKS.items()
    }
    result = {**attacks, "opening": opening(2_000 if options.quick else ROWS), **environment()}
    print(json.dumps(result, indent=1))
    if options.output:
        write_json(options.output, result)


def _apart(what: str, count: int) -> dict[str, Any]:
    """Counts of what happened, in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _RUN, str(TESTS), what, str(count), str(SEED)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"times": count, "seconds": time.perf_counter() - start, "counts": json.loads(said)}


def opening(rows: int, dim: int = 64, repeats: int = 15) -> dict[str, Any]:
    """Milliseconds to open a gallery with some deleted images, and to read the first rows of it."""
    chance = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        with Gallery.create(Path(folder) / "gallery", EmbeddingSpec("0" * 64, "full", dim)) as gallery:
            for first in range(0, rows, 10_000):
                xb = chance.standard_normal((min(10_000, rows - first), dim), dtype=np.float32)
                xb /= np.linalg.norm(xb, axis=1, keepdims=True)
                names = [f"class{n % 200}/{first + n:07d}.jpg" for n in range(len(xb))]
                gallery.add([Row(name, f"/photos/{name}", name[:8]) for name in names], xb)
            gallery.delete([row.id for row in gallery.rows(range(0, rows, 100))])
        times = [_open(gallery.folder) for _ in range(repeats)]
    quartiles = np.percentile(times, [25, 50, 75]).round(1).tolist()
    return {"rows": rows, "deleted": rows // 100, "repeats": repeats, "ms_quartiles": quartiles}


def _open(folder: Path) -> float:
    start = time.perf_counter()
    with Gallery(folder) as gallery:
        gallery.segments.read(np.arange(10))
        gallery.rows(range(10))
        return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
