"""Errors of data sets and of single images."""

from __future__ import annotations

from matmamba_common.errors import MatMambaError


class BrokenImageError(MatMambaError):
    """An image that cannot be decoded.

    Attributes:
        name: its path or id.
        reason: what the decoder said.
        foreign: whether it is no image at all, by its name and by its content.
    """

    def __init__(self, name: str, reason: str, foreign: bool = False) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason, self.foreign = name, reason, foreign

    def __reduce__(self) -> tuple[type[BrokenImageError], tuple[str, str, bool]]:
        return type(self), (self.name, self.reason, self.foreign)


class BrokenVideoError(BrokenImageError):
    """A video of which no frame, or not every frame, can be read."""


class DataError(MatMambaError):
    """A data set that is missing, empty or unusable, or a setting that cannot be; the message names it."""
