"""Galleries on engines of their own, which answer strategies themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ..gallery.gallery import Gallery
from .hits import Hits
from .queries import Queries
from .searchable import Searchable, Selection
from .strategy import Step, Strategy


@dataclass(frozen=True)
class IndexChoice:
    """An index of a gallery, and how much of it is searched."""

    dim: int
    name: str = ""
    effort: int | None = None


class AnsweringGallery(Searchable, Protocol):
    """One whose engine answers whole strategies, but for the gate."""

    def staged(self, strategy: Strategy, queries: Queries, k: int, allowed: Selection | None = None) -> Hits:
        """The k best images for each query; `search` says more.

        Args:
            strategy: without a gate.
            queries: at whichever widths it asks for.
            k: hits wanted, in 1..number of images.
            allowed: what its own `allowed` gave.

        Raises:
            GalleryError: the strategy does not fit the gallery, or its engine does not answer.
        """
        ...

    def index_choices(self, dims: Sequence[int]) -> list[IndexChoice]:
        """What is searched over these dims, with the efforts around the one it was built for."""
        ...

    def index_bytes(self, step: Step | None) -> int:
        """Bytes of what a step searches; without one, of the vectors that exact search compares."""
        ...

    def labels(self) -> list[str | None]:
        """Labels of all images, by key; None for those of deleted ones."""
        ...

    def described(self) -> dict[str, Any]:
        """Which vectors it has, and what it was pushed from, as plain values."""
        ...

    def save_plan(self, plan: Any) -> None:
        """Keep a plan with the collection, until another one is pushed."""
        ...


# What `search` asks.
AnyGallery: TypeAlias = Gallery | AnsweringGallery
