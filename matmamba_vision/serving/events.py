"""What happens in a service, as values: for metrics and logs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A request was answered.

    Attributes:
        gallery: its name.
        width: that encoded the query; "" where nothing was encoded.
        strategy: its kind.
        sent_on: whether the full width encoded the query, too.
        in_time: whether its deadline was kept.
        batch: requests that were computed together.
        ms: milliseconds by stage, as in the reply.
        request_id: of the request.
    """

    gallery: str
    width: str
    strategy: str
    sent_on: bool
    in_time: bool
    batch: int
    ms: Mapping[str, float] = field(default_factory=dict)
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Shed:
    """A request was sent away, because it could not be answered in time.

    Attributes:
        gallery: its name.
        where: "entry", or "queue" where it had been let in.
        retry_after: seconds after which it may be asked again.
        request_id: of the request.
    """

    gallery: str
    where: str
    retry_after: float
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Widened:
    """The narrowest width that is used has changed, because of the recall of narrower ones.

    Attributes:
        gallery: its name.
        min_width: label of the narrowest width from now on.
        reason: in words.
    """

    gallery: str
    min_width: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """Another version of a gallery answers.

    Attributes:
        gallery: its name.
        version: from now on.
        images: that it has.
    """

    gallery: str
    version: str
    images: int


@dataclass(frozen=True, kw_only=True)
class Checked:
    """An answer was compared with the exact one.

    Attributes:
        gallery: its name.
        width: that had given the answer.
        overlap: share of the exact first hits that it had.
        same_first: whether its first hit was the exact one.
        busy: whether others waited when it was asked.
    """

    gallery: str
    width: str
    overlap: float
    same_first: bool
    busy: bool


ServiceEvent: TypeAlias = Answered | Shed | Widened | Swapped | Checked


class Events:
    """Tells listeners what happens; one that fails is logged, and disturbs nobody."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[ServiceEvent], None]] = []

    def on_event(self, listener: Callable[[ServiceEvent], None]) -> None:
        """Tell a listener of whatever happens from now on, in the thread in which it happens."""
        self._listeners.append(listener)

    def tell(self, event: ServiceEvent) -> None:
        """Something has happened."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed at %s", type(event).__name__)
