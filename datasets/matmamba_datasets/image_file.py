"""Decode images of known formats into upright RGB, within stated limits."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from .errors import BrokenImageError, DataError
from .kinds import HEIF_CURE, container_of, is_image_name
from .reading import Limits
from .regular import read_regular

# By how much an image of a size (width, height) may be smaller when it is decoded.
Draft: TypeAlias = Callable[[tuple[int, int]], int]
# What decodes at 1/2, 1/4 and 1/8 of its size, in less time and memory.
_REDUCIBLE, _SMALLEST = {"JPEG", "MPO"}, 8
# Only these: others of Pillow's start programs (EPS), or are no pictures.
FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF", "ICO",
    "ICNS", "QOI", "PSD", "SGI", "PCX", "TGA",
)  # fmt: skip
# Bytes of one text or colour profile of a PNG when it is unpacked, and of all of its texts together.
PNG_TEXT, PNG_TEXTS = 2**26, 2**28
_POINTER = b"version https://git-lfs."
# Pixels that are converted at once where that takes several copies.
_BAND_PIXELS = 2**22
_PILLOWS_PIXELS = 1024**3 // 4 // 3
_BRANDS = {
    b"heic": HEIF_CURE, b"heix": HEIF_CURE, b"heim": HEIF_CURE, b"hevc": HEIF_CURE, b"mif1": HEIF_CURE,
    b"msf1": HEIF_CURE, b"avif": "AVIF: Pillow 11.3 or newer reads these",
}  # fmt: skip


def read_image(
    file: Path | str | IO[bytes],
    name: str | None = None,
    draft: Draft | None = None,
    limits: Limits | None = None,
) -> Image.Image:
    """RGB image from a file, turned as its EXIF orientation says; transparency is laid on white.

    The first image that is read lifts Pillow's limits of this process on pixels, unless somebody has set
    these, and on texts of PNGs: those of `limits`, and `PNG_TEXT`, hold instead. Its warning of damaged EXIF
    is not shown any more.

    Args:
        file: path or open binary file.
        name: what errors call it, the path by default.
        draft: says by how much a JPEG may be smaller; it is decoded at the next power of two that is no more.
            Other formats are decoded as they are.
        limits: of size, the default ones if None.

    Raises:
        BrokenImageError: not an image, truncated, larger than allowed, or of a mode that has no RGB
            equivalent; the path is not that of a regular file.
    """
    limits = limits or Limits()
    if isinstance(file, (Path, str)):
        file, name = io.BytesIO(read_regular(file, limits.max_bytes)), name or str(file)
    called = name or "image"
    try:
        with Image.open(file, formats=formats()) as opened:
            if opened.format in _REDUCIBLE:
                _reduce(opened, _factor(opened.size, draft, limits.max_megapixels))
            _require_pixels(opened.size, limits.max_megapixels)
            _turn(opened)
            return to_rgb(opened)
    except UnidentifiedImageError as error:
        foreign = not (is_image_name(called) or container_of(called))
        raise BrokenImageError(called, _unknown(file), foreign) from error
    # Damaged files make Pillow's decoders raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise BrokenImageError(called, _reason(error)) from error


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read here; with the first call, Pillow is set up for them."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    # Said of images of which nothing else is wrong.
    warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
    PngImagePlugin.MAX_TEXT_CHUNK = max(PNG_TEXT, PngImagePlugin.MAX_TEXT_CHUNK)
    PngImagePlugin.MAX_TEXT_MEMORY = max(PNG_TEXTS, PngImagePlugin.MAX_TEXT_MEMORY)
    if Image.MAX_IMAGE_PIXELS == _PILLOWS_PIXELS:
        Image.MAX_IMAGE_PIXELS = None
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _factor(size: tuple[int, int], draft: Draft | None, megapixels: float) -> int:
    """By how much a JPEG is decoded smaller: as `draft` says, and at least so much that it may be decoded."""
    wanted = max(1, draft(size)) if draft is not None else 1
    factor = 1 << (min(wanted, _SMALLEST).bit_length() - 1)
    while factor < _SMALLEST and size[0] * size[1] / factor**2 > megapixels * 1e6:
        factor *= 2
    return factor


def _reduce(image: Image.Image, factor: int) -> None:
    """Let the decoder reduce an image that is not loaded yet by `factor`, a power of two."""
    if factor > 1:
        # Rounded down: Pillow takes the largest reduction that is not below the size it is given.
        width, height = (max(1, edge // factor) for edge in image.size)
        image.draft(None, (width, height))


def _turn(image: Image.Image) -> None:
    """Load an image, and lay it as its EXIF says; one whose EXIF is damaged stays as it is."""
    image.load()
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    # Of the pixels there is nothing wrong: damaged EXIF makes Pillow raise nearly anything, too.
    except Exception:
        return


def _require_pixels(size: tuple[int, int], megapixels: float) -> None:
    found = size[0] * size[1] / 1e6
    if found > megapixels:
        raise DataError(f"{found:,.1f} megapixels, more than the {megapixels:g} that max_megapixels allows")


def _unknown(file: IO[bytes]) -> str:
    """What something is that is no image of a format that is read."""
    file.seek(0)
    start = file.read(32)
    if not start:
        return "an empty file"
    if start.startswith(_POINTER):
        return "a pointer of Git LFS, not the image itself: git lfs pull"
    if start.startswith((b"%!PS", b"%PDF", b"\xc5\xd0\xd3\xc6")):
        return "PostScript or PDF, which is not read"
    if start[4:8] == b"ftyp" and start[8:12] in _BRANDS:
        said = _BRANDS[start[8:12]]
        return "a damaged HEIC photo" if said == HEIF_CURE and "HEIF" in formats() else said
    return "not an image file"


def _reason(error: Exception) -> str:
    """What went wrong, without the name that some messages repeat."""
    if "MAX_TEXT" in str(error):
        return f"a text or colour profile of more than {PNG_TEXT / 1e6:.0f} MB when it is unpacked"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB without clipping deep greyscale and without keeping hidden colours."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Integers use the 16-bit range; floats are taken as 0..1 unless they are larger.
        top = 65535.0 if image.mode != "F" else _largest(image)
        return _in_bands(image, lambda band: _to_8_bit(band, top).convert("RGB"))
    if image.has_transparency_data:
        return _in_bands(image, _on_white)
    if image.mode == "RGB":
        # As it is: a copy of a large image is worth gigabytes.
        image.load()
        return image
    return image.convert("RGB")


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An RGB image made band by band, where several copies of the whole one would be worth gigabytes."""
    width, height = image.size
    rows = max(1, _BAND_PIXELS // max(1, width))
    if height <= rows:
        return convert(image)
    image.load()
    made = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        made.paste(convert(image.crop((0, top, width, min(height, top + rows)))), (0, top))
    return made


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _largest(image: Image.Image) -> float:
    """The largest value of floats, at least 1; those that are no numbers stand for nothing."""
    values = np.asarray(image)
    return max(1.0, float(values.max(initial=0.0, where=np.isfinite(values))))


def _to_8_bit(image: Image.Image, top: float) -> Image.Image:
    values = np.nan_to_num(np.asarray(image).astype(np.float64), copy=False, posinf=top, neginf=0.0)
    return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))
