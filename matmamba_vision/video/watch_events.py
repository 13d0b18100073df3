"""What watching a stream tells: values with a time in the stream and one on the wall."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class WatchEvent:
    """Something that is told while a stream is watched.

    Attributes:
        time: seconds since the beginning of the stream.
        at: when that was, as ISO 8601 in UTC.
    """

    # What it is called in JSON.
    event: ClassVar[str]
    time: float
    at: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: `event` says which it is, and times and milliseconds are rounded."""
        return {"event": self.event} | {name: _rounded(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class WatchStarted(WatchEvent):
    """The first, before any frame is encoded.

    Attributes:
        source: what is watched; a password in it is not shown.
        size: of its frames, width and height in pixels.
        fps: frames in a second, as the stream says; None where it does not.
        codec: that it is compressed by.
        gallery: folder.
        images: of the gallery.
        widths: milliseconds that one frame takes at each width, typically, the widest first.
        budget_ms: milliseconds in which a frame is to be answered.
        min_score: cosine similarity from which a frame resembles an image.
    """

    event: ClassVar[str] = "started"
    source: str
    size: tuple[int, int]
    fps: float | None
    codec: str
    gallery: str
    images: int
    widths: Mapping[str, float]
    budget_ms: float
    min_score: float


@dataclass(frozen=True, kw_only=True)
class MatchBegan(WatchEvent):
    """A frame resembles an image that none resembled lately.

    Attributes:
        id: of the image.
        score: cosine similarity.
        width: that encoded the frame.
        label: of the image, None if it has none.
        path: of its file, "" if it has none.
        lag_ms: milliseconds from when the frame was due until this was known.
    """

    event: ClassVar[str] = "match"
    id: str
    score: float
    width: str
    label: str | None
    path: str
    lag_ms: float


@dataclass(frozen=True, kw_only=True)
class MatchEnded(WatchEvent):
    """No frame has resembled an image for a while.

    Attributes:
        id: of the image.
        since: time in the stream of the first frame that did.
        seconds: from that to the last one; that was at `time`.
        frames: that did.
        score: the highest.
        best: time in the stream of that.
    """

    event: ClassVar[str] = "match_ended"
    id: str
    since: float
    seconds: float
    frames: int
    score: float
    best: float


@dataclass(frozen=True, kw_only=True)
class WatchStatus(WatchEvent):
    """How watching fares, every few seconds.

    Attributes:
        frames: that were answered since the last status.
        dropped: that came meanwhile and were not, because a later one was there; what was not decoded, too.
        fps: frames answered in a second.
        lag_ms: milliseconds from when a frame was due until it was answered: p50, p99 and max.
        widths: how many frames each width encoded.
        takes_ms: milliseconds that a frame is expected to take now, by width.
        damaged: packets that could not be decoded.
        present: images that frames resemble now.
        images: of the gallery.
    """

    event: ClassVar[str] = "status"
    frames: int
    dropped: int
    fps: float
    lag_ms: Mapping[str, float]
    widths: Mapping[str, int]
    takes_ms: Mapping[str, float]
    damaged: int
    present: int
    images: int


@dataclass(frozen=True, kw_only=True)
class StreamLost(WatchEvent):
    """The stream broke off, or could not be had again.

    Attributes:
        reason: in words.
        attempt: how many there were to have it again.
        again_s: seconds until the next one.
    """

    event: ClassVar[str] = "lost"
    reason: str
    attempt: int
    again_s: float


@dataclass(frozen=True, kw_only=True)
class StreamBack(WatchEvent):
    """The stream is there again.

    Attributes:
        after_s: seconds that it was not.
    """

    event: ClassVar[str] = "back"
    after_s: float


@dataclass(frozen=True, kw_only=True)
class GalleryChanged(WatchEvent):
    """A newer version of the gallery answers from now on, or cannot be read.

    Attributes:
        images: that it has.
        version: of it, such as "1.5".
        problem: why what was there before goes on answering; "" if it does not.
    """

    event: ClassVar[str] = "gallery"
    images: int
    version: str
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class WatchEnded(WatchEvent):
    """The last: a summary.

    Attributes:
        reason: end, of the stream; stopped, by who watches; or why the stream broke off.
        seconds: that it was watched.
        frames: that were answered.
        dropped: see `WatchStatus`.
        fps: frames answered in a second.
        lag_ms: milliseconds: p50, p99 and max.
        widths: how many frames each width encoded.
        matches: how often a match began.
        damaged: packets that could not be decoded.
        lost: how often the stream broke off.
    """

    event: ClassVar[str] = "ended"
    reason: str
    seconds: float
    frames: int
    dropped: int
    fps: float
    lag_ms: Mapping[str, float]
    widths: Mapping[str, int]
    matches: int
    damaged: int
    lost: int


def _rounded(value: Any) -> Any:
    """Numbers with four digits behind the point, in a value and in what it holds."""
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value
