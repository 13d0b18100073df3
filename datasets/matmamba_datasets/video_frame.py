"""One frame of a video, and how it becomes a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import av

# The first five numbers of a display matrix.
Matrix: TypeAlias = tuple[int, ...]


class Frame:
    """A decoded frame of a video; a picture is made of it when it is asked for one.

    Attributes:
        time: at which it is shown, in seconds since the beginning of the video.
        keyframe: whether it is stored whole.
    """

    def __init__(
        self, time: float, decoded: av.VideoFrame, aspect: float = 1.0, matrix: Matrix | None = None
    ) -> None:
        self.time, self.keyframe = time, bool(decoded.key_frame)
        self._decoded, self._aspect, self._matrix = decoded, aspect, matrix

    def image(self, at_least: int = 0) -> Image.Image:
        """RGB, upright, its pixels square.

        Args:
            at_least: the picture may be smaller than the frame, by a power of two, as long as its shorter
                edge has so many pixels; with 0 it may not. Of large frames that is faster.
        """
        width, height = max(1, round(self._decoded.width * self._aspect)), self._decoded.height
        factor = 1
        while at_least and min(width, height) // (2 * factor) >= at_least:
            factor *= 2
        pixels: NDArray[Any] = self._decoded.to_ndarray(
            width=max(1, width // factor),
            height=max(1, height // factor),
            format="rgb24",
            interpolation="AREA" if factor > 1 else "BICUBIC",
            # By default, each frame starts threads of its own, and a process forked later waits for them.
            threads=1,
        )
        return Image.fromarray(np.ascontiguousarray(self._upright(np.asarray(pixels, dtype=np.uint8))))

    def _upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) as the file's display matrix lays them: turned by quarters, perhaps mirrored."""
        if self._matrix is None:
            return pixels
        # A point (x, y) is shown at (a x + c y, b x + d y).
        a, b, _, c, d = self._matrix
        turned = abs(b) > abs(a)
        along_x, along_y = (c, b) if turned else (a, d)
        pixels = pixels.transpose(1, 0, 2) if turned else pixels
        return pixels[:: -1 if along_y < 0 else 1, :: -1 if along_x < 0 else 1]


class Framing:
    """Makes frames of what the decoder of one video gives.

    Which way up they are is asked of the first one alone: PyAV keeps a frame whose side data were asked for
    in memory until Python looks for garbage, which knows nothing of pixels.

    Args:
        aspect: width of a pixel by its height.
    """

    def __init__(self, aspect: float) -> None:
        self._aspect, self._asked = aspect, False
        self._matrix: Matrix | None = None

    def frame(self, time: float, decoded: av.VideoFrame) -> Frame:
        """A frame that is shown at a time, in seconds."""
        if not self._asked:
            self._asked, found = True, decoded.side_data.get("DISPLAYMATRIX")
            self._matrix = None if found is None else _matrix(found)
        return Frame(time, decoded, self._aspect, self._matrix)


def _matrix(found: Any) -> Matrix:
    return tuple(np.frombuffer(bytes(found), np.int32)[:5].tolist())
