"""What HTTP asks of the service: all that these routes know of what answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from ...upkeep.image_gallery import ImageGallery
from ..question import Question, Reply


class Answering(Protocol):
    """What is asked here: the service, or what stands for it."""

    @property
    def ready(self) -> bool:
        """Whether each width has answered once."""
        ...

    def start(self) -> None:
        """Load, measure, and ask each width once."""
        ...

    def require_room(self, gallery: str, deadline: float, width: str = "", min_width: str = "") -> None:
        """Raise what `submit` would for an image: before it is decoded, which is for nothing otherwise."""
        ...

    def submit(self, question: Question) -> Future[Reply]:
        """Have a question answered."""
        ...

    def names(self) -> list[str]:
        """Of its galleries."""
        ...

    def gallery(self, name: str) -> ImageGallery:
        """One of them, in its present version."""
        ...

    def describe(self, name: str) -> dict[str, Any]:
        """What is known about a gallery."""
        ...

    def status(self) -> dict[str, Any]:
        """How it fares."""
        ...

    def refresh(self, name: str | None = None) -> None:
        """Look for newer versions."""
        ...

    def add(
        self,
        name: str,
        images: Sequence[Any],
        ids: Sequence[str],
        labels: Sequence[str | None] | None,
        metadata: Sequence[Mapping[str, Any]] | None,
        upsert: bool,
    ) -> Any:
        """Add images to a gallery."""
        ...

    def delete(self, name: str, ids: Sequence[str]) -> Any:
        """Delete images of a gallery."""
        ...

    def on_event(self, listener: Callable[[Any], None]) -> None:
        """Tell somebody what happens."""
        ...

    def close(self, drain_s: float) -> None:
        """Answer what was accepted, and end."""
        ...
