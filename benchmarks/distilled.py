"""What a student is worth beside its teacher, on photos and on Tiny-ImageNet: exact search, by class.

    python benchmarks/distilled.py --photos PHOTOS --tinyimagenet TINYIMAGENET --student runs/photos
        --teacher timm:local-dir:LITE2 --runs DIR

Photos: every second training image is the gallery (and once more all of them), the held-out ones are asked;
Tiny-ImageNet: every tenth training image and the first 2,000 of validation. Rows: a colour histogram, the
teacher at its own size and at the student's, the weights shipped before, the student at every trained width
against its own full-width gallery, and against the teacher's; reranked by the student's full width. Vectors
are kept in --runs, and a run that was stopped goes on. Writes results/photos.json; with --only, into what is
there of the same student and teacher. A teacher takes an hour of one thread: --without teacher leaves it out.
Costs, and rows in which no student takes part, are then those of the file: other weights do not change them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from matmamba_datasets import Images, Subset, eval_transform, make_loader
from matmamba_datasets.parquet import Parquet, parquet_files
from matmamba_datasets.sample import read_sample
from matmamba_retrieval import prefix
from matmamba_vision.checkpoint import Checkpoint, load_checkpoint
from matmamba_vision.encoders import Encoder, for_many, open_encoder
from matmamba_vision.encoders.onnx_runtime import MANY
from matmamba_vision.measures import count_macs, measure_latency, predict, time_in_turn
from matmamba_vision.measures.environment import environment
from matmamba_vision.measures.significance import with_intervals
from matmamba_vision.rotation import FILE_NAME, Rotation, load_rotation
from matmamba_vision.training import teacher_vectors
from matmamba_vision.widths.quality_and_cost import Embeddings, cost_row, retrieval_values
from measuring import RESULTS, write_json
from numpy.typing import NDArray

Row = dict[str, Any]
Vectors = NDArray[np.float32]
BEFORE = "matmamba_mini_patch8_64"
BATCH, SHORTLIST, SHORT, REPEATS = 64, 200, 64, 20
DIMS = (32, 64, 128, 256)
BINS = 8
# What --only calls multiply-adds and milliseconds, which are measured anew then.
COSTS = "costs"


def main(arguments: Sequence[str] | None = None) -> None:
    """Encode, compare, print and write."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    options.runs.mkdir(parents=True, exist_ok=True)
    student = load_checkpoint(options.student)
    teacher = open_encoder(options.teacher, options.teacher_size)
    rotation = load_rotation(options.rotation or student.path.with_name(FILE_NAME), *teacher.digests)
    if rotation.digest != student.run.get("rotation_digest"):
        raise SystemExit(f"{student.path} was trained with another rotation")
    sides = Sides(
        student, teacher, open_encoder(options.teacher, student.model.input["input_size"][-1]), rotation
    )
    data = {
        "photos": (split(options.photos, 2), sides),
        "photos, whole gallery": (split(options.photos, 1), sides),
        "tinyimagenet": (split(options.tinyimagenet, 10, 2000), sides),
    }
    found = {name: rows(options, name, *given) for name, given in data.items() if options.only in ("", name)}
    before = measured_before(options.output, student, teacher)
    others = of_others(options.output, teacher) if options.without else {}
    kept_costs = {} if options.only == COSTS else before or others
    for name, table in found.items():
        rest = others.get("data", {}).get(name, [])
        known = {(row["query"], row["in"], row["dim"]) for row in rest}
        fresh = [row for row in table["rows"] if (row["query"], row["in"], row["dim"]) not in known]
        table["rows"] = fresh + rest
    result = {
        "command": "benchmarks/distilled.py --photos PHOTOS --tinyimagenet TINYIMAGENET --student RUN"
        " --teacher timm:local-dir:LITE2 --runs DIR",
        "student": student.digest,
        "teacher": teacher.digest,
        "note": options.note or before.get("note", ""),
        **environment(),
        # With the machine that they were measured on.
        **({key: kept_costs[key] for key in ("machine", "costs")} if kept_costs else {"costs": costs(sides)}),
        "widths": before.get("widths") or accuracy(student, data["photos"][0][1]),
        "data": before.get("data", {}) | found,
    }
    write_json(options.output, result)
    for name, table in found.items():
        print(f"\n{name}: gallery {table['gallery']:,}, queries {table['queries']:,}")
        for row in table["rows"]:
            low, high = row["knn1_interval"]
            what = f"{row['query']:<28} in {row['in']:<24} {row['dim']:>5}"
            print(f"{what}  1-NN {100 * row['knn1']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
                  f"  mAP@10 {100 * row['map10']:.1f}")  # fmt: skip


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--tinyimagenet", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--teacher", required=True, help="as for matmamba distill")
    parser.add_argument("--teacher-size", type=int, help="of its images; its own by default")
    parser.add_argument("--student", type=Path, required=True, help="run, file or shipped model")
    parser.add_argument("--rotation", type=Path, help="by default the file beside the student")
    parser.add_argument("--runs", type=Path, required=True, help="folder for what is kept")
    parser.add_argument("--output", type=Path, default=RESULTS / "photos.json")
    parser.add_argument("--only", default="", help="one of the three comparisons, or costs")
    parser.add_argument(
        "--without", nargs="+", default=[], help="encoders whose names begin so are left out, such as teacher"
    )
    parser.add_argument("--note", default="", help="what has to be said of the figures")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def measured_before(file: Path, student: Checkpoint, teacher: Encoder) -> Row:
    """What is written of the same student and teacher; nothing if there is nothing."""
    known: Row = json.loads(file.read_text()) if file.is_file() else {}
    same = known.get("student") == student.digest and known.get("teacher") in teacher.digests
    return known if same else {}


def of_others(file: Path, teacher: Encoder) -> Row:
    """Costs and their machine, and by comparison the rows without a student, as written of the same teacher.

    Costs depend on the student's architecture alone, of which there is one.
    """
    known: Row = json.loads(file.read_text()) if file.is_file() else {}
    if known.get("teacher") not in teacher.digests:
        return {}
    unchanged = {
        name: [row for row in table["rows"] if not f"{row['query']} {row['in']}".count("student")]
        for name, table in known["data"].items()
    }
    return {"costs": known["costs"], "machine": known["machine"], "data": unchanged}


class Sides:
    """What is compared: the student, the teacher at its own size and at the student's, and their rotation."""

    def __init__(self, student: Checkpoint, teacher: Encoder, small: Encoder, rotation: Rotation) -> None:
        self.student, self.teacher, self.small, self.rotation = student, teacher, small, rotation
        self.before = load_checkpoint(BEFORE)

    def encoders(self) -> dict[str, tuple[str, Callable[[Images], Vectors]]]:
        """By name: what identifies its vectors, and what makes them."""
        found: dict[str, tuple[str, Callable[[Images], Vectors]]] = {
            "histogram": ("histogram", histograms),
            "teacher": (self.teacher.digest, lambda images: by_teacher(self.teacher, self.rotation, images)),
            f"teacher at {self.small.size}": (
                self.small.digest,
                lambda images: by_teacher(self.small, self.rotation, images),
            ),
        }
        for name, checkpoint in ((BEFORE, self.before), ("student", self.student)):
            for width in checkpoint.model.trained_widths:
                label = checkpoint.model.label(width)
                make = by_width(checkpoint, label)
                found[f"{name} {label}"] = (f"{checkpoint.digest} {label}", make)
        return found


def split(folder: Path, step: int, most: int | None = None) -> tuple[Images, Images]:
    """Every `step`-th training image, and the first `most` held-out ones."""
    files, _ = parquet_files(folder)
    train = [file for file in files if file.name.startswith("train")]
    gallery, queries = Parquet(train), Parquet([file for file in files if file not in train])
    asked = Subset(queries, np.arange(len(queries))[:most])
    return Subset(gallery, np.arange(0, len(gallery), step)), asked


def histograms(images: Images) -> Vectors:
    """Square roots of 8 x 8 x 8 colour histograms, of length 1."""
    found = np.empty((len(images), BINS**3), np.float32)
    for index in range(len(images)):
        pixels = np.asarray(read_sample(images, index).image).reshape(-1, 3).astype(np.int64) * BINS // 256
        counts = np.bincount(pixels @ [BINS**2, BINS, 1], minlength=BINS**3)
        found[index] = np.sqrt(counts / counts.sum())
    return found


def by_teacher(encoder: Encoder, rotation: Rotation, images: Images) -> Vectors:
    """Rotated vectors at full length."""
    loader = make_loader(images, eval_transform(encoder.input), BATCH)
    return rotation(teacher_vectors(for_many(encoder, len(images)), loader, "cpu")).numpy()


def by_width(checkpoint: Checkpoint, width: str) -> Callable[[Images], Vectors]:
    """What encodes images at a width."""

    def encoded(images: Images) -> Vectors:
        loader = make_loader(images, eval_transform(checkpoint.model.input), BATCH)
        with torch.inference_mode():
            parts = [checkpoint.model.embed(batch.images, width) for batch in loader]
        return torch.cat(parts).numpy()

    return encoded


def rows(options: argparse.Namespace, name: str, data: tuple[Images, Images], sides: Sides) -> Row:
    """Every comparison on one data set."""
    gallery, queries = data
    asked, stored = {}, {}
    for encoder, (digest, make) in sides.encoders().items():
        if encoder.startswith(tuple(options.without)):
            continue
        asked[encoder] = kept(options.runs, f"{name} queries {digest}", queries, make)
        if encoder.endswith("full") or "1/" not in encoder:
            stored[encoder] = kept(options.runs, f"{name} gallery {digest}", gallery, make)
    cells = compared(sides, asked)
    values = [
        retrieval_values(Embeddings(asked[q], queries.labels), Embeddings(stored[g], gallery.labels), dim)
        for q, g, dim in cells
    ]
    titles: list[dict[str, Any]] = [{"query": q, "in": g, "dim": dim} for q, g, dim in cells]
    smallest = f"student {sides.student.model.label(sides.student.model.trained_widths[-1])}"
    values.append(reranked(asked, stored, smallest, queries.labels, gallery.labels))
    titles.append({"query": f"{smallest}, reranked", "in": "student full", "dim": SHORT})
    best = best_of(titles, values, sides.student.model.embedding_dim)
    groups = [
        {"knn1": one["knn1"], "map10": one["map10"], "knn1_lost": 1.0 * best[title["in"]] - one["knn1"]}
        for title, one in zip(titles, values, strict=True)
    ]
    found = [title | one for title, one in zip(titles, with_intervals(groups), strict=True)]
    return {"gallery": len(gallery), "queries": len(queries), "rows": found}


def best_of(titles: list[Row], values: list[dict[str, Any]], length: int) -> dict[str, NDArray[Any]]:
    """By gallery: what its own encoder's queries find, at `length` or at the one length that they have."""
    best: dict[str, NDArray[Any]] = {}
    for title, one in sorted(zip(titles, values, strict=True), key=lambda pair: pair[0]["dim"]):
        if title["query"] == title["in"] and (title["dim"] <= length or title["in"] not in best):
            best[title["in"]] = one["knn1"]
    return best


def compared(sides: Sides, asked: dict[str, Vectors]) -> list[tuple[str, str, int]]:
    """Query encoder, gallery encoder and dims of each comparison."""
    length = sides.student.model.embedding_dim
    dims = sorted({dim for dim in DIMS if dim < length} | {length}, reverse=True)
    own = [(name, name, asked[name].shape[1]) for name in asked if "1/" not in name]
    teacher = [("teacher", "teacher", dim) for dim in dims]
    small = [(name, f"{BEFORE} full", asked[name].shape[1]) for name in asked if name.startswith(BEFORE)]
    students = [name for name in asked if name.startswith("student")]
    mine = [(name, "student full", dim) for name in students for dim in dims]
    across = [(name, "teacher", dim) for name in students for dim in dims]
    cells = dict.fromkeys([*own, *teacher, *small[1:], *mine, *across])
    return [cell for cell in cells if {cell[0], cell[1]} <= set(asked)]


def reranked(
    asked: dict[str, Vectors], stored: dict[str, Vectors], smallest: str, labels: Any, classes: Any
) -> dict[str, NDArray[Any]]:
    """A shortlist by short prefixes of the smallest width, ranked by the full width."""
    xb = stored["student full"]
    k = min(SHORTLIST, len(xb))
    xq = prefix(asked[smallest], SHORT)
    _, lists = faiss.knn(xq, prefix(xb, SHORT), k, metric=faiss.METRIC_INNER_PRODUCT)
    scores = np.einsum("qd,qkd->qk", asked["student full"], xb[lists])
    hits = np.take_along_axis(lists, np.argsort(-scores, axis=1)[:, :10], axis=1)
    relevant = classes[hits] == labels[:, None]
    precision = relevant * relevant.cumsum(1) / np.arange(1, relevant.shape[1] + 1)
    return {"knn1": relevant[:, 0], "map10": precision.sum(1) / relevant.shape[1]}


def kept(folder: Path, name: str, images: Images, make: Callable[[Images], Vectors]) -> Vectors:
    """Vectors as they were made before, or made now."""
    file = folder / f"{name.replace('/', '-').replace(' ', '_')}.npy"
    if not file.is_file():
        start = time.perf_counter()
        found = make(images)
        partial = file.with_suffix(".partial.npy")
        np.save(partial, found)
        partial.replace(file)
        print(f"{name[:40]}: {len(found):,} images, {time.perf_counter() - start:.0f} s", flush=True)
    return np.load(file)


def accuracy(student: Checkpoint, images: Images) -> list[Row]:
    """Cost, and top-1 by the head with its interval, of each trained width on held-out images."""
    model = student.model
    loader = make_loader(images, eval_transform(model.input), BATCH)
    found = predict(model, loader, model.trained_widths)
    quality = with_intervals([{"top1": one.correct} for one in found])
    return [
        cost_row(model, width) | values for width, values in zip(model.trained_widths, quality, strict=True)
    ]


def costs(sides: Sides) -> list[Row]:
    """Multiply-adds and median ms for one image of each encoder, on the threads of this run."""
    found: list[Row] = []
    for encoder in (sides.teacher, sides.small):
        image = torch.randn(1, *encoder.input["input_size"])
        # The faster of its two ways: the student has its own fastest, too.
        ways = {way.by: way for way in (encoder, for_many(encoder, MANY))}
        latencies = time_in_turn([way.embed for way in ways.values()], image, REPEATS)
        ms, by = min((latency.median, by) for by, latency in zip(ways, latencies, strict=True))
        row = {"encoder": f"teacher at {encoder.size}", "macs": encoder.count_macs()}
        found.append(row | {"ms": ms, "by": by})
    for name, checkpoint in ((BEFORE, sides.before), ("student", sides.student)):
        model = checkpoint.model
        for width, latency in zip(
            model.trained_widths, measure_latency(model, model.trained_widths, repeats=REPEATS), strict=True
        ):
            row = {"encoder": f"{name} {model.label(width)}", "macs": count_macs(model, width)}
            found.append(row | {"ms": latency.median})
    return found


if __name__ == "__main__":
    main()
