"""What a service keeps to: times, sizes, and how it looks after its own answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from matmamba_common.settings import CREW, Bounds, check, require

from ..errors import ConfigError
from ..given import require_path, require_texts, require_type

Whole = Annotated[int, Bounds(least=0)]
Some = Annotated[int, Bounds(least=1)]
Time = Annotated[float, Bounds(least=0)]
Share = Annotated[float, Bounds(least=0, most=1)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a service answers.

    Attributes:
        slo_ms: milliseconds in which a request has to be answered that says nothing else.
        workers: threads that compute; 0 for whichever is measured better: one for each core, or a single one
            that computes on all of them.
        threads: that compute, of all workers together; 0 for as many as there are cores.
        max_batch_size: images that are encoded at once; raise it on a GPU.
        max_wait_ms: longest that an image waits for others to be encoded with; only where that pays.
        max_queue: requests that wait at most: what they hold is bounded by it.
        max_k: hits that can be asked for, those of earlier pages included.
        quality_share: of the requests that are answered once more, exactly, to see how good answers are.
        quality_floor: recall below which narrower widths are not used any more; 0 for none.
        poll_s: seconds between two looks for newer versions; 0 to look only when told to.
        writable: whether images can be added and deleted.
        widths: that encode queries, by default those that a gallery keeps encoders of, or else the trained
            ones.
        min_width: narrowest width that may encode a query, whatever it says; "" for the narrowest there is.
        measure_s: seconds that measuring the widths of one gallery may take at start.

    Raises:
        TypeError: a value of another type.
        ConfigError: a value that cannot be.
    """

    slo_ms: Annotated[float, Bounds(above=0)] = 100.0
    workers: Annotated[int, CREW] = 0
    threads: Annotated[int, CREW] = 0
    max_batch_size: Some = 16
    max_wait_ms: Time = 2.0
    max_queue: Some = 256
    max_k: Some = 1000
    quality_share: Share = 0.01
    quality_floor: Share = 0.0
    poll_s: Time = 2.0
    writable: bool = False
    widths: tuple[str, ...] = ()
    min_width: str = ""
    measure_s: Time = 1.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", require_texts("widths", self.widths))
        check(self)


def require_galleries(galleries: Mapping[str, str | os.PathLike[str]]) -> dict[str, Path]:
    """Folders of galleries by the names that questions call them.

    Args:
        galleries: as they were given.

    Raises:
        TypeError: a name or a folder of another type.
        ConfigError: there is none, or one without a name.
    """
    require_type("galleries", galleries, Mapping, "folders by the names that questions call them")
    if not galleries:
        raise ConfigError("galleries is empty: a service has one or more")
    for name in galleries:
        require("a name of galleries", name, str)
        if not name:
            raise ConfigError("a name of galleries is empty: questions call each by its own")
    return {name: require_path(f"galleries[{name!r}]", folder) for name, folder in galleries.items()}
