"""What jobs draw lies apart from the images that they read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matmamba_datasets.own_folders import is_read
from matmamba_datasets.remote import is_url

from ..errors import ConfigError
from ..given import PathLike


def require_apart(name: str, folder: Path | None, read: Iterable[PathLike], *, is_run: bool = False) -> None:
    """Refuse a folder whose pictures would be read as images of those that are measured or learnt from.

    Args:
        name: of the argument.
        folder: that is to be written; None for none.
        read: folders whose images are read; what is at URLs is none of this machine.
        is_run: whether it becomes the folder of a run: a listing leaves one out by name wherever it lies, so
            that nothing else need be in it.

    Raises:
        ConfigError: it lies among the images, in no run there.
    """
    if folder is None or (is_run and not _has_entries(folder)):
        return
    for place in read:
        if not is_url(str(place)) and is_read(folder, Path(place)):
            raise ConfigError(
                f"{name} {folder} lies in {place}, whose images are read: what is drawn there would be one"
                " of them: choose another place"
            )


def _has_entries(folder: Path) -> bool:
    """Whether anything is in a folder that is not hidden, as locks are."""
    return folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())
