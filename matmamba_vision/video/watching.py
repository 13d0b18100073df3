"""A stream is watched: its frames are answered as they come, and what they resemble is told."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from matmamba_common.settings import require
from matmamba_datasets.live_stream import LiveFrame, LiveStream

from ..errors import MatMambaError, refusals
from ..galleries.answers import Hit
from ..galleries.gallery_model import ModelLike
from ..given import PathLike, require_path, require_type
from ..progress import Listener, Progress, Reporter
from ..public_call import public_call
from ..upkeep.image_gallery import ImageGallery
from .frame_search import FrameSearch
from .frame_tally import FrameTally
from .latest import Latest
from .live_reader import Back, LiveReader, Lost, News, Over
from .presence import Presence, Stay
from .watch_events import (
    GalleryChanged,
    MatchBegan,
    MatchEnded,
    StreamBack,
    StreamLost,
    WatchEnded,
    WatchEvent,
    WatchStarted,
    WatchStatus,
)
from .watch_settings import WatchSettings

# Seconds after which a watcher looks whether it was stopped, and what else is due, if no frame comes.
LOOK_S = 0.05


class Watch(Iterator[WatchEvent]):
    """Events of a stream that is watched, as they happen: an iterator, and a context manager.

    The first is a `WatchStarted`, the last a `WatchEnded`. It is read by one thread; a slow reader misses
    frames, and no events.

    Args:
        stream: open; it is closed when this ends.
        opened: the gallery; closed when this ends.
        search: of that gallery, measured.
        settings: how it is watched.
        report: is told of each frame.
    """

    def __init__(
        self,
        stream: LiveStream,
        opened: ImageGallery,
        search: FrameSearch,
        settings: WatchSettings,
        report: Reporter,
    ) -> None:
        self._stream, self._opened, self._search, self._settings = stream, opened, search, settings
        self._report = report
        self._latest: Latest[LiveFrame, News] = Latest(waits=settings.speed == 0)
        self._reader = LiveReader(stream, self._latest, reconnect=settings.reconnect)
        self._presence = Presence(settings.hold_s)
        self._all, self._lately = FrameTally(), FrameTally()
        self._matches = self._lost = self._skipped = self._damaged = 0
        self._time, self._problem, self._stopping = 0.0, "", False
        self._events = self._watched()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchEvent:
        with refusals():
            return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stop(self) -> None:
        """End soon, with what there is still to be told; from any thread, or a signal's handler."""
        self._stopping = True

    def close(self) -> None:
        """End at once: nothing more is told."""
        self._events.close()
        self._reader.stop()
        self._opened.close()

    def _watched(self) -> Generator[WatchEvent, None, None]:
        now = time.monotonic()
        self._began = self._status_at = self._poll_at = now
        yield self._started(now)
        self._reader.start()
        over: Over | None = None
        try:
            while not self._stopping and over is None:
                item = self._latest.take(LOOK_S)
                if isinstance(item, LiveFrame):
                    yield from self._frame(item)
                elif isinstance(item, Over):
                    over = item
                elif item is not None:
                    yield self._news(item)
                yield from self._due(time.monotonic())
        finally:
            self._reader.stop()
        yield from self._ended(over)
        self._opened.close()
        if over is not None and over.error is not None:
            raise over.error

    def _frame(self, frame: LiveFrame) -> Iterator[WatchEvent]:
        """Answer a frame, as wide as its time allows."""
        search, due = self._search, frame.due
        prepared = search.prepare(frame.frame.image(search.edge))
        # Where frames wait for each other none is late.
        left = due + self._settings.budget_ms / 1e3 - time.monotonic()
        rank = 0 if self._settings.speed == 0 else search.rank(left)
        hits = search.hits(prepared, rank)
        lag, width = time.monotonic() - due, search.widths[rank]
        self._time = frame.time
        for tally in (self._all, self._lately):
            tally.answered(width, lag)
        self._count()
        self._tell_progress(width, lag)
        yield from self._told(self._presence.gone(frame.time))
        for hit in self._presence.seen(frame.time, due, hits):
            yield self._match(hit, frame, width, lag)

    def _tell_progress(self, width: str, lag: float) -> None:
        every = self._all
        note = (
            f"{every.dropped:,} dropped; lag {1e3 * lag:.0f} ms, width {width}, {len(self._presence)} matches"
        )
        self._report.listener(Progress(stage="watching", done=every.frames, unit="frames", note=note))

    def _match(self, hit: Hit, frame: LiveFrame, width: str, lag: float) -> MatchBegan:
        self._matches += 1
        return MatchBegan(
            time=frame.time,
            at=_wall(frame.due),
            id=hit.id,
            score=hit.score,
            width=width,
            label=hit.label,
            path=hit.path,
            lag_ms=1e3 * lag,
        )

    def _told(self, stays: Iterable[Stay]) -> Iterator[MatchEnded]:
        for stay in stays:
            yield MatchEnded(
                time=stay.last,
                at=_wall(stay.due),
                id=stay.id,
                since=stay.since,
                seconds=stay.last - stay.since,
                frames=stay.frames,
                score=stay.score,
                best=stay.best,
            )

    def _due(self, now: float) -> Iterator[WatchEvent]:
        """What is due beside frames: a status, and a look at the gallery."""
        settings = self._settings
        if settings.poll_s and now - self._poll_at >= settings.poll_s:
            self._poll_at = now
            yield from self._refreshed()
        if settings.status_s and now - self._status_at >= settings.status_s:
            yield self._status(now)
            self._status_at = now

    def _refreshed(self) -> Iterator[GalleryChanged]:
        try:
            changed, problem = self._search.refresh(), ""
        except (MatMambaError, OSError) as error:
            problem = str(error)
            # It is told once.
            changed = problem != self._problem
        self._problem = problem
        if changed:
            yield GalleryChanged(
                **self._here(), images=self._search.images, version=self._search.version, problem=problem
            )

    def _news(self, news: Lost | Back) -> WatchEvent:
        if isinstance(news, Back):
            return StreamBack(**self._here(), after_s=news.after_s)
        self._lost += news.attempt == 1
        return StreamLost(**self._here(), reason=news.reason, attempt=news.attempt, again_s=news.again_s)

    def _here(self) -> dict[str, Any]:
        """The time in the stream of the last frame, and the time on the wall now."""
        return {"time": self._time, "at": _wall(time.monotonic())}

    def _count(self) -> None:
        """Count what became of frames that never came here."""
        skipped, damaged = self._stream.skipped, self._stream.damaged
        dropped = self._latest.dropped() + skipped - self._skipped
        for tally in (self._all, self._lately):
            tally.dropped += dropped
            tally.damaged += damaged - self._damaged
        self._skipped, self._damaged = skipped, damaged

    def _started(self, now: float) -> WatchStarted:
        search, typical = self._search, 1e3 * self._search.table.typical[:, 0]
        return WatchStarted(
            time=0.0,
            at=_wall(now),
            source=self._stream.name,
            size=self._stream.size,
            fps=self._stream.rate or None,
            codec=self._stream.codec,
            gallery=str(self._opened.folder),
            images=search.images,
            widths=dict(zip(search.widths, map(float, typical), strict=True)),
            budget_ms=self._settings.budget_ms,
            min_score=self._settings.min_score,
        )

    def _status(self, now: float) -> WatchStatus:
        self._count()
        lately, self._lately = self._lately, FrameTally()
        table = self._search.table
        return WatchStatus(
            **self._here(),
            frames=lately.frames,
            dropped=lately.dropped,
            fps=lately.frames / max(1e-9, now - self._status_at),
            lag_ms=lately.lags.to_dict(),
            widths=dict(lately.widths),
            takes_ms={width: 1e3 * table.seconds(rank, 1) for rank, width in enumerate(table.widths)},
            damaged=lately.damaged,
            present=len(self._presence),
            images=self._search.images,
        )

    def _ended(self, over: Over | None) -> Iterator[WatchEvent]:
        yield from self._told(self._presence.all_gone())
        self._count()
        seconds, every = time.monotonic() - self._began, self._all
        reason = "stopped" if over is None else "end" if over.error is None else str(over.error)
        yield WatchEnded(
            **self._here(),
            reason=reason,
            seconds=seconds,
            frames=every.frames,
            dropped=every.dropped,
            fps=every.frames / max(1e-9, seconds),
            lag_ms=every.lags.to_dict(),
            widths=dict(every.widths),
            matches=self._matches,
            damaged=every.damaged,
            lost=self._lost,
        )


def _wall(moment: float) -> str:
    """A moment of `time.monotonic`, as ISO 8601 in UTC."""
    passed = time.monotonic() - moment
    return datetime.fromtimestamp(time.time() - passed, UTC).isoformat(timespec="milliseconds")


@public_call
def watch(
    source: str | os.PathLike[str],
    gallery: PathLike,
    *,
    min_score: float = 0.9,
    k: int = 1,
    where: str = "",
    budget_ms: float = 50.0,
    fps: float = 0.0,
    widths: Sequence[str] = (),
    hold_s: float = 2.0,
    status_s: float = 5.0,
    poll_s: float = 2.0,
    speed: float | None = None,
    loop: bool = False,
    reconnect: bool = False,
    timeout_s: float = 10.0,
    form: str = "",
    options: Mapping[str, str] | None = None,
    model: ModelLike | None = None,
    device: str = "cpu",
    threads: int = 0,
    progress: Listener | None = None,
) -> Watch:
    """Watch a video as it comes, and tell which images of a gallery its frames resemble.

    Each frame is encoded at the widest width by which it is answered in time: what each takes is measured
    now, and followed while frames come. A frame that is not encoded yet when the next one comes is dropped.

        with mv.watch("rtsp://camera/stream", "G", min_score=0.95) as events:
            for event in events:
                print(event.to_dict())

    Args:
        source: a file, an address such as "rtsp://..." or "http://...", a device, or "-" for standard input:
            whatever PyAV opens.
        gallery: its folder; what others change in it is seen.
        min_score: cosine similarity from which a frame resembles an image. A width that is not full finds
            somewhat lower ones.
        k: images that one frame may resemble; raise it where several of the gallery look alike.
        where: condition that images have to fulfil, in SQL over id, path, label and metadata.
        budget_ms: milliseconds in which a frame is to be answered, from when it was due, decoding included.
        fps: frames in a second, at most; 0 for all.
        widths: that may encode frames; by default those that the gallery keeps encoders of, or the trained
            ones.
        hold_s: seconds of the stream without an image behind which it has gone; a match is told when it
            begins, and when it has ended.
        status_s: seconds between two events of how watching fares; 0 for none.
        poll_s: seconds between two looks whether the gallery was changed; 0 for none.
        speed: at which a recording is played: 1 for as long as it takes, 2 for half of that, 0 for as fast as
            frames are encoded, by the widest width, and none is dropped. By default 1 for files; streams come
            as they come.
        loop: whether a file is played again when it has ended, for ever.
        reconnect: whether a stream that broke off, or ended, is tried again, each time after twice as long.
        timeout_s: seconds in which a server has to answer, and after which one that sends nothing is given
            up.
        form: what libavformat calls the format, where it does not see that itself, such as "v4l2" or "mjpeg".
        options: of libavformat, by name, such as {"rtsp_transport": "tcp"}.
        model: what made the gallery, if that was moved, or is loaded already.
        device: that encodes frames: cpu, cuda, or auto for whichever is there.
        threads: that encode and search, in the whole process; 0 for as many as there are.
        progress: is told of each frame; most use the events.

    Returns:
        The events, an iterator that is a context manager.

    Raises:
        MatMambaError: no video, or nothing answers at the address; no gallery there, one without images, or
            of vectors made elsewhere; an unknown width, or an argument that cannot be. While it is read: the
            stream broke off, and `reconnect` is not set.
        TypeError: an argument is of another type.
    """
    require_type("source", source, (str, os.PathLike), "a path, or an address")
    require("options", options, Mapping[str, str] | None)
    report = Reporter(progress)
    settings = WatchSettings(
        min_score=min_score,
        k=k,
        where=where,
        budget_ms=budget_ms,
        fps=fps,
        widths=widths,
        hold_s=hold_s,
        status_s=status_s,
        poll_s=poll_s,
        speed=speed,
        loop=loop,
        reconnect=reconnect,
        timeout_s=timeout_s,
        form=form,
        options=dict(options or {}),
    )
    opened = ImageGallery.open(require_path("gallery", gallery), model=model, device=device, threads=threads)
    return _opened_watch(os.fspath(source), opened, settings, report)


def _opened_watch(source: str, opened: ImageGallery, settings: WatchSettings, report: Reporter) -> Watch:
    """A watch of a stream, with all that it needs; what was opened is closed again if one of it lacks."""
    stream = None
    try:
        settings.require_source(source)
        stream = LiveStream(
            source,
            speed=settings.speed,
            loop=settings.loop,
            fps=settings.fps,
            form=settings.form,
            options=settings.options,
            timeout_s=settings.timeout_s,
        )
        search = FrameSearch(
            opened,
            k=settings.k,
            min_score=settings.min_score,
            where=settings.where,
            widths=settings.widths,
        )
        search.measure()
        return Watch(stream, opened, search, settings, report)
    except BaseException:
        if stream is not None:
            stream.close()
        opened.close()
        raise
