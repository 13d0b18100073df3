"""Scan orders, distillation and baselines, trained alike on CIFAR-10, at full and at 1/8 width.

    python benchmarks/ablation.py --data CIFAR10 --jobs 2
    python benchmarks/ablation.py --table

CIFAR10 is a folder of Parquet files in the Hugging Face image schema. Every row is trained with the same
seed, epochs, images and augmentation; each finished row is kept in --runs, so that a run that was stopped
goes on where it was. Writes results/ablation.json and results/ablation.md.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from matmamba_vision.measures.environment import environment
from matmamba_vision.training import ObjectiveConfig
from measuring import RESULTS, write_json
from rows import (
    GALLERY,
    OPTIM,
    Row,
    Setting,
    collect,
    make_parser,
    mean_and_spread,
    parse_options,
    train_rows,
)

SETTING = Setting()
# As large as two CPU cores train in ten minutes: 121,002 parameters, 64 patches.
SMALL = {
    "img_size": 32, "patch_size": 4, "num_classes": 10, "embed_dim": 64, "depth": 4, "num_heads": 8,
    "head_dim": 16, "d_state": 16,
}  # fmt: skip
# As many parameters: 119,194.
MATVIT = {
    "embed_dim": 48, "attention_blocks": [0, 1, 2, 3], "attn_head_dim": 16, "nested_attention": False,
    "mlp_ratio": 4.0,
}  # fmt: skip
# The recipe that all rows share.
RECIPE = ObjectiveConfig(distillation=1.0, teacher="next", temperature=1.0, alignment=1.0, width_weights=[])


def _row(model: Mapping[str, Any] | None = None, **changes: Any) -> Row:
    return Row({**SMALL, **(model or {})}, **{"objective": RECIPE, **changes})


ROWS = {
    "raster": _row(),
    "flip": _row({"scan": "flip"}),
    "mean + flip": _row({"scan": "flip", "mean_token": True}),
    "cross": _row({"scan": "cross"}),
    "bidirectional": _row({"scan": "bidirectional"}),
    "raster, no distillation": _row(objective=replace(RECIPE, distillation=0.0)),
    "MatViT of equal parameters": _row(MATVIT),
    "Mamba2 alone, full": _row(widths=("full",)),
    "Mamba2 alone, 1/8": _row({"num_heads": 1}, widths=("full",)),
}
# Rows that differ in the scan alone.
SCANS = ("raster", "flip", "mean + flip", "cross", "bidirectional")


def summary(runs: Path, epochs: int) -> dict[str, Any]:
    """All finished rows, with what they have in common."""
    common = {"epochs": epochs, "batch": SETTING.batch, "lr": OPTIM.lr, "gallery": GALLERY, "model": SMALL}
    return {"collected_by": environment(), "settings": common, "rows": collect(runs, [*ROWS], epochs)}


def table(result: Mapping[str, Any]) -> str:
    """Markdown: a line for each row, mean over its seeds and, of several, their standard deviation."""
    names = (
        "row",
        "seeds",
        "params, full",
        "MMACs, full / 1/8",
        "top-1, full",
        "top-1, 1/8",
        "1-NN, full",
        "1-NN, 1/8",
    )
    lines = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    for name in ROWS:
        runs = [row["widths"] for row in result["rows"] if row["name"] == name]
        if runs:
            lines.append("| " + " | ".join(_cells(name, runs)) + " |")
    settings = result["settings"]
    about = (
        f"{settings['epochs']} epochs of CIFAR-10's 50,000 training images, batch {settings['batch']};"
        f" 10,000 test images; 1-NN against the first {settings['gallery']:,} training images, encoded at"
        " full width (for the 1/8 model alone by itself)."
    )
    return "\n".join([*lines, "", *textwrap.wrap(about, 110), ""])


def _cells(name: str, runs: list[list[dict[str, Any]]]) -> list[str]:
    # A model trained alone at 1/8 has nothing but that.
    full: dict[str, Any] | None
    small: dict[str, Any] | None
    full, small = (None, runs[0][0]) if name == "Mamba2 alone, 1/8" else (runs[0][0], runs[0][-1])
    small = None if name == "Mamba2 alone, full" else small
    known = [f"{1e3 * row['gmacs']:.1f}" if row else "-" for row in (full, small)]
    cells = [name, str(len(runs)), f"{full['params']:,}" if full else "-", " / ".join(known)]
    for figure in ("top1", "knn1"):
        for row, place in ((full, 0), (small, -1)):
            cells.append(mean_and_spread([run[place][figure] for run in runs]) if row else "-")
    return cells


def closest_rows(result: Mapping[str, Any]) -> list[str]:
    """The best scan and the one that comes closest to it, by top-1, mean of full and 1/8 width, seed 0."""
    nested = [row for row in result["rows"] if row["seed"] == 0 and row["name"] in SCANS]
    quality = {row["name"]: row["widths"][0]["top1"] + row["widths"][-1]["top1"] for row in nested}
    return sorted(quality, key=lambda name: -quality[name])[:2]


def main() -> None:
    """Train what is missing, then write the table."""
    parser = make_parser(__doc__)
    parser.set_defaults(runs=Path("runs/ablation"), epochs=OPTIM.epochs)
    options = parse_options(parser)
    if not options.table:
        train_rows(ROWS, [(name, 0) for name in ROWS], SETTING, options)
        closest = closest_rows(summary(options.runs, options.epochs))
        train_rows(ROWS, [(name, seed) for name in closest for seed in (1, 2)], SETTING, options)
    result = summary(options.runs, options.epochs)
    write_json(RESULTS / "ablation.json", result)
    (RESULTS / "ablation.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
