"""What each term of a student's objective brings, on the same kept vectors of one teacher.

    python benchmarks/distill_ablation.py --photos PHOTOS --teacher timm:local-dir:LITE0 --runs DIR
    python benchmarks/distill_ablation.py --table

PHOTOS is a folder of Parquet files in the Hugging Face image schema. A tenth of its training images, by the
hashes of their paths, is held out and asked; its held-out part stays untouched, this is for development.
Every row is trained by `matmamba_vision.distill` from the same weights, images, order and views; the
teacher's vectors are computed once. What was stopped goes on where it was. Writes
results/distill_ablation.json and results/distill_ablation.md.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import matmamba_vision
import numpy as np
import torch
from distilled import by_teacher, by_width, kept
from matmamba_datasets import Images, Subset, open_training_images
from matmamba_datasets.splits import split_by_id
from matmamba_vision import load_checkpoint
from matmamba_vision.encoders import open_encoder
from matmamba_vision.measures import count_macs, count_parameters
from matmamba_vision.measures.environment import environment
from matmamba_vision.measures.significance import with_intervals
from matmamba_vision.progress import Event, Notice
from matmamba_vision.rotation import FILE_NAME, load_rotation
from matmamba_vision.widths.quality_and_cost import Embeddings, retrieval_values
from measuring import RESULTS, write_json
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
HELD_OUT, GALLERY_STEP, DIM, SHORT = 0.1, 2, 128, 32
WIDTHS = ("full", "1/8")
ALONE = "regression"
# The terms of the objective, by the name of their row: those that the row has beside the regression.
TERMS: dict[str, dict[str, dict[str, float]]] = {
    ALONE: {},
    "+ prefixes": {"follow": {"prefixes": 5.0}},
    "+ similarity": {"follow": {"similarity": 1.0}},
    "+ neighbours": {"follow": {"neighbours": 0.5}},
    "+ anchors": {"follow": {"anchors": 1.0}},
    "+ labels": {"objective": {"cross_entropy": 0.5}},
    "all": {
        "follow": {"prefixes": 5.0, "similarity": 1.0, "neighbours": 0.5, "anchors": 1.0},
        "objective": {"cross_entropy": 0.5},
    },
}
# As small as one thread trains in minutes: 16 patches. Its weights begin as those that come with the package.
MODEL = {
    "name": "matmamba_nano_patch4_32", "img_size": 64, "patch_size": 16, "trained_widths": [*WIDTHS],
    "warm_start": "matmamba_nano_patch4_32",
}  # fmt: skip
NOTHING = {"cross_entropy": 0.0, "mrl": 0.0, "distillation": 0.0, "alignment": 0.0}
REGRESSION = {
    "regression": 10.0, "prefixes": 0.0, "prefix_dims": [16, 32, 64], "similarity": 0.0, "neighbours": 0.0,
    "anchors": 0.0, "anchor_count": 512, "temperature": 0.05,
}  # fmt: skip
OPTIM = {"lr": 3e-3, "weight_decay": 0.05, "clip_grad": 10.0, "warmup_epochs": 0.3}
DATA = {"batch_size": 128, "decoded": 72, "held_out": HELD_OUT}
CROPS = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, measure it, then write the table."""
    options = parse(arguments)
    if not options.table:
        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        options.runs.mkdir(parents=True, exist_ok=True)
        for seed in options.seeds:
            for name in TERMS:
                print(train_row(name, seed, options), flush=True)
                # What is stopped has what it measured so far.
                write_json(RESULTS / "distill_ablation.json", summary(options))
    result = json.loads((RESULTS / "distill_ablation.json").read_text())
    (RESULTS / "distill_ablation.md").write_text(table(result))
    print(table(result))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder of Parquet files")
    parser.add_argument("--teacher", help="as for matmamba distill")
    parser.add_argument("--runs", type=Path, default=Path("runs/distill_ablation"), help="for what is kept")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--table", action="store_true", help="only write the table of what is recorded")
    options = parser.parse_args(arguments)
    if not options.table and not (options.photos and options.teacher):
        parser.error("--photos and --teacher are missing: where are the Parquet files, and who teaches?")
    return options


def settings_of(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What `distill` is given for a row."""
    terms = TERMS[name]
    return {
        "teacher": options.teacher,
        "images": [str(options.photos)],
        "labelled": [True],
        "crops": CROPS,
        "cache": str(options.runs / "teacher"),
        "output": str(options.runs / title(name, seed, options.epochs)),
        "dim": DIM,
        "seed": seed,
        "threads": 1,
        "device": "cpu",
        "trackers": [],
        "eval_every": options.epochs,
        "model": MODEL,
        "data": DATA,
        "objective": {**NOTHING, **terms.get("objective", {})},
        "follow": {**REGRESSION, **terms.get("follow", {})},
        "optim": {**OPTIM, "epochs": options.epochs},
    }


def title(name: str, seed: int, epochs: int) -> str:
    """The name of a row's files."""
    return f"{name.replace('+ ', 'with_')}-seed{seed}-epochs{epochs}"


def train_row(name: str, seed: int, options: argparse.Namespace) -> Path:
    """Train and measure a row, unless that was done; the file of what each of its queries found."""
    file: Path = options.runs / f"{title(name, seed, options.epochs)}.npz"
    if not file.is_file():
        began = time.monotonic()
        run = matmamba_vision.distill(settings_of(name, seed, options), resume="auto", progress=said)
        found = found_by(run.folder, options)
        partial = file.with_suffix(".partial.npz")
        # Seconds of the run, those before it was stopped too.
        numbers = {"seconds": run.seconds, "steps": run.steps, "loss": run.loss or np.nan}
        arrays = {**{key: np.array(value) for key, value in numbers.items()}, **found}
        np.savez(partial, **arrays)  # type: ignore[arg-type]
        partial.replace(file)
        print(f"{name}, seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
    return file


def said(event: Event) -> None:
    """Print what a run says; its bars are left out."""
    if isinstance(event, Notice):
        print(event.text, flush=True)


def parts(options: argparse.Namespace) -> tuple[Images, Images]:
    """Gallery and queries: of the images trained on every second one, and those that `distill` held out."""
    known = split_by_id(open_training_images(options.photos), HELD_OUT)
    return Subset(known.train, np.arange(0, len(known.train), GALLERY_STEP)), known.held_out


def found_by(run: Path, options: argparse.Namespace) -> dict[str, NDArray[Any]]:
    """What each query found: student by student, student by teacher and teacher by teacher."""
    student, teacher = load_checkpoint(run), open_encoder(options.teacher)
    rotation = load_rotation(run / FILE_NAME, *teacher.digests)
    gallery, queries = parts(options)
    theirs = {
        side: kept(
            options.runs,
            f"{side} {rotation.digest[:16]}",
            images,
            lambda one: by_teacher(teacher, rotation, one),
        )
        for side, images in (("gallery", gallery), ("queries", queries))
    }
    ours = {width: by_width(student, width)(queries) for width in WIDTHS}
    stored = by_width(student, "full")(gallery)
    found: dict[str, NDArray[Any]] = {}
    for dim in (DIM, SHORT):
        sides = {f"{width} in teacher": (ours[width], theirs["gallery"]) for width in WIDTHS}
        sides |= {f"{width} in student": (ours[width], stored) for width in WIDTHS}
        sides |= {"teacher in teacher": (theirs["queries"], theirs["gallery"])}
        for side, (asked, known) in sides.items():
            values = retrieval_values(
                Embeddings(asked, queries.labels), Embeddings(known, gallery.labels), dim
            )
            found |= {f"{side}, {dim}, {figure}": values[figure] for figure in ("knn1", "map10")}
    return found


def summary(options: argparse.Namespace) -> dict[str, Any]:
    """All finished rows with what they have in common; gains are paired with those of regression alone."""
    student = load_checkpoint(options.runs / title(ALONE, options.seeds[0], options.epochs)).model
    gallery, queries = parts(options)
    rows = [row for seed in options.seeds for row in rows_of(seed, options)]
    return {
        "command": "benchmarks/distill_ablation.py --photos PHOTOS --teacher timm:local-dir:LITE0 --runs DIR",
        "collected_by": environment(),
        "settings": {
            "model": MODEL,
            "params": count_parameters(student),
            "macs": {width: count_macs(student, student.width(width)) for width in WIDTHS},
            "epochs": options.epochs,
            "crops": CROPS,
            "dim": DIM,
            "optim": OPTIM,
            "data": DATA,
            "follow": REGRESSION,
            "terms": TERMS,
            "teacher": teacher_facts(options),
            "trained_on": len(gallery) * GALLERY_STEP,
            "gallery": len(gallery),
            "queries": len(queries),
        },
        "rows": rows,
    }


def teacher_facts(options: argparse.Namespace) -> dict[str, Any]:
    """What is known of the teacher beside its name, which is a folder's."""
    encoder = open_encoder(options.teacher)
    return {"digest": encoder.digest, "dim": encoder.dim, "size": encoder.size}


def rows_of(seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a seed."""
    files = {name: options.runs / f"{title(name, seed, options.epochs)}.npz" for name in TERMS}
    kept_rows = {name: dict(np.load(file)) for name, file in files.items() if file.is_file()}
    rows = []
    for name, row in kept_rows.items():
        numbers = {key: float(row.pop(key)) for key in ("seconds", "steps", "loss")}
        gains = {f"{key}, gained": 1.0 * row[key] - kept_rows[ALONE][key] for key in row}
        (values,) = with_intervals([{**row, **gains}])
        rows.append({"name": name, "seed": seed, **numbers, "values": values})
    return rows


# What the table shows: heading, side and dim.
COLUMNS = (
    ("full in teacher's gallery", "full in teacher", DIM),
    ("1/8 in teacher's gallery", "1/8 in teacher", DIM),
    ("full in its own", "full in student", DIM),
    ("1/8 in its own", "1/8 in student", DIM),
    (f"full in teacher's, {SHORT} dims", "full in teacher", SHORT),
    (f"1/8 in its own, {SHORT} dims", "1/8 in student", SHORT),
)


def table(result: Mapping[str, Any]) -> str:
    """Markdown: 1-NN of each row, mean over its seeds, and what that is more than by regression alone."""
    names = ("terms", *(heading for heading, *_ in COLUMNS))
    lines = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    for name in TERMS:
        rows = [row["values"] for row in result["rows"] if row["name"] == name]
        if rows:
            cells = [_cell(name, rows, f"{side}, {dim}, knn1") for _, side, dim in COLUMNS]
            lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join([*lines, "", *textwrap.wrap(_about(result), 110), ""])


def _cell(name: str, rows: list[dict[str, Any]], key: str) -> str:
    value = 100 * np.mean([row[key] for row in rows])
    if name == ALONE:
        return f"{value:.1f}"
    gained = 100 * np.mean([row[f"{key}, gained"] for row in rows])
    low, high = 100 * np.mean([row[f"{key}, gained_interval"] for row in rows], axis=0)
    return f"{value:.1f}, {gained:+.1f} ({low:+.1f} to {high:+.1f})"


def _about(result: Mapping[str, Any]) -> str:
    known, first = result["settings"], result["rows"][0]["values"]
    theirs = ", ".join(
        f"{100 * first[f'teacher in teacher, {dim}, knn1']:.1f} of {dim} dims" for dim in (DIM, SHORT)
    )
    macs = " and ".join(f"{known['macs'][width] / 1e6:.1f}" for width in WIDTHS)
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in result["rows"]}))
    left = [name for name in TERMS if all(row["name"] != name for row in result["rows"])]
    not_run = f" Not run: {', '.join(left)}." if left else ""
    return (
        f"1-NN by class in per cent, and points more than by regression alone with the 95 % bootstrap"
        f" interval over the queries; that of another training is not in it (seeds: {seeds}). A small"
        " student,"
        f" {known['params']:,} parameters and {macs} million multiply-adds at full and 1/8 width,"
        f" {known['epochs']} epochs of {known['trained_on']:,} photos with {known['crops']} fixed views each;"
        f" gallery {known['gallery']:,} of them, {known['queries']:,} queries held out of the training photos"
        f" by hash. The teacher, EfficientNet-Lite0 at {known['teacher']['size']} px, in its own gallery:"
        f" {theirs}.{not_run}"
    )


if __name__ == "__main__":
    main()
