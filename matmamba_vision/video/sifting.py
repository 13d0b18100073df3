"""Which of the sampled frames are kept, and where scenes are cut: decided one frame after the other.

Both are decided by what is cheap: vectors of a small width, and thumbnails of a few pixels.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from matmamba_common.settings import Bounds, require
from numpy.typing import NDArray
from PIL import Image

from .transitions import NEAR_MIXTURE, misfit

Floats = NDArray[np.float32]
Similarity = Annotated[float, Bounds(least=-1, most=1)]
# Columns and rows of a thumbnail.
THUMBNAIL = (16, 9)
# Frames that are kept of one scene at most: then another begins, for a scene is in memory until it ends.
MOST_KEPT = 4096
# What a scene showed within so many seconds, in so many views at most, is no news when it comes back: the
# empty place behind somebody who has passed. Somebody who comes again later is.
RECENT_S, MOST_RECENT = 5.0, 64
# Cosine similarity from which on the next frame shows the same.
STAYS = 0.9


@dataclass(frozen=True, eq=False)
class Glimpse:
    """What is judged of a frame.

    Attributes:
        vector: (D,) of length 1, of the small width.
        thumbnail: (9, 16, 3) in 0..1, as `thumbnail_of` makes it.
        time: at which it is shown, in seconds.
    """

    vector: Floats
    thumbnail: Floats
    time: float


@dataclass(frozen=True, kw_only=True)
class Sieve:
    """What makes a frame one to keep, and a cut.

    Attributes:
        threshold: a frame is left out if its vector has at least this cosine similarity to the kept frame
            that the frame before is like, or to another one of its scene that was shown within `RECENT_S`.
        cut: a scene begins where two frames that follow each other are less similar than this, and their
            thumbnails differ by `jump` or more: what comes into a view changes the vector alone, what lights
            it up the thumbnail alone.
        jump: mean absolute difference of the thumbnails' pixels, as a share of white.
    """

    threshold: Similarity = 0.9
    cut: Similarity = 0.7
    jump: Annotated[float, Bounds(least=0, most=1)] = 0.1

    def __post_init__(self) -> None:
        require("threshold", self.threshold, Similarity)

    def differ(self, one: Glimpse, other: Glimpse) -> bool:
        """Whether two frames are of different scenes, if one follows the other."""
        if float(one.vector @ other.vector) >= self.cut:
            return False
        return float(np.abs(one.thumbnail - other.thumbnail).mean()) >= self.jump

    def passing(self, before: Glimpse, now: Glimpse, after: Glimpse) -> bool:
        """Whether a frame shows no scene, but how one becomes the next, or a flash within one."""
        other = self.differ(before, after)
        if _stays(now, after) or not (other or self.differ(before, now)):
            return False
        if misfit(now.thumbnail, before.thumbnail, after.thumbnail) <= NEAR_MIXTURE:
            return True
        flash = misfit(now.thumbnail, before.thumbnail, lit=True)
        # Of two scenes, a flash belongs to the one of which more is left in it.
        return flash <= NEAR_MIXTURE and not (
            other and misfit(now.thumbnail, after.thumbnail, lit=True) < flash
        )

    def lit(self, now: Glimpse, after: Glimpse) -> bool:
        """Whether a frame is the next one by a flash, or in the dark."""
        near = misfit(now.thumbnail, after.thumbnail, lit=True) <= NEAR_MIXTURE
        return near and not _stays(now, after)


def _stays(now: Glimpse, after: Glimpse) -> bool:
    """Whether what a frame shows stays: then it is no passing one, however dark or light."""
    return float(now.vector @ after.vector) >= STAYS


@dataclass(frozen=True)
class Verdict:
    """Of a frame.

    Attributes:
        kept: whether it is.
        begins: whether a scene begins with it; then it is kept.
    """

    kept: bool
    begins: bool


@dataclass(eq=False)
class _View:
    """What a kept frame shows: its vector, and when a frame was like it last, in seconds."""

    vector: Floats
    time: float


class Sifting:
    """Judges the frames of one video, in their order.

    What is said of a frame depends on those of its scene alone: a pass that begins where a scene does goes on
    as a pass from the beginning.
    """

    def __init__(self, sieve: Sieve) -> None:
        self._sieve = sieve
        self._before: Glimpse | None = None
        # The view that is shown now is the last one.
        self._views = deque[_View](maxlen=MOST_RECENT)
        self._count = 0

    def judge(self, now: Glimpse, after: Glimpse | None) -> Verdict:
        """What becomes of a frame, with the one that is looked at next; None behind the last."""
        before = self._before
        if before is not None and after is not None and self._sieve.passing(before, now, after):
            return Verdict(kept=False, begins=False)
        begins = before is None or self._sieve.differ(before, now)
        view = None if begins else self._known(now.vector, now.time)
        kept = view is None
        begins = begins or (kept and self._count >= MOST_KEPT)
        # What follows a flash is held against what that lit up.
        lit = begins and after is not None and self._sieve.lit(now, after)
        self._before = after if lit else now
        if begins:
            self._views.clear()
            self._count = 0
        if view is None:
            view = _View(now.vector, now.time)
            self._count += 1
        else:
            self._views.remove(view)
        view.time = now.time
        self._views.append(view)
        return Verdict(kept, begins)

    def _known(self, vector: Floats, time: float) -> _View | None:
        """The view that a frame shows once more: the present one if it does, else the most similar."""
        least, now = self._sieve.threshold, self._views[-1]
        if float(vector @ now.vector) >= least:
            return now
        recent = [view for view in self._views if time - view.time <= RECENT_S]
        likest = max(recent, key=lambda view: float(vector @ view.vector), default=now)
        return likest if float(vector @ likest.vector) >= least else None


def thumbnail_of(image: Image.Image) -> Floats:
    """(9, 16, 3) float32 in 0..1: what is seen of an image from far away."""
    small = image.resize(THUMBNAIL, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small).astype(np.float32) / np.float32(255)
