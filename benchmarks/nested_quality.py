"""A nested model against models of its widths trained alone, for as many epochs on the same images.

    python benchmarks/nested_quality.py --data CIFAR10 --jobs 2
    python benchmarks/nested_quality.py --data TINYIMAGENET --comparison tinyimagenet --device cuda --jobs 3
    python benchmarks/nested_quality.py --table

CIFAR10 and TINYIMAGENET are folders of Parquet files in the Hugging Face image schema. All models see the
same batches at the same learning rate; the ones alone have no larger width to learn from. Each finished row
is kept in --runs, so that a run that was stopped goes on where it was. Writes results/nested_quality.json and
.md, or nested_quality_tinyimagenet.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_vision.measures.environment import environment
from matmamba_vision.training import ObjectiveConfig, OptimConfig
from measuring import RESULTS, write_json
from rows import GALLERY, Row, Setting, collect, make_parser, mean_and_spread, parse_options, train_rows

# The smaller widths learn half from the labels and half from the full width; embeddings are not aligned.
RECIPE = ObjectiveConfig(
    distillation=1.0, teacher="largest", temperature=2.0, alignment=0.0, width_weights=[1.0, 0.5, 0.5, 0.5]
)
ALONE = ObjectiveConfig(width_weights=[])
NESTED, WIDTHS = "nested", ("full", "1/2", "1/4", "1/8")


@dataclass(frozen=True)
class Comparison:
    """A model and how it is trained, nested and alone; `images` names the training images for people."""

    images: str
    model: dict[str, Any]
    setting: Setting
    epochs: int
    seeds: tuple[int, ...]

    @property
    def rows(self) -> dict[str, Row]:
        """The nested model, and one of each width alone."""
        most = self.model["num_heads"]
        heads = {width: most * Fraction(1 if width == "full" else width) for width in WIDTHS}
        alone = {
            f"alone, {width}": Row({**self.model, "num_heads": int(count)}, ("full",), ALONE)
            for width, count in heads.items()
        }
        return {NESTED: Row(self.model, WIDTHS, RECIPE), **alone}


COMPARISONS = {
    # What two CPU cores train fifteen times in an hour and a half: 16 patches.
    "cifar10": Comparison(
        "CIFAR-10's 50,000",
        {
            "img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 64, "depth": 4, "num_heads": 8,
            "head_dim": 16, "d_state": 16, "scan": "flip",
        },
        Setting(),
        epochs=20,
        seeds=(0, 1, 2),
    ),
    # matmamba_mini_patch8_64, for a GPU.
    "tinyimagenet": Comparison(
        "Tiny-ImageNet's 100,000",
        {
            "img_size": 64, "patch_size": 8, "num_classes": 200, "embed_dim": 256, "depth": 12,
            "num_heads": 32, "head_dim": 16, "d_state": 64, "scan": "flip",
        },
        Setting(OptimConfig(lr=2e-3, weight_decay=0.05, warmup_epochs=1.0), 512, 8, "bf16"),
        epochs=5,
        seeds=(0,),
    ),
}  # fmt: skip


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
    settings = result["settings"]
    over = f"mean ± standard deviation over the seeds {seeds}" if "," in seeds else f"seed {seeds}"
    about = (
        f"Per cent, {over}; {settings['epochs']} epochs of {settings['images']} training images, batch"
        f" {settings['batch']}, 10,000 held-out images; 1-NN against the first {GALLERY:,} training images,"
        " encoded at full width (for a model alone by itself)."
    )
    return "\n".join([*lines, "", *textwrap.wrap(about, 110), ""])


def main() -> None:
    """Train what is missing, then write the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--comparison", choices=[*COMPARISONS], default="cifar10")
    options = parse_options(parser)
    comparison, name = COMPARISONS[options.comparison], result_name(options.comparison)
    options.epochs = options.epochs or comparison.epochs
    options.runs = options.runs or Path("runs") / name
    rows, setting = comparison.rows, comparison.setting
    if not options.table:
        train_rows(rows, [(row, seed) for seed in comparison.seeds for row in rows], setting, options)
    done = collect(options.runs, [*rows], options.epochs)
    settings = {"images": comparison.images, "epochs": options.epochs, "batch": setting.batch}
    settings |= {"lr": setting.optim.lr, "gallery": GALLERY, "model": comparison.model}
    result = {"collected_by": environment(), "settings": settings, "compared": compare(done), "rows": done}
    write_json(RESULTS / f"{name}.json", result)
    (RESULTS / f"{name}.md").write_text(table(result))
    print(table(result))


def result_name(comparison: str) -> str:
    """Name of the files of a comparison's results."""
    return "nested_quality" if comparison == "cifar10" else f"nested_quality_{comparison}"


if __name__ == "__main__":
    main()
