"""Hits of a search by the scenes of videos in which they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matmamba_datasets.frame_names import minutes_of

from ..galleries.answers import Answer, Hit
from .known_videos import FrameNote


@dataclass(frozen=True)
class SceneHits:
    """The hits in one scene of a video; or one hit that is an image of its own.

    Attributes:
        hits: the best first.
        note: of the best one; None for an image.
    """

    hits: tuple[Hit, ...]
    note: FrameNote | None

    @property
    def best(self) -> Hit:
        """The one with the highest score."""
        return self.hits[0]

    @property
    def span(self) -> str:
        """From when to when the scene goes, as people say times; "" for an image."""
        if self.note is None:
            return ""
        return f"{minutes_of(self.note.scene_start)}-{minutes_of(self.note.scene_end)}"

    @property
    def moments(self) -> list[str]:
        """When each hit is shown, in the order of time."""
        notes = [note for hit in self.hits if (note := FrameNote.of(hit.metadata)) is not None]
        return [minutes_of(time) for time in sorted(note.time for note in notes)]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; times in seconds."""
        ids = [hit.id for hit in self.hits]
        if self.note is None:
            return {"score": self.best.score, "ids": ids}
        note = self.note
        return {
            "video": note.video,
            "scene": note.scene,
            "start": note.scene_start,
            "end": note.scene_end,
            "score": self.best.score,
            "ids": ids,
        }


def has_frames(answers: Sequence[Answer]) -> bool:
    """Whether a hit is a frame of a video."""
    return any(FrameNote.of(hit.metadata) is not None for answer in answers for hit in answer)


def by_scene(hits: Sequence[Hit]) -> list[SceneHits]:
    """Hits gathered by scene, the scene with the best hit first.

    Args:
        hits: of an answer, the best first.
    """
    groups = dict[tuple[str, float], list[Hit]]()
    for hit in hits:
        note = FrameNote.of(hit.metadata)
        groups.setdefault((hit.id, -1) if note is None else (note.video, note.scene), []).append(hit)
    return [SceneHits(tuple(group), FrameNote.of(group[0].metadata)) for group in groups.values()]
