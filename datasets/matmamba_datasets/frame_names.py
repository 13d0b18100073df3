"""How frames of videos are named: "talk.mp4#t=00:12:03.500", the file and a time.

The fragment is that of W3C Media Fragments URI 1.0, section 4.2.1, in hours, minutes and seconds: players
open it there, and names of one file, up to 99 hours, sort by time.
"""

from __future__ import annotations

import math
import re

# A time may be written in any way that Media Fragments has: 723.5, 12:03.5, 0:12:03.5, npt:723.5; no range.
_FRAME = re.compile(r"(.+)#t=(?:npt:)?(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d*)?)", re.DOTALL)


def frame_name(file: str, time: float) -> str:
    """The name of a frame.

    Args:
        file: path or name of the video.
        time: in seconds; it is rounded to milliseconds.
    """
    return f"{file}#t={clock(time)}"


def clock(time: float) -> str:
    """A time as hours, minutes, seconds and milliseconds: "00:12:03.500"."""
    whole = max(0, round(time * 1000))
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"


def minutes_of(time: float) -> str:
    """A time as people say it: "12:03", or "1:12:03" from an hour on; a second that has begun counts."""
    hours, rest = divmod(math.floor(max(0.0, time) + 1e-3), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def frame_of(name: str) -> tuple[str, float] | None:
    """The video and the time in seconds that a name says; None where it is no name of a frame."""
    found = _FRAME.fullmatch(name) if "#t=" in name else None
    if found is None:
        return None
    file, hours, minutes, seconds = found.groups()
    return file, 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)
