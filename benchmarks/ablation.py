"""Scan orders, distillation and baselines, trained alike on CIFAR-10, at full and at 1/8 width.

    python benchmarks/ablation.py --data CIFAR10 --jobs 2
    python benchmarks/ablation.py --table

CIFAR10 is a folder of Parquet files in the Hugging Face image schema. Every row is trained with the same
seed, epochs, images and augmentation; each finished row is kept in --runs, so that a run that was stopped
goes on where it was. Writes results/ablation.json and results/ablation.md.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matmamba_datasets import DataConfig, Images, open_splits
from matmamba_vision import MatMamba, keep_freed_memory
from matmamba_vision.cli.measure import measure_widths
from matmamba_vision.evaluate.environment import environment
from matmamba_vision.train import (
    Hooks,
    NestedObjective,
    ObjectiveConfig,
    OptimConfig,
    StepReport,
    fit,
    make_optimiser,
)
from measuring import RESULTS, write_json
from torch import Tensor
from torch.nn import functional as F

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
OPTIM = OptimConfig(lr=3e-3, weight_decay=0.05, epochs=3, warmup_epochs=0.3)
BATCH, GALLERY = 128, 10_000


@dataclass(frozen=True)
class Row:
    """What is trained: changes to `SMALL`, widths, and changes to the objective."""

    model: Mapping[str, Any] = field(default_factory=dict)
    widths: tuple[str, ...] = ("full", "1/2", "1/4", "1/8")
    distillation: float = 1.0


ROWS = {
    "raster": Row(),
    "flip": Row({"scan": "flip"}),
    "mean + flip": Row({"scan": "flip", "mean_token": True}),
    "cross": Row({"scan": "cross"}),
    "bidirectional": Row({"scan": "bidirectional"}),
    "raster, no distillation": Row(distillation=0.0),
    "MatViT of equal parameters": Row(MATVIT),
    "Mamba2 alone, full": Row(widths=("full",)),
    "Mamba2 alone, 1/8": Row({"num_heads": 1}, widths=("full",)),
}


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, 32, 32) and class indices (B,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """Normalised images in batches; shuffled, mirrored and shifted by up to 4 pixels where there is a seed.

    Args:
        pixels: (n, 3, S, S) uint8. labels: (n,).
    """

    def __init__(self, pixels: Tensor, labels: Tensor, seed: int | None = None) -> None:
        self.pixels, self.labels, self.images = pixels, labels, pixels
        self.chance = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.labels) // BATCH)

    def __iter__(self) -> Iterator[Batch]:
        count = len(self.labels)
        order = torch.arange(count) if self.chance is None else torch.randperm(count, generator=self.chance)
        for chosen in order.split(BATCH):
            images = self.pixels[chosen].float().div_(127.5).sub_(1)
            yield Batch(images if self.chance is None else self._augment(images), self.labels[chosen])

    def _augment(self, images: Tensor) -> Tensor:
        count, _, size, _ = images.shape
        mirrored = torch.rand(count, generator=self.chance) < 0.5
        images[mirrored] = images[mirrored].flip(-1)
        shifts = torch.randint(9, (count, 2), generator=self.chance)
        padded = F.pad(images, (4, 4, 4, 4))
        parts = zip(padded, shifts.tolist(), strict=True)
        return torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in parts])


def pixels_of(images: Images, file: Path) -> tuple[Tensor, Tensor]:
    """All images (n, 3, S, S) uint8 with their labels (n,), decoded once and kept in `file`."""
    if not file.is_file():
        decoded = np.stack([np.asarray(images[index].image) for index in range(len(images))])
        partial = file.with_suffix(".partial.npy")
        np.save(partial, decoded.transpose(0, 3, 1, 2))
        partial.replace(file)
    return torch.from_numpy(np.load(file)), torch.from_numpy(images.labels)


class Report(Hooks):
    """Prints how far a row is."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.started = name, steps, time.monotonic()

    def on_step(self, report: StepReport) -> None:
        """Every hundredth step."""
        done = report.step + 1
        if done % 100 == 0:
            seconds = time.monotonic() - self.started
            left = seconds / done * (self.steps - done)
            print(
                f"{self.name}: step {done}/{self.steps}, loss {report.losses['loss']:.3f}, {left:.0f} s left",
                flush=True,
            )


def train_row(name: str, seed: int, epochs: int, runs: Path, data: Path) -> Path:
    """Train and measure one row, unless it was done before; the file of its result."""
    file = runs / f"{name.replace(' ', '_').replace('/', '-')}-seed{seed}-epochs{epochs}.json"
    if file.is_file():
        return file
    torch.set_num_threads(1)
    keep_freed_memory()
    splits = open_splits(DataConfig(name="parquet", root=str(data)))
    train, held_out = (
        pixels_of(images, runs / f"{part}.npy")
        for images, part in ((splits.train, "train"), (splits.held_out, "test"))
    )
    row, start = ROWS[name], time.monotonic()
    torch.manual_seed(seed)
    model = MatMamba(**{**SMALL, **row.model}, trained_widths=row.widths)
    objective = NestedObjective(
        ObjectiveConfig(distillation=row.distillation), model.embed_dim, model.num_classes
    )
    loader, optim = Batches(*train, seed), replace(OPTIM, epochs=epochs)
    report = Report(f"{name}, seed {seed}", epochs * len(loader))
    fit(model, objective, loader, make_optimiser(optim, model, objective), optim, report)
    seconds = time.monotonic() - start
    gallery = Batches(train[0][:GALLERY], train[1][:GALLERY])
    widths = measure_widths(model, model.trained_widths, gallery, Batches(*held_out))
    known = {"name": name, "seed": seed, "seconds": round(seconds), "commit": environment()["commit"]}
    write_json(file, {**known, "widths": widths})
    return file


def collect(runs: Path, epochs: int) -> dict[str, Any]:
    """All finished rows in the order of `ROWS`, with what they have in common."""
    found = [json.loads(file.read_text()) for file in runs.glob(f"*-epochs{epochs}.json")]
    found.sort(key=lambda row: ([*ROWS].index(row["name"]), row["seed"]))
    common = {"epochs": epochs, "batch": BATCH, "lr": OPTIM.lr, "gallery": GALLERY, "model": SMALL}
    # Each row was trained by the commit that it names, if it does.
    return {"collected_by": environment(), "settings": common, "rows": found}


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
    full, small = (None, runs[0][0]) if name == "Mamba2 alone, 1/8" else (runs[0][0], runs[0][-1])
    small = None if name == "Mamba2 alone, full" else small
    known = [f"{1e3 * row['gmacs']:.1f}" if row else "-" for row in (full, small)]
    cells = [name, str(len(runs)), f"{full['params']:,}" if full else "-", " / ".join(known)]
    for figure in ("top1", "knn1"):
        for row, place in ((full, 0), (small, -1)):
            cells.append(_mean([run[place][figure] for run in runs]) if row else "-")
    return cells


def _mean(shares: list[float]) -> str:
    spread = f" ± {100 * np.std(shares, ddof=1):.1f}" if len(shares) > 1 else ""
    return f"{100 * np.mean(shares):.1f}{spread}"


def closest_rows(result: Mapping[str, Any]) -> list[str]:
    """The best scan and the one that comes closest to it, by top-1, mean of full and 1/8 width, seed 0."""
    nested = [
        row
        for row in result["rows"]
        if row["seed"] == 0 and ROWS[row["name"]].model.keys() <= {"scan", "mean_token"}
    ]
    nested = [row for row in nested if len(row["widths"]) > 1 and ROWS[row["name"]].distillation]
    quality = {row["name"]: row["widths"][0]["top1"] + row["widths"][-1]["top1"] for row in nested}
    return sorted(quality, key=lambda name: -quality[name])[:2]


def main() -> None:
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 in Parquet files")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/ablation"), help="finished rows are kept here"
    )
    parser.add_argument("--epochs", type=int, default=OPTIM.epochs)
    parser.add_argument("--jobs", type=int, default=1, help="rows trained at once, on one thread each")
    parser.add_argument("--table", action="store_true", help="only write the table of what is done")
    options = parser.parse_args()
    if not options.table:
        if options.data is None:
            parser.error("--data is missing: where are the Parquet files of CIFAR-10?")
        options.runs.mkdir(parents=True, exist_ok=True)
        # Decoded here, so that two rows do not do it at once.
        splits = open_splits(DataConfig(name="parquet", root=str(options.data)))
        for images, part in ((splits.train, "train"), (splits.held_out, "test")):
            pixels_of(images, options.runs / f"{part}.npy")
        _train([(name, 0) for name in ROWS], options)
        closest = closest_rows(collect(options.runs, options.epochs))
        _train([(name, seed) for name in closest for seed in (1, 2)], options)
    result = collect(options.runs, options.epochs)
    write_json(RESULTS / "ablation.json", result)
    (RESULTS / "ablation.md").write_text(table(result))
    print(table(result))


def _train(rows: list[tuple[str, int]], options: argparse.Namespace) -> None:
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for done in [
            pool.submit(train_row, *row, options.epochs, options.runs, options.data) for row in rows
        ]:
            print(done.result(), flush=True)


if __name__ == "__main__":
    main()
