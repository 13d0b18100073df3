"""Encoders that a gallery keeps: what each takes for one image, how large it is, and what 8-bit weights lose.

A gallery of photos is indexed by the shipped weights, and keeps encoders of each kind in a copy of its own.
Queries are then asked by each copy, one after the other in each round, and by the model itself. Writes
results/light_encoders.json.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
from matmamba_vision.measures.environment import environment
from measuring import parse, prepare, spread, write_json
from PIL import Image

WIDTHS = ("full", "1/8")
KINDS = ("native", "onnx", "onnx-int8")
HITS = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("--photos", type=Path, required=True, help="data set with the parts train and heldout")
    flags.add_argument("--images", type=int, default=2000, help="of the gallery")
    flags.add_argument("--queries", type=int, default=200)
    options = parse(Path(__file__), __doc__, arguments, [flags])
    prepare(options.threads)
    count, asked = (60, 12) if options.quick else (options.images, options.queries)
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder), options.photos, count, asked, rounds=2 if options.quick else 10)
    for row in rows:
        print(row, flush=True)
    result = {"images": count, "queries": asked, "hits": HITS, **environment(), "rows": rows}
    if options.output:
        write_json(options.output, result)


def measured(folder: Path, photos: Path, count: int, asked: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each width and kind: milliseconds of one encoding, bytes, recall of the hits of the model."""
    images, queries = _pictures(photos, "train", count), _pictures(photos, "heldout", asked)
    mv.index(images, folder / "plain", ids=[str(place) for place in range(len(images))])
    sides = {"model": mv.open_gallery(folder / "plain", model="matmamba_mini_patch16_128")}
    size: dict[tuple[str, str], int] = {}
    for kind in KINDS:
        shutil.copytree(folder / "plain", folder / kind)
        with mv.open_gallery(folder / kind, write=True) as writer:
            for made in writer.freeze(WIDTHS, kinds=[kind]):
                size[made.width, kind] = made.bytes
        sides[kind] = mv.open_gallery(folder / kind)
    rows = []
    for width in WIDTHS:
        wanted = _hits(sides["model"], queries, width)
        ms = _milliseconds(sides, queries[:5], width, rounds)
        for kind, gallery in sides.items():
            found = _hits(gallery, queries, width)
            recall = np.mean([len(a & b) / HITS for a, b in zip(found, wanted, strict=True)])
            row = {"width": width, "kind": kind, "encoded_by": _by(gallery, queries[0], width)}
            of_file = {"bytes": size.get((width, kind)), "ms": spread(ms[kind])}
            rows.append(row | of_file | {f"recall@{HITS}": float(recall)})
    return rows


def _pictures(photos: Path, part: str, count: int) -> list[Image.Image]:
    import io

    import pyarrow.parquet as pq

    found: list[Image.Image] = []
    for file in sorted(photos.glob(f"{part}-*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(256, columns=["image"]):
            for row in batch.to_pylist():
                if len(found) == count:
                    return found
                found.append(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
    return found


def _search(gallery: mv.ImageGallery, image: Image.Image, width: str) -> mv.Answer:
    found = gallery.search(image, k=HITS, strategy="single-shot", query_width=width)
    assert isinstance(found, mv.Answer)
    return found


def _by(gallery: mv.ImageGallery, image: Image.Image, width: str) -> str:
    return _search(gallery, image, width).encoded_by[width]


def _hits(gallery: mv.ImageGallery, images: Sequence[Image.Image], width: str) -> list[set[str]]:
    return [{hit.id for hit in _search(gallery, image, width)} for image in images]


def _milliseconds(
    sides: dict[str, mv.ImageGallery], images: Sequence[Image.Image], width: str, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of the encoding alone, as answers say; the sides in turn."""
    found: dict[str, list[float]] = {kind: [] for kind in sides}
    for _ in range(rounds):
        for image in images:
            for kind, gallery in sides.items():
                found[kind].append(_search(gallery, image, width).cost.ms["encode"])
    return found


if __name__ == "__main__":
    main()
