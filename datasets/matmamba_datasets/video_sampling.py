"""Which frames of a video are taken, and which of its packets have to be decoded for these."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from matmamba_common.settings import Bounds, require

# A frame is shown at most so many packets later than it is decoded: what H.264 and HEVC allow, and two.
REORDERED = 18
# Packets that wait until a frame is wanted; beyond it they are decoded, for memory is not for keeping them.
WAITING, WAITING_BYTES = 1024, 2**24
# By how many steps a time may miss the beginning of one: times are sums of floats.
_ROUNDING = 1e-6
Rate = Annotated[float, Bounds(above=0, most=1000)]


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are taken.

    Time is cut into steps of 1/fps seconds, and the frame that is shown at the beginning of each is taken,
    once: a frame that stands still for long is one frame, whatever the rate of the file is, and whether it
    varies.

    Attributes:
        fps: steps in a second.
        keyframes: each frame that is stored whole, and no other: `fps` is of no account, and nothing else is
            decoded. Of a video in which every frame is stored whole, those at `fps`.
    """

    fps: float = 1.0
    keyframes: bool = False

    def __post_init__(self) -> None:
        require("fps", self.fps, Rate)
        require("keyframes", self.keyframes, bool)

    def takes(self, begin: float, end: float, start: float = 0.0) -> bool:
        """Whether a step begins at `begin` <= time < `end`, and no earlier than `start`; in seconds."""
        return self._steps(max(begin, start)) < self._steps(end)

    def _steps(self, time: float) -> int:
        """How many steps begin before a time."""
        return math.ceil(time * self.fps - _ROUNDING)


@dataclass(frozen=True)
class TimedPacket:
    """A packet of a video with what its container says about the frame in it.

    Attributes:
        packet: as the decoder takes it.
        time: at which the frame is shown, in seconds since the beginning of the video.
        duration: of the frame in seconds, as far as it is known.
        keyframe: whether the frame is stored whole.
        size: in bytes.
    """

    packet: Any
    time: float
    duration: float
    keyframe: bool
    size: int


@dataclass(frozen=True)
class DecodingStep:
    """A packet that is to be decoded.

    Attributes:
        packet: the packet.
        wanted: whether its frame is taken; if not, it is decoded because others depend on it.
        jump: whether packets before it are left out: no later frame depends on any before it.
    """

    packet: TimedPacket
    wanted: bool
    jump: bool = False


def decoding_steps(
    packets: Iterable[TimedPacket], sampling: Sampling, start: float = 0.0
) -> Iterator[DecodingStep]:
    """The packets that have to be decoded, in their order.

    What lies between the last frame that is taken of a group and the next keyframe is left out.

    Args:
        packets: in the order in which they are decoded.
        sampling: which frames are taken; not those of `keyframes`.
        start: no frame is taken for a step that begins earlier; in seconds.
    """
    waiting, size, jump, shown_from = list[DecodingStep](), 0, False, -math.inf
    for packet, wanted, leads in _marked(packets, sampling, start):
        if packet.keyframe and waiting and not leads:
            waiting, size, jump, shown_from = [], 0, True, packet.time
        if packet.time < shown_from:
            # Stored behind the keyframe, and dependent on what is left out.
            continue
        waiting.append(DecodingStep(packet, wanted, jump))
        size, jump = size + packet.size, False
        if wanted or len(waiting) > WAITING or size > WAITING_BYTES:
            yield from waiting
            waiting, size = [], 0


def _marked(
    packets: Iterable[TimedPacket], sampling: Sampling, start: float
) -> Iterator[tuple[TimedPacket, bool, bool]]:
    """Each packet, whether its frame is taken, and whether one is that is stored later and shown before."""
    first = start <= 0
    for packet, following, times in _windows(packets):
        leads = packet.keyframe and any(
            other.time < packet.time and sampling.takes(other.time, _end(other, times), start)
            for other in following
        )
        # What is shown first is there from the beginning on.
        begin = 0.0 if first and packet.time == times[0] > 0 else packet.time
        wanted = sampling.takes(begin, _end(packet, times), start)
        first = first and not wanted
        yield packet, wanted, leads


def _end(packet: TimedPacket, times: list[float]) -> float:
    """When the next frame is shown, of those that are shown at `times`; the last one lasts as it says."""
    after = bisect_right(times, packet.time)
    return times[after] if after < len(times) else packet.time + packet.duration


def _windows(
    packets: Iterable[TimedPacket],
) -> Iterator[tuple[TimedPacket, deque[TimedPacket], list[float]]]:
    """Each packet with those that follow, and the times of all that may be shown next to it, sorted."""
    following, times, before = deque[TimedPacket](), list[float](), deque[float]()
    rest = iter(packets)
    while True:
        while len(following) <= REORDERED and (packet := next(rest, None)) is not None:
            following.append(packet)
            insort(times, packet.time)
        if not following:
            return
        packet = following.popleft()
        yield packet, following, times
        before.append(packet.time)
        if len(before) > REORDERED:
            times.remove(before.popleft())
