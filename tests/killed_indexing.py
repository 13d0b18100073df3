"""Commands that index, merge and reindex, killed again and again: a program for cli/test_indexing.py.

    python killed_indexing.py FOLDER KILLS

Each command runs in a process forked from this one and is killed with SIGKILL after a time left to chance,
until `KILLS` were killed; then it runs to its end. What it makes must equal what an unbroken run makes, and
nothing that was there after a kill may be gone after the next.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import faiss
import interpreter  # noqa: F401
import torch
from matmamba_retrieval import Gallery, overlap
from matmamba_retrieval.exchange import parts
from matmamba_retrieval.gallery.inspection import verify
from matmamba_retrieval.storage.catalog import Catalog
from matmamba_vision.cli.main import main as matmamba

# From the first transaction on: as long as a command takes from there.
LONGEST_SECONDS = 0.4
COMMIT_ROWS, COMMIT_SECONDS = 5, 0.02


def content(folder: Path) -> list[object]:
    """All rows, and the bytes of their vectors."""
    with Gallery(folder) as gallery:
        keys = gallery.live_keys()
        rows = gallery.rows(keys)
        widths = (gallery.spec.width, *gallery.generation.widths)
        return [rows, gallery.spec, [gallery.segments_of(width).read(keys).tobytes() for width in widths]]


def held(folder: Path) -> tuple[object, set[str], int]:
    """What model's vectors a gallery has, of which images, and how many are noted, for a new model too."""
    if not Gallery.exists(folder):
        return None, set(), 0
    with Gallery(folder) as gallery:
        ((noted,),) = gallery.catalog.run("SELECT count(*) FROM images")
        return gallery.spec, {row.id for row in gallery.rows(gallery.live_keys())}, noted


def start(command: list[str]) -> tuple[int, int]:
    """Run a command in a fork; its number, and a pipe that tells when it changes a catalogue, or ends."""
    told, telling = os.pipe()
    if child := os.fork():
        os.close(telling)
        return child, told
    status = 9
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        overlap.Intake.__init__.__defaults__ = (COMMIT_ROWS, COMMIT_SECONDS)
        parts.PART_ROWS = COMMIT_ROWS
        transaction = Catalog.transaction

        def tell(self: Catalog) -> AbstractContextManager[None]:
            os.write(telling, b".")
            return transaction(self)

        Catalog.transaction = tell  # type: ignore[method-assign,assignment]
        status = matmamba(command)
    finally:
        os._exit(status)


def finish(command: list[str]) -> None:
    """Run a command to its end."""
    child, told = start(command)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(told)
    assert status == 0, (command, status)


def killed(command: list[str], folder: Path, kills: int, chance: random.Random) -> int:
    """Kill a command some times, then let it end; returns after how many kills it had done something."""
    useful = 0
    for _ in range(kills):
        before = held(folder)
        child, told = start(command)
        os.read(told, 1)
        time.sleep(chance.random() * LONGEST_SECONDS)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        after = held(folder)
        assert before[0] != after[0] or before[1] <= after[1], "images are gone"
        assert not Gallery.exists(folder) or not verify(folder), verify(folder)
        useful += before != after
    finish(command)
    return useful


def main() -> None:
    """Each command both ways."""
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(kills)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    common = ["--batch-size", "3", "--max-broken", "0.2", "--threads", "1"]
    images = ["--images", str(folder / "photos"), "--checkpoint", str(folder / "first"), *common]
    shards = [str(folder / f"shard{number}") for number in (1, 2)]
    useful = {}

    def both(name: str, command: list[str], flag: str) -> None:
        finish([*command, flag, str(folder / f"whole-{name}")])
        useful[name] = killed([*command, flag, str(folder / name)], folder / name, kills, chance)
        assert content(folder / name) == content(folder / f"whole-{name}"), name

    both("index", ["index", *images, "--widths", "1/2"], "--gallery")
    for number, shard in enumerate(shards, 1):
        command = ["index", *images, "--widths", "1/2", "--gallery", shard, "--shard", f"{number}/2"]
        killed(command, Path(shard), kills // 2, chance)
    both("merge", ["merge", *shards], "--into")
    assert content(folder / "merge") == content(folder / "index"), "merged shards differ from one run"
    reindex = ["reindex", "--checkpoint", str(folder / "second"), *common]
    whole, broken = folder / "whole-index", folder / "index"
    finish([*reindex, "--gallery", str(whole)])
    useful["reindex"] = killed([*reindex, "--gallery", str(broken)], broken, kills, chance)
    assert content(whole) == content(broken), "reindex"
    print(json.dumps(useful), flush=True)


if __name__ == "__main__":
    main()
