"""How long listing a folder takes, beside `find`: photos and their sidecars, in folders of a thousand files.

Sides: our listing (images in their order, all else by name with a reason); `find -type f`, which looks at a
file's entry alone, as ours does; `find` printing size and time, for which it looks at each file; and
`os.scandir` alone, which is the least that Python can do. Files are empty, and all of it is in the system's
cache. Writes results/listing.json.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from matmamba_datasets.listing import Listing
from measuring import Case, Plan, Ratio, measure_case, run, timed

FILES, OF_A_FOLDER = 100_000, 1_000
FIND, FIND_STAT = "find -type f", "find with size and time"
OURS, SCANDIR = "ours", "os.scandir alone"


def main(arguments: Sequence[str] | None = None, files: int = FILES) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, files=files), arguments)


def cases(plan: Plan, files: int) -> Iterator[Case]:
    """One case: a folder of so many files."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_photos(root, files)
        listing = Listing(root)
        if len(listing.images) != len(listing.left_out) or 2 * len(listing.images) != files:
            raise RuntimeError(f"of {files} files {len(listing.images)} are images")
        sides: dict[str, Callable[[], object]] = {
            OURS: partial(Listing, root),
            FIND: partial(_find, root),
            FIND_STAT: partial(_find, root, "-printf", "%p %s %T@\n"),
            SCANDIR: partial(_scan, root),
        }
        ratios = [Ratio(f"{OURS} / {side}", OURS, side) for side in (FIND, FIND_STAT, SCANDIR)]
        settings = {"files": files, "images": len(listing.images), "files of a folder": OF_A_FOLDER}
        in_ms = {name: timed(work) for name, work in sides.items()}
        yield measure_case(f"{files:,} files", in_ms, ratios, plan, settings)


def make_photos(root: Path, files: int) -> None:
    """Empty files, half of them photos by their names, the other half sidecars of these."""
    for number in range(files // 2):
        folder = root / f"{2 * number // OF_A_FOLDER:03d}"
        folder.mkdir(exist_ok=True)
        for suffix in ("jpg", "xmp"):
            (folder / f"{number:06d}.{suffix}").touch()


def _find(root: Path, *more: str) -> None:
    subprocess.run(["find", root, "-type", "f", *more], stdout=subprocess.DEVNULL, check=True)


def _scan(root: Path) -> None:
    """Each entry's name and kind, no more."""
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _scan(Path(entry.path))


if __name__ == "__main__":
    main()
