"""Videos: how fast they are indexed, what the small width saves, and whether cuts are found where they are.

    python benchmarks/video.py --photos PHOTOS --threads 2

Clips are made of photos. `speed`: ten minutes of pans, zooms and cuts at 25 frames a second, at each size, by
`index_video` with the shipped weights at a frame a second and by keyframes alone, decoding included. `sieve`:
a talk with slides and a camera that watches a place, with noise; frames compared by the smallest width, and
by the full one, which then encodes them all: seconds of the encoder, which scenes are cut, and of how many
visitors a frame is kept. `cuts`: where scenes begin in films of several kinds, with hard cuts, dissolves and
fades, flashes that are no cuts, and slides, against the truth and against PySceneDetect's detectors on the
same files. Writes results/video.json.
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
from matmamba_common.counts import counted
from matmamba_vision import index_video
from matmamba_vision.galleries.embedder import Embedder
from matmamba_vision.galleries.gallery_model import embedder_at
from matmamba_vision.measures.environment import environment
from measuring import parse, prepare, write_json
from video_clips import Drawn, film, repeated, surveillance, talk, visits_drawn, with_noise, write_clip
from video_cuts import agreement, cuts, cuts_table, notes_of

MODEL = "matmamba_mini_patch16_128"
SIZES = ((160, 90), (640, 360), (1280, 720), (1920, 1080))
# Seconds of a clip, and how often it stands in the file that is indexed.
CLIP_SECONDS, TIMES = 40, 15
PROMISED = {"fps": 20, "keyframes": 100, "saved": 0.5, "same": 0.95}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, print, and write it beside what was measured before."""
    photos = argparse.ArgumentParser(add_help=False)
    photos.add_argument("--photos", type=Path, required=True, help="folder, shard or Parquet file of photos")
    photos.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    options = parse(Path(__file__), __doc__, arguments, [photos])
    prepare(options.threads)
    quick, threads = options.quick, options.threads or 0
    model = embedder_at(MODEL)
    # What is made when a width is first asked for is no part of a video.
    for width in model.widths:
        model.frozen(width)
    known = json.loads(options.output.read_text()) if options.output and options.output.is_file() else {}
    result = known | {"settings": {"model": MODEL, "promised": PROMISED}}
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            start = time.perf_counter()
            found = PARTS[part](Path(folder), options.photos, model, quick, threads)
            command = f"benchmarks/video.py --photos PHOTOS --parts {part} --threads {threads}"
            seconds = round(time.perf_counter() - start)
            result[part] = {"command": command, "seconds": seconds, **environment(), "cases": found}
    print(json.dumps(result, indent=1))
    if options.output:
        write_json(options.output, result)


def speeds(place: Path, photos: Path, model: Embedder, quick: bool, threads: int) -> list[dict[str, Any]]:
    """Of each size."""
    return [speed(place, photos, model, size, quick, threads) for size in SIZES[: 2 if quick else 4]]


def sieves(place: Path, photos: Path, model: Embedder, quick: bool, threads: int) -> list[dict[str, Any]]:
    """Of each kind of clip."""
    return [sieve(place, photos, model, kind, quick, threads) for kind in ("talk", "camera")]


PARTS = {"speed": speeds, "sieve": sieves, "cuts": cuts}


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
        scenes[name] = sorted({note.scene_start for note in known})[1:]
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
    found["same_scenes"] = agreement(scenes["small"], [(cut, cut) for cut in scenes["full"]])
    found["reached"] = found["saved"] >= PROMISED["saved"] and found["same_scenes"]["f1"] >= PROMISED["same"]
    return found


def speed_table(cases: Sequence[dict[str, Any]]) -> str:
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
        for found in cases
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


def sieve_table(cases: Sequence[dict[str, Any]]) -> str:
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
        for found in cases
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


TABLES = {"speed": speed_table, "sieve": sieve_table, "cuts": cuts_table}


def page(result: dict[str, Any]) -> str:
    """All tables, each with what it was measured on."""
    return "\n\n".join(
        text for name, table in TABLES.items() for text in (table(result[name]["cases"]), _on(result[name]))
    )


def _on(part: dict[str, Any]) -> str:
    machine = part["machine"]
    return f"{machine['processor']}, {counted(machine['threads'], 'thread')}."


if __name__ == "__main__":
    main()
