"""Videos are read frame by frame: the right ones, upright, at their times, with little decoded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from made_videos import (
    at_rate,
    cuts,
    empty,
    noisy,
    number_of,
    numbered,
    scenery,
    sound_alone,
    still,
    truncated,
    write_video,
)
from matmamba_common.errors import ConfigError
from matmamba_datasets import BrokenVideoError, Sampling, VideoFile
from matmamba_datasets.video_frame import Frame
from PIL import Image

TWO_SCENES = cuts([1, 2], [3, 3])


def taken(
    file: Path, sampling: Sampling | None, start: float = 0.0, threads: int = 1
) -> list[tuple[float, int]]:
    """Time and number of each frame that is taken."""
    with VideoFile(file, threads=threads) as video:
        return [(round(frame.time, 3), number_of(frame.image())) for frame in video.frames(sampling, start)]


def shown_at(times: Sequence[float], wanted: Sequence[float]) -> list[int]:
    """Numbers of the frames that are shown at the wanted times, by definition."""
    found = [max((place for place, time in enumerate(times) if time <= one), default=0) for one in wanted]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("mp4", "libx264", {"bf": "3"}),
        ("mkv", "libx264", {"bf": "2", "x264-params": "open-gop=1"}),
        ("mp4", "libx265", {"x265-params": "log-level=none:bframes=3"}),
        ("ts", "libx264", {"bf": "2"}),
        ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
        ("avi", "mpeg4", {}),
        ("mov", "mjpeg", {}),
    ],
)
@pytest.mark.parametrize("keyframes", [5, 250])
def test_the_frames_that_are_shown_at_each_step(
    suffix: str, codec: str, options: dict[str, str], keyframes: int, tmp_path: Path
) -> None:
    """Whatever is left out of decoding: the same frames as if all were decoded."""
    frames = list(at_rate(TWO_SCENES))
    file = write_video(tmp_path / f"clip.{suffix}", frames, codec=codec, options=options, keyframes=keyframes)
    every = taken(file, None)
    assert [number for _, number in every] == list(range(len(frames)))
    for fps in (1.0, 0.3, 4.0):
        wanted = [step / fps for step in range(int(6 * fps) + 1) if step / fps < 6]
        numbers = shown_at([time for time, _ in every], wanted)
        assert taken(file, Sampling(fps)) == [every[number] for number in numbers], fps
        assert taken(file, Sampling(fps), threads=3) == [every[number] for number in numbers], fps


def test_a_rate_that_varies_is_followed_by_times(tmp_path: Path) -> None:
    """A screen that stands still for seconds, and then moves fast."""
    times = [0.0, 0.1, 4.3, 4.35, 4.4, 4.45, 9.0, 9.5]
    frames = [(time, numbered(scenery(5), number)) for number, time in enumerate(times)]
    for suffix in ("mp4", "mkv"):
        file = write_video(tmp_path / f"varied.{suffix}", frames)
        assert [time for time, _ in taken(file, None)] == times
        assert taken(file, Sampling(1.0)) == [(0.0, 0), (0.1, 1), (4.45, 5), (9.0, 6)]


@pytest.mark.parametrize("start", [0.0, 1.0, 2.95, 4.0, 5.9, 7.0])
def test_a_pass_from_a_time_on_is_the_rest_of_a_whole_one(start: float, tmp_path: Path) -> None:
    for suffix, codec in (("mp4", "libx264"), ("ts", "libx264")):
        file = write_video(tmp_path / f"clip.{suffix}", at_rate(TWO_SCENES), codec=codec)
        for sampling in (Sampling(2.0), Sampling(keyframes=True)):
            whole = taken(file, sampling)
            rest = [one for one in whole if one[0] >= start - 1e-3]
            assert taken(file, sampling, start) == rest, (suffix, sampling)
            assert taken(file, sampling, start, threads=3) == rest, (suffix, sampling)


def test_keyframes_are_frames_that_are_stored_whole(tmp_path: Path) -> None:
    options = {"x264-params": "scenecut=0"}
    file = write_video(tmp_path / "clip.mp4", at_rate(TWO_SCENES), keyframes=15, options=options)
    assert taken(file, Sampling(keyframes=True)) == [(0.0, 0), (1.5, 15), (3.0, 30), (4.5, 45)]
    # Where every frame is, those of the rate.
    whole = write_video(tmp_path / "clip.mov", at_rate(TWO_SCENES), codec="mjpeg")
    assert taken(whole, Sampling(keyframes=True)) == taken(whole, Sampling(1.0))


def test_each_frame_is_found_by_its_time_told_in_milliseconds(tmp_path: Path) -> None:
    times = [place * 1001 / 30000 for place in range(60)]
    frames = [(time, numbered(TWO_SCENES[number], number)) for number, time in enumerate(times)]
    file = write_video(tmp_path / "clip.mkv", frames)
    with VideoFile(file, threads=1) as video:
        for frame in list(video.frames()):
            found = video.frame_at(round(frame.time, 3))
            assert number_of(found.image()) == number_of(frame.image())
        assert number_of(video.frame_at(99).image()) == 59
        assert number_of(video.frame_at(0).image()) == 0


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("mirrored", [False, True])
def test_pictures_are_upright(rotation: int, mirrored: bool, tmp_path: Path) -> None:
    pixels = scenery(3)
    file = write_video(
        tmp_path / "turned.mp4", [(0.0, pixels), (0.1, pixels)], rotation=rotation, mirrored=mirrored
    )
    upright = np.rot90(pixels, rotation // 90)
    upright = upright[:, ::-1] if mirrored else upright
    with VideoFile(file, threads=1) as video:
        frame = next(video.frames())
    found = np.asarray(frame.image())
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 6
    assert sorted(frame.image(at_least=30).size) == [32, 48]
    assert sorted(frame.image(at_least=33).size) == [64, 96]


def test_pixels_that_are_no_squares_become_squares(tmp_path: Path) -> None:
    options = {"aspect": "16:9"}
    file = write_video(tmp_path / "wide.mp4", at_rate(still(scenery(4, (72, 64)), 3)), options=options)
    with VideoFile(file, threads=1) as video:
        assert next(video.frames()).image().size == (128, 64)


def test_memory_does_not_grow_with_what_is_read(tmp_path: Path) -> None:
    """Frames are not kept: of a hundred, no more than the decoder needs."""
    file = write_video(tmp_path / "clip.mp4", at_rate(itertools.islice(still(scenery(1), 100), 100)))
    alive = set[int]()
    most = 0

    class Counted(Frame):
        def __init__(self, *values: object) -> None:
            super().__init__(*values)  # type: ignore[arg-type]
            alive.add(id(self))

        def __del__(self) -> None:
            alive.discard(id(self))

    with pytest.MonkeyPatch.context() as patch, VideoFile(file, threads=1) as video:
        patch.setattr("matmamba_datasets.video_file.Frame", Counted)
        for _ in video.frames():
            most = max(most, len(alive))
    assert most < 40


def test_what_is_no_video_is_told_in_a_line(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", at_rate(noisy(TWO_SCENES, 20)))
    text = tmp_path / "notes.txt"
    text.write_text("a text, which libavformat shows as a terminal would")
    photo = tmp_path / "photo.png"
    Image.fromarray(scenery(1)).save(photo)
    for file, reason in (
        (tmp_path / "none.mp4", "no such file or directory"),
        (tmp_path, "a folder, not a file"),
        (empty(tmp_path / "empty.mp4"), "an empty file"),
        (sound_alone(tmp_path / "sound.mp4"), "sound alone, no pictures"),
        (truncated(tmp_path / "half.mp4", whole), "not a video, or broken at its beginning"),
        (text, "not a video"),
        (photo, "not a video"),
    ):
        with pytest.raises(BrokenVideoError) as caught:
            VideoFile(file)
        assert str(caught.value) == f"{file}: {reason}"


def test_a_file_that_breaks_off_gives_what_it_has(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", at_rate(noisy(TWO_SCENES, 20)))
    half = truncated(tmp_path / "half.mkv", whole)
    found = taken(half, Sampling(2.0))
    assert 3 < len(found) < 9
    assert found == taken(whole, Sampling(2.0))[: len(found)]


def test_damage_within_is_counted_and_passed(tmp_path: Path) -> None:
    file = write_video(tmp_path / "clip.ts", at_rate(noisy(TWO_SCENES, 20)))
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    file.write_bytes(content)
    with VideoFile(file, threads=1) as video:
        times = [frame.time for frame in video.frames(Sampling(2.0))]
        assert video.damaged
    assert times[0] == 0
    assert times[-1] > 5


@pytest.mark.parametrize("fps", [0, -1, 2000])
def test_a_rate_that_cannot_be_is_refused(fps: float) -> None:
    with pytest.raises(ConfigError, match="fps"):
        Sampling(fps)


def test_a_picture_starts_no_threads(tmp_path: Path) -> None:
    """A process forked while they are there would wait for them without end."""
    file = write_video(tmp_path / "large.mp4", at_rate(still(scenery(1, (1280, 720)), 2)))
    with VideoFile(file, threads=1) as video:
        frame = next(iter(video.frames(None)))
        before = set(Path("/proc/self/task").iterdir())
        frame.image(200)
        frame.image()
        assert set(Path("/proc/self/task").iterdir()) <= before
