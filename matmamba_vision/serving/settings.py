"""What a service keeps to: times, sizes, and how it looks after its own answers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matmamba_common.settings import require

from ..errors import ConfigError
from ..given import require_number, require_path, require_texts, require_type, require_whole


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

    slo_ms: float = 100.0
    workers: int = 0
    threads: int = 0
    max_batch_size: int = 16
    max_wait_ms: float = 2.0
    max_queue: int = 256
    max_k: int = 1000
    quality_share: float = 0.01
    quality_floor: float = 0.0
    poll_s: float = 2.0
    writable: bool = False
    widths: tuple[str, ...] = ()
    min_width: str = ""
    measure_s: float = 1.5

    def __post_init__(self) -> None:
        for name, least in (
            ("workers", 0),
            ("threads", 0),
            ("max_batch_size", 1),
            ("max_queue", 1),
            ("max_k", 1),
        ):
            require_whole(name, getattr(self, name), least)
        for name in ("slo_ms", "max_wait_ms", "quality_share", "quality_floor", "poll_s", "measure_s"):
            require_number(name, getattr(self, name))
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}: it can be 0 or more, and finite")
        for name in ("quality_share", "quality_floor"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it is a share, and can be 1 at most")
        if not self.slo_ms:
            raise ConfigError("slo_ms is 0: it has to be more")
        require("min_width", self.min_width, str)
        require("writable", self.writable, bool)
        object.__setattr__(self, "widths", require_texts("widths", self.widths))


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
