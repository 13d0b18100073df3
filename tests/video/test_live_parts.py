"""What watching is made of, one by one: clock, backlog, the latest frame, presence, lags."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from matmamba_datasets.backlog import LATE, PATIENCE, Backlog
from matmamba_datasets.live_stream import is_recording, shown_source
from matmamba_datasets.stream_clock import JUMP, StreamClock
from matmamba_vision.galleries.answers import Hit
from matmamba_vision.video.frame_tally import FrameTally, Lags
from matmamba_vision.video.latest import Latest
from matmamba_vision.video.presence import Presence


def hit(name: str, score: float = 0.95) -> Hit:
    return Hit(id=name, path="", label=None, score=score, rank=1)


@pytest.mark.parametrize("speed", [0.5, 1.0, 30.0])
def test_what_is_played_is_due_by_its_stamps(speed: float) -> None:
    """Whenever packets are read: a decoder that is slow makes frames late, and none later due."""
    clock = StreamClock(speed=speed)
    for number in range(50):
        stamp = 7.0 + number / 10
        begins = clock.came(stamp, stamp, 100.0 + number)
        assert begins == (number == 0)
        assert clock.time(stamp) == pytest.approx(number / 10)
        assert clock.due(number / 10) == pytest.approx(100.0 + number / 10 / speed)


def test_a_stream_is_in_time_where_it_came_earliest() -> None:
    """By chance late packets, and a burst at the beginning of what a server had kept."""
    rng, clock = random.Random(0), StreamClock()
    for number in range(300):
        stamp = 1e5 + number / 10
        late = 0.0 if number == 50 else rng.uniform(0.0, 0.3)
        now = 5.0 if number < 20 else 3.0 + number / 10 + late
        clock.came(stamp, stamp, now)
        if number > 50:
            # But for what a camera's clock may be slower.
            assert now - clock.due(clock.time(stamp)) == pytest.approx(late, abs=0.01)
    # What a server had kept was late by as much as it had kept it.
    clock = StreamClock()
    lags = []
    for number in range(40):
        now = 10.0 if number < 20 else 10.0 + (number - 19) / 10
        clock.came(number / 10, number / 10, now)
        lags.append(now - clock.due(number / 10))
    assert max(lags) == pytest.approx(0.0, abs=0.01)


def test_a_clock_that_is_slower_is_no_growing_lag() -> None:
    """A camera whose second is 100 millionths longer, for three hours."""
    clock = StreamClock()
    for number in range(0, 3 * 3600):
        now = number * (1 + 1e-4)
        clock.came(float(number), float(number), now)
        assert now - clock.due(clock.time(float(number))) < 0.001


def test_stamps_that_jump_are_no_jump_in_time() -> None:
    clock, shown = StreamClock(), []
    stamps = [0.0, 0.1, 0.2, 5000.0, 5000.1, -3.0, -2.9]
    for place, stamp in enumerate(stamps):
        jumped = place in (0, 3, 5)
        assert clock.came(stamp, stamp, place / 10) == jumped
        shown.append(clock.time(stamp))
    assert shown == pytest.approx([place / 10 for place in range(len(stamps))])
    # Neither is a wait as long as the jump.
    assert not clock.came(-2.9 + 2 * JUMP, None, 0.6 + 2 * JUMP)


def test_a_stream_that_came_back_goes_on() -> None:
    clock = StreamClock()
    for number in range(5):
        clock.came(number / 10, number / 10, number / 10)
        clock.time(number / 10)
    clock.cut(30.0)
    assert clock.came(1.0, 1.0, 30.4)
    assert clock.time(1.0) == pytest.approx(30.4)
    assert clock.due(30.4) == pytest.approx(30.4)


def test_what_has_no_stamps_is_due_when_it_comes() -> None:
    live, played = StreamClock(), StreamClock(speed=2.0, step=0.1)
    for number in range(10):
        assert live.came(None, None, 5 + number / 7) == (number == 0)
        assert live.due(live.time(None)) == pytest.approx(5 + number / 7)
        played.came(None, None, 5.0)
        assert played.time(None) == pytest.approx(number / 10)
        assert played.due(number / 10) == pytest.approx(5 + number / 20)


def test_a_decoder_that_catches_up_is_let() -> None:
    """Two seconds behind, and faster than the stream: nothing is left out."""
    backlog, now = Backlog(), 0.0
    for number in range(200):
        late = max(0.0, 3 * LATE - number * 0.02)
        assert not backlog.skips(late, number % 50 == 0, now)
        now += 0.05


def test_a_decoder_that_is_too_slow_goes_on_at_keyframes() -> None:
    """Decoding takes three times as long as a frame is shown, reading nothing: the delay stays bounded."""
    backlog, now, worst, decoded = Backlog(), 0.0, 0.0, 0
    previous = False
    for number in range(3000):
        due = number / 10
        now = max(now, due)
        late, keyframe = now - due, number % 20 == 0
        if backlog.skips(late, keyframe, now):
            previous = True
            continue
        # Only a keyframe needs nothing that was left out.
        assert keyframe or not previous
        previous, decoded = False, decoded + 1
        now += 0.3
        worst = max(worst, late)
    assert worst < LATE + 2 * PATIENCE
    assert decoded > 600


def test_the_latest_frame_wins() -> None:
    latest: Latest[int, str] = Latest()
    for number in range(5):
        latest.put(number)
    latest.tell("news")
    latest.put(5)
    assert (latest.take(0), latest.take(0), latest.take(0)) == ("news", 5, None)
    assert (latest.dropped(), latest.dropped()) == (5, 0)


def test_news_are_told_in_their_order_and_never_dropped() -> None:
    latest: Latest[int, str] = Latest()
    latest.put(1)
    latest.tell("lost")
    latest.tell("back")
    assert [latest.take(0) for _ in range(4)] == [1, "lost", "back", None]


def put(latest: Latest[int, str], count: int) -> None:
    for number in range(count):
        latest.put(number)


def test_where_nothing_is_dropped_the_reader_waits() -> None:
    latest: Latest[int, str] = Latest(waits=True)
    reader = threading.Thread(target=put, args=(latest, 200), daemon=True)
    reader.start()
    assert [latest.take(10) for _ in range(200)] == [*range(200)]
    assert latest.dropped() == 0
    reader.join(10)
    # One that waits is let go when nobody takes any more.
    waiting = threading.Thread(target=put, args=(latest, 3), daemon=True)
    waiting.start()
    latest.close()
    waiting.join(10)
    assert not waiting.is_alive()


def test_an_image_is_told_when_it_comes_and_when_it_has_gone() -> None:
    presence = Presence(2.0)
    assert [one.id for one in presence.seen(0.0, 7.0, [hit("a"), hit("b", 0.91)])] == ["a", "b"]
    # Again, and with a gap shorter than what is held: nothing new.
    assert presence.seen(1.0, 7.0, [hit("a", 0.99)]) == []
    assert presence.gone(1.9) == []
    (gone,) = presence.gone(2.0)
    assert (gone.id, gone.since, gone.last, gone.frames, gone.score) == ("b", 0.0, 0.0, 1, 0.91)
    assert presence.seen(2.9, 7.0, [hit("a")]) == []
    (gone,) = presence.gone(4.9)
    assert (gone.id, gone.last, gone.frames, gone.score, gone.best) == ("a", 2.9, 3, 0.99, 1.0)
    assert [one.id for one in presence.seen(5.0, 7.0, [hit("a")])] == ["a"]
    assert [one.id for one in presence.all_gone()] == ["a"]
    assert len(presence) == 0


def test_percentiles_of_lags_are_right_to_one_per_cent() -> None:
    values = np.random.default_rng(0).lognormal(3.0, 1.5, 20_000)
    lags = Lags()
    for ms in values:
        lags.add(float(ms))
    for share in (50, 99):
        assert lags.percentile(share) == pytest.approx(np.percentile(values, share), rel=0.012)
    assert lags.to_dict()["max"] == values.max()
    # A counter for each per cent, however many frames there are.
    assert len(lags._steps) < 1500
    assert Lags().to_dict() == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_a_frame_that_is_answered_before_it_is_due_has_no_lag() -> None:
    tally = FrameTally()
    tally.answered("full", -0.001)
    tally.answered("1/2", 0.020)
    assert (tally.frames, dict(tally.widths), tally.lags.most) == (2, {"full": 1, "1/2": 1}, 20.0)


def test_a_password_is_not_shown() -> None:
    assert shown_source("rtsp://me:secret@camera:554/a?b") == "rtsp://me:***@camera:554/a?b"
    assert shown_source("http://host:80/a@b:c@d") == "http://host:80/a@b:c@d"
    assert shown_source("-") == "standard input"


def test_what_waits_until_it_is_read_is_a_recording() -> None:
    assert is_recording(__file__)
    assert is_recording(f"file:{__file__}")
    assert is_recording("missing.mp4")
    for stream in ("-", "rtsp://camera/", "http://host/a.mp4", "/dev/null", "udp://@:1234"):
        assert not is_recording(stream)
