"""Videos with known truth: made of pictures, each of which says its own number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from drawn_pictures import KINDS, drawn
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Timed = tuple[float, Pixels]
SIZE = (96, 64)
# Squares along the upper edge that hold a number, the lowest bit first.
BITS, SQUARE = 10, 8
# Times are written as thousandths of a second, so that any rate can be, and one that varies.
UNIT = Fraction(1, 1000)


def scenery(seed: int, size: tuple[int, int] = SIZE) -> Pixels:
    """(H, W, 3) a drawn scene: seeds that differ by less than the number of kinds look different all over."""
    kinds = list(KINDS)
    drawn_scene = drawn(kinds[seed % len(kinds)], seed // len(kinds))
    return np.asarray(drawn_scene.resize(size, Image.Resampling.LANCZOS))


def numbered(pixels: Pixels, number: int) -> Pixels:
    """The same picture with a number in it, which survives compression."""
    found = pixels.copy()
    for bit in range(BITS):
        found[:SQUARE, bit * SQUARE : (bit + 1) * SQUARE] = 255 * (number >> bit & 1)
    return found


def number_of(image: Image.Image | Pixels) -> int:
    """The number in a picture that is as large as it was made."""
    pixels = np.asarray(image)[:SQUARE, : BITS * SQUARE].reshape(SQUARE, BITS, SQUARE, 3)
    return int((pixels.mean((0, 2, 3)) > 127) @ (1 << np.arange(BITS)))


def still(pixels: Pixels, count: int) -> Iterator[Pixels]:
    """The same picture again and again."""
    return (pixels for _ in range(count))


def pan(pixels: Pixels, count: int, share: float = 0.5) -> Iterator[Pixels]:
    """A view that moves over a picture, by `share` of its width in all; it goes on at the other side."""
    width = pixels.shape[1]
    return (np.roll(pixels, -round(share * width * place / count), axis=1) for place in range(count))


def fade(before: Pixels, after: Pixels, count: int) -> Iterator[Pixels]:
    """From one picture to another, neither included."""
    for place in range(1, count + 1):
        part = place / (count + 1)
        yield ((1 - part) * before + part * after).round().astype(np.uint8)


def noisy(pictures: Iterable[Pixels], strength: float, seed: int = 0) -> Iterator[Pixels]:
    """The same pictures with the noise of a camera in the dark."""
    chance = np.random.default_rng(seed)
    for pixels in pictures:
        yield (pixels + chance.normal(0, strength, pixels.shape)).clip(0, 255).astype(np.uint8)


def cuts(
    seeds: Sequence[int], seconds: Sequence[float], fps: float = 10, size: tuple[int, int] = SIZE
) -> list[Pixels]:
    """Scenes one after the other, each a slow pan over the scenery of its seed: cuts lie between."""
    pictures = list[Pixels]()
    for seed, length in zip(seeds, seconds, strict=True):
        pictures += pan(scenery(seed, size), round(length * fps), share=0.1)
    return pictures


def at_rate(pictures: Iterable[Pixels], fps: float = 10) -> Iterator[Timed]:
    """Each picture with its number in it, and the time at which it is shown."""
    return ((place / fps, numbered(pixels, place)) for place, pixels in enumerate(pictures))


def write_video(
    file: Path,
    frames: Iterable[Timed],
    *,
    codec: str = "libx264",
    keyframes: int = 20,
    rotation: float | None = None,
    mirrored: bool = False,
    sound: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Write frames at their times, in seconds and ascending, as the suffix of the file says.

    Args:
        keyframes: the most frames from one that is stored whole to the next.
        rotation: degrees by which players turn it, counterclockwise; None for a file that does not say.
        mirrored: whether they mirror it then.
        sound: whether there is silence beside the pictures.
    """
    with av.open(str(file), "w") as container:
        # Of any codec, which types do not know.
        stream: Any = None
        silence = container.add_stream("aac", rate=8000) if sound else None
        for time, pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if stream is None:
                fast = {"preset": "veryfast"} if codec.startswith("libx") else {}
                stream = container.add_stream(codec, rate=Fraction(1000), options=fast | (options or {}))
                stream.codec_context.thread_count = 1
                stream.width, stream.height = frame.width, frame.height
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                stream.codec_context.time_base, stream.codec_context.gop_size = UNIT, keyframes
                if rotation is not None:
                    stream.set_display_rotation(rotation, hflip=mirrored)
            frame.pts, frame.time_base = round(time / UNIT), UNIT
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
        if silence is not None:
            container.mux([packet for frame in _silence(2) for packet in silence.encode(frame)])
            container.mux(silence.encode())
    return file


def _silence(seconds: int) -> Iterator[av.AudioFrame]:
    for place in range(0, 8000 * seconds, 1000):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, place, Fraction(1, 8000)
        yield frame


def sound_alone(file: Path) -> Path:
    """A file of two seconds of silence and nothing to see."""
    return write_video(file, [], sound=True)


def empty(file: Path) -> Path:
    """A file without a byte."""
    file.touch()
    return file


def truncated(file: Path, whole: Path, share: float = 0.5) -> Path:
    """The first part of another file."""
    content = whole.read_bytes()
    file.write_bytes(content[: round(share * len(content))])
    return file
