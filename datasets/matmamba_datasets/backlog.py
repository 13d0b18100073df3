"""What becomes of packets where decoding does not keep up with a stream."""

from __future__ import annotations

# Seconds that packets may be late before anything is done, and for which a decoder may catch up by itself.
LATE, PATIENCE = 0.5, 2.0
# Share of the delay that has to be left of it then, at most.
LESS = 0.8


class Backlog:
    """Says which packets are not decoded, so that a stream is not seen later and later.

    A decoder that catches up is let do so: that is sooner done than waiting for the next keyframe. One that
    does not, in `PATIENCE` seconds, goes on at the next keyframe that is not late.

    Attributes:
        skipping: whether the last packet was left out.
    """

    def __init__(self) -> None:
        self._since: tuple[float, float] | None = None
        self.skipping = False

    def skips(self, late: float, keyframe: bool, now: float) -> bool:
        """Whether a packet is left out.

        Args:
            late: seconds by which it is later than it was due.
            keyframe: whether its frame is stored whole.
            now: in seconds.
        """
        if self.skipping:
            self.skipping = not keyframe or late > LATE
            return self.skipping
        if late <= LATE:
            self._since = None
        elif self._since is None or (now - self._since[0] > PATIENCE and late < LESS * self._since[1]):
            self._since = (now, late)
        elif now - self._since[0] > PATIENCE:
            self._since, self.skipping = None, True
        return self.skipping
