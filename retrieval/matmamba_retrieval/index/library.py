"""FAISS, imported when it is first used: a gallery is looked into and changed without it."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from matmamba_common.lazy import Deferred

if TYPE_CHECKING:
    import faiss
else:
    faiss = Deferred("faiss")

__all__ = ["faiss", "load_faiss"]


@cache
def load_faiss() -> Any:
    """FAISS itself, imported now if that was not done: before something is timed, or for many calls."""
    return importlib.import_module("faiss")
