"""Images of requests: decoded within limits of pixels and memory, by a thread that is not the model's."""

from __future__ import annotations

import io

from matmamba_datasets import Limits, read_image
from matmamba_datasets.image_file import formats
from PIL import Image

from .limits import Holding

# Bytes that a pixel takes while it is decoded: what is decoded has 3, what decoders keep besides counts, too.
PIXEL_BYTES = 4
UPLOADED = "the uploaded image"


def decoded(content: bytes, limits: Limits, holding: Holding) -> Image.Image:
    """An uploaded image, upright RGB.

    Args:
        content: of its file.
        limits: of its size.
        holding: counts the memory that it takes.

    Raises:
        BrokenImageError: it cannot be read, or is larger than allowed.
        OverloadedError: there is no memory for it now.
    """
    # Beyond the limit it is decoded smaller, or refused.
    pixels = min(pixels_of(content), int(limits.max_megapixels * 1e6))
    holding.grow(PIXEL_BYTES * pixels)
    return read_image(io.BytesIO(content), UPLOADED, limits=limits)


def pixels_of(content: bytes) -> int:
    """How many an image has, by its head; 0 for what is no image."""
    try:
        with Image.open(io.BytesIO(content), formats=formats()) as opened:
            width, height = opened.size
            return width * height
    # Whatever is wrong with it, the decoder says so in better words.
    except Exception:
        return 0
