"""A stream watched as it comes: lag, widths and memory, and what is found of known pictures.

    .venv/bin/python benchmarks/watch.py --photos PHOTOS

Clips are made of photos that are moved over at 10 frames a second, and played at real speed to `matmamba
watch`, a process of its own, at several sizes: alone, and beside other processes that take what they get of
the cores. Lag is from when a frame was due until its matches are known, decoding included. Then a clip is
played again and again, as fast as its frames are encoded, for the frames of ten minutes of a stream, or with
--hour of an hour, and the memory of the process is read. Last, photos that the gallery has, and others that
it has not, are shown as a video, to see what each width finds. Writes results/watch.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import matmamba_vision as mv
import numpy as np
from markdown_tables import markdown
from matmamba_vision.measures.environment import environment
from measuring import parse, prepare, write_json
from numpy.typing import NDArray
from PIL import Image
from serving import pictures as pictures_of

MODEL, FPS, BUDGET_MS = "matmamba_mini_patch16_128", 10, 50.0
WIDTHS = ("full", "1/2", "1/4", "1/8")
SIZES = ((160, 90), (640, 360), (1280, 720), (1920, 1080))
# What it has to reach.
TARGETS = {"lag_p99_ms": 200.0, "memory": 0.05}
# Frames for which a photo is shown, and how alike it has to be then.
SHOWN, SCORES = 3, (0.8, 0.85, 0.9, 0.95)
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        images: of the gallery.
        seconds: of each run at real speed.
        sizes: of clips, width and height in pixels.
        beside: how many other processes are busy.
        budgets: milliseconds, for the largest size.
        frames: of the long run.
        photos: that are shown of the gallery, and as many others.
    """

    images: int = 2000
    seconds: float = 15.0
    sizes: tuple[tuple[int, int], ...] = SIZES
    beside: tuple[int, ...] = (0, 1)
    budgets: tuple[float, ...] = (25.0,)
    frames: int = 10 * 60 * FPS
    photos: int = 150


QUICK = Scale(images=40, seconds=2.0, sizes=SIZES[:1], budgets=(), frames=100, photos=4)


def main(arguments: Sequence[str] | None = None, scale: Scale | None = None) -> None:
    """Make clips, watch them, print and write."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("--photos", type=Path, required=True, help="data set with the parts train and heldout")
    flags.add_argument("--hour", action="store_true", help="the frames of an hour for the memory")
    options = parse(Path(__file__), __doc__, arguments, [flags])
    prepare(options.threads)
    scale = scale or (QUICK if options.quick else Scale())
    if options.hour:
        scale = replace(scale, frames=3600 * FPS)
    load, start = os.getloadavg()[0], time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        found = measured(Path(place), options.photos, scale)
    command = f"benchmarks/watch.py --photos PHOTOS{' --hour' if options.hour else ''}"
    seconds = {"seconds": round(time.perf_counter() - start), "load_average_before": load}
    known = {"command": command, **seconds, "model": MODEL, "images": scale.images, "fps": FPS}
    if options.output:
        write_json(options.output, {**known, "targets": TARGETS, **environment(), **found})


def measured(place: Path, photos: Path, scale: Scale) -> Row:
    """All that is measured, with one gallery."""
    known, others = (pictures_of(photos, part, scale.images)[0] for part in ("train", "heldout"))
    gallery = place / "gallery"
    mv.index(known, gallery, model=MODEL, ids=[str(number) for number in range(len(known))])
    with mv.open_gallery(gallery, write=True) as opened:
        opened.freeze(WIDTHS)
    clips = {size: moved(place / f"{size[1]}.mp4", others, size, scale.seconds) for size in scale.sizes}
    rows = [
        at_real_speed(clips[size], gallery, size, beside, BUDGET_MS)
        for size in scale.sizes
        for beside in scale.beside
    ]
    largest = scale.sizes[-1]
    rows += [
        at_real_speed(clips[largest], gallery, largest, beside, budget)
        for budget in scale.budgets
        for beside in (*scale.beside, 2)
    ]
    memory = memory_of(clips[scale.sizes[0]], gallery, scale.frames)
    print(memory_text(memory), flush=True)
    return {"live": rows, "memory": memory, "found": widths_compared(place, gallery, known, others, scale)}


def moved(file: Path, pictures: Sequence[Image.Image], size: tuple[int, int], seconds: float) -> Path:
    """A clip of a view that moves over one picture after the other, two seconds each."""
    return written(file, _views(pictures, size, round(seconds * FPS)), size)


def _views(pictures: Sequence[Image.Image], size: tuple[int, int], count: int) -> Iterator[Image.Image]:
    width, height = size
    for number in range(count):
        picture, place = pictures[number // (2 * FPS) % len(pictures)], number % (2 * FPS)
        wide = picture.resize((width * 5 // 4, height * 5 // 4), Image.Resampling.BICUBIC)
        left = place * (wide.width - width) // (2 * FPS)
        yield wide.crop((left, height // 8, left + width, height // 8 + height))


def written(file: Path, frames: Iterator[Image.Image], size: tuple[int, int]) -> Path:
    """Frames as H.264, as a camera compresses them: nothing waits for what is shown later."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}
        stream.codec_context.gop_size = 2 * FPS
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return file


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many other processes compute, for the block."""
    program = "while True: sum(range(10000))"
    with ExitStack() as stack:
        for _ in range(processes):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", program]))
            stack.callback(process.kill)
        yield


def at_real_speed(video: Path, gallery: Path, size: tuple[int, int], beside: int, budget: float) -> Row:
    """A clip as it comes, beside some busy processes."""
    with busy(beside), watched(video, gallery, "--budget", f"{budget:g}ms") as process:
        *_, ended = events_of(process)
    row = {"size": size, "beside": beside, "budget_ms": budget}
    row |= {name: ended[name] for name in ("frames", "dropped", "fps", "lag_ms", "widths")}
    print(row, flush=True)
    return row


@contextmanager
def watched(video: Path, gallery: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """The command, for the block."""
    command = [sys.executable, "-m", "matmamba_vision", "watch", "--video", str(video)]
    command += ["--gallery", str(gallery), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def events_of(process: subprocess.Popen[str]) -> Iterator[Row]:
    """What it prints, as it comes."""
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def memory_of(video: Path, gallery: Path, frames: int) -> Row:
    """Memory of the process, in 10^6 bytes, while it encodes so many frames as fast as it can."""
    flags = ("--speed", "0", "--loop", "--status-s", "0.5")
    done, found, start = 0, list[tuple[int, float]](), time.perf_counter()
    with watched(video, gallery, *flags) as process:
        for event in events_of(process):
            if event["event"] == "status":
                done += event["frames"]
                found.append((done, _memory_mb(process.pid)))
            if done >= frames:
                break
    # A tenth of it later all has been used once.
    kept = [mb for count, mb in found if count >= frames / 10]
    return {
        "frames": done,
        "seconds": time.perf_counter() - start,
        "first_mb": kept[0],
        "last_mb": kept[-1],
        "most_mb": max(kept),
        "least_mb": min(kept),
    }


def _memory_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmRSS"))


def memory_text(memory: Row) -> str:
    """What became of the memory, in a sentence."""
    change, minutes = memory["last_mb"] / memory["first_mb"] - 1, memory["frames"] / FPS / 60
    return (
        f"Over {memory['frames']:,} frames, {minutes:.0f} minutes of a stream, the process"
        f" held {memory['first_mb']:.0f} MB behind the first tenth and {memory['last_mb']:.0f} MB at the end"
        f" ({change:+.1%}), {memory['least_mb']:.0f} to {memory['most_mb']:.0f} MB in between."
    )


def widths_compared(
    place: Path, gallery: Path, known: Sequence[Image.Image], others: Sequence[Image.Image], scale: Scale
) -> list[Row]:
    """Of photos shown as a video: those of the gallery that each width finds, and others it takes for one."""
    # Square ones, so that the video shows all of them.
    pairs = zip(_squares(known), _squares(others), strict=False)
    shown = [photo for pair in islice(pairs, scale.photos) for photo in pair]
    frames = (photo.resize((360, 360)) for _, photo in shown for _ in range(SHOWN))
    video = written(place / "shown.mp4", frames, (360, 360))
    inside = np.arange(len(shown)) % 2 == 0
    rows = []
    for width in WIDTHS:
        best = best_hits(video, gallery, width, len(shown))
        scores = np.array([score for score, _ in best])
        right = np.array([found == name for (_, found), (name, _) in zip(best, shown, strict=True)]) & inside
        rows.append(
            {
                "width": width,
                "photos": int(inside.sum()),
                "first": float(right.sum() / inside.sum()),
                "score": float(np.median(scores[inside])),
                "score_of_others": float(np.median(scores[~inside])),
                "found": {f"{least:g}": share(scores[right] >= least, inside) for least in SCORES},
                "mistaken": {f"{least:g}": share(scores[~inside] >= least, ~inside) for least in SCORES},
            }
        )
        print(rows[-1], flush=True)
    return rows


def _squares(pictures: Sequence[Image.Image]) -> Iterator[tuple[str, Image.Image]]:
    """Square ones with their ids."""
    return ((str(place), one) for place, one in enumerate(pictures) if one.width == one.height)


def share(which: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    """How many there are, of how many there could be."""
    return float(which.sum() / among.sum())


def best_hits(video: Path, gallery: Path, width: str, photos: int) -> list[tuple[float, str]]:
    """The best score of the frames of each photo, and which image has it."""
    best = [(-1.0, "")] * photos
    settings: Row = {"speed": 0.0, "min_score": -1.0, "hold_s": 0.0, "status_s": 0.0}
    with mv.watch(video, gallery, widths=[width], **settings) as events:
        for event in events:
            if isinstance(event, mv.MatchBegan):
                photo = round(event.time * FPS) // SHOWN
                best[photo] = max(best[photo], (event.score, event.id))
    return best


def page(result: Row) -> str:
    """Tables in Markdown, and what stands beside them.

    Args:
        result: as it is written.
    """
    rows = []
    for row in result["live"]:
        width, height = row["size"]
        lag = ", ".join(f"{row['lag_ms'][name]:.0f}" for name in ("p50", "p99", "max"))
        total = max(1, sum(row["widths"].values()))
        mix = ", ".join(f"{name} {count / total:.0%}" for name, count in row["widths"].items())
        rows.append(
            (
                f"{width} x {height}",
                f"{row['budget_ms']:g}",
                row["beside"],
                row["frames"],
                row["dropped"],
                lag,
                mix,
            )
        )
    names = (
        "frames of",
        "budget, ms",
        "busy beside",
        "answered",
        "dropped",
        "lag p50, p99, max, ms",
        "widths",
    )
    found = [
        (
            row["width"],
            f"{row['first']:.1%}",
            f"{row['score']:.2f}",
            f"{row['score_of_others']:.2f}",
            *(f"{row['found'][f'{least:g}']:.0%}, {row['mistaken'][f'{least:g}']:.0%}" for least in SCORES),
        )
        for row in result["found"]
    ]
    heads = ("width", "first hit is the photo", "score", "of others", *(f"from {one:g}" for one in SCORES))
    machine, note = result["machine"], f" {result['note']}" if "note" in result else ""
    return (
        f"{markdown(names, rows)}\n\n{result['images']:,} photos, `{result['model']}`, {result['fps']} frames"
        f" a second, {machine['processor']}, {machine['threads']} threads."
        f" {memory_text(result['memory'])}{note}\n\n"
        f"{result['found'][0]['photos']} photos of the gallery, compressed as a video, and as many that it"
        " has not: which share of either is told to be one of its images, by the least score:\n\n"
        f"{markdown(heads, found)}\n"
    )


if __name__ == "__main__":
    main()
