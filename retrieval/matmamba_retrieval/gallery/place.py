"""The folder of a gallery: what is in it, whether one may be made there, and who may write to it."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from ..errors import GalleryError, WriterBusyError
from ..storage.catalog import PARTIAL
from ..storage.checked import nothing_at
from ..storage.files import remove, require_regular, system_errors
from ..storage.locks import Busy, Lock
from ..storage.rewriting import left_over

CATALOG, SEGMENTS, SHORTLISTS, LOCKS = "catalog.sqlite", "segments", "shortlist", "locks"
# What an attempt to make a gallery leaves when it is killed.
_LEFT = re.compile(rf"{Path(CATALOG).stem}-[0-9a-f]{{32}}{re.escape(PARTIAL)}(-journal)?")


def require_own_files(folder: Path) -> None:
    """Raise `GalleryError` if there is no gallery, or anything in it is neither a file nor a folder."""
    with system_errors(f"look into {folder}"):
        places = [place for place in (folder, folder / SEGMENTS, folder / SHORTLISTS) if place.is_dir()]
        for place in places:
            require_regular(place)
        if (folder / LOCKS).is_dir():
            _require_own_locks(folder / LOCKS)
        if not (folder / CATALOG).is_file():
            raise GalleryError(nothing_at(folder / CATALOG))


def _require_own_locks(folder: Path) -> None:
    """Whoever may not look at the locks reads all the same: each is looked at when it is opened."""
    try:
        require_regular(folder)
    except GalleryError as error:
        if getattr(error.__cause__, "errno", None) != errno.EACCES:
            raise


def take_empty(folder: Path) -> Lock:
    """The writer's lock on a folder where a gallery is to be made; the folder too, if it is not there."""
    require_empty(folder)
    with system_errors(f"make {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    return hold_to_write(folder)


def require_empty(folder: Path) -> None:
    """Raise `GalleryError` if a folder holds anything but what a killed attempt to make a gallery left."""
    with system_errors(f"look into {folder}"):
        if left_over(folder / CATALOG):
            raise GalleryError(nothing_at(folder / CATALOG))
        if folder.exists() and (not folder.is_dir() or any(map(_foreign, folder.iterdir()))):
            raise GalleryError(f"{folder} exists and is not a gallery: choose another place")


def _foreign(file: Path) -> bool:
    """Whether a file is not what an attempt to make a gallery leaves when it is killed."""
    return file.is_symlink() or not (file.name == LOCKS or _LEFT.fullmatch(file.name))


def hold_to_write(folder: Path) -> Lock:
    """The lock of the one who writes, who removes what killed attempts to make the gallery have left.

    Raises:
        GalleryError: another process has it, or nothing can be written there.
    """
    try:
        lock = Lock(folder / LOCKS / "writer")
    except Busy as error:
        raise WriterBusyError(f"another process writes to {folder}: wait for it to end") from error
    except OSError as error:
        raise GalleryError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        with system_errors(f"look into {folder}"):
            left = [file for file in folder.iterdir() if _LEFT.fullmatch(file.name) and file.is_file()]
    except GalleryError:
        lock.release()
        raise
    for file in left:
        remove(file)
    return lock


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
