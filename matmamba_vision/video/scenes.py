"""The scenes of a video, each with the frames that are kept of it and their vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from matmamba_datasets import Sampling, VideoFile

from .frame_encoding import ByWidth, Floats, FrameEncoder
from .sifting import Sieve, Sifting


@dataclass(frozen=True)
class Scene:
    """From one cut to the next.

    Attributes:
        number: 1 for the first of a video.
        start: when it begins, in seconds.
        end: when the next one does.
        times: of the frames that are kept, in seconds; of the first one always.
        vectors: one for each of them, by width: (k, D).
    """

    number: int
    start: float
    end: float
    times: list[float]
    vectors: ByWidth


@dataclass
class _Open:
    """A scene that has begun."""

    number: int
    start: float
    times: list[float] = field(default_factory=list)
    parts: list[dict[str, Floats]] = field(default_factory=list)

    def ended(self, end: float) -> Scene:
        """The scene, now that it is known when it ends."""
        vectors = {width: np.stack([part[width] for part in self.parts]) for width in self.parts[0]}
        return Scene(self.number, self.start, end, self.times, vectors)


def scenes_of(
    video: VideoFile,
    encoder: FrameEncoder,
    sampling: Sampling,
    sieve: Sieve,
    *,
    start: float = 0.0,
    number: int = 1,
    told: Callable[[int, float], None] = lambda frames, time: None,
) -> Iterator[Scene]:
    """The scenes of a video, one after the other.

    Args:
        video: an open one.
        encoder: of the frames.
        sampling: which frames are looked at.
        sieve: which of these are kept, and where a scene is cut.
        start: where a scene begins: the scenes before it are known. In seconds.
        number: of the first scene from there on.
        told: is called with the number of frames that were looked at, and the time of the last one.

    Raises:
        BrokenVideoError: the file cannot be read any further.
    """
    sifting, scene = Sifting(sieve), None
    for batch in encoder.batches(video, sampling, start):
        small = encoder.by_small(batch)
        verdicts = [sifting.judge(*pair) for pair in zip(small, batch.thumbnails, strict=True)]
        kept = [place for place, verdict in enumerate(verdicts) if verdict.kept]
        by_width = encoder.by_full(batch, kept, small) if kept else {}
        for row, place in enumerate(kept):
            time = batch.times[place]
            if scene is None:
                scene = _Open(number, time)
            elif verdicts[place].begins:
                yield scene.ended(time)
                scene = _Open(scene.number + 1, time)
            scene.times.append(time)
            scene.parts.append({width: vectors[row] for width, vectors in by_width.items()})
        told(len(batch.times), batch.times[-1])
    if scene is not None:
        yield scene.ended(max(video.reached, scene.times[-1]))
