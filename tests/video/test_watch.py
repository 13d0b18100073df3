"""A video is watched: what is told and when, in time, in constant memory, whatever becomes of the stream."""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import pytest
from made_videos import SIZE, empty, sound_alone
from matmamba_datasets.live_stream import LiveStream
from matmamba_retrieval import Gallery
from matmamba_vision.video import frame_search, live_reader
from matmamba_vision.video.frame_search import FrameSearch
from watched_videos import FPS, PICTURES, WIDTHS, add_pictures, shown_video, watched_gallery

# Nothing but the same picture is so alike.
SURE = 0.995


@pytest.fixture(autouse=True)
def soon_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_search, "MEASURE_S", 0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return watched_gallery(tmp_path_factory.mktemp("watched"))


@pytest.fixture
def gallery(made: Path, tmp_path: Path) -> Path:
    """A gallery of pictures, which the test may change."""
    return Path(shutil.copytree(made, tmp_path / "gallery"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures 3, 1 and 3 for a second each, with another one in between that the gallery lacks."""
    return shown_video(tmp_path_factory.mktemp("video") / "a.mp4", [3, 100, 1, 3])


def told(source: Path | str, gallery: Path, **settings: Any) -> list[mv.WatchEvent]:
    """All events."""
    known = {"speed": 0.0, "min_score": SURE, "hold_s": 0.5, "status_s": 0.0, "poll_s": 0.0} | settings
    with mv.watch(source, gallery, **known) as events:
        return list(events)


def ended(events: Sequence[mv.WatchEvent]) -> mv.WatchEnded:
    last = events[-1]
    assert isinstance(last, mv.WatchEnded)
    return last


def test_matches_are_told_when_they_begin_and_when_they_have_ended(made: Path, video: Path) -> None:
    events = told(video, made)
    began = [event for event in events if isinstance(event, mv.MatchBegan)]
    gone = [event for event in events if isinstance(event, mv.MatchEnded)]
    assert [(event.id, event.label) for event in began] == [
        ("picture 3", "3"),
        ("picture 1", "1"),
        ("picture 3", "3"),
    ]
    assert [event.time for event in began] == pytest.approx([0.0, 2.0, 3.0])
    assert [event.id for event in gone] == [event.id for event in began]
    for first, last in zip(began, gone, strict=True):
        assert last.since == first.time
        assert last.time == pytest.approx(first.time + 0.9)
        assert last.frames == FPS
        assert last.seconds == pytest.approx(0.9)
        assert last.score >= first.score >= SURE
    started = events[0]
    assert isinstance(started, mv.WatchStarted)
    assert (started.size, started.images, tuple(started.widths)) == (SIZE, PICTURES, WIDTHS)
    summary = ended(events)
    assert (summary.reason, summary.frames, summary.dropped, summary.matches) == ("end", 4 * FPS, 0, 3)
    assert sum(summary.widths.values()) == 4 * FPS


def test_events_are_json(made: Path, video: Path) -> None:
    for event in told(video, made, status_s=1e-6):
        found = json.loads(json.dumps(event.to_dict()))
        assert found["event"] == type(event).event
        assert {"time", "at"} <= found.keys()


def test_a_file_is_played_as_fast_as_it_is_shown(made: Path, video: Path) -> None:
    """Four seconds at four times the speed, and each frame is answered when it was due."""
    start = time.monotonic()
    summary = ended(told(video, made, speed=4.0))
    # The last frame is due at 3.9 seconds.
    assert time.monotonic() - start >= 3.9 / 4
    assert summary.frames + summary.dropped == 4 * FPS
    assert summary.frames >= 2 * FPS


def test_no_more_frames_are_taken_than_wanted(made: Path, video: Path) -> None:
    summary = ended(told(video, made, fps=2.0))
    assert (summary.frames, summary.dropped) == (8, 0)


def slow(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float]) -> None:
    """Have each width take so long, by its rank, and no time where it is measured."""
    found = FrameSearch._found

    def take(self: FrameSearch, prepared: Any, rank: int) -> Any:
        time.sleep(seconds(rank))
        return found(self, prepared, rank)

    monkeypatch.setattr(FrameSearch, "_found", take)


def test_of_frames_that_wait_the_latest_is_taken(
    made: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding takes as long as six frames: one of six is answered, and none waits for longer."""
    slow(monkeypatch, lambda rank: 0.15)
    summary = ended(told(video, made, speed=4.0, budget_ms=10.0, widths=["full"]))
    assert summary.frames + summary.dropped == 4 * FPS
    assert summary.dropped > 2 * FPS
    # A machine that is busy besides takes longer.
    assert summary.lag_ms["p50"] < 1e3 * 3 * 0.15


def test_frames_get_narrower_instead_of_late(
    made: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine becomes six times as slow behind the measurement: what is seen counts."""
    busy = False
    slow(monkeypatch, lambda rank: (0.012, 0.004, 0.001)[rank] * (6 if busy else 1))
    with mv.watch(video, made, speed=2.0, loop=True, budget_ms=50.0, min_score=SURE, status_s=1.0) as events:
        next(events)
        busy = True
        statuses = [next(event for event in events if isinstance(event, mv.WatchStatus)) for _ in range(3)]
    widths = statuses[-1].widths
    assert widths.get("full", 0) < 0.2 * statuses[-1].frames
    assert statuses[-1].lag_ms["p50"] < 72.0


def test_the_widest_width_that_fits_is_taken(made: Path) -> None:
    with mv.open_gallery(made) as opened:
        search = FrameSearch(opened, k=1, min_score=0.0)
        search.measure()
        takes = [search.table.seconds(rank, 1) for rank in range(len(WIDTHS))]
        assert [search.rank(left) for left in (10.0, 0.0, -1.0)] == [0, 2, 2]
        for rank, seconds in enumerate(takes):
            chosen = search.rank(1.1 * seconds + 0.003)
            assert chosen <= rank
            assert takes[chosen] <= 1.1 * seconds + 0.003


def test_what_others_add_to_the_gallery_is_seen(gallery: Path, tmp_path: Path) -> None:
    video = shown_video(tmp_path / "a.mp4", [20], seconds=2.0)
    with mv.watch(video, gallery, loop=True, min_score=SURE, poll_s=0.05, status_s=0.1) as events:
        next(event for event in events if isinstance(event, mv.WatchStatus))
        add_pictures(gallery, [20])
        found = [next(events)]
        while not isinstance(found[-1], mv.MatchBegan):
            found.append(next(events))
    changed = [event for event in found if isinstance(event, mv.GalleryChanged)]
    assert changed[-1].images == PICTURES + 1
    assert found[-1].id == "picture 20"


def test_a_gallery_that_is_damaged_meanwhile_goes_on_as_it_was(gallery: Path, video: Path) -> None:
    with mv.watch(video, gallery, loop=True, min_score=SURE, poll_s=0.05, status_s=0.2) as events:
        next(events)
        (gallery / "catalog.sqlite").rename(gallery / "elsewhere")
        found = [next(events)]
        while not isinstance(found[-1], mv.GalleryChanged):
            found.append(next(events))
        assert found[-1].problem
        (gallery / "elsewhere").rename(gallery / "catalog.sqlite")
        assert next(event for event in events if isinstance(event, mv.MatchBegan))


@contextmanager
def sent(*parts: bytes) -> Iterator[str]:
    """An address at which each caller in turn is sent one of some parts of a stream, and then left."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for part in parts:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(part)
            server.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_a_stream_that_broke_off_is_had_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_reader, "FIRST_WAIT", 0.05)
    parts = [shown_video(tmp_path / f"{number}.ts", [number]).read_bytes() for number in (1, 2)]
    with sent(*parts) as address:
        events = []
        with mv.watch(address, made, reconnect=True, speed=0.0, min_score=SURE) as watched:
            for event in watched:
                events.append(event)
                if isinstance(event, mv.StreamLost) and event.attempt == 3:
                    watched.stop()
    names = [event.event for event in events if event.event not in ("match_ended", "status")]
    assert names == ["started", "match", "lost", "back", "match", "lost", "lost", "lost", "ended"]
    matches = [event for event in events if isinstance(event, mv.MatchBegan)]
    assert [event.id for event in matches] == ["picture 1", "picture 2"]
    # Its time goes on.
    assert matches[1].time > matches[0].time
    waits = [event.again_s for event in events if isinstance(event, mv.StreamLost)]
    assert waits == [0.05, 0.05, 0.1, 0.2]
    assert (ended(events).reason, ended(events).lost) == ("stopped", 2)


def test_a_stream_that_ends_ends(made: Path, tmp_path: Path) -> None:
    with sent(shown_video(tmp_path / "a.ts", [1]).read_bytes()) as address:
        summary = ended(told(address, made, speed=None))
    assert summary.reason == "end"
    assert summary.frames + summary.dropped == FPS


def test_a_watch_that_is_closed_leaves_nothing(made: Path, video: Path) -> None:
    before = threading.active_count()
    for steps in (0, 1, 5):
        with mv.watch(video, made, loop=True, speed=20.0, min_score=-1.0) as events:
            for _ in range(steps):
                next(events)
        assert next(events, None) is None
    assert threading.active_count() == before
    assert not [place for place in Path(f"/proc/{os.getpid()}/fd").iterdir() if place.resolve() == video]


def memory_mb() -> float:
    """Of this process, in 10^6 bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmRSS"))


def memory_of(video: Path, gallery: Path, frames: int, steps: int) -> list[float]:
    """Memory behind each of so many equal parts of a stream of some frames."""
    found = list[float]()
    with mv.watch(video, gallery, loop=True, speed=0.0, min_score=SURE, poll_s=0.5, status_s=0.0) as events:
        counted = 0

        def count(event: mv.Event) -> None:
            nonlocal counted
            counted = event.done if isinstance(event, mv.Progress) else counted

        events._report.listener = count
        for _ in events:
            if counted >= frames / steps * (len(found) + 1):
                found.append(memory_mb())
            if len(found) == steps:
                break
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_constant(made: Path, video: Path) -> None:
    """A minute of a stream: its second half takes no memory."""
    _, first, _, last = memory_of(video, made, 600, 4)
    assert last < 1.05 * first


def test_no_frame_waits_for_garbage_to_be_looked_for(video: Path) -> None:
    """Its pixels are native memory, of which Python's collector knows nothing."""
    stream = LiveStream(str(video), speed=0.0, loop=True)
    frames = (frame.frame.image(32) for frame in stream.frames())
    for _ in range(2):
        next(frames)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3 * 4 * FPS):
            next(frames)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        # Other threads of the tests leave garbage of their own.
        assert not [one for one in gc.garbage if type(one).__module__.startswith("av")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        stream.close()


@pytest.mark.slow
def test_memory_is_constant_over_an_hour(made: Path, video: Path) -> None:
    first, *_, last = memory_of(video, made, 36_000, 12)
    assert last < 1.05 * first


def write_text(file: Path) -> Path:
    file.write_text("no video\n" * 100)
    return file


def bad_sources(folder: Path) -> list[tuple[str, str]]:
    """Sources, and what is said of them."""
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    return [
        (str(folder / "none.mp4"), "none.mp4"),
        (str(folder), str(folder)),
        (str(empty(folder / "empty.mp4")), "empty.mp4"),
        (str(write_text(folder / "text.mp4")), "text.mp4"),
        (str(sound_alone(folder / "sound.mp4")), "sound"),
        (f"tcp://me:secret@127.0.0.1:{port}", "refused"),
        (f"http://127.0.0.1:{port}/a.mp4", f"127.0.0.1:{port}"),
        ("nothing://here", "nothing://here"),
    ]


def test_what_is_no_video_is_told_in_a_line(made: Path, tmp_path: Path) -> None:
    for source, said in bad_sources(tmp_path):
        with pytest.raises(mv.MatMambaError) as caught:
            mv.watch(source, made, timeout_s=2.0)
        message = str(caught.value)
        assert said in message, source
        assert "\n" not in message
        assert "secret" not in message


def test_what_cannot_be_watched_with_is_told_in_a_line(gallery: Path, video: Path, tmp_path: Path) -> None:
    with Gallery(gallery, write=True) as opened:
        rows = [row.id for row in opened.rows(opened.live_keys())]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"widths": ["1/3"]}, "1/3"),
        ({"where": "colour = 'red'"}, "colour"),
        ({"k": 0}, "k is 0"),
        ({"min_score": 2.0}, "min_score is 2.0"),
        ({"budget_ms": 0.0}, "budget_ms is 0"),
        ({"speed": -1.0}, "speed is -1"),
        ({"reconnect": True}, "reconnect"),
        ({"device": "nowhere"}, "nowhere"),
    ]
    for settings, said in wrong:
        with pytest.raises(mv.MatMambaError, match=said):
            mv.watch(video, gallery, **settings)
    with pytest.raises(mv.MatMambaError, match="loop"):
        mv.watch("-", gallery, loop=True)
    with pytest.raises(TypeError, match="source"):
        mv.watch(3, gallery)  # type: ignore[arg-type]
    with mv.open_gallery(gallery, write=True) as opened_gallery:
        opened_gallery.delete(rows)
    with pytest.raises(mv.MatMambaError, match="no images"):
        mv.watch(video, gallery)
    with pytest.raises(mv.MatMambaError, match="none"):
        mv.watch(video, tmp_path / "none")
