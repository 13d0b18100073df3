"""A student's 1/8 of a nested network beside a student of 1/8 alone, distilled alike from the same teacher.

    python benchmarks/nested_students.py --photos PHOTOS --teacher timm:local-dir:LITE0 --runs DIR

Settings, images, held-out part and kept vectors are those of benchmarks/distill_ablation.py with all terms,
whose folder of runs this shares; of the student alone the loss counts 1/8 only, in as many steps. Queries are
asked in the teacher's gallery, and in a gallery of the same width. What was stopped goes on where it was.
Writes results/nested_students.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import distill_ablation as alike
import faiss
import matmamba_vision
import numpy as np
import torch
from distilled import by_teacher, by_width, kept
from markdown_tables import markdown
from matmamba_vision import load_checkpoint
from matmamba_vision.encoders import open_encoder
from matmamba_vision.measures import count_macs, count_parameters
from matmamba_vision.measures.environment import environment
from matmamba_vision.measures.significance import with_intervals
from matmamba_vision.rotation import FILE_NAME, load_rotation
from matmamba_vision.widths.quality_and_cost import Embeddings, retrieval_values
from measuring import RESULTS, write_json
from numpy.typing import NDArray

WIDTH, TERMS = "1/8", "all"
NESTED, ALONE = "nested", "alone"
GALLERIES = ("teacher", "own width")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, measure it and write."""
    options = parse(arguments)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    options.runs.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in options.seeds:
        rows.append(row_of(seed, options))
        print(rows[-1], flush=True)
        # What is stopped has what it measured so far.
        write_json(RESULTS / "nested_students.json", {**about(options), "rows": rows})
    print(table({"rows": rows}))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--teacher", required=True, help="as for matmamba distill")
    parser.add_argument("--runs", type=Path, default=Path("runs/distill_ablation"), help="for what is kept")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args(arguments)


def about(options: argparse.Namespace) -> dict[str, Any]:
    """What all rows have in common."""
    student = load_checkpoint(run_of(ALONE, options.seeds[0], options)).model
    return {
        "command": "benchmarks/nested_students.py --photos PHOTOS --teacher timm:local-dir:LITE0 --runs DIR",
        **environment(),
        "params": count_parameters(student, WIDTH),
        "macs": count_macs(student, WIDTH),
        "epochs": options.epochs,
        "dim": alike.DIM,
        "teacher": alike.teacher_facts(options),
    }


def row_of(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """1-NN of both students, and by how much the nested one is better, paired, with their intervals."""
    found = {side: found_by(trained(side, seed, options), options) for side in (NESTED, ALONE)}
    gains = {
        f"{gallery}, gained": 1.0 * found[NESTED][gallery] - found[ALONE][gallery] for gallery in GALLERIES
    }
    values = {f"{gallery}, {side}": found[side][gallery] for gallery in GALLERIES for side in found}
    (row,) = with_intervals([{**values, **gains}])
    return {"seed": seed, **row}


def run_of(side: str, seed: int, options: argparse.Namespace) -> Path:
    """The folder of a run; that of the nested student is the ablation's."""
    name: str = alike.title(TERMS if side == NESTED else f"{TERMS}, {ALONE}", seed, options.epochs)
    return Path(options.runs) / name


def trained(side: str, seed: int, options: argparse.Namespace) -> Path:
    """Train a student, unless that was done."""
    settings = alike.settings_of(TERMS, seed, options)
    settings["output"] = str(run_of(side, seed, options))
    if side == ALONE:
        # What is outside of it gets no gradient.
        settings["objective"] = {**settings["objective"], "width_weights": [0.0, 1.0]}
    return matmamba_vision.distill(settings, resume="auto", progress=alike.said).folder


def found_by(run: Path, options: argparse.Namespace) -> dict[str, NDArray[Any]]:
    """Whether the first hit of each query is of its class, by gallery."""
    student, teacher = load_checkpoint(run), open_encoder(options.teacher)
    rotation = load_rotation(run / FILE_NAME, *teacher.digests)
    gallery, queries = alike.parts(options)
    name = f"gallery {rotation.digest[:16]}"
    theirs = kept(options.runs, name, gallery, lambda images: by_teacher(teacher, rotation, images))
    encode = by_width(student, WIDTH)
    asked = Embeddings(encode(queries), queries.labels)
    stored = dict(zip(GALLERIES, (theirs, encode(gallery)), strict=True))
    return {
        name: retrieval_values(asked, Embeddings(vectors, gallery.labels), alike.DIM)["knn1"]
        for name, vectors in stored.items()
    }


def table(result: dict[str, Any]) -> str:
    """Markdown: 1-NN in per cent, and the points by which the nested student is better."""
    rows = []
    for row in result["rows"]:
        cells = []
        for gallery in GALLERIES:
            low, high = 100 * np.array(row[f"{gallery}, gained_interval"])
            cells += [f"{100 * row[f'{gallery}, {side}']:.1f}" for side in (NESTED, ALONE)]
            cells.append(f"{100 * row[f'{gallery}, gained']:+.1f} ({low:+.1f} to {high:+.1f})")
        rows.append((row["seed"], *cells))
    heads = [f"{side}, {gallery}" for gallery in GALLERIES for side in (NESTED, ALONE, "points")]
    return markdown(("seed", *heads), rows)


if __name__ == "__main__":
    main()
