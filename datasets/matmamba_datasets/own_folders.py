"""Folders that this project writes, by what lies in them: nothing in these is one of a user's images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

# What each holds; a folder ends with "/".
_HOLD = {"a gallery": ("catalog.sqlite", "segments/"), "a run": ("config.yaml", "metrics.jsonl")}


def own_kind(holds: Callable[[str], bool]) -> str:
    """What a folder is called that this project wrote, "" for any other.

    Args:
        holds: whether it has an entry of this name.
    """
    return next((kind for kind, names in _HOLD.items() if all(map(holds, names))), "")


def is_read(folder: Path, root: Path) -> bool:
    """Whether images that are put into a folder would be read with those of another one.

    Args:
        folder: where they are put; it need not be there.
        root: the folder whose images are read.
    """
    folder, root = folder.resolve(), root.resolve()
    inside = [place for place in (folder, *folder.parents) if place.is_relative_to(root)]
    return bool(inside) and not any(map(_is_own, inside[:-1]))


def _is_own(folder: Path) -> bool:
    return bool(own_kind(lambda name: (folder / name).exists()))
