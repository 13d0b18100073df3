"""Frames of a video through a model: all at a small width, those that are kept at the full one."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from matmamba_common.settings import require
from matmamba_datasets import Frame, Sampling, VideoFile
from matmamba_datasets.transforms import resized_edge
from matmamba_retrieval.overlap import ahead
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError
from ..galleries.image_queries import WidthEncoder
from ..given import require_whole
from .sifting import thumbnail_of

if TYPE_CHECKING:
    from ..galleries.embedder import Embedder

Floats = NDArray[np.float32]
ByWidth = dict[str, Floats]
# Batches that are prepared, but not encoded yet, and frames that are decoded, but not prepared.
AHEAD, FRAMES_AHEAD = 2, 4
# A frame is made smaller by the decoder's scaler as long as it is so many times as large as the model wants
# it: embeddings then are nearly those of the frame at its full size.
FINER = 2


def frame_edge(encoder: WidthEncoder, widths: Sequence[str]) -> int:
    """Pixels that the shorter edge of a frame needs at least before it is prepared for some widths."""
    return FINER * max(resized_edge(encoder.input_of(width)) for width in widths)


@dataclass(frozen=True)
class FrameBatch:
    """Some frames of a video, decoded and prepared.

    Attributes:
        times: in seconds.
        prepared: (n, C, S, S) as the small width wants them.
        thumbnails: (9, 16, 3) each, in 0..1.
        pictures: the frames, no larger than the model needs; none where all widths want the same.
    """

    times: list[float]
    prepared: Floats
    thumbnails: list[Floats]
    pictures: list[Image.Image]


@dataclass(frozen=True, eq=False)
class KeptFrame:
    """A frame that is to be encoded at full width; nothing else of its batch stays in memory.

    Attributes:
        prepared: (C, S, S) as the small width wants it.
        small: (D,) its vector at the small width.
        picture: the frame; None where all widths want the same.
    """

    prepared: Floats
    small: Floats
    picture: Image.Image | None

    @staticmethod
    def of(batch: FrameBatch, place: int, small: Floats) -> KeptFrame:
        """The one at a place of a batch whose vectors at the small width are known."""
        picture = batch.pictures[place] if batch.pictures else None
        return KeptFrame(batch.prepared[place].copy(), small[place].copy(), picture)


class FrameEncoder:
    """A model as videos need it.

    Args:
        embedder: of the model.
        widths: further widths of which galleries keep vectors, as a user writes them.
        small: the width by which frames are sifted; "" for the smallest trained one.
        batch_size: frames that are encoded together.

    Attributes:
        small: label of that width.
        widths: labels of the further widths.

    Raises:
        ConfigError: a number that cannot be, or further widths of a gallery that a teacher encodes.
        WidthError: no such width.
    """

    def __init__(self, embedder: Embedder, widths: Sequence[str], small: str, batch_size: int) -> None:
        require_whole("batch_size", batch_size, 1)
        require("small_width", small, str)
        self.embedder, self.batch_size = embedder, batch_size
        self.full, self.small = embedder.spec().width, embedder.label(small)
        labels = dict.fromkeys(embedder.label(width) for width in widths)
        labels.pop(self.full, None)
        if labels and embedder.taught is not None:
            raise ConfigError(
                f"widths {next(iter(labels))}: a gallery that the teacher encodes has its vectors"
            )
        self.widths = tuple(labels)
        self._transforms = [embedder.transform_of(width) for width in (self.small, self.full)]

    def batches(
        self, video: VideoFile, sampling: Sampling, start: float
    ) -> Generator[FrameBatch, None, None]:
        """The frames of a video from a time on; the next ones are decoded while these are used.

        Close it before the video, for others read that meanwhile.

        Raises:
            BrokenVideoError: the file cannot be read any further.
        """
        # One thread decodes while another prepares: neither waits for the other.
        with (
            closing(ahead(video.frames(sampling, start), FRAMES_AHEAD)) as frames,
            closing(ahead(self._prepared_batches(frames), AHEAD)) as batches,
        ):
            yield from batches

    def _prepared_batches(self, frames: Iterator[Frame]) -> Iterator[FrameBatch]:
        edge = frame_edge(self.embedder, (self.small, self.full))
        small, full = self._transforms
        while some := list(islice(frames, self.batch_size)):
            pictures = [frame.image(edge) for frame in some]
            yield FrameBatch(
                [frame.time for frame in some],
                np.stack([small.array(picture) for picture in pictures]),
                [thumbnail_of(picture) for picture in pictures],
                [] if small is full else pictures,
            )

    def by_small(self, batch: FrameBatch) -> Floats:
        """(n, D) of all frames of a batch, at the small width."""
        return self.embedder.embed(batch.prepared, self.small)

    def by_full(self, kept: Sequence[KeptFrame]) -> ByWidth:
        """(k, D) by width, full and further ones, of frames that are kept."""
        found = ByWidth()
        for width in (self.full, *self.widths):
            if width == self.small:
                # What is known is not computed again.
                found[width] = np.stack([frame.small for frame in kept])
            else:
                prepared = np.stack([self._prepared(frame, width) for frame in kept])
                found[width] = self.embedder.embed(prepared, width)
        return found

    def _prepared(self, frame: KeptFrame, width: str) -> Floats:
        if width == self.full and frame.picture is not None:
            return self._transforms[1].array(frame.picture)
        return frame.prepared
