"""Which images the frames of a stream resemble now: told when that begins and when it has ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..galleries.answers import Hit


@dataclass(kw_only=True)
class Stay:
    """An image that frames resemble, or did.

    Attributes:
        id: of the image.
        since: time in the stream of the first frame, in seconds.
        last: of the last one.
        due: when that was, in seconds of `time.monotonic`.
        frames: how many.
        score: the highest.
        best: time in the stream of that.
    """

    id: str
    since: float
    last: float
    due: float
    frames: int
    score: float
    best: float


class Presence:
    """Images that frames resemble: each is told once when it comes, and once when it has gone.

    Args:
        hold_s: an image has gone when no frame has resembled it for so many seconds of the stream: frames in
            between that do not are no new beginning.
    """

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._stays: dict[str, Stay] = {}

    def __len__(self) -> int:
        return len(self._stays)

    def seen(self, time: float, due: float, hits: Iterable[Hit]) -> list[Hit]:
        """A frame resembles some images: those of them that were not present.

        Args:
            time: of the frame in the stream, in seconds.
            due: when that was, in seconds of `time.monotonic`.
            hits: the images.
        """
        new = []
        for hit in hits:
            stay = self._stays.get(hit.id)
            if stay is None:
                new.append(hit)
                stay = self._stays[hit.id] = Stay(
                    id=hit.id, since=time, last=time, due=due, frames=0, score=hit.score, best=time
                )
            stay.last, stay.due, stay.frames = time, due, stay.frames + 1
            if hit.score > stay.score:
                stay.score, stay.best = hit.score, time
        return new

    def gone(self, time: float) -> list[Stay]:
        """Those that have gone by a time in the stream; they are forgotten."""
        gone = [stay for stay in self._stays.values() if time - stay.last >= self._hold_s]
        for stay in gone:
            del self._stays[stay.id]
        return gone

    def all_gone(self) -> list[Stay]:
        """All that are left, when the stream ends; they are forgotten."""
        left, self._stays = [*self._stays.values()], {}
        return left
