"""FAISS, imported when it is first used: a gallery is looked into and changed without it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from matmamba_common.lazy import Deferred

if TYPE_CHECKING:
    import faiss
else:
    faiss = Deferred("faiss")

__all__ = ["faiss", "load_faiss"]


def load_faiss() -> None:
    """Import it now, before something is timed, if that was not done."""
    importlib.import_module("faiss")
