"""Cuts that are found in videos, against the truth and against PySceneDetect on the same files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markdown_tables import markdown
from matmamba_retrieval import Gallery
from matmamba_vision import index_video
from matmamba_vision.galleries.embedder import Embedder
from matmamba_vision.video.known_videos import FrameNote, frames_of
from video_changes import KINDS, Change
from video_clips import Drawn, with_noise, write_clip

# Seconds by which a cut may be missed: a frame a second is looked at.
NEAR = 1.0
# Scenes of each kind, and between how many seconds each lasts.
SCENES = {"hard cuts": (40, 3, 9), "slides": (24, 6, 15)}
USUAL = (24, 5, 11)
DETECTORS = ("ContentDetector", "AdaptiveDetector", "ThresholdDetector")


def cuts(place: Path, photos: Path, model: Embedder, quick: bool, threads: int) -> list[dict[str, Any]]:
    """What is found of each kind of change."""
    return [kind_of_cut(place, photos, model, kind, quick, threads) for kind in KINDS]


def kind_of_cut(
    place: Path, photos: Path, model: Embedder, kind: str, quick: bool, threads: int
) -> dict[str, Any]:
    """Cuts found by us and by PySceneDetect, against the truth and against each other."""
    drawn = Drawn(photos, (640, 360), seed=3)
    count, shortest, longest = SCENES.get(kind, USUAL)
    lengths = drawn.chance.uniform(shortest, longest, 4 if quick else count).round(2)
    pictures, truth = KINDS[kind](drawn, lengths.tolist())
    name = kind.replace(" ", "-")
    file = write_clip(place / f"{name}.mp4", with_noise(pictures, drawn.noise(4)), threads)
    index_video(file, place / name, model=model, threads=threads)
    ours = starts_of(place / name)
    found: dict[str, Any] = {"kind": kind, "changes": len(truth)}
    found |= {"ours": agreement(ours, truth), "detectors": {}}
    for detector in DETECTORS:
        start = time.perf_counter()
        theirs = detected(file, detector)
        found["detectors"][detector] = {
            "seconds": round(time.perf_counter() - start, 2),
            "truth": agreement(theirs, truth),
            "ours": agreement(ours, [(cut, cut) for cut in theirs]),
        }
    return found


def detected(file: Path, name: str) -> list[float]:
    """When scenes begin behind the first one, says a detector of PySceneDetect as it is by default."""
    import scenedetect

    scenes = scenedetect.detect(str(file), getattr(scenedetect, name)())
    return [start.seconds for start, _ in scenes][1:]


def starts_of(gallery: Path) -> list[float]:
    """The same of a gallery."""
    return sorted({note.scene_start for note in notes_of(gallery)})[1:]


def notes_of(gallery: Path) -> list[FrameNote]:
    """What a gallery knows of its frames."""
    with Gallery(gallery) as opened:
        return [note for _, note in frames_of(opened)]


def agreement(found: Sequence[float], wanted: Sequence[Change]) -> dict[str, float]:
    """Precision, recall and F1 of cuts; each is paired once, with a change that is near."""
    left, hits = list(wanted), 0
    for cut in found:
        near = [change for change in left if _distance(cut, change) <= NEAR]
        if near:
            left.remove(min(near, key=lambda change: _distance(cut, change)))
            hits += 1
    precision = hits / len(found) if found else 1.0
    recall = hits / len(wanted) if wanted else 1.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": round(precision, 3), "recall": round(recall, 3), "f1": round(f1, 3)}


def _distance(cut: float, change: Change) -> float:
    """Seconds from a cut to a change, 0 within it."""
    begin, end = change
    return max(begin - cut, cut - end, 0.0)


def cuts_table(found: Sequence[dict[str, Any]]) -> str:
    """Of each kind, how well changes are found, and how often detectors agree with ours."""
    rows = [
        (
            kind["kind"],
            kind["changes"],
            _shares(kind["ours"]),
            *(_shares(kind["detectors"][name]["truth"]) for name in DETECTORS),
            ", ".join(_percent(kind["detectors"][name]["ours"]["f1"]) for name in DETECTORS),
        )
        for kind in found
    ]
    return markdown(("clip", "changes", "`index_video`, 1 fps", *DETECTORS, "agree with ours"), rows)


def _shares(found: dict[str, float]) -> str:
    return ", ".join(map(_percent, found.values()))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"
