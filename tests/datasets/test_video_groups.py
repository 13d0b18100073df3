"""Groups of packets are decoded side by side: the same frames in the same order, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from made_videos import at_rate, cuts, noisy, number_of, write_video
from matmamba_datasets import BrokenVideoError, Sampling, VideoFile
from matmamba_datasets.video_groups import side_by_side, wanted_at_most
from matmamba_datasets.video_sampling import WAITING, DecodingStep, TimedPacket

SIX = cuts([1, 2, 3, 4, 5, 6], [2] * 6)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds with a keyframe each second."""
    folder = tmp_path_factory.mktemp("videos")
    options = {"x264-params": "scenecut=0", "bf": "2"}
    return write_video(folder / "clip.mp4", at_rate(SIX), keyframes=10, options=options)


def pixels(file: Path, threads: int, times: int = 1) -> list[tuple[float, bytes]]:
    with VideoFile(file, threads=threads) as video:
        for _ in range(times):
            found = [(frame.time, frame.image().tobytes()) for frame in video.frames(Sampling(0.7))]
    return found


@pytest.mark.parametrize("threads", [0, 2, 5])
def test_pixels_are_the_same_however_many_decode(file: Path, threads: int) -> None:
    assert pixels(file, threads, times=2) == pixels(file, 1)


def test_several_decode_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wait for each other, which one alone would do without end."""
    both, decode = threading.Barrier(2), VideoFile._group

    def together(self: VideoFile, steps: Sequence[DecodingStep]) -> object:
        both.wait(timeout=20)
        return decode(self, steps)

    monkeypatch.setattr(VideoFile, "_group", together)
    # Of twelve groups each has a frame.
    with VideoFile(file, threads=2) as video:
        assert len(list(video.frames(Sampling(1.0)))) == 12


def test_whoever_leaves_early_leaves_nothing_behind(file: Path) -> None:
    before = threading.active_count()
    with VideoFile(file, threads=3) as video:
        frames = video.frames(Sampling(1.0))
        assert isinstance(frames, Generator)
        assert number_of(next(frames).image()) == 0
        frames.close()
        assert threading.active_count() == before
        assert number_of(next(iter(video.frames(Sampling(1.0), 5.0))).image()) == 50


def test_damage_is_counted_whoever_finds_it(tmp_path: Path) -> None:
    file = write_video(tmp_path / "clip.mp4", at_rate(noisy(SIX, 20)), keyframes=10)
    content = bytearray(file.read_bytes())
    for place in range(5):
        begin = (place + 1) * len(content) // 6
        content[begin : begin + 3000] = np.random.default_rng(place).bytes(3000)
    file.write_bytes(content)

    def found(threads: int) -> tuple[list[float], int]:
        with VideoFile(file, threads=threads) as video:
            return [frame.time for frame in video.frames(Sampling(2.0))], video.damaged

    assert found(1)[1] > 1
    assert found(3) == found(1)


def step(number: int, jump: bool = False, wanted: bool = True, size: int = 1) -> DecodingStep:
    return DecodingStep(TimedPacket(number, number, 1.0, jump, size), wanted, jump)


def numbers(steps: Iterable[DecodingStep], at_once: int = 2, wanted: int = 2) -> tuple[list[int], list[str]]:
    """What comes out, where a frame is its packet's number, and who decoded each group."""
    who = list[str]()

    def decode(steps: Iterable[DecodingStep]) -> Iterator[int]:
        who.append("long")
        yield from (step.packet.packet for step in steps if step.wanted)

    def group(steps: Sequence[DecodingStep]) -> list[int]:
        who.append("short")
        return [step.packet.packet for step in steps if step.wanted]

    return list(side_by_side(steps, decode, group, at_once, wanted)), who


def test_what_is_long_is_decoded_frame_by_frame() -> None:
    jumps = {0, 3, 8, 9}
    found, who = numbers(step(number, number in jumps) for number in range(11))
    assert found == list(range(11))
    assert sorted(who) == ["long", "long", "short", "short"]
    many = (step(number, not number, wanted=number == 3 * WAITING) for number in range(3 * WAITING + 1))
    assert numbers(many) == ([3 * WAITING], ["long"])
    assert numbers([step(0), step(1, size=2**30)]) == ([0, 1], ["long"])
    assert numbers([]) == ([], [])


def test_memory_holds_as_many_groups_as_decode() -> None:
    read = list[int]()

    def steps() -> Iterator[DecodingStep]:
        for number in range(100):
            read.append(number)
            yield step(number, jump=True)

    for taken, found in enumerate(side_by_side(steps(), list, list, 3, 2)):
        assert found.packet.packet == taken
        # One more was looked at, to see that a group ends.
        assert len(read) <= taken + 3 + 2
    assert 1 <= wanted_at_most(3840, 2160) < wanted_at_most(1920, 1080) < 20


def test_what_was_there_before_a_fault_comes_before_it() -> None:
    def steps() -> Iterator[DecodingStep]:
        yield from (step(number, jump=True) for number in range(4))
        raise BrokenVideoError("a.mp4", "gone")

    frames = side_by_side(steps(), list, list, 2, 2)
    assert [found.packet.packet for found in islice(frames, 4)] == [0, 1, 2, 3]
    with pytest.raises(BrokenVideoError, match="gone"):
        next(frames)
