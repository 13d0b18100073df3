"""One frame of a video, and how it becomes a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import av


class Frame:
    """A decoded frame of a video; a picture is made of it when it is asked for one.

    Attributes:
        time: at which it is shown, in seconds since the beginning of the video.
        keyframe: whether it is stored whole.
    """

    def __init__(self, time: float, decoded: av.VideoFrame, aspect: float = 1.0) -> None:
        self.time, self.keyframe = time, bool(decoded.key_frame)
        self._decoded, self._aspect = decoded, aspect

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
        pixels = self._decoded.to_ndarray(
            width=max(1, width // factor),
            height=max(1, height // factor),
            format="rgb24",
            interpolation="AREA" if factor > 1 else "BICUBIC",
        )
        return Image.fromarray(np.ascontiguousarray(self._upright(pixels)))

    def _upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) as the file's display matrix lays them: turned by quarters, perhaps mirrored."""
        matrix = self._decoded.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return pixels
        # A point (x, y) is shown at (a x + c y, b x + d y).
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
        turned = abs(b) > abs(a)
        along_x, along_y = (c, b) if turned else (a, d)
        pixels = pixels.transpose(1, 0, 2) if turned else pixels
        return pixels[:: -1 if along_y < 0 else 1, :: -1 if along_x < 0 else 1]
