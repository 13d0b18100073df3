"""A stream as it comes, or a recording as if it came now: frames with the moment at which they were due."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matmamba_common.errors import ConfigError
from matmamba_common.words import shown

from .backlog import Backlog
from .errors import BrokenVideoError
from .reading import Limits
from .stream_clock import StreamClock
from .video_file import faults, pictures_of, require_file
from .video_frame import Frame, Framing

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

# What stands for standard input, and what libavformat calls it.
STDIN, _PIPE = "-", "pipe:0"
# Frames a second of a recording that says nothing about it.
_USUAL_RATE = 25.0


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A frame, and when it was due.

    Attributes:
        frame: decoded; a picture is made of it when it is asked for one.
        time: where in the stream it is, in seconds since that began, over all times that it came back.
        due: when that was, in seconds of `time.monotonic`.
    """

    frame: Frame
    time: float
    due: float


def is_recording(source: str) -> bool:
    """Whether a source is a file, which waits until it is read; anything else comes at its own pace."""
    path = source.removeprefix("file:")
    try:
        # What is no file and no address of a server either is a file that is missing.
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  a name, as libavformat takes it
    except (OSError, ValueError):
        return "://" not in source and source != STDIN and not re.match(r"\w+:", source)


def _require_format(name: str) -> None:
    """Raise `ConfigError` for what is no format that libavformat reads."""
    import av

    try:
        known = not name or av.ContainerFormat(name, "r").is_input
    except ValueError:
        known = False
    if not known:
        raise ConfigError(f"form is {shown(name)}: it can be a format that FFmpeg reads, such as rtsp")


def shown_source(source: str) -> str:
    """A source as it can be told: without the password in it."""
    if source == STDIN:
        return "standard input"
    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", source)


class LiveStream:
    """A stream, or a recording that is played: opened now, read by one thread, stopped by any.

    Args:
        source: a path, an address such as "rtsp://...", or "-" for standard input: whatever PyAV opens.
        speed: at which it is played: 1 for as long as it takes, 2 for half of that, 0 for as fast as frames
            are taken; by default 1 for a file, and what comes by itself as it comes.
        loop: whether a file is played again when it has ended.
        fps: frames in a second, at most; 0 for all.
        form: what libavformat calls the format, where it does not see that itself, such as "v4l2" or "mjpeg".
        options: of libavformat, by name.
        timeout_s: seconds in which a server has to answer, and in which anything has to come.
        limits: of the size of a frame, the default ones if None.

    Attributes:
        name: what it is called, without a password.
        size: of its frames, width and height in pixels.
        rate: frames a second, as it says; 0 where it does not.
        codec: that it is compressed by.
        damaged: packets that could not be decoded so far.
        skipped: packets that were not decoded, because decoding did not keep up.

    Raises:
        BrokenVideoError: there is no such file or server, it is no video, or it has sound alone.
        ModuleNotFoundError: PyAV is not installed.
    """

    def __init__(
        self,
        source: str,
        *,
        speed: float | None = None,
        loop: bool = False,
        fps: float = 0.0,
        form: str = "",
        options: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
        limits: Limits | None = None,
    ) -> None:
        self._source, self.name, recording = source, shown_source(source), is_recording(source)
        self._form, self._options, self._timeout_s, self._limits = (
            form,
            options,
            timeout_s,
            limits or Limits(),
        )
        self._loop, self._fps, self._hurries = loop, fps, speed == 0
        self._clock = StreamClock(speed=(1.0 if recording else 0.0) if speed is None else speed)
        self._stopped, self._next, self._seen = threading.Event(), 0.0, 0
        self._framing: Framing | None = None
        self.damaged = self.skipped = 0
        if recording:
            require_file(source.removeprefix("file:"))
        self._open()

    def _open(self) -> None:
        place = _PIPE if self._source == STDIN else self._source
        if is_recording(place):
            # As a file, whatever its name looks like to libavformat.
            place = f"file:{place.removeprefix('file:')}"
        self._container = self._connected(place)
        try:
            self._stream = pictures_of(self._container, self.name, self._limits)
        except BaseException:
            self._container.close()
            raise
        decoder = self._decoder = self._stream.codec_context
        # Frames that are decoded at the same time come that much later.
        decoder.thread_type = "SLICE"
        self._unit = float(self._stream.time_base or 0)
        # A file that is played again is the same way up as before.
        if self._framing is None or not self._loop:
            self._framing = Framing(float(self._stream.sample_aspect_ratio or 1))
        self._backlog = Backlog()
        self.size, self.codec = (decoder.width, decoder.height), decoder.name
        self.rate = float(self._stream.average_rate or 0)
        self._clock.step = 1 / (self.rate or _USUAL_RATE)

    def _connected(self, place: str) -> InputContainer:
        import av

        _require_format(self._form)
        with self._faults():
            container = av.open(
                place,
                format=self._form or None,
                options=dict(self._options or {}),
                timeout=self._timeout_s,
                metadata_errors="ignore",
            )
        # It takes texts for what a terminal shows.
        if container.format.name == "tty" and not self._form:
            container.close()
            raise BrokenVideoError(self.name, "not a video")
        return container

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What libav raises is a `BrokenVideoError`."""
        from av.error import ExitError

        with faults(self.name):
            try:
                yield
            except ExitError as error:
                reason = f"nothing came for {self._timeout_s:g} seconds"
                raise BrokenVideoError(self.name, reason) from error

    def reopen(self) -> None:
        """Have a stream again that broke off; its time goes on by the clock of this machine.

        Raises:
            BrokenVideoError: it cannot be had.
        """
        self.close()
        self._open()
        self._clock.cut(max(0.0, time.monotonic() - self._clock.sent))

    def close(self) -> None:
        """Let go of it: in the thread that reads, or when none does."""
        self._container.close()

    def stop(self) -> None:
        """Have whoever reads read no more frames; from any thread."""
        self._stopped.set()

    def rest(self, seconds: float) -> bool:
        """Wait, unless it is stopped; whether it goes on."""
        return not self._stopped.wait(seconds)

    def frames(self) -> Iterator[LiveFrame]:
        """Frames as they come, until the stream ends or is stopped.

        Raises:
            BrokenVideoError: it broke off, or nothing came; or no frame of it could be decoded.
        """
        while not self._stopped.is_set():
            for decoded in self._decoded():
                found = self._live(decoded)
                if found is not None:
                    yield found
            if not self._seen and not self._stopped.is_set():
                raise BrokenVideoError(self.name, "no frame of it can be decoded")
            if not self._loop:
                return
            self.close()
            self._open()
            self._clock.cut(self._clock.step)

    def _live(self, decoded: av.VideoFrame) -> LiveFrame | None:
        """A frame with its times; None if it is one more than are wanted in a second."""
        self._seen += 1
        stamp = decoded.dts if decoded.pts is None else decoded.pts
        at = self._clock.time(None if stamp is None else stamp * self._unit)
        if self._fps:
            if at + 1e-6 < self._next:
                return None
            self._next = (int(at * self._fps + 1e-6) + 1) / self._fps
        due = time.monotonic() if self._hurries else self._clock.due(at)
        assert self._framing is not None
        return LiveFrame(self._framing.frame(at, decoded), at, due)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Frames of all packets, and those that the decoder still has at the end."""
        for packet in self._packets():
            if not self._skips(packet):
                yield from self._received(packet)
        yield from self._received(None)

    def _packets(self) -> Iterator[Any]:
        """Packets, each at its time."""
        with self._faults():
            for packet in self._container.demux(self._stream):
                if self._stopped.is_set():
                    return
                # What only says that there are no more.
                if not packet.size:
                    continue
                sent, shown = (None if one is None else one * self._unit for one in (packet.dts, packet.pts))
                if self._clock.came(sent, shown, time.monotonic()) and self._seen:
                    self._decoder.flush_buffers()
                if self._clock.speed and not self.rest(max(0.0, self._clock.sent - time.monotonic())):
                    return
                yield packet

    def _skips(self, packet: Any) -> bool:
        if self._hurries:
            return False
        now, before = time.monotonic(), self._backlog.skipping
        if self._backlog.skips(now - self._clock.sent, packet.is_keyframe, now):
            self.skipped += 1
        elif before:
            # What it has belongs to frames that were left out.
            self._decoder.flush_buffers()
        return self._backlog.skipping

    def _received(self, packet: Any) -> list[av.VideoFrame]:
        """What the decoder has ready when it is given a packet, or None at the end."""
        from av.error import EOFError as NothingLeft
        from av.error import InvalidDataError

        try:
            return self._decoder.decode(packet)
        except InvalidDataError:
            self.damaged += 1
        except NothingLeft:
            pass
        return []
