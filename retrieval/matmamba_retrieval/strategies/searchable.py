"""What a gallery offers to those that ask it: a folder's, or one on an engine of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..storage.records import Generation, Row, Version
from ..storage.spec import EmbeddingSpec

Ints = NDArray[np.int64]


class Selection(Protocol):
    """Images that may be answered: whatever `allowed` of a gallery gives, which that gallery understands."""

    def any(self) -> Any:
        """Whether there may be one."""
        ...


class Searchable(Protocol):
    """A gallery that can be asked, as it is at one version.

    `Gallery` says what each of these gives, and raises.
    """

    @property
    def folder(self) -> Path | str:
        """Where it is, as messages name it."""
        ...

    @property
    def spec(self) -> EmbeddingSpec: ...

    @property
    def generation(self) -> Generation: ...

    @property
    def version(self) -> Version: ...

    @property
    def checkpoint_path(self) -> str: ...

    @property
    def key_count(self) -> int: ...

    @property
    def plan(self) -> Any: ...

    def __len__(self) -> int: ...

    def rows(self, keys: Iterable[int]) -> list[Row]: ...

    def keys_of(self, ids: Iterable[str]) -> dict[str, int]: ...

    def vectors(self, keys: Ints, width: str = "") -> NDArray[np.floating]: ...

    def classes(self, keys: Ints) -> Ints | None: ...

    def fields(self) -> list[str]: ...

    def allowed(self, where: str | None = None, without: Sequence[int] | Ints = ()) -> Selection | None: ...

    def total(self, allowed: Selection | None) -> int: ...

    def labelled(self) -> bool: ...

    def keys_where(self, where: str = "") -> Ints: ...

    def shortlist_dims(self) -> list[int]: ...

    def step_dims(self) -> list[int] | None: ...

    def require_queries(self, spec: EmbeddingSpec) -> None: ...

    def newest(self) -> tuple[Any, ...]: ...

    def refresh(self) -> None: ...

    def close(self) -> None: ...
