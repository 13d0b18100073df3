"""A gallery that is pushed again and again, each push killed at a moment left to chance.

Between two pushes the gallery changes by chance: images come, go and are replaced, it is compacted, and
encoded by another model. Each push is a fork that is killed with SIGKILL. In the end one push is let through:
every image has to be there, once, with its vectors and metadata of then.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from pathlib import Path

from killed_galleries import WIDTH, State, apply, changed, choose, spec, vectors
from matmamba_retrieval import Gallery, Row
from matmamba_retrieval.backends import comparison, pushing
from pushed_places import Places, compared, contents_of, push

IMAGES = 400


def push_all(folder: Path, places: Places) -> None:
    """One push, and every point of it compared."""
    with Gallery(folder) as gallery:
        push(gallery, places, dims=(4,))
        found = compared(gallery, places)
        assert (found.faults, found.counted, found.sampled) == ([], len(gallery), len(gallery))
        assert contents_of(places).keys == gallery.key_count


def pushing_child(folder: Path, places: Places) -> int:
    """A fork that pushes; its process id."""
    child = os.fork()
    if not child:
        status = 1
        try:
            push_all(folder, places)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def killed(folder: Path, places: Places, seconds: float) -> bool:
    """Whether a push was killed, and did not end before."""
    child = pushing_child(folder, places)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a push failed"
    return os.WIFSIGNALED(status)


def kill_pushes(root: Path, kills: int, seed: int = 0) -> dict[str, int]:
    """Kill so many pushes of one gallery; what became of the others, and the changes between them."""
    # Small batches and many notes, so that a kill comes anywhere.
    pushing.BATCH_ROWS, pushing.NOTE_SECONDS, comparison.SAMPLED = 16, 0.0, 1 << 20
    folder, places, chance = root / "gallery", Places("edge", root), random.Random(seed)
    rows = [Row(f"first {number}", "", None, {"content": 0}) for number in range(IMAGES)]
    state: State = {"model": 1, "images": {row.id: 0 for row in rows}}
    with Gallery.create(folder, spec(1), widths=(WIDTH,)) as gallery:
        gallery.add(rows, vectors(rows, 1, "full"), {WIDTH: vectors(rows, 1, WIDTH)})
    (root / "timed").mkdir()
    longest = took(folder, Places("edge", root / "timed"))
    counts: Counter[str] = Counter()
    while counts["killed"] < kills:
        if killed(folder, places, chance.uniform(0, longest)):
            counts["killed"] += 1
        else:
            counts["ended"] += 1
            # Now and then all of it again: what is left to do after a whole push takes a moment only.
            if chance.random() < 0.5:
                shutil.rmtree(root / "pushed")
        if chance.random() < 0.5:
            change = choose(state, chance)
            with Gallery(folder, write=True) as gallery:
                apply(gallery, state, change)
            state = changed(state, change)
            counts[change["kind"]] += 1
    took(folder, places)
    return dict(counts)


def took(folder: Path, places: Places) -> float:
    """Seconds of a push that nobody kills, in a fork of its own."""
    begun = time.monotonic()
    child = pushing_child(folder, places)
    assert os.waitpid(child, 0)[1] == 0, "the last push failed"
    return time.monotonic() - begun
