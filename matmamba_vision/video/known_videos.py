"""What a gallery has of videos: which frames, and how far each was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from matmamba_retrieval import Gallery, Row

# Rows that are read at once.
CHUNK = 8192


@dataclass(frozen=True)
class FrameNote:
    """What a gallery notes with each frame; its fields are what conditions ask for.

    Attributes:
        video: id of the video, the prefix included.
        time: of the frame, in seconds, to the millisecond.
        scene: its number in the video, from 1.
        scene_start: when the scene begins, in seconds.
        scene_end: when the next one does.
        duration: of the video, in seconds.
    """

    video: str
    time: float
    scene: int
    scene_start: float
    scene_end: float
    duration: float

    @staticmethod
    def of(metadata: Mapping[str, Any]) -> FrameNote | None:
        """From what is known of an image; None if that is no frame of a video."""
        names = FrameNote.__dataclass_fields__
        if not all(name in metadata for name in names):
            return None
        video, scene, *times = (metadata[name] for name in ("video", "scene", *_TIMES))
        numbers = all(isinstance(one, (int, float)) for one in (scene, *times))
        if not (isinstance(video, str) and numbers):
            return None
        return FrameNote(**{name: metadata[name] for name in names})


_TIMES = ("time", "scene_start", "scene_end", "duration")


@dataclass
class KnownVideo:
    """A video of which a gallery has frames.

    Attributes:
        path: of its file, as the gallery remembers it.
        ids: of the frames.
        scenes: how many there are.
        end: of the last one, in seconds: where reading goes on.
    """

    path: str
    ids: list[str] = field(default_factory=list)
    scenes: int = 0
    end: float = 0.0


def frames_of(gallery: Gallery) -> Iterator[tuple[Row, FrameNote]]:
    """All frames of videos in a gallery, in the order in which they were added."""
    keys = gallery.live_keys()
    for start in range(0, len(keys), CHUNK):
        for row in gallery.rows(keys[start : start + CHUNK]):
            if (note := FrameNote.of(row.metadata)) is not None:
                yield row, note


def known_videos(gallery: Gallery | None) -> dict[str, KnownVideo]:
    """What a gallery has of each video, by its id; nothing of no gallery."""
    found = dict[str, KnownVideo]()
    for row, note in frames_of(gallery) if gallery is not None else ():
        video = found.setdefault(note.video, KnownVideo(row.path.rpartition("#")[0]))
        video.ids.append(row.id)
        if note.scene >= video.scenes:
            video.scenes, video.end = note.scene, note.scene_end
    return found
