"""Watch a video as it comes, and tell which images of a gallery its frames resemble, as lines of JSON.

A video is a file, an address (rtsp, http, udp, ...), a device, or `-` for standard input: whatever FFmpeg
opens. A file is played as fast as it is meant to be seen; --speed 0 takes each frame, as fast as that goes.

Each frame is answered within --budget of when it was due, decoding included, by the widest width that can do
so. What each takes is measured at start and followed from then on, so that frames get narrower instead of
late when the machine is busy. A frame that waits when the next one comes is dropped.

Each line is one event. `match`: a frame resembles an image, with at least --min-score, that none did lately;
with its time in the stream (`time`, in seconds) and on the wall (`at`). `match_ended`: no frame has for
--hold-s seconds. `status`, every --status-s seconds: frames, those dropped, lag, widths. `lost` and `back`: a
stream that broke off, and came back (--reconnect). `gallery`: others have changed it. `ended`: the last, a
summary. On a terminal the last line on standard error says how it fares.

The status is 0 when the video has ended, or Ctrl-C or SIGTERM ended the command; 2 if the stream broke off.

examples:
  matmamba watch --video talk.mp4 --gallery G
  matmamba watch --video talk.mp4 --gallery G --speed 0 --fps 1 --min-score 0.95 --k 3
  matmamba watch --video - --gallery G --budget 30ms < talk.mp4
  matmamba watch --video rtsp://camera/stream --gallery G --reconnect --option rtsp_transport=tcp
  matmamba watch --video /dev/video0 --format v4l2 --option framerate=10 --gallery G
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import get_terminal_size
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import tyro
from matmamba_common.settings import Bounds

from ..errors import ConfigError
from .arguments import check_flags, milliseconds, parse
from .console import say
from .live_line import LiveLine

if TYPE_CHECKING:
    from ..video.watching import Watch

NotNegative = Annotated[float, Bounds(least=0)]


@dataclass
class WatchFlags:
    # File, address, device, or - for standard input.
    video: str
    # Folder of the gallery.
    gallery: Path
    # Cosine similarity from which a frame resembles an image.
    min_score: Annotated[float, Bounds(least=-1, most=1)] = 0.9
    # Images that one frame may resemble.
    k: Annotated[int, Bounds(least=1)] = 1
    # Condition that images have to fulfil, in SQL, as in `matmamba search`.
    where: str = ""
    # Time in which a frame is to be answered, such as 50ms.
    budget: str = "50ms"
    # Frames in a second, at most; 0 for all.
    fps: NotNegative = 0.0
    # Widths that encode frames; by default those that the gallery keeps encoders of, or the trained ones.
    widths: tuple[str, ...] = ()
    # Seconds without an image behind which it has gone.
    hold_s: NotNegative = 2.0
    # Seconds between two status lines; 0 for none.
    status_s: NotNegative = 5.0
    # Seconds between two looks whether the gallery was changed; 0 for none.
    poll_s: NotNegative = 2.0
    # How fast a recording is played, 0 for as fast as its frames are encoded; by default 1 for files.
    speed: Annotated[float | None, Bounds(least=0)] = None
    # Play a file again and again.
    loop: bool = False
    # Try a stream again that broke off, or ended, for as long as it takes.
    reconnect: bool = False
    # Seconds in which a server has to answer, and anything has to come.
    timeout_s: Annotated[float, Bounds(above=0)] = 10.0
    # What FFmpeg calls the format, where it does not see that itself.
    format: str = ""
    # NAME=VALUE of FFmpeg, such as rtsp_transport=tcp; can be given several times.
    option: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
    # Where the model is, if it was moved.
    checkpoint: Path | None = None
    # cpu, cuda, or auto for whichever is there.
    device: str = "cpu"
    # Threads that encode and search; 0 for as many as there are.
    threads: Annotated[int, Bounds(least=0)] = 0


def run(arguments: list[str]) -> int:
    """Watch until the video ends, or a signal ends it."""
    args = parse(WatchFlags, "watch", __doc__, arguments)
    check_flags(args)
    budget_ms, options = milliseconds(args.budget, "--budget"), _options(args.option)
    # PyAV is an extra, whose absence is told in one line.
    from ..video.watching import watch

    with LiveLine(sys.stderr, get_terminal_size().columns) as line:
        watched = watch(
            args.video,
            args.gallery,
            min_score=args.min_score,
            k=args.k,
            where=args.where,
            budget_ms=budget_ms,
            fps=args.fps,
            widths=args.widths,
            hold_s=args.hold_s,
            status_s=args.status_s,
            poll_s=args.poll_s,
            speed=args.speed,
            loop=args.loop,
            reconnect=args.reconnect,
            timeout_s=args.timeout_s,
            form=args.format,
            options=options,
            model=args.checkpoint,
            device=args.device,
            threads=args.threads,
            progress=line,
        )
        with watched as events, _stopped_by_signals(events):
            for event in events:
                line.clear()
                say(json.dumps(event.to_dict()))
                sys.stdout.flush()
    return 0


def _options(given: Sequence[str]) -> dict[str, str]:
    """Options of FFmpeg by name; `ConfigError` for one without a value."""
    parts = [one.partition("=") for one in given]
    for one, (name, sign, _) in zip(given, parts, strict=True):
        if not (name and sign):
            raise ConfigError(f"--option {one!r}: it can be NAME=VALUE, such as rtsp_transport=tcp")
    return {name: value for name, _, value in parts}


@contextmanager
def _stopped_by_signals(events: Watch) -> Iterator[None]:
    """Ctrl-C and SIGTERM end it with a summary; a second Ctrl-C does at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        events.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
