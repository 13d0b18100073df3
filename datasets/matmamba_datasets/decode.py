"""Decode any image that Pillow reads into upright RGB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# By how much an image of a size (width, height) may be smaller when it is decoded.
Draft: TypeAlias = Callable[[tuple[int, int]], int]
# What decodes at 1/2, 1/4 and 1/8 of its size, in less time and memory.
_REDUCIBLE = {"JPEG", "MPO"}


class BrokenImageError(ValueError):
    """An image that cannot be decoded.

    Attributes:
        name: its path or id. reason: what the decoder said.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type[BrokenImageError], tuple[str, str]]:
        return type(self), (self.name, self.reason)


def read_image(
    file: Path | str | IO[bytes], name: str | None = None, draft: Draft | None = None
) -> Image.Image:
    """RGB image from a file, turned as its EXIF orientation says; transparency is laid on white.

    Args:
        file: path or open binary file. name: what errors call it, the path by default. draft: says by how
            much a JPEG may be smaller; it is decoded at the next power of two that is no more. Other formats
            are decoded as they are.

    Raises:
        BrokenImageError: not an image, truncated, or of a mode that has no RGB equivalent.
    """
    try:
        with Image.open(file) as opened:
            if draft is not None and opened.format in _REDUCIBLE:
                _reduce(opened, draft(opened.size))
            return to_rgb(ImageOps.exif_transpose(opened))
    # Damaged files make Pillow's decoders raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise BrokenImageError(name or str(file), _reason(error)) from error


def _reduce(image: Image.Image, factor: int) -> None:
    """Let the decoder reduce an image that is not loaded yet by at most `factor`."""
    if factor > 1:
        # Rounded up: Pillow takes the largest reduction that is not below the size it is given.
        width, height = (-(-edge // factor) for edge in image.size)
        image.draft(None, (width, height))


def _reason(error: Exception) -> str:
    """What went wrong, without the name that some messages repeat."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image file"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB without clipping deep greyscale and without keeping hidden colours."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    # Integers use the 16-bit range; floats are taken as 0..1 unless they are larger.
    top = 65535.0 if image.mode != "F" else max(1.0, float(values.max()))
    return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))
