"""Videos: how fast they are indexed, what the small width saves, and whether cuts are found where they are.

    python benchmarks/video.py --photos PHOTOS --threads 2

Clips are made of photos. `speed`: ten minutes of pans, zooms and cuts at 25 frames a second, at each size, by
`index_video` with the shipped weights at a frame a second and by keyframes alone, decoding included. `sieve`:
a talk with slides and a camera that watches a place, with noise; frames compared by the smallest width, and
by the full one, which then encodes them all: seconds of the encoder, which scenes are cut, and of how many
visitors a frame is kept. `cuts`: scenes cut hard, against the truth and against PySceneDetect's detectors on
the same file. Writes results/video.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from markdown_tables import markdown
from matmamba_retrieval import Gallery
from matmamba_vision import index_video
from matmamba_vision.galleries.embedder import Embedder
from matmamba_vision.galleries.gallery_model import embedder_at
from matmamba_vision.measures.environment import environment
from matmamba_vision.video.known_videos import FrameNote, frames_of
from measuring import parse, prepare, write_json
from video_clips import Drawn, film, repeated, surveillance, talk, visits_drawn, with_noise, write_clip

MODEL = "matmamba_mini_patch16_128"
SIZES = ((160, 90), (640, 360), (1280, 720), (1920, 1080))
# Seconds of a clip, and how often it stands in the file that is indexed.
CLIP_SECONDS, TIMES = 40, 15
# Seconds by which a cut may be missed: a frame a second is looked at.
NEAR = 1.0
PROMISED = {"fps": 20, "keyframes": 100, "saved": 0.5, "same": 0.95}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print and write."""
    photos = argparse.ArgumentParser(add_help=False)
    photos.add_argument("--photos", type=Path, required=True, help="folder, shard or Parquet file of photos")
    options = parse(Path(__file__), __doc__, arguments, [photos])
    prepare(options.threads)
    quick, threads = options.quick, options.threads or 0
    model, start = embedder_at(MODEL), time.perf_counter()
    # What is made when a width is first asked for is no part of a video.
    for width in model.widths:
        model.frozen(width)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        result = {
            "command": f"benchmarks/video.py --photos PHOTOS --threads {threads}",
            "settings": {"model": MODEL, "promised": PROMISED, "threads": threads},
            "speed": [
                speed(place, options.photos, model, size, quick, threads)
                for size in SIZES[: 2 if quick else 4]
            ],
            "sieve": [
                sieve(place, options.photos, model, kind, quick, threads) for kind in ("talk", "camera")
            ],
            "cuts": cuts(place, options.photos, model, quick, threads),
            "seconds": round(time.perf_counter() - start),
            **environment(),
        }
    print(json.dumps(result, indent=1))
    if options.output:
        write_json(options.output, result)


def speed(
    place: Path, photos: Path, model: Embedder, size: tuple[int, int], quick: bool, threads: int
) -> dict[str, Any]:
    """Times as fast as it plays, of a frame a second and of keyframes."""
    drawn = Drawn(photos, size)
    seconds = 10 if quick else CLIP_SECONDS
    drawn_lengths = drawn.chance.uniform(3, 12, 100)
    whole = drawn_lengths[: int(np.searchsorted(drawn_lengths.cumsum(), seconds))].tolist()
    lengths = [*whole, seconds - sum(whole)]
    clip = write_clip(place / "clip.mp4", film(drawn, lengths), threads)
    file = repeated(place / f"speed{size[1]}.mp4", clip, 2 if quick else TIMES)
    found: dict[str, Any] = {"size": list(size), "megabytes": round(file.stat().st_size / 1e6, 1)}
    for name in ("fps", "keyframes"):
        gallery, cpu = place / f"{name}{size[1]}", time.process_time()
        indexed = index_video(
            file, gallery, model=model, keyframes=name == "keyframes", batch_size=64, threads=threads
        )
        found[name] = {
            "video_seconds": round(indexed.video_seconds, 1),
            "seconds": round(indexed.seconds, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "times_real_time": round(indexed.video_seconds / indexed.seconds, 1),
            "looked_at": indexed.looked_at,
            "kept": indexed.added,
        }
        found[name]["reached"] = found[name]["times_real_time"] >= PROMISED[name]
    return found


@contextmanager
def encoder_seconds() -> Iterator[list[float]]:
    """Adds up the seconds that images are being encoded while the block runs."""
    embed, spent = Embedder.embed, [0.0]

    def timed(self: Embedder, *values: Any) -> Any:
        start = time.perf_counter()
        found = embed(self, *values)
        spent[0] += time.perf_counter() - start
        return found

    with patch.object(Embedder, "embed", timed):
        yield spent


def sieve(place: Path, photos: Path, model: Embedder, kind: str, quick: bool, threads: int) -> dict[str, Any]:
    """What the encoder takes by the small width and by the full one, and whether scenes are the same."""
    drawn = Drawn(photos, (640, 360), seed=1)
    visits = list[tuple[float, float]]()
    if kind == "talk":
        pictures = talk(drawn, *((3, 6) if quick else (24, 15)))
    else:
        seconds = 20 if quick else 300
        visits = visits_drawn(drawn, seconds, 1 if quick else 12)
        pictures = surveillance(drawn, seconds, visits)
    file = write_clip(place / f"{kind}.mp4", with_noise(pictures, drawn.noise(4)), threads)
    found: dict[str, Any] = {"clip": kind}
    scenes = {}
    for name, width in (("small", ""), ("full", "full")):
        with encoder_seconds() as spent:
            indexed = index_video(
                file, place / f"{kind}-{name}", model=model, small_width=width, threads=threads
            )
        known = notes_of(place / f"{kind}-{name}")
        scenes[name] = sorted({note.scene_start for note in known})
        found[name] = {
            "encoder_seconds": round(spent[0], 3),
            "looked_at": indexed.looked_at,
            "kept": indexed.added,
            "scenes": indexed.scenes,
        }
        if visits:
            there = [any(begin <= note.time < end for note in known) for begin, end in visits]
            found[name]["visits"] = [sum(there), len(visits)]
    found["saved"] = round(1 - found["small"]["encoder_seconds"] / found["full"]["encoder_seconds"], 3)
    found["same_scenes"] = agreement(scenes["small"], scenes["full"])
    found["reached"] = found["saved"] >= PROMISED["saved"] and found["same_scenes"]["f1"] >= PROMISED["same"]
    return found


def cuts(place: Path, photos: Path, model: Embedder, quick: bool, threads: int) -> dict[str, Any]:
    """Cuts found by us and by PySceneDetect, against the truth and against each other."""
    drawn = Drawn(photos, (640, 360), seed=2)
    lengths = drawn.chance.uniform(3, 9, 4 if quick else 40).round(2)
    file = write_clip(place / "cuts.mp4", with_noise(film(drawn, lengths), drawn.noise(4)), threads)
    truth = [0.0, *lengths.cumsum()[:-1].tolist()]
    index_video(file, place / "cuts", model=model, threads=threads)
    ours = sorted({note.scene_start for note in notes_of(place / "cuts")})
    found: dict[str, Any] = {"scenes": len(truth), "ours": agreement(ours, truth), "detectors": {}}
    for name in ("ContentDetector", "AdaptiveDetector"):
        start = time.perf_counter()
        theirs = detected(file, name)
        found["detectors"][name] = {
            "seconds": round(time.perf_counter() - start, 2),
            "truth": agreement(theirs, truth),
            "ours": agreement(ours, theirs),
        }
    return found


def detected(file: Path, name: str) -> list[float]:
    """Starts of the scenes that a detector of PySceneDetect finds, as it is by default."""
    import scenedetect

    scenes = scenedetect.detect(str(file), getattr(scenedetect, name)())
    return [start.seconds for start, _ in scenes] or [0.0]


def notes_of(gallery: Path) -> list[FrameNote]:
    """What a gallery knows of its frames."""
    with Gallery(gallery) as opened:
        return [note for _, note in frames_of(opened)]


def agreement(found: Sequence[float], wanted: Sequence[float]) -> dict[str, float]:
    """Precision, recall and F1 of cuts; each is paired once, with one that is near. Beginnings count not."""
    left = list(wanted[1:])
    hits = 0
    for cut in found[1:]:
        near = [other for other in left if abs(other - cut) <= NEAR]
        if near:
            left.remove(min(near, key=lambda other: abs(other - cut)))
            hits += 1
    precision = hits / (len(found) - 1) if len(found) > 1 else 1.0
    recall = hits / (len(wanted) - 1) if len(wanted) > 1 else 1.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": round(precision, 3), "recall": round(recall, 3), "f1": round(f1, 3)}


def speed_table(result: dict[str, Any]) -> str:
    """How fast videos of each size are indexed."""
    rows = [
        (
            f"{found['size'][0]} x {found['size'][1]}",
            *(
                text
                for name in ("fps", "keyframes")
                for text in (
                    f"{found[name]['times_real_time']:,.0f}",
                    f"{found[name]['looked_at']:,}",
                    f"{found[name]['kept']:,}",
                )
            ),
        )
        for found in result["speed"]
    ]
    heads = (
        "frame size",
        "1 fps: times real time",
        "frames",
        "kept",
        "keyframes: times real time",
        "frames",
        "kept",
    )
    return markdown(heads, rows)


def sieve_table(result: dict[str, Any]) -> str:
    """What the small width saves."""
    rows = [
        (
            found["clip"],
            f"{found['small']['looked_at']:,}",
            f"{found['small']['kept']:,}",
            f"{found['small']['encoder_seconds']:.2f}",
            f"{found['full']['encoder_seconds']:.2f}",
            f"{100 * found['saved']:.0f} %",
            f"{100 * found['same_scenes']['f1']:.0f} %",
            " of ".join(map(str, found["small"].get("visits", []))) or "-",
        )
        for found in result["sieve"]
    ]
    heads = (
        "clip",
        "frames",
        "kept",
        "encoder, s",
        "full width for all, s",
        "saved",
        "same scenes",
        "visits kept",
    )
    return markdown(heads, rows)


def cuts_table(result: dict[str, Any]) -> str:
    """Cuts against the truth and against other detectors."""
    found = result["cuts"]
    rows = [("`index_video`, 1 fps", *map(_percent, found["ours"].values()), "")]
    for name, other in found["detectors"].items():
        rows.append((name, *map(_percent, other["truth"].values()), _percent(other["ours"]["f1"])))
    return markdown(("finds cuts", "precision", "recall", "F1", "agrees with ours, F1"), rows)


def page(result: dict[str, Any]) -> str:
    """All tables, with what they were measured on."""
    machine = result["machine"]
    on = f"{result['seconds']} s on {machine['processor']}, {machine['threads']} threads."
    return "\n\n".join([speed_table(result), sieve_table(result), cuts_table(result), on])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
