"""Teacher vectors whose filling is killed again and again: a program for cli/test_distill_cache.py.

    python killed_filling.py FOLDER
    torchrun --nproc-per-node 2 killed_filling.py FOLDER

distils into FOLDER/unbroken in one go, and into FOLDER/broken with a SIGKILL at each of `POINTS`, while the
teacher's vectors are computed; then both runs go to their ends. Every run is a process forked from this one.
Afterwards two processes distil into FOLDER/shared.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import interpreter  # noqa: F401
import torch
from killed_runs import kill_at
from matmamba_vision.training import VectorCache, vector_cache
from teachers import distill, write_photos, write_teacher

# Nine parts of four images with three views each.
PART = 12
# Module or class, its function, at which call, and whether the kill comes before or after.
POINTS: list[tuple[object, str, int, str]] = [
    (VectorCache, "write", 1, "before"),  # nothing is there
    (vector_cache, "write_whole", 2, "before"),  # one part is there
    (Path, "replace", 3, "before"),  # a part is written, and has no name yet
    (VectorCache, "write", 2, "after"),  # between two parts
    (VectorCache, "rotated", 1, "before"),  # all are there, the run has not begun
]


def run(work: Callable[[], int], point: tuple[object, str, int, str] | None) -> int:
    """Run in a process of its own, which dies at `point`; its status, or -signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        if point:
            kill_at(*point)
        status = work()
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def main() -> None:
    """Both runs."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    vector_cache.TOGETHER = PART
    more = ["--crops", "3", "--optim.epochs", "1", "--resume", "auto"]
    if "RANK" in os.environ:
        photos, teacher = folder / "photos", f"timm:local-dir:{folder / 'teacher'}"
        sys.exit(distill(teacher, photos, folder / "shared", *more, "--data.batch-size", "6"))
    photos, teacher = write_photos(folder / "photos"), write_teacher(folder / "teacher")
    assert run(lambda: distill(teacher, photos, folder / "unbroken", *more), None) == 0
    for point in POINTS:
        status = run(lambda: distill(teacher, photos, folder / "broken", *more), point)
        assert status == -signal.SIGKILL, (point, status)
        parts = sorted(file.name for file in (folder / "broken" / "teacher").rglob("part-*.safetensors"))
        print(len(parts), "parts", flush=True)
    assert run(lambda: distill(teacher, photos, folder / "broken", *more), None) == 0
    print("done", flush=True)


if __name__ == "__main__":
    main()
