"""Video files, read frame by frame in constant memory: whatever PyAV opens.

Times are seconds since the beginning of the video, as players show them.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from .errors import BrokenVideoError
from .kinds import is_video_name
from .reading import Limits
from .regular import said, why_not_regular
from .video_frame import Frame, Framing
from .video_groups import MOST_AT_ONCE, side_by_side, wanted_at_most
from .video_sampling import DecodingStep, Sampling, TimedPacket, decoding_steps

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Times are told in milliseconds: a frame is meant by its own time, rounded.
TOLERANCE = 0.0006
# So many seconds before a time is looked for the keyframe to begin at, and further back if it was too late:
# files are found by the time at which frames are decoded, and some not exactly.
_BACK = (1.0, 20.0, math.inf)
# Frames a second where neither the file nor the frames say when they are shown.
_USUAL_RATE = 25.0
# Frames that were wanted and did not come, for damage: so many are remembered.
_MISSED = 256
_MICROSECONDS = 1e6


class VideoFile:
    """A video that is open; close it, or use it in a `with`.

    Args:
        source: a path of a regular file.
        limits: of the size of a frame, the default ones if None.
        threads: that decode, 0 for as many as there are cores.

    Attributes:
        name: what errors call it.
        duration: in seconds; 0 where nobody knows.
        rate: frames a second, on average; 0 where nobody knows.
        reached: the end of what was read so far, in seconds.

    Raises:
        BrokenVideoError: there is no such file, it is no video, or it has sound alone; one line says which.
        ModuleNotFoundError: PyAV is not installed.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        limits: Limits | None = None,
        threads: int = 0,
    ) -> None:
        self.name, self._damaged, self.reached = os.fspath(source), 0, 0.0
        self._limits, self._at_once = limits or Limits(), min(threads or os.cpu_count() or 1, MOST_AT_ONCE)
        # Others of the same file, whose decoders take groups of packets.
        self._others = list[VideoFile]()
        self._free = deque[VideoFile]()
        require_file(self.name)
        # As a file, whatever its name looks like to libavformat.
        self._container = _opened(self.name, f"file:{self.name}")
        try:
            self._stream = pictures_of(self._container, self.name, self._limits)
        except BrokenVideoError:
            self._container.close()
            raise
        self._decoder = self._stream.codec_context
        # As FFmpeg has it of its own accord: some threads wait for what others decode.
        count = threads + 1 if threads > 1 else threads
        self._decoder.thread_type, self._decoder.thread_count = "AUTO", count
        self._unit = float(self._stream.time_base or 1 / _MICROSECONDS)
        self._begin = _begin(self._container, self._stream)
        self._framing, self._read = Framing(float(self._stream.sample_aspect_ratio or 1)), False
        self.duration, self.rate = self._duration(), float(self._stream.average_rate or 0)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        for other in self._others:
            other.close()
        self._container.close()

    @property
    def damaged(self) -> int:
        """Places that could not be decoded so far."""
        return self._damaged + sum(other.damaged for other in self._others)

    def frames(self, sampling: Sampling | None = None, start: float = 0.0) -> Iterator[Frame]:
        """Frames in the order in which they are shown; what cannot be decoded is counted in `damaged`.

        Args:
            sampling: which ones; all if None.
            start: none is taken for a time before it; in seconds. A pass from here takes what a pass from the
                beginning takes from here on.

        Raises:
            BrokenVideoError: the file cannot be read any further.
        """
        if start > 0 or self._read:
            self._seek(start - _BACK[1])
        packets = self._packets()
        if sampling is None:
            steps: Iterable[DecodingStep] = (DecodingStep(packet, True) for packet in packets)
        elif sampling.keyframes and not self._decoder.codec.intra_only:
            steps = (DecodingStep(packet, True) for packet in packets if packet.keyframe)
        else:
            steps = decoding_steps(packets, sampling, start)
        latest = start - TOLERANCE if start > 0 else -math.inf
        for frame in self._decoded(steps) if self._at_once == 1 else self._side_by_side(steps):
            # Some files go back in time where they were cut.
            if frame.time > latest:
                latest = frame.time
                yield frame

    def frame_at(self, time: float) -> Frame:
        """The frame that is shown at a time, in seconds; behind the end, the last one.

        Raises:
            BrokenVideoError: there is none, or the file cannot be read.
        """
        for back in _BACK:
            self._seek(time - back)
            shown = None
            for frame in self._decoded(DecodingStep(packet, True) for packet in self._packets()):
                if shown is not None and frame.time > time + TOLERANCE:
                    break
                shown = frame
            if shown is not None and (shown.time <= time + TOLERANCE or back == _BACK[-1]):
                return shown
        raise BrokenVideoError(self.name, "no frame of it can be decoded")

    def _seek(self, time: float) -> None:
        """Go to a keyframe at or before a time."""
        # Some containers find their first frame only from before it.
        place = math.floor((self._begin + (time if time > 0 else -_BACK[0])) / self._unit)
        with faults(self.name):
            self._container.seek(place, stream=self._stream)
        self._decoder.flush_buffers()

    def _packets(self) -> Iterator[TimedPacket]:
        """The packets in the order in which they are decoded, as far as they can be read."""
        from av.error import InvalidDataError

        self._read, usual, number = True, 1 / (self.rate or _USUAL_RATE), 0
        with faults(self.name):
            try:
                for packet in self._container.demux(self._stream):
                    # What only says that there are no more.
                    if not packet.size:
                        continue
                    if packet.pts is None:
                        packet.pts = round(number * usual / self._unit) if packet.dts is None else packet.dts
                    number += 1
                    # What a container knows to be spoilt, the decoder may leave out without a word.
                    self._damaged += packet.is_corrupt
                    time = packet.pts * self._unit - self._begin
                    duration = (packet.duration or 0) * self._unit or usual
                    self.reached = max(self.reached, time + duration)
                    yield TimedPacket(packet, time, duration, packet.is_keyframe, packet.size)
            except InvalidDataError:
                self._damaged += 1

    def _decoded(self, steps: Iterable[DecodingStep]) -> Iterator[Frame]:
        """The frames that are wanted of these packets."""
        wanted = dict[int, None]()
        for step in steps:
            if step.jump:
                yield from self._received(None, wanted)
                self._decoder.flush_buffers()
            if step.wanted:
                wanted[step.packet.packet.pts] = None
            if len(wanted) > _MISSED:
                wanted.pop(next(iter(wanted)))
            # What no other frame depends on is not decoded.
            self._decoder.skip_frame = "DEFAULT" if step.wanted else "NONREF"
            yield from self._received(step.packet.packet, wanted)
        yield from self._received(None, wanted)

    def _side_by_side(self, steps: Iterable[DecodingStep]) -> Iterator[Frame]:
        """The same, by several decoders."""
        wanted = wanted_at_most(self._decoder.width, self._decoder.height)
        return side_by_side(steps, self._decoded, self._group, self._at_once, wanted)

    def _group(self, steps: Sequence[DecodingStep]) -> list[Frame]:
        """The frames that are wanted of packets that need no others; several threads may ask at once."""
        try:
            other = self._free.pop()
        except IndexError:
            # The file once more, for its decoder is set up as the file says.
            other = VideoFile(self.name, limits=self._limits, threads=1)
            self._others.append(other)
        other._decoder.flush_buffers()
        found = list(other._decoded(steps))
        self._free.append(other)
        return found

    def _received(self, packet: av.Packet[av.VideoStream] | None, wanted: dict[int, None]) -> Iterator[Frame]:
        """What the decoder has ready when it is given a packet, or None at the end."""
        from av.error import EOFError as NothingLeft
        from av.error import InvalidDataError

        try:
            found = self._decoder.decode(packet)
        except InvalidDataError:
            self._damaged += 1
            return
        except NothingLeft:
            return
        for decoded in found:
            if decoded.pts in wanted:
                del wanted[decoded.pts]
                yield self._framing.frame(decoded.pts * self._unit - self._begin, decoded)

    def _duration(self) -> float:
        if self._stream.duration is not None:
            return self._stream.duration * self._unit
        return (self._container.duration or 0) / _MICROSECONDS


def require_file(name: str) -> None:
    """`BrokenVideoError` unless a name is that of a regular file with something in it."""
    try:
        found = os.stat(name)  # noqa: PTH116  a name, as libavformat takes it
    # The latter: a name with a null character.
    except (OSError, ValueError) as error:
        raise BrokenVideoError(name, said(error) if isinstance(error, OSError) else str(error)) from error
    if kind := why_not_regular(found.st_mode):
        raise BrokenVideoError(name, kind)
    if not found.st_size:
        raise BrokenVideoError(name, "an empty file")


@contextmanager
def faults(name: str) -> Iterator[None]:
    """What libav raises is a `BrokenVideoError`."""
    from av.error import FFmpegError, InvalidDataError

    try:
        yield
    except InvalidDataError as error:
        foreign = not is_video_name(name)
        reason = "not a video" if foreign else "not a video, or broken at its beginning"
        raise BrokenVideoError(name, reason, foreign) from error
    except FFmpegError as error:
        raise BrokenVideoError(name, (error.strerror or str(error)).lower()) from error


def _opened(name: str, place: str) -> InputContainer:
    """What libavformat makes of a place; `BrokenVideoError` if that is nothing, or no video."""
    import av

    with faults(name):
        container = av.open(place, metadata_errors="ignore")
    # It takes texts for what a terminal shows, and images for videos of one frame.
    form = container.format.name
    if form in ("tty", "image2") or form.endswith("_pipe"):
        container.close()
        raise BrokenVideoError(name, "not a video", not is_video_name(name))
    return container


def pictures_of(container: InputContainer, name: str, limits: Limits) -> VideoStream:
    """The pictures of a video: covers of music are none."""
    cover = 0x400
    found = [one for one in container.streams.video if not one.disposition & cover]
    if not found:
        sound = "sound alone, no pictures" if container.streams.audio else "there are no pictures in it"
        raise BrokenVideoError(name, sound, foreign=True)
    stream = max(found, key=lambda one: one.codec_context.width * one.codec_context.height)
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.max_megapixels * 1e6:
        allowed = f"more than the {limits.max_megapixels:g} megapixels that max_megapixels allows"
        raise BrokenVideoError(name, f"frames of {width} x {height}, {allowed}")
    return stream


def _begin(container: InputContainer, stream: VideoStream) -> float:
    """The container's time at which the video begins, in seconds."""
    if container.start_time is not None:
        return container.start_time / _MICROSECONDS
    return (stream.start_time or 0) * float(stream.time_base or 0)
