"""The thread that reads a stream, and has it again when it broke off."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TypeAlias

from matmamba_datasets.errors import BrokenVideoError
from matmamba_datasets.live_stream import LiveFrame, LiveStream

from .latest import Latest

# Seconds before a stream that broke off is tried again: at first, and at most; twice as long each time.
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
# Seconds that the thread has to end; one that waits for a server ends when that is given up.
END_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Lost:
    """The stream broke off, or could not be had again; see `watch_events.StreamLost`."""

    reason: str
    attempt: int
    again_s: float


@dataclass(frozen=True, kw_only=True)
class Back:
    """The stream is there again, after so many seconds."""

    after_s: float


@dataclass(frozen=True, kw_only=True)
class Over:
    """No more frames come: because the stream has ended, or for an error."""

    error: BaseException | None


News: TypeAlias = Lost | Back | Over


class LiveReader:
    """Reads a stream in a thread of its own.

    Args:
        stream: that is read; it is closed when no more is.
        latest: where frames go, and what is to be told.
        reconnect: whether a stream that broke off, or ended, is tried again for as long as it takes.
    """

    def __init__(self, stream: LiveStream, latest: Latest[LiveFrame, News], *, reconnect: bool) -> None:
        self._stream, self._latest, self._reconnect = stream, latest, reconnect
        self._thread = threading.Thread(target=self._work, name="matmamba-video", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more, and let go of the stream."""
        self._stream.stop()
        self._latest.close()
        if self._thread.ident is None:
            self._stream.close()
        else:
            self._thread.join(END_S)

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            while (error := self._broken()) is not None or self._reconnect:
                if not self._reconnect or not self._again(error):
                    break
        # A fault of the program is raised by who watches.
        except BaseException as fault:
            error = fault
        finally:
            self._stream.close()
            self._latest.tell(Over(error=error))

    def _broken(self) -> BrokenVideoError | None:
        """Read until the stream ends, or is stopped; why it broke off, if it did."""
        try:
            for frame in self._stream.frames():
                self._latest.put(frame)
        except BrokenVideoError as error:
            return error
        return None

    def _again(self, error: BrokenVideoError | None) -> bool:
        """Try until the stream is there again; False if it was stopped meanwhile."""
        reason, since, wait, attempt = error.reason if error else "it ended", time.monotonic(), FIRST_WAIT, 1
        while True:
            self._latest.tell(Lost(reason=reason, attempt=attempt, again_s=wait))
            if not self._stream.rest(wait):
                return False
            try:
                self._stream.reopen()
            except BrokenVideoError as again:
                reason, wait, attempt = again.reason, min(2 * wait, LONGEST_WAIT), attempt + 1
            else:
                self._latest.tell(Back(after_s=time.monotonic() - since))
                return True
