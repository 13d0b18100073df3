"""Figures are drawn in few tests, which look at them: it is most of what a command takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure
from PIL import Image

DRAW = Figure.savefig


def leave_blank() -> None:
    """Have figures saved as a picture of one pixel, from now on."""

    def save(figure: Figure, file: Any, **settings: Any) -> None:
        Image.new("RGB", (1, 1)).save(file, settings.get("format"))

    Figure.savefig = save  # type: ignore[assignment,method-assign]


@contextmanager
def drawn() -> Iterator[None]:
    """Figures are drawn within this."""
    with patch.object(Figure, "savefig", DRAW):
        yield
