"""Packages that only galleries on Qdrant need."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import GalleryError


def needed(module: str, package: str) -> None:
    """Raise `GalleryError` that says what brings a package which is not installed."""
    if find_spec(module) is None:
        raise GalleryError(f"this needs {package}: pip install 'matmamba-vision[qdrant]'")
