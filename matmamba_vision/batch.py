"""What training and evaluation need of a batch of images, wherever it comes from."""

from typing import Protocol

from torch import Tensor


class LabelledBatch(Protocol):
    """(B, C, S, S) images and (B,) class indices, as many as its length."""

    @property
    def images(self) -> Tensor:
        """Transformed images."""
        ...

    @property
    def labels(self) -> Tensor:
        """Class indices."""
        ...

    def __len__(self) -> int: ...
