"""What training and evaluation need of a batch of images, wherever it comes from."""

from collections.abc import Sequence
from typing import Protocol

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
