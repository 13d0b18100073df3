"""The folder of a gallery: what is in it, whether one may be made there, and who may write to it."""

from __future__ import annotations

from pathlib import Path

from ..errors import GalleryError
from ..storage.catalog import PARTIAL
from ..storage.checked import nothing_at
from ..storage.files import require_no_links
from ..storage.locks import Busy, Lock
from ..storage.rewriting import left_over

CATALOG, SEGMENTS, SHORTLISTS, LOCKS = "catalog.sqlite", "segments", "shortlist", "locks"


def require_own_files(folder: Path) -> None:
    """Raise `GalleryError` if there is no gallery, or symbolic links in it lead to foreign files."""
    if folder.is_dir():
        for place in (folder, *(folder / name for name in (SEGMENTS, SHORTLISTS, LOCKS))):
            if place.is_dir():
                require_no_links(place)
    if not (folder / CATALOG).is_file():
        raise GalleryError(nothing_at(folder / CATALOG))


def take_empty(folder: Path) -> Lock:
    """The writer's lock on a folder where a gallery is to be made; the folder too, if it is not there."""
    require_empty(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GalleryError(f"cannot make {folder}: {error.strerror or error}") from error
    return hold_to_write(folder)


def require_empty(folder: Path) -> None:
    """Raise `GalleryError` if a folder holds anything but what a killed attempt to make a gallery left."""
    if left_over(folder / CATALOG):
        raise GalleryError(nothing_at(folder / CATALOG))
    if folder.exists() and (not folder.is_dir() or any(map(_foreign, folder.iterdir()))):
        raise GalleryError(f"{folder} exists and is not a gallery: choose another place")


def _foreign(file: Path) -> bool:
    """Whether a file is not what an attempt to make a gallery leaves when it is killed."""
    if file.name == LOCKS:
        return file.is_symlink()
    return not (file.name.startswith(Path(CATALOG).stem) and PARTIAL in file.name)


def hold_to_write(folder: Path) -> Lock:
    """The lock of the one who writes; `GalleryError` if another process has it."""
    try:
        return Lock(folder / LOCKS / "writer")
    except Busy as error:
        raise GalleryError(f"another process writes to {folder}: wait for it to end") from error
    except OSError as error:
        raise GalleryError(f"cannot write to {folder}: {error.strerror or error}") from error


def hold_generation(folder: Path, number: int, *, alone: bool = False) -> Lock | None:
    """Hold a generation so that its files stay; None where no lock can be had, as on some read-only disks.

    Args:
        alone: only if nobody else holds it.

    Raises:
        Busy: somebody holds it alone, or anybody if `alone`, or that cannot be told.
    """
    try:
        return Lock(folder / LOCKS / generation_lock(number), shared=not alone)
    except OSError as error:
        if alone:
            raise Busy(str(error)) from error
        return None


def generation_lock(number: int) -> str:
    """Name of the file whose lock holds a generation."""
    return f"generation-{number}"
