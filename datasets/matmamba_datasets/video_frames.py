"""Single frames of videos, by their names."""

from __future__ import annotations

from collections import OrderedDict

from PIL import Image

from .errors import BrokenVideoError
from .frame_names import frame_of
from .reading import Limits
from .video_file import VideoFile

VIDEO_CURE = "a frame of a video: pip install 'matmamba-vision[video]' to read these"


class VideoFrames:
    """Reads frames by name ("talk.mp4#t=00:12:03.500"), in any order.

    Args:
        limits: of the size of a frame.
        most: videos that are kept open: frames that were found together mostly lie together.
    """

    def __init__(self, limits: Limits | None = None, most: int = 2) -> None:
        self._limits, self._most = limits or Limits(), most
        self._open: OrderedDict[str, VideoFile] = OrderedDict()

    def picture(self, name: str) -> Image.Image:
        """The frame that is shown at that time, upright RGB.

        Raises:
            BrokenVideoError: there is no such file, or no frame of it can be read.
        """
        found = frame_of(name)
        if found is None:
            raise BrokenVideoError(name, "no frame of a video is called like that")
        file, time = found
        try:
            if file not in self._open:
                self._open[file] = VideoFile(file, limits=self._limits, threads=1)
        except ModuleNotFoundError as error:
            raise BrokenVideoError(name, VIDEO_CURE) from error
        self._open.move_to_end(file)
        while len(self._open) > self._most:
            self._open.popitem(last=False)[1].close()
        return self._open[file].frame_at(time).image()
