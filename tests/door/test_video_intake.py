"""Videos in galleries: which frames are kept, what is known of them, and how they are found again."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import matmamba_vision as mv
import numpy as np
import pytest
from made_videos import (
    at_rate,
    cuts,
    empty,
    fade,
    noisy,
    pan,
    scenery,
    sound_alone,
    still,
    truncated,
    write_video,
)
from matmamba_datasets import Limits
from matmamba_datasets.stored import StoredImages
from matmamba_retrieval import Gallery, GalleryError
from matmamba_retrieval.gallery.destination import Destination
from matmamba_vision.checkpoint import Checkpoint, load_checkpoint
from matmamba_vision.cli.main import main as matmamba
from matmamba_vision.galleries.embedder import Embedder
from matmamba_vision.serving.http.thumbnails import Thumbnails
from matmamba_vision.video.known_videos import FrameNote
from matmamba_vision.video.repeated_scenes import repeated_scenes
from matmamba_vision.video.scene_hits import by_scene
from PIL import Image

MODEL = "matmamba_nano_patch4_32"


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    """Weights that are shipped."""
    return load_checkpoint(Path(MODEL))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos that share a scene, and three files that are none or broken."""
    root = tmp_path_factory.mktemp("videos")
    (root / "more").mkdir()
    write_video(root / "first.mp4", at_rate(cuts([1, 2, 3], [5, 6, 4])))
    write_video(root / "more" / "second's.mkv", at_rate(noisy(cuts([4, 2], [5, 6]), 4)))
    sound_alone(root / "sound.mp4")
    empty(root / "empty.mp4")
    (root / "notes.txt").write_text("no video")
    return root


@pytest.fixture(scope="module")
def whole(videos: Path, model: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of both."""
    folder = tmp_path_factory.mktemp("galleries") / "whole"
    found = mv.index_video(videos, folder, model=model, max_broken=0.5, threads=1)
    assert (found.videos, found.scenes, found.looked_at) == (2, 5, 26)
    assert found.total == found.added < 26
    assert found.video_seconds == pytest.approx(26, abs=1.1)
    assert found.broken == {str(videos / "empty.mp4"): "an empty file"}
    assert found.left_out == {
        str(videos / "notes.txt"): "not a video (.txt)",
        str(videos / "sound.mp4"): "sound alone, no pictures",
    }
    return folder


def notes(folder: Path) -> list[FrameNote]:
    """Of all frames, in the order in which they were added."""
    with Gallery(folder) as gallery:
        found = [FrameNote.of(row.metadata) for row in gallery.rows(gallery.live_keys())]
    assert None not in found
    return [note for note in found if note is not None]


def content(folder: Path) -> list[object]:
    """All rows, and the bytes of their vectors."""
    with Gallery(folder) as gallery:
        keys = gallery.live_keys()
        return [gallery.rows(keys), gallery.segments.read(keys).tobytes()]


def test_scenes_are_cut_where_the_video_was(whole: Path) -> None:
    found = {(note.video, note.scene, note.scene_start, round(note.scene_end)) for note in notes(whole)}
    assert found == {
        ("first.mp4", 1, 0.0, 5),
        ("first.mp4", 2, 5.0, 11),
        ("first.mp4", 3, 11.0, 15),
        ("more/second's.mkv", 1, 0.0, 5),
        ("more/second's.mkv", 2, 5.0, 11),
    }


def test_a_frame_has_an_id_a_path_and_its_video(whole: Path, videos: Path) -> None:
    with Gallery(whole) as gallery:
        rows = gallery.rows(gallery.live_keys())
    first = rows[0]
    assert first.id == "first.mp4#t=00:00:00.000"
    assert first.path == f"{videos / 'first.mp4'}#t=00:00:00.000"
    assert first.metadata["duration"] == pytest.approx(15, abs=0.2)
    assert [row.id for row in rows] == sorted(row.id for row in rows)


def test_conditions_ask_for_video_time_and_scene(whole: Path) -> None:
    with mv.open_gallery(whole) as gallery:
        where = "video = 'first.mp4' AND time >= 5 AND scene < 3 AND duration > 14"
        rows = gallery.rows(where=where)
        assert rows
        assert {row.metadata["scene"] for row in rows} == {2}


def test_a_frame_of_a_video_is_a_query(whole: Path, videos: Path) -> None:
    """It finds itself, and the same scene in the other video, whose hits are one group."""
    with mv.open_gallery(whole) as gallery:
        (answer,) = gallery.search([f"{videos / 'first.mp4'}#t=0:05"], 26)
    scenes = by_scene(answer.hits)
    assert len(scenes) == 5
    best, second = scenes[:2]
    assert best.note is not None
    assert second.note is not None
    assert {(one.note.video, one.note.scene) for one in (best, second) if one.note} == {
        ("first.mp4", 2),
        ("more/second's.mkv", 2),
    }
    assert answer.hits[0].score > 0.98
    assert sum(len(scene.hits) for scene in scenes) == len(answer.hits)


def test_a_whole_video_is_no_query(whole: Path, videos: Path) -> None:
    """It is said how one of its frames is asked."""
    file = videos / "first.mp4"
    said = f"{file}: a video, and a query is one frame of it, as {file}#t=0:05"
    with mv.open_gallery(whole) as gallery, pytest.raises(mv.MatMambaError, match=f"^{re.escape(said)}$"):
        gallery.search(file, 3)


def test_scenes_that_come_again_are_found(whole: Path) -> None:
    with Gallery(whole) as gallery:
        (group,) = repeated_scenes(gallery, threshold=0.9)
    assert [(span.video, span.scene) for span in group.spans] == [("first.mp4", 2), ("more/second's.mkv", 2)]
    assert group.shares[1] >= 0.5


def test_a_still_scene_is_one_frame_and_a_pan_several(tmp_path: Path, model: Checkpoint) -> None:
    pictures = [*still(scenery(1), 80), *pan(scenery(2), 80, share=1.0)]
    file = write_video(tmp_path / "clip.mp4", at_rate(noisy(pictures, 3)))
    mv.index_video(file, tmp_path / "g", model=model, threads=1)
    found = notes(tmp_path / "g")
    assert [note.time for note in found if note.scene == 1] == [0.0]
    assert len([note for note in found if note.scene_start >= 8]) > 2
    # Nothing is left out at the highest threshold.
    mv.index_video(file, tmp_path / "all", model=model, threshold=1.0, fps=2, threads=1)
    assert len(notes(tmp_path / "all")) > 24


def test_what_lies_between_two_scenes_is_none(tmp_path: Path, model: Checkpoint) -> None:
    """A dissolve, a fade through black, and a flash within a scene: all at frames that are looked at."""
    one, two, three = (scenery(seed) for seed in (1, 2, 3))
    black, white = np.zeros_like(one), np.full_like(one, 255)
    pictures = [*still(one, 36), *fade(one, two, 9), *still(two, 40)]
    pictures += [*fade(two, black, 9), *fade(black, three, 9), *still(three, 20), *fade(three, white, 9)]
    timed = [(place / 10, pixels) for place, pixels in enumerate([*pictures, *still(three, 20)])]
    mv.index_video(write_video(tmp_path / "clip.mp4", timed), tmp_path / "g", model=model, threads=1)
    assert {note.scene_start for note in notes(tmp_path / "g")} == {0.0, 5.0, 10.0}


def test_kept_frames_are_encoded_in_full_batches(
    videos: Path, whole: Path, model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of several batches, scenes and seconds together; what is found does not depend on it."""
    embed, full = Embedder.embed, list[int]()

    def counted(self: Embedder, images: np.ndarray, width: str) -> object:
        full.extend([len(images)] if width == "full" else [])
        return embed(self, images, width)

    monkeypatch.setattr(Embedder, "embed", counted)
    found = mv.index_video(videos, tmp_path / "g", model=model, max_broken=0.5, batch_size=4, threads=1)
    assert sum(full) == found.added
    # The last ones of each video are fewer.
    assert sum(size < 4 for size in full) <= found.videos
    assert content(tmp_path / "g") == content(whole)


def test_keyframes_alone(tmp_path: Path, model: Checkpoint) -> None:
    frames = at_rate(cuts([1, 2], [4, 4]))
    file = write_video(tmp_path / "clip.mp4", frames, keyframes=10, options={"x264-params": "scenecut=0"})
    found = mv.index_video(file, tmp_path / "g", model=model, keyframes=True, threads=1)
    assert (found.looked_at, found.scenes) == (8, 2)


def test_what_is_there_is_left_alone_and_what_is_new_is_added(
    tmp_path: Path, model: Checkpoint, videos: Path
) -> None:
    folder, gallery = tmp_path / "videos", tmp_path / "g"
    folder.mkdir()
    write_video(folder / "a.mp4", at_rate(cuts([1, 2], [3, 3])))
    first = mv.index_video(folder, gallery, model=model, threads=1)
    write_video(folder / "b.mp4", at_rate(cuts([3], [3])))
    before = content(gallery)
    second = mv.index_video(folder, gallery, model=model, threads=1)
    assert (second.known, second.videos, second.scenes) == (1, 2, 1)
    assert content(gallery)[0][: first.total] == before[0]  # type: ignore[index]
    # One that changed is told, and read again only when that is wanted.
    write_video(folder / "b.mp4", at_rate(cuts([4, 5], [3, 3])))
    third = mv.index_video(folder, gallery, model=model, threads=1)
    assert third.changed == ("b.mp4",)
    mv.index_video(folder, gallery, model=model, changed=True, threads=1)
    assert {note.scene for note in notes(gallery) if note.video == "b.mp4"} == {1, 2}
    # One that is gone, the same.
    (folder / "b.mp4").unlink()
    assert mv.index_video(folder, gallery, model=model, threads=1).gone == ("b.mp4",)
    mv.index_video(folder, gallery, model=model, prune=True, threads=1)
    assert {note.video for note in notes(gallery)} == {"a.mp4"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.mp4").write_bytes((folder / "a.mp4").read_bytes())
    with pytest.raises(GalleryError, match=r"has a video 'a\.mp4' already"):
        mv.index_video(other, gallery, model=model, threads=1)


def test_upsert_replaces_the_frames_of_a_video(tmp_path: Path, model: Checkpoint) -> None:
    file = write_video(tmp_path / "a.mp4", at_rate(cuts([1, 2], [3, 3])))
    mv.index_video(file, tmp_path / "g", model=model, threads=1, threshold=1.0)
    mv.index_video(file, tmp_path / "g", model=model, threads=1, threshold=0.5, upsert=True)
    assert len(notes(tmp_path / "g")) == 2


def test_metadata_of_a_video_is_that_of_its_frames(tmp_path: Path, model: Checkpoint) -> None:
    file = write_video(tmp_path / "a.mp4", at_rate(cuts([1, 2], [2, 2])))
    (tmp_path / "about.csv").write_text("id,label,speaker\na.mp4,talk,Ada\n")
    mv.index_video(file, tmp_path / "g", model=model, metadata=tmp_path / "about.csv", threads=1)
    with Gallery(tmp_path / "g") as gallery:
        rows = gallery.rows(gallery.live_keys())
    assert {(row.label, row.metadata["speaker"]) for row in rows} == {("talk", "Ada")}


def test_a_file_that_breaks_off_is_told_and_kept_as_far_as_it_goes(tmp_path: Path, model: Checkpoint) -> None:
    whole = write_video(tmp_path / "whole.mkv", at_rate(noisy(cuts([1, 2, 3], [4, 4, 4]), 10)))
    half = truncated(tmp_path / "half.mkv", whole)
    said = list[mv.Event]()
    found = mv.index_video(half, tmp_path / "g", model=model, threads=1, progress=said.append)
    assert list(found.incomplete) == [str(half)]
    assert found.incomplete[str(half)].startswith("ends at 0:0")
    assert found.total
    texts = [event.text for event in said if isinstance(event, mv.Notice)]
    assert texts == [f"1 video not read whole:\n  {half}: {found.incomplete[str(half)]}"]


def in_a_fork(act: Callable[[], object]) -> int:
    """The status of a process that does something and ends; that of a signal is negative."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 9
    try:
        act()
        status = 0
    finally:
        os._exit(status)


@pytest.mark.parametrize("commits", [1, 2, 4])
def test_a_kill_in_the_middle_of_a_file_changes_nothing(
    commits: int, videos: Path, whole: Path, model: Checkpoint, tmp_path: Path
) -> None:
    """Killed behind a commit, the same call goes on from there; the gallery is that of an unbroken call."""
    folder = tmp_path / "g"
    arguments = {"model": model, "max_broken": 0.5, "threads": 1}

    def die(patch: pytest.MonkeyPatch) -> None:
        commit, left = Destination.commit_new, [commits]

        def counted(self: Destination, *values: object) -> int:
            taken = commit(self, *values)  # type: ignore[arg-type]
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return taken

        patch.setattr(Destination, "commit_new", counted)
        # Each scene alone.
        patch.setattr("matmamba_retrieval.overlap.Intake.__init__.__defaults__", (1, 0.0))
        mv.index_video(videos, folder, **arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        assert in_a_fork(lambda: die(patch)) == -signal.SIGKILL
    with Gallery(folder) as gallery:
        assert 0 < len(gallery) < len(notes(whole))
    assert in_a_fork(lambda: mv.index_video(videos, folder, **arguments)) == 0  # type: ignore[arg-type]
    assert content(folder) == content(whole)


def test_the_commands(videos: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "g")
    common = ["--checkpoint", MODEL, "--max-broken", "0.5", "--threads", "1"]
    assert matmamba(["index", "--video", str(videos), "--gallery", folder, *common]) == 0
    said = capsys.readouterr().out
    assert "2 videos: 26 frames looked at, 5 scenes" in said
    assert content(Path(folder)) == content(whole)
    page = tmp_path / "page.html"
    query = f"{videos / 'first.mp4'}#t=6.5"
    assert matmamba(["search", "--gallery", folder, query, "--html", str(page), "--k", "3"]) == 0
    assert "0:05-0:11" in capsys.readouterr().out
    written = page.read_text()
    assert "scene 2 of first.mp4" in written
    assert f'{(videos / "first.mp4").as_uri()}#t=00:00:05.000"' in written
    assert matmamba(["duplicates", "--gallery", folder, "--scenes", "--threshold", "0.9", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert [one["video"] for one in group["scenes"]] == ["first.mp4", "more/second's.mkv"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--video", "@/none", "--gallery", "@/g"], "not there"),
        (["--video", "@", "--gallery", "@/g"], "no videos in"),
        (["--video", "@/a.txt", "--gallery", "@/g"], "no readable videos"),
        (["--video", "@", "--images", "@", "--gallery", "@/g"], "--images, --video or --vectors"),
        (["--images", "@", "--gallery", "@/g", "--fps", "2"], "--fps means nothing for images"),
        (["--video", "@", "--gallery", "@/g", "--fps", "0"], "fps is 0"),
        (["--video", "@", "--gallery", "@/g", "--threshold", "2"], "threshold is 2"),
        (["--video", "@", "--gallery", "@/g", "--workers", "2"], "--workers means nothing for videos"),
        (["--video", "@/a.txt", "--gallery", "@/g", "--small-width", "1/77"], "1/77"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("no video")
    words = [word.replace("@", str(tmp_path)) for word in flags]
    assert matmamba(["index", *words, "--checkpoint", MODEL, "--max-broken", "1"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "g").exists()


def test_without_the_package_the_extra_is_named(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(mv.MissingPackageError, match=r"matmamba-vision\[video\]"):
        mv.index_video(videos, tmp_path / "g")


def test_the_service_shows_pictures_of_frames(whole: Path, tmp_path: Path) -> None:
    """As small as they are wanted, under a tag of the video; never of a video that is gone."""
    thumbnails = Thumbnails(Limits())
    with Gallery(whole) as gallery:
        (row,) = gallery.rows(gallery.live_keys()[:1])
    found = thumbnails.get(row.path, 48)
    assert found is not None
    assert Image.open(io.BytesIO(found.content)).size == (48, 32)
    other = thumbnails.get(row.path.replace("00.000", "02.000"), 48)
    assert other is not None
    assert other.tag != found.tag
    assert thumbnails.get(f"{tmp_path}/none.mp4#t=00:00:00.000", 48) is None


def test_pictures_of_frames_are_those_of_their_times(whole: Path, videos: Path) -> None:
    """Another model encodes a gallery anew from the frames themselves."""
    with Gallery(whole) as gallery:
        rows = gallery.rows(gallery.live_keys())
    images = StoredImages([row.id for row in rows], [row.path for row in rows])
    for place, row in enumerate(rows):
        note = FrameNote.of(row.metadata)
        assert note is not None
        seed = {("first.mp4", 1): 1, ("first.mp4", 3): 3}.get((note.video, note.scene))
        if seed is not None:
            found = np.asarray(images[place].image).astype(int)[20:]
            assert isinstance(images[place].image, Image.Image)
            assert np.abs(found - scenery(seed)[20:]).mean() < 40
