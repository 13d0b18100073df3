"""When the frames of a stream were due: a stream says when each is shown, and nobody when that is here."""

from __future__ import annotations

from dataclasses import dataclass

# Seconds by which stamps may disagree with the time that has passed; beyond, the stream was cut there.
JUMP = 10.0
# Seconds in a second by which the clock of a camera may be slower than this machine's.
DRIFT = 2e-4


@dataclass(kw_only=True)
class StreamClock:
    """The time in a stream, and when that is by the clock of this machine.

    Played at a speed, the first packet is due when it is read, and all others follow from that. Otherwise the
    stream comes as it comes: the packet that came earliest, measured by its stamp, was in time, and others
    are late by what they came later. Where stamps jump, the stream goes on as if they had not. Without stamps
    whatever comes was due when it came.

    Attributes:
        speed: at which a recording is played; 0 for what comes at its own pace.
        step: seconds between two frames of a recording without stamps.
    """

    speed: float = 0.0
    step: float = 0.04
    # The next packet begins anew, so many seconds behind the last frame.
    _gap: float | None = 0.0
    # From stamps to the time in the stream, and from that to this machine's clock.
    _shift: float | None = None
    _origin: float | None = None
    # Time in the stream of the last packet and of the last frame, and when the packet was read.
    _sent: float = 0.0
    _shown: float = 0.0
    _now: float = 0.0

    def came(self, sent: float | None, shown: float | None, now: float) -> bool:
        """A packet was read.

        Args:
            sent: its stamp for decoding, in seconds; it rises from packet to packet.
            shown: its stamp for being shown, in seconds.
            now: by the clock of this machine.

        Returns:
            Whether the stream begins here, or was cut: what is not decoded yet does not belong to it.
        """
        sent = shown if sent is None else sent
        if self._gap is None and self._jumped(sent, now):
            self._gap = self.step if self.speed else now - self._now
        begins = self._gap is not None
        if self._gap is not None:
            self._begin(sent, shown, now, self._gap)
        self._sent = self._placed(sent, now, self._sent)
        self._keep(now, begins)
        self._gap, self._now = None, now
        return begins

    def _jumped(self, sent: float | None, now: float) -> bool:
        if sent is None or self._shift is None:
            return False
        forward = sent + self._shift - self._sent
        # What was held up comes all at once, and what is played is read before its time.
        return forward < -JUMP or forward > JUMP + (self.speed or 1.0) * (now - self._now)

    def _begin(self, sent: float | None, shown: float | None, now: float, gap: float) -> None:
        beginning = 0.0 if self._origin is None else self._shown + gap
        stamp = sent if shown is None else shown
        self._shift = None if stamp is None else beginning - stamp
        if self._shift is None:
            self._sent = beginning - self.step

    def _placed(self, stamp: float | None, now: float, last: float) -> float:
        """The time in the stream of a stamp."""
        if stamp is not None and self._shift is not None:
            return stamp + self._shift
        return last + self.step if self.speed or self._origin is None else now - self._origin

    def _keep(self, now: float, begins: bool) -> None:
        """Keep what came earliest as what was in time."""
        found = now - self._sent / (self.speed or 1.0)
        if self._origin is None or (begins and not self.speed):
            self._origin = found
        elif not self.speed:
            self._origin = min(self._origin + DRIFT * max(0.0, now - self._now), found)

    def cut(self, seconds: float) -> None:
        """The next packet begins anew: again from the file's beginning, or of a stream that came back.

        Args:
            seconds: of the stream between the last frame and the next one.
        """
        self._gap = seconds

    def time(self, shown: float | None) -> float:
        """Where in the stream a frame is that was decoded, in seconds since its beginning.

        Args:
            shown: its stamp; None for a frame without.
        """
        if shown is not None and self._shift is not None:
            self._shown = max(0.0, shown + self._shift)
        else:
            self._shown = self._sent
        return self._shown

    def due(self, time: float) -> float:
        """When that was, or will be, by the clock of this machine.

        Args:
            time: in the stream, in seconds.
        """
        return (self._origin or 0.0) + time / (self.speed or 1.0)

    @property
    def sent(self) -> float:
        """When the last packet was due to come, by the clock of this machine."""
        return self.due(self._sent)
