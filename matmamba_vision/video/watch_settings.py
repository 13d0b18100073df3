"""How a stream is watched: what its frames have to resemble, in which time, and what is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from matmamba_common.settings import Bounds, check
from matmamba_datasets.live_stream import STDIN, is_recording, shown_source

from ..errors import ConfigError
from ..given import require_texts

Seconds = Annotated[float, Bounds(least=0)]
Positive = Annotated[float, Bounds(above=0)]


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """See `watch`, whose arguments these are.

    Raises:
        TypeError: a value of another type.
        ConfigError: a value that cannot be.
    """

    min_score: Annotated[float, Bounds(least=-1, most=1)]
    k: Annotated[int, Bounds(least=1)]
    where: str
    budget_ms: Positive
    fps: Seconds
    widths: Sequence[str]
    hold_s: Seconds
    status_s: Seconds
    poll_s: Seconds
    speed: Annotated[float | None, Bounds(least=0)]
    loop: bool
    reconnect: bool
    timeout_s: Positive
    form: str
    options: Mapping[str, str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", require_texts("widths", self.widths))
        check(self)

    def require_source(self, source: str) -> None:
        """Raise `ConfigError` for what means nothing for a source."""
        recording = is_recording(source)
        if self.loop and not recording:
            raise ConfigError(f"loop means nothing for {shown_source(source)}, which is no file")
        if self.reconnect and (recording or source == STDIN):
            raise ConfigError(f"reconnect means nothing for {shown_source(source)}, which is no server")
