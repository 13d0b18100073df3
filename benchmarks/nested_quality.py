"""A nested model against models of its widths trained alone, for as many epochs on the same images.

    python benchmarks/nested_quality.py --data CIFAR10 --jobs 2
    python benchmarks/nested_quality.py --table

CIFAR10 is a folder of Parquet files in the Hugging Face image schema. All models see the same batches at the
same learning rate; the ones alone have no larger width to learn from. Each finished row is kept in --runs, so
that a run that was stopped goes on where it was. Writes results/nested_quality.json and .md.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cifar import BATCH, GALLERY, OPTIM, Row, collect, mean_and_spread, parse_options, train_rows
from matmamba_vision.evaluate.environment import environment
from matmamba_vision.train import ObjectiveConfig
from measuring import RESULTS, write_json

EPOCHS, SEEDS = 20, (0, 1, 2)
# What two CPU cores train fifteen times in an hour and a half: 16 patches.
MODEL = {
    "img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 64, "depth": 4, "num_heads": 8,
    "head_dim": 16, "d_state": 16, "scan": "flip",
}  # fmt: skip
# The smaller widths learn half from the labels and half from the full width; embeddings are not aligned.
RECIPE = ObjectiveConfig(
    distillation=1.0, teacher="largest", temperature=2.0, alignment=0.0, width_weights=[1.0, 0.5, 0.5, 0.75]
)
ALONE = ObjectiveConfig(width_weights=[])
NESTED = "nested"
# Heads of each width.
WIDTHS = {"full": 8, "1/2": 4, "1/4": 2, "1/8": 1}
ROWS = {NESTED: Row(MODEL, (*WIDTHS,), RECIPE)} | {
    f"alone, {width}": Row({**MODEL, "num_heads": heads}, ("full",), ALONE) for width, heads in WIDTHS.items()
}


def compare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each width: top-1 and 1-NN of the nested model and of the one alone, by seed."""
    found = []
    for place, width in enumerate(WIDTHS):
        nested = {row["seed"]: row["widths"][place] for row in rows if row["name"] == NESTED}
        alone = {row["seed"]: row["widths"][0] for row in rows if row["name"] == f"alone, {width}"}
        seeds = sorted(nested.keys() & alone.keys())
        line: dict[str, Any] = {"width": width, "seeds": seeds, "params": nested[seeds[0]]["params"]}
        for figure in ("top1", "knn1"):
            line[f"nested_{figure}"] = [nested[seed][figure] for seed in seeds]
            line[f"alone_{figure}"] = [alone[seed][figure] for seed in seeds]
        differences = np.subtract(line["nested_top1"], line["alone_top1"])
        found.append({**line, "difference": float(differences.mean())})
    return found


def table(result: Mapping[str, Any]) -> str:
    """Markdown: a line for each width."""
    names = (
        "width",
        "parameters",
        "top-1 nested",
        "top-1 alone",
        "difference",
        "by seed",
        "1-NN nested",
        "1-NN alone",
    )
    lines = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    for row in result["compared"]:
        shares = [
            mean_and_spread(row[f"{kind}_{figure}"])
            for figure in ("top1", "knn1")
            for kind in (NESTED, "alone")
        ]
        cells = [
            row["width"],
            f"{row['params']:,}",
            *shares[:2],
            f"{100 * row['difference']:+.1f}",
            " ".join(f"{100 * found:+.1f}" for found in np.subtract(row["nested_top1"], row["alone_top1"])),
            *shares[2:],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    seeds = ", ".join(map(str, result["compared"][0]["seeds"]))
    about = (
        f"Per cent, mean ± standard deviation over the seeds {seeds}; {result['settings']['epochs']} epochs"
        f" of CIFAR-10's 50,000 training images, batch {BATCH}, 10,000 test images; 1-NN against the first"
        f" {GALLERY:,} training images, encoded at full width (for a model alone by itself)."
    )
    return "\n".join([*lines, "", *textwrap.wrap(about, 110), ""])


def main() -> None:
    """Train what is missing, then write the table."""
    options = parse_options(__doc__, Path("runs/nested_quality"), EPOCHS)
    if not options.table:
        train_rows(ROWS, [(name, seed) for seed in SEEDS for name in ROWS], options)
    rows = collect(options.runs, [*ROWS], options.epochs)
    settings = {"epochs": options.epochs, "batch": BATCH, "lr": OPTIM.lr, "gallery": GALLERY, "model": MODEL}
    result = {"collected_by": environment(), "settings": settings, "compared": compare(rows), "rows": rows}
    write_json(RESULTS / "nested_quality.json", result)
    (RESULTS / "nested_quality.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
