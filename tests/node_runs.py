"""Runs spread over machines, and which images each process sees: a program for vision/test_nodes.py.

    python node_runs.py FOLDER

writes a few images as a folder, as shards and as Parquet files, reads each for some epochs in 1 x 2, 2 x 1
and 2 x 2 processes (machines x processes of each), and writes what each process read; then it trains in
1 x 2. Every process is forked from this one, with what torchrun tells to those of such machines.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import interpreter  # noqa: F401
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from forked_ranks import run_ranks
from killed_runs import config as few_images
from matmamba_datasets import DataConfig, open_splits
from matmamba_vision.data import prepare_shards
from matmamba_vision.runs import TrainConfig, train
from matmamba_vision.runs.fitting import accelerator_of
from matmamba_vision.runs.run_batches import make_loaders
from matmamba_vision.training import end_training
from PIL import Image

LAYOUTS = [(1, 2), (2, 1), (2, 2)]  # machines, processes of each
READERS = ("folder", "shards", "parquet")
EPOCHS, STEP, IMAGES = 2, 8, 57  # images of a step, over all processes; 45 to train on, 12 held out


def write_images(folder: Path) -> None:
    """The same images in three ways."""
    rng, rows = np.random.default_rng(0), []
    for number in range(IMAGES):
        image = Image.fromarray(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8))
        file = folder / "folder" / "abc"[number % 3] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
        row = {"image": {"bytes": file.read_bytes(), "path": file.name}, "label": number % 3}
        rows.append(row)
    (folder / "parquet").mkdir()
    for part in range(3):
        pq.write_table(pa.Table.from_pylist(rows[part::3]), folder / "parquet" / f"train-{part}.parquet")
    prepare_shards({"name": "folder", "root": str(folder / "folder")}, folder / "shards", shard_mb=0.005)


def config(data: Path, output: Path, ranks: int) -> TrainConfig:
    """A run over some images."""
    known = DataConfig(name=data.name, root=str(data), batch_size=STEP // ranks)
    return TrainConfig(output=str(output), threads=1, device="cpu", data=known)


def short(output: Path) -> TrainConfig:
    """An epoch of a few images by two processes, with everything that draws random numbers."""
    made = few_images(output, 2)
    made.optim.epochs = 1
    return made


def read(config: TrainConfig) -> None:
    """Read what a run would: some epochs to train on, and what is measured on."""
    accelerator, splits = accelerator_of(config), open_splits(config.data)
    known = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    training, measuring = make_loaders(config, known, splits, accelerator)
    found = {"training": [[batch.ids for batch in training.batches(epoch)] for epoch in range(EPOCHS)]}
    found["measuring"] = [[batch.ids for batch in measuring]]
    file = Path(f"{config.output}-{accelerator.process_index}.json")
    file.write_text(json.dumps(found))
    end_training(accelerator)


def main() -> None:
    """All readers in all layouts, and a training."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    write_images(folder)
    for reader in READERS:
        for machines, each in LAYOUTS:
            output = folder / f"{reader}-{machines}x{each}"
            run_ranks(partial(read, config(folder / reader, output, machines * each)), (machines, each))
    run_ranks(partial(train, short(folder / "trained")), (1, 2))
    print("done", flush=True)


if __name__ == "__main__":
    main()
