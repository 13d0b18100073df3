"""Groups of a video's packets that need no other: decoded side by side, each by one thread.

The threads of one decoder that decodes several frames at once wait for each other; groups do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from .errors import BrokenVideoError
from .video_sampling import WAITING, WAITING_BYTES, DecodingStep

T = TypeVar("T")
# Groups at once at most, and bytes of the frames that are wanted of each: all of these are in memory.
MOST_AT_ONCE, FRAMES_BYTES = 8, 2**25
# Bytes of a pixel as decoders give it, of most videos.
_PIXEL_BYTES = 1.5


class _Groups:
    """Steps cut before each jump; a group is to be read before the next one is.

    Attributes:
        broken: why there are no more, if that is no end.
    """

    def __init__(self, steps: Iterable[DecodingStep]) -> None:
        self._rest = iter(steps)
        self.broken: BrokenVideoError | None = None
        self._next = self._read()

    def _read(self) -> DecodingStep | None:
        try:
            return next(self._rest, None)
        except BrokenVideoError as error:
            self.broken = error
            return None

    def __iter__(self) -> Iterator[Iterator[DecodingStep]]:
        while self._next is not None:
            yield self._group(self._next)

    def _group(self, first: DecodingStep) -> Iterator[DecodingStep]:
        step: DecodingStep | None = first
        while step is not None and (step is first or not step.jump):
            self._next = self._read()
            yield step
            step = self._next


def side_by_side(
    steps: Iterable[DecodingStep],
    decode: Callable[[Iterable[DecodingStep]], Iterable[T]],
    decode_group: Callable[[Sequence[DecodingStep]], Sequence[T]],
    at_once: int,
    wanted: int,
) -> Iterator[T]:
    """The frames that are wanted, in their order.

    Args:
        steps: packets that are to be decoded.
        decode: of a group that is long, frame by frame, in memory that does not grow with it.
        decode_group: of a short group; called by several threads.
        at_once: groups.
        wanted: frames of a group at most; one with more is long, and so is one of many packets.

    Raises:
        BrokenVideoError: what `steps` raises, behind the frames that were there before.
    """
    groups, waiting = _Groups(steps), deque[Future[Sequence[T]]]()
    with ThreadPoolExecutor(at_once, "decoding") as pool:
        try:
            for group in groups:
                head, whole = _head(group, wanted)
                if whole:
                    waiting.append(pool.submit(decode_group, head))
                while len(waiting) > (at_once if whole else 0):
                    yield from waiting.popleft().result()
                if not whole:
                    yield from decode(chain(head, group))
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
    if groups.broken is not None:
        raise groups.broken


def wanted_at_most(width: int, height: int) -> int:
    """Frames of a size that a short group has at most."""
    return int(FRAMES_BYTES / (_PIXEL_BYTES * width * height))


def _head(group: Iterator[DecodingStep], wanted: int) -> tuple[Sequence[DecodingStep], bool]:
    """A group, or its first steps if it is long; and whether that is all of it."""
    steps, size = list[DecodingStep](), 0
    for step in group:
        steps.append(step)
        size, wanted = size + step.packet.size, wanted - step.wanted
        if wanted < 0 or size > WAITING_BYTES or len(steps) > WAITING:
            return steps, False
    return steps, True
