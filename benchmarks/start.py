"""How long a command takes from its start: cold processes, beside `python -c pass` and `import torch`.

Each side starts a Python of its own, in turn, and waits for its end. The files that it reads are in the
system's cache, and its bytecode is written, as it is where the package is installed. Wall time, and the
processor time that the process took, are of the same runs. The gallery holds 200 small pictures, by the
shipped model for photos; copies of it, named after these, keep encoders for the kernels in C and for ONNX
Runtime. Writes results/start.json.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import matmamba_vision as mv
import numpy as np
import torch
from measuring import Case, Plan, Ratio, measure_case, run
from PIL import Image

PICTURES, MODEL = 200, "matmamba_mini_patch16_128"
# Starting them takes seconds.
ROUNDS = 15
COMMAND = ("-m", "matmamba_vision")
NOTHING, TORCH, PHOTO = "python -c pass", "import torch", "search --gallery G query.png"
KEPT = {kind: f"search --gallery {kind} query.png" for kind in ("native", "onnx")}
HELP, LIKE = "--help", "search --gallery G --like 0.png"
SIDES: dict[str, tuple[str, ...]] = {
    NOTHING: ("-c", "pass"),
    TORCH: ("-c", "import torch"),
    "import matmamba_vision": ("-c", "import matmamba_vision"),
    HELP: (*COMMAND, "--help"),
    "search --help": (*COMMAND, "search", "--help"),
    "search --galery G": (*COMMAND, "search", "--galery", "G"),
    "gallery info G": (*COMMAND, "gallery", "info", "G"),
    LIKE: (*COMMAND, "search", "--gallery", "G", "--like", "0.png"),
    PHOTO: (*COMMAND, "search", "--gallery", "G", "query.png"),
    **{name: (*COMMAND, "search", "--gallery", kind, "query.png") for kind, name in KEPT.items()},
}
RATIOS = tuple(Ratio(f"{name} / {TORCH}", name, TORCH) for name in (PHOTO, *KEPT.values(), LIKE))
# What a process took: milliseconds by the clock, and of the processor.
Taken = tuple[float, float]


def main(arguments: Sequence[str] | None = None, pictures: int = PICTURES) -> None:
    """Make the gallery, measure, print and write."""
    run(__file__, __doc__, partial(cases, pictures=pictures), arguments)


def cases(plan: Plan, pictures: int) -> Iterator[Case]:
    """Two: the wall time and the processor time of the same processes."""
    plan = plan.at_most(ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_gallery(root, pictures)
        processor: dict[str, list[float]] = {name: [] for name in SIDES}

        def wall(name: str, words: Sequence[str]) -> float:
            by_clock, of_processor = taken(words, root)
            processor[name].append(of_processor)
            return by_clock

        settings = {"pictures": pictures, "model": MODEL}
        sides: Mapping[str, Callable[[], float]] = {
            name: partial(wall, name, words) for name, words in SIDES.items()
        }
        yield measure_case("wall time", sides, RATIOS, plan, settings)
        again = {name: iter(values).__next__ for name, values in processor.items()}
        yield measure_case("processor time", again, RATIOS, plan, settings)


def make_gallery(root: Path, pictures: int) -> None:
    """Pictures of noise, one of them again as the query, and galleries of them."""
    chance = np.random.default_rng(0)
    (root / "pictures").mkdir()
    for number in range(pictures):
        picture = Image.fromarray(chance.integers(0, 256, (160, 200, 3)).astype(np.uint8))
        picture.save(root / "pictures" / f"{number}.png")
    picture.save(root / "query.png")
    mv.index(root / "pictures", root / "G", model=MODEL)
    for kind in KEPT:
        shutil.copytree(root / "G", root / kind)
        with mv.open_gallery(root / kind, write=True) as gallery:
            gallery.freeze(["full"], kinds=[kind])


def taken(words: Sequence[str], folder: Path) -> Taken:
    """Milliseconds of a process of Python, by the clock and of the processor."""
    known = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    known["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    # As many as this process was told to take: on a busy machine, threads wait for each other.
    known["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=known, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    by_clock = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    # A flag that is mistyped ends with 2.
    if process.returncode != (2 if "--galery" in words else 0):
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    return 1e3 * by_clock, 1e3 * (used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    main()
