"""Scenes that come again: in another video, or later in the same one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from matmamba_common.settings import Bounds, require
from matmamba_datasets.frame_names import minutes_of
from matmamba_retrieval import Gallery
from matmamba_retrieval.curation.duplicates import similar_pairs
from numpy.typing import NDArray

from ..galleries.page import Card, Page, Section
from ..galleries.pictures import Pictures
from ..given import PathLike, require_place
from ..progress import Listener, Reporter
from ..public_call import public_call
from .known_videos import CHUNK, FrameNote

Share = Annotated[float, Bounds(above=0, most=1)]
# Video and number of a scene.
Place = tuple[str, int]


@dataclass(frozen=True)
class SceneSpan:
    """A scene of a video.

    Attributes:
        video: its id.
        scene: number in it.
        start: in seconds.
        end: in seconds.
        path: of its first frame.
    """

    video: str
    scene: int
    start: float
    end: float
    path: str

    def __str__(self) -> str:
        return f"{self.video}  {minutes_of(self.start)}-{minutes_of(self.end)}"


@dataclass(frozen=True)
class RepeatedScene:
    """A scene, and those that show the same.

    Attributes:
        spans: the scene that was added first, then the others, the most alike first.
        shares: of the frames of each, or of the first one if that has fewer: how many have their like in the
            other; 1 for the first.
    """

    spans: list[SceneSpan]
    shares: list[float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; times in seconds."""
        return {
            "scenes": [
                {"video": one.video, "scene": one.scene, "start": one.start, "end": one.end, "share": share}
                for one, share in zip(self.spans, self.shares, strict=True)
            ]
        }


@public_call
def repeated_scenes(
    gallery: Gallery,
    *,
    threshold: float = 0.95,
    share: float = 0.5,
    where: str = "",
    progress: Listener | None = None,
) -> list[RepeatedScene]:
    """Find scenes of videos that come again.

    Two scenes show the same if at least a share of the frames of the one with fewer have a frame in the other
    that is similar. Groups stand around the scene that was added first, as those of `duplicates`.

    Args:
        gallery: an open one.
        threshold: least cosine similarity of two frames that show the same, in (0, 1].
        share: of frames, in (0, 1].
        where: condition on the frames to compare, in SQL.
        progress: is told how far it is.

    Returns:
        The largest groups first.

    Raises:
        ConfigError: a number that cannot be.
        GalleryError: a condition that cannot be.
    """
    require("threshold", threshold, Share)
    require("share", share, Share)
    require("where", where, str)
    allowed = gallery.allowed(where or None)
    scenes = _Scenes.of(gallery, gallery.live_keys() if allowed is None else np.flatnonzero(allowed))
    alike = defaultdict[tuple[Place, Place], tuple[set[int], set[int]]](lambda: (set(), set()))
    with Reporter(progress).meter("comparing", len(scenes.keys), "frames") as meter:
        for key, others in similar_pairs(gallery, scenes.keys, threshold, meter.advance):
            for other in others.tolist():
                # A scene is added at once: that of the lower key was added first.
                pair = scenes.place_of[key], scenes.place_of[other]
                if pair[0] != pair[1]:
                    alike[pair][0].add(key)
                    alike[pair][1].add(other)
    return _grouped(scenes, {pair: scenes.share(pair, found) for pair, found in alike.items()}, share)


@dataclass
class _Scenes:
    """The scenes of a gallery.

    Attributes:
        keys: of all their frames.
        place_of: scene by key.
        spans: by scene, in the order in which they were added.
        counts: frames by scene.
    """

    keys: NDArray[np.int64]
    place_of: dict[int, Place]
    spans: dict[Place, SceneSpan]
    counts: Counter[Place]

    @staticmethod
    def of(gallery: Gallery, keys: NDArray[np.int64]) -> _Scenes:
        """Of the frames among some images."""
        found = _Scenes(keys, {}, {}, Counter())
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            for key, row in zip(part.tolist(), gallery.rows(part), strict=True):
                if (note := FrameNote.of(row.metadata)) is not None:
                    place = found.place_of[key] = note.video, note.scene
                    span = SceneSpan(note.video, note.scene, note.scene_start, note.scene_end, row.path)
                    found.spans.setdefault(place, span)
                    found.counts[place] += 1
        found.keys = np.array(list(found.place_of), dtype=np.int64)
        return found

    def share(self, pair: tuple[Place, Place], found: tuple[set[int], set[int]]) -> float:
        """Of the scene with fewer frames: how many have their like in the other."""
        fewer = min((0, 1), key=lambda side: self.counts[pair[side]])
        return len(found[fewer]) / self.counts[pair[fewer]]


def _grouped(scenes: _Scenes, shares: dict[tuple[Place, Place], float], least: float) -> list[RepeatedScene]:
    """Groups around the scene that was added first; each scene is in one group at most."""
    taken, groups = set[Place](), list[RepeatedScene]()
    near = defaultdict[Place, list[tuple[float, Place]]](list)
    for (one, two), share in shares.items():
        if share >= least:
            near[one].append((share, two))
    for first in scenes.spans:
        others = sorted(
            ((share, place) for share, place in near[first] if place not in taken), key=lambda one: -one[0]
        )
        if first not in taken and others:
            taken |= {first, *(place for _, place in others)}
            spans = [scenes.spans[first], *(scenes.spans[place] for _, place in others)]
            groups.append(RepeatedScene(spans, [1.0, *(share for share, _ in others)]))
    return sorted(groups, key=lambda group: -len(group.spans))


@public_call
def write_repeats_page(groups: Sequence[RepeatedScene], file: PathLike) -> None:
    """Write a page with the first frame of each scene, which opens from disk.

    Args:
        groups: that were found.
        file: HTML file to write.

    Raises:
        ConfigError: its folder is not there.
        SystemRefusalError: it cannot be written.
    """
    place, pictures = require_place("file", file), Pictures()
    with Page(place, "Repeated scenes", "Scenes of videos that come again.") as page:
        for number, group in enumerate(groups, 1):
            cards = [
                Card(pictures.data_url(span.path), str(span), f"share {share:.2f}", span.path)
                for span, share in zip(group.spans, group.shares, strict=True)
            ]
            page.write(Section(f"Group {number}: {len(cards)} scenes", cards[1:], cards[0]))
