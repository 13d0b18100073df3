"""Videos for benchmarks, made of photos: pans, zooms, cuts and noise, with their cuts known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from matmamba_datasets import Images, open_images
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
FPS = 25
# Usual settings of x264, but for the time that it takes to make the files.
OPTIONS, KEYFRAMES = {"preset": "veryfast", "crf": "23"}, 250
# Seconds that a visitor takes to walk through a place.
WALK = 6.0


@dataclass
class Drawn:
    """Draws views of photos, reproducibly.

    Attributes:
        photos: where they are.
        size: (width, height) of the views.
        seed: of all that is left to chance.
    """

    photos: Path
    size: tuple[int, int]
    seed: int = 0
    images: Images = field(init=False)

    def __post_init__(self) -> None:
        self.images, self.chance = open_images(self.photos), np.random.default_rng(self.seed)

    def photo(self, room: float = 1.25) -> Image.Image:
        """A photo that is so many times as large as a view."""
        image = self.images[int(self.chance.integers(len(self.images)))].image
        width, height = self.size
        scale = room * max(width / image.width, height / image.height)
        return image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
        )

    def noise(self, strength: float) -> Pixels:
        """(4, H, W, 1) noise of a camera to be added in turn, around 128."""
        width, height = self.size
        drawn = self.chance.normal(128, strength, (4, height, width, 1))
        return drawn.clip(0, 255).astype(np.uint8)

    def moving(self, frames: int, room: float = 1.25) -> Iterator[Pixels]:
        """A pan over a photo, slow where that has little room, or a zoom into it."""
        photo, (width, height) = self.photo(room), self.size
        spare = np.array([photo.width - width, photo.height - height])
        start, end = self.chance.uniform(0, 1, 2), self.chance.uniform(0, 1, 2)
        zoom = self.chance.choice([0.0, 0.2])
        for place in range(frames):
            share = place / max(1, frames - 1)
            left, top = spare * (start + (end - start) * share)
            edge = 1 - zoom * share
            box = (left, top, left + width * edge, top + height * edge)
            yield np.asarray(photo.resize(self.size, Image.Resampling.BILINEAR, box))

    def still(self, frames: int) -> Iterator[Pixels]:
        """One view of a photo."""
        view = next(self.moving(1))
        return (view for _ in range(frames))


def with_noise(pictures: Iterable[Pixels], noise: Pixels) -> Iterator[Pixels]:
    """Pictures with noise around 128 added."""
    for place, pixels in enumerate(pictures):
        yield (pixels.astype(np.int16) + noise[place % len(noise)] - 128).clip(0, 255).astype(np.uint8)


def film(drawn: Drawn, lengths: Iterable[float], room: float = 1.25) -> Iterator[Pixels]:
    """Scenes of so many seconds, cut hard."""
    for seconds in lengths:
        yield from drawn.moving(round(seconds * FPS), room)


def talk(drawn: Drawn, slides: int, seconds: float) -> Iterator[Pixels]:
    """Slides that stay for some seconds each, and a speaker in a corner who moves."""
    width, height = drawn.size
    speaker = np.asarray(drawn.photo().resize((width // 4, height // 3)))
    for _ in range(slides):
        slide = next(drawn.moving(1))
        for place in range(round(seconds * FPS)):
            picture = slide.copy()
            left = round(width * 0.7 + width * 0.04 * np.sin(place / 20))
            picture[-speaker.shape[0] :, left : left + speaker.shape[1]] = speaker[:, : width - left]
            yield picture


def visits_drawn(drawn: Drawn, seconds: float, count: int) -> list[tuple[float, float]]:
    """From when to when each visitor of a place is there, in seconds; some at once."""
    begins = sorted(drawn.chance.uniform(0, seconds - WALK, count).tolist())
    return [(begin, begin + WALK) for begin in begins]


def surveillance(drawn: Drawn, seconds: float, visits: Sequence[tuple[float, float]]) -> Iterator[Pixels]:
    """A place that stands still, and visitors who walk through it, each another one."""
    width, height = drawn.size
    place = next(drawn.moving(1))
    people = [np.asarray(drawn.photo().resize((width // 6, height // 2))) for _ in visits]
    for frame in range(round(seconds * FPS)):
        picture = place.copy()
        for (begin, end), person in zip(visits, people, strict=True):
            if begin <= frame / FPS < end:
                share = (frame / FPS - begin) / (end - begin)
                left = round(share * (width - person.shape[1]))
                picture[-person.shape[0] :, left : left + person.shape[1]] = person
        yield picture


def write_clip(file: Path, pictures: Iterable[Pixels], threads: int) -> Path:
    """Write pictures as a video of 25 frames a second."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=OPTIONS)
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", KEYFRAMES
        stream.codec_context.thread_count = threads
        for place, pixels in enumerate(pictures):
            if not place:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def repeated(file: Path, clip: Path, times: int) -> Path:
    """The same clip several times in one file; nothing is encoded again."""
    with av.open(str(clip)) as source, av.open(str(file), "w") as container:
        (read,) = source.streams.video
        written = container.add_stream_from_template(read)
        length = int(read.duration or 0)
        packets = [packet for packet in source.demux(read) if packet.dts is not None]
        for turn in range(times):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = (int(time or 0) + turn * length for time in (packet.pts, packet.dts))
                copy.duration, copy.time_base = packet.duration, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, written
                container.mux(copy)
    return file
