"""What training and evaluation need of a batch of images, wherever it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class LabelledBatch(Protocol):
    """(B, C, S, S) images, (B,) class indices and ids, as many as its length."""

    @property
    def images(self) -> Tensor:
        """Transformed images."""
        ...

    @property
    def labels(self) -> Tensor:
        """Class indices."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """What the images are called."""
        ...

    def __len__(self) -> int: ...
