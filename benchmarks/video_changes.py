"""Ways in which a video changes, with the truth about each: cuts, dissolves, fades, flashes and slides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from video_clips import FPS, Drawn, Pixels, film

# From when to when one scene becomes the next, in seconds; a hard cut is one time twice.
Change = tuple[float, float]
Mixing = Callable[[Pixels, Pixels, float], Pixels]
Changing = tuple[Iterator[Pixels], list[Change]]
# Seconds that a scene takes to become the next.
DISSOLVE, FADE = 1.0, 2.0
# What a flash of a camera leaves of the picture, frame by frame; the rest is white.
FLASH = (0.1, 0.3, 0.5, 0.7, 0.9)
# Seconds between two flashes, and between two changes in the corner of a slide.
BETWEEN = 3
# How many times as large as a view the photos of fast pans are.
ROOM = 3.0
# Shares of a slide's edges that its corner takes.
CORNER = (0.3, 0.4)


def hard_cuts(drawn: Drawn, lengths: Sequence[float]) -> Changing:
    """Scenes of so many seconds, cut hard."""
    return film(drawn, lengths), _at_once(lengths)


def pans(drawn: Drawn, lengths: Sequence[float]) -> Changing:
    """The same, with views that move fast: over photos that are much larger."""
    return film(drawn, lengths, ROOM), _at_once(lengths)


def dissolves(drawn: Drawn, lengths: Sequence[float]) -> Changing:
    """Each scene becomes the next by mixing with it."""
    return _overlapping(drawn, lengths, DISSOLVE, mixed)


def fades(drawn: Drawn, lengths: Sequence[float]) -> Changing:
    """Each scene gets dark, then the next one light."""
    return _overlapping(drawn, lengths, FADE, through_black)


def flashes(drawn: Drawn, lengths: Sequence[float]) -> Changing:
    """Hard cuts, and flashes that are none, each of which lights up a frame at a full second."""
    pictures, changes = hard_cuts(drawn, lengths)
    return flashing(pictures), changes


def slides(drawn: Drawn, lengths: Sequence[float]) -> Changing:
    """White slides with lines of text, and a picture in a corner that changes while a slide stays."""
    pictures = (picture for seconds in lengths for picture in slide(drawn, round(seconds * FPS)))
    return pictures, _at_once(lengths)


# By what a reader calls it.
KINDS: dict[str, Callable[[Drawn, Sequence[float]], Changing]] = {
    "hard cuts": hard_cuts,
    "fast pans, cut": pans,
    "dissolves": dissolves,
    "fades to black": fades,
    "cuts and flashes": flashes,
    "slides": slides,
}


def mixed(before: Pixels, after: Pixels, share: float) -> Pixels:
    """Both pictures at once, `share` of the second."""
    return ((1 - share) * before + share * after).round().astype(np.uint8)


def through_black(before: Pixels, after: Pixels, share: float) -> Pixels:
    """The first picture as it gets dark, then the second as it gets light."""
    seen, left = (before, 1 - 2 * share) if share < 0.5 else (after, 2 * share - 1)
    return (left * seen).round().astype(np.uint8)


def flashing(pictures: Iterator[Pixels]) -> Iterator[Pixels]:
    """The same pictures, now and then whitened by a flash."""
    for place, pixels in enumerate(pictures):
        behind = place % (BETWEEN * FPS)
        flash = place >= FPS and behind < len(FLASH)
        yield (255 - (255 - pixels) * FLASH[behind]).round().astype(np.uint8) if flash else pixels


def slide(drawn: Drawn, frames: int) -> Iterator[Pixels]:
    """One slide; every few seconds its corner shows something else."""
    text, (width, height) = _lines(drawn), drawn.size
    corner = (round(CORNER[0] * width), round(CORNER[1] * height))
    for place in range(frames):
        if place % (BETWEEN * FPS) == 0:
            picture = text.copy()
            picture.paste(drawn.photo().resize(corner), (width - corner[0], height - corner[1]))
            pixels = np.asarray(picture)
        yield pixels


def _lines(drawn: Drawn) -> Image.Image:
    """A title and some lines of words that nobody can read."""
    picture = Image.new("RGB", drawn.size, "white")
    pen, step = ImageDraw.Draw(picture), drawn.size[1] // 12
    for line in range(int(drawn.chance.integers(5, 10))):
        letters = drawn.chance.integers(97, 123, int(drawn.chance.integers(12, 32)))
        words = "".join(" " if place % 6 == 5 else chr(letter) for place, letter in enumerate(letters))
        font = ImageFont.load_default(step * (1.0 if line == 0 else 0.7))
        pen.text((step, step * (1 + line + (line > 0))), words, "navy" if line == 0 else "black", font)
    return picture


def _overlapping(drawn: Drawn, lengths: Sequence[float], seconds: float, mixing: Mixing) -> Changing:
    """Scenes of which each becomes the next within so many seconds, and when they do."""
    frames, overlap = [round(length * FPS) for length in lengths], round(seconds * FPS)

    def pictures() -> Iterator[Pixels]:
        tail = list[Pixels]()
        for count in frames:
            views = drawn.moving(count)
            for place, before in enumerate(tail, 1):
                yield mixing(before, next(views), place / (overlap + 1))
            yield from islice(views, count - len(tail) - overlap)
            tail = list(views)
        yield from tail

    begins = np.cumsum([count - overlap for count in frames[:-1]]) / FPS
    return pictures(), [(begin, begin + seconds) for begin in begins.tolist()]


def _at_once(lengths: Sequence[float]) -> list[Change]:
    """When each scene but the first begins, as the frames have it."""
    starts = np.cumsum([round(length * FPS) for length in lengths[:-1]]) / FPS
    return [(start, start) for start in starts.tolist()]
