"""The scenes of a video, each with the frames that are kept of it and their vectors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from matmamba_datasets import BrokenVideoError, Sampling, VideoFile

from .frame_encoding import ByWidth, Floats, FrameBatch, FrameEncoder, KeptFrame
from .sifting import Glimpse, Sieve, Sifting

T = TypeVar("T")
# Kept frames wait until a batch of them is full, or so many batches were looked at: few of each are kept, and
# few frames at once cost more each.
PATIENCE = 8


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
    """A scene that has begun; `end` is None until the next one does."""

    number: int
    start: float
    end: float | None = None
    times: list[float] = field(default_factory=list)
    parts: list[dict[str, Floats]] = field(default_factory=list)


class _Gathering:
    """Scenes in the making: their kept frames are encoded in full batches, whatever scenes they are of."""

    def __init__(self, encoder: FrameEncoder, number: int) -> None:
        self._encoder, self._number = encoder, number
        self._scenes, self._waiting = deque[_Open](), deque[tuple[_Open, KeptFrame]]()

    def keep(self, frame: KeptFrame, time: float, begins: bool) -> None:
        """A frame is kept, and perhaps a scene begins with it."""
        if begins:
            self.end(time)
            self._scenes.append(_Open(self._number, time))
            self._number += 1
        self._scenes[-1].times.append(time)
        self._waiting.append((self._scenes[-1], frame))

    def end(self, time: float) -> None:
        """The scene that goes on, if one does, ends at a time, or with its last frame."""
        if self._scenes and self._scenes[-1].end is None:
            self._scenes[-1].end = max(time, self._scenes[-1].times[-1])

    def encoded(self, *, all_of_them: bool) -> Iterator[Scene]:
        """Encode what fills batches, or all there is; the scenes that are complete then."""
        least = 1 if all_of_them else self._encoder.batch_size
        while len(self._waiting) >= least:
            count = min(len(self._waiting), self._encoder.batch_size)
            some = [self._waiting.popleft() for _ in range(count)]
            by_width = self._encoder.by_full([frame for _, frame in some])
            for row, (scene, _) in enumerate(some):
                scene.parts.append({width: vectors[row] for width, vectors in by_width.items()})
        while self._scenes and (scene := self._scenes[0]).end is not None:
            if len(scene.parts) < len(scene.times):
                return
            self._scenes.popleft()
            vectors = {width: np.stack([part[width] for part in scene.parts]) for width in scene.parts[0]}
            yield Scene(scene.number, scene.start, scene.end, scene.times, vectors)


def scenes_of(
    video: VideoFile,
    encoder: FrameEncoder,
    sampling: Sampling,
    sieve: Sieve,
    *,
    start: float = 0.0,
    number: int = 1,
    told: Callable[[int, float], None] = lambda frames, time: None,
) -> Generator[Scene, None, None]:
    """The scenes of a video, one after the other; close it before the video.

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
    sifting, scenes = Sifting(sieve), _Gathering(encoder, number)
    patience = PATIENCE * encoder.batch_size
    try:
        with closing(encoder.batches(video, sampling, start)) as batches:
            for count, (now, after) in enumerate(_with_next(_looked_at(encoder, batches, told)), 1):
                verdict = sifting.judge(now.glimpse, None if after is None else after.glimpse)
                if verdict.kept:
                    scenes.keep(now.to_keep(), now.glimpse.time, verdict.begins)
                yield from scenes.encoded(all_of_them=count % patience == 0)
    except BrokenVideoError:
        # What was read to its end is whole.
        yield from scenes.encoded(all_of_them=True)
        raise
    scenes.end(video.reached)
    yield from scenes.encoded(all_of_them=True)


@dataclass(frozen=True, eq=False)
class _Looked:
    """A frame of a batch whose vectors at the small width are known."""

    batch: FrameBatch
    place: int
    small: Floats

    @property
    def glimpse(self) -> Glimpse:
        batch, place = self.batch, self.place
        return Glimpse(self.small[place], batch.thumbnails[place], batch.times[place])

    def to_keep(self) -> KeptFrame:
        return KeptFrame.of(self.batch, self.place, self.small)


def _looked_at(
    encoder: FrameEncoder, batches: Iterable[FrameBatch], told: Callable[[int, float], None]
) -> Iterator[_Looked]:
    for batch in batches:
        small = encoder.by_small(batch)
        yield from (_Looked(batch, place, small) for place in range(len(batch.times)))
        told(len(batch.times), batch.times[-1])


def _with_next(items: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Each item with the one behind it; the last with None."""
    rest = iter(items)
    now = next(rest, None)
    while now is not None:
        after = next(rest, None)
        yield now, after
        now = after
