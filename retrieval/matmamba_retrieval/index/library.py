"""FAISS, imported when it is first used: a gallery is looked into and changed without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matmamba_common.lazy import Deferred

if TYPE_CHECKING:
    import faiss
else:
    faiss = Deferred("faiss")

__all__ = ["faiss"]
