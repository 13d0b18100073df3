"""The shipped weights fine-tuned on a few photos of other classes, against training from nothing.

    python benchmarks/fine_tuning.py --data signs=SIGNS cifar10=CIFAR10 --runs DIR

Each data set is a folder with a folder for each class, or a folder of Parquet files, none of whose images
the weights were trained on. For each seed, --images photos of each class are drawn from its training part,
and trained on by `train` as a user calls it: with no model named, which fine-tunes; by the same settings
from nothing; and with what `train` takes by default where it starts from nothing. `validate` measures all
of them on the same held-out photos. A row that is finished is kept in --runs, so that a run that was
stopped goes on; with --only, one data set is trained on and nothing written; --finished writes the rows
that are there. Writes results/fine_tuning.json.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
from markdown_tables import markdown
from matmamba_datasets import DataConfig, Images, Splits, eval_transform, make_loader, open_splits
from matmamba_datasets.sample import read_sample
from matmamba_vision.config_file import as_plain
from matmamba_vision.measures import count_macs, predict
from matmamba_vision.measures.environment import environment
from matmamba_vision.runs import TrainConfig
from matmamba_vision.runs.starting_point import fine_tuning
from matmamba_vision.widths.quality_and_cost import retrieval_values
from measuring import RESULTS, write_json
from rows import mean_and_spread
from timm import create_model

Row = dict[str, Any]
SEEDS = (0, 1, 2)
WIDTHS = ("full", "1/8")
FIGURES = ("top1", "knn1")
AS_THEY_COME = "the shipped weights, untrained"
FINE_TUNED = "fine-tuned"
SAME = "from nothing, the same model and settings"
SMALL = "from nothing, the model for 32 px and its defaults"


def settings() -> dict[str, dict[str, Any]]:
    """What is given to `train` beside the data, by what it does."""
    anew = as_plain(fine_tuning())
    return {
        FINE_TUNED: {},
        SAME: {name: anew[name] for name in ("optim", "objective", "schedule")}
        | {"model": {"name": anew["model"]["name"]}, "data": {"batch_size": anew["data"]["batch_size"]}},
        SMALL: {"model": {"init": ""}},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, then write the result."""
    options = parse(arguments)
    known = dict(one.split("=", 1) for one in options.data)
    rows = {
        name: list(trained(name, root, options)) for name, root in known.items() if options.only in ("", name)
    }
    for name, found in rows.items():
        print(f"\n{name}\n{table({'data': {name: {'rows': found}}})}")
    if not options.only:
        write_json(options.output, result(rows, known, options))


def result(rows: Mapping[str, list[Row]], known: Mapping[str, str], options: argparse.Namespace) -> Row:
    """All that is written."""
    return {
        "command": "benchmarks/fine_tuning.py --data " + " ".join(f"{name}={name.upper()}" for name in known),
        "note": options.note,
        **environment(),
        "settings": {"images": options.images, "held_out": options.held_out, "seeds": list(options.seeds)},
        "recipe": as_plain(fine_tuning())["optim"] | {"batch_size": fine_tuning().data.batch_size},
        "data": {
            name: {"classes": len(opened(root).train.classes), "rows": rows[name]}
            for name, root in known.items()
        },
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--only", default="", help="train on this one alone, and write nothing")
    parser.add_argument("--runs", type=Path, required=True, help="folder for what is kept")
    parser.add_argument("--images", type=int, default=20, help="of each class, to train on")
    parser.add_argument("--held-out", type=int, default=40, help="of each class, to measure on, at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--finished", action="store_true", help="only write what is in --runs")
    parser.add_argument("--epochs", type=int, help="of all trainings, by default their own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--note", default="", help="what has to be said of the figures")
    parser.add_argument("--output", type=Path, default=RESULTS / "fine_tuning.json")
    return parser.parse_args(arguments)


def trained(name: str, root: str, options: argparse.Namespace) -> Iterator[Row]:
    """A row for each seed and way of training, from --runs where it is there."""
    for seed in options.seeds:
        folder = options.runs / name / str(seed)
        photos = folder / "photos"
        if not (photos / "val").is_dir() and not options.finished:
            draw(opened(root), photos, seed, options)
        makers = {AS_THEY_COME: ("untrained", partial(as_they_come, photos, options))}
        for number, (what, given) in enumerate(settings().items()):
            makers[what] = (str(number), partial(row, photos, folder / f"run{number}", given, options))
        for what, (file, make) in makers.items():
            yield from (
                {"what": what, "seed": seed, **one} for one in kept(folder / f"{file}.json", make, options)
            )


def kept(file: Path, make: Callable[[], Row], options: argparse.Namespace) -> Iterator[Row]:
    """A row as it was made before, or made now; none where only finished rows are wanted, and it is not."""
    if not file.is_file() and not options.finished:
        write_json(file, make())
        print(file, flush=True)
    if file.is_file():
        yield json.loads(file.read_text())


def opened(root: str) -> Splits:
    """The parts of a folder of images or of Parquet files."""
    tables = any(Path(root).glob("*.parquet"))
    return open_splits(DataConfig(name="parquet" if tables else "folder", root=root))


def draw(splits: Splits, target: Path, seed: int, options: argparse.Namespace) -> None:
    """Write some images of each class as a folder to train on, and the same held-out ones for every seed."""
    parts = {"train": (splits.train, seed, options.images), "val": (splits.held_out, 0, options.held_out)}
    for part, (images, chance, count) in parts.items():
        for index in some(images, chance, count):
            folder = target / part / images.classes[images.labels[index]]
            folder.mkdir(parents=True, exist_ok=True)
            read_sample(images, index).image.save(folder / f"{index}.png")


def some(images: Images, seed: int, count: int) -> list[int]:
    """Positions of as many images of each class, by chance."""
    order = np.random.default_rng(seed).permutation(len(images))
    labels = images.labels[order]
    return [int(index) for label in np.unique(labels) for index in order[labels == label][:count]]


def row(photos: Path, run: Path, given: Mapping[str, Any], options: argparse.Namespace) -> Row:
    """Train as a user does, and measure."""
    epochs = {"epochs": options.epochs} if options.epochs else {}
    config = {
        **given,
        "output": str(run),
        "overwrite": True,
        "device": "cpu",
        "threads": options.threads,
        "eval_every": 1000,
        "data": {**given.get("data", {}), "name": "folder", "root": str(photos)},
        "optim": {**given.get("optim", {}), **epochs},
    }
    begun = time.perf_counter()
    done = mv.train(config)
    seconds = time.perf_counter() - begun
    found = mv.validate(done.folder, widths=WIDTHS, device="cpu", threads=options.threads)
    longest = max(one["dim"] for one in found.retrieval)
    near = {
        one["query_width"]: one["knn1"]
        for one in found.retrieval
        if one["gallery_width"] == "full" and one["dim"] == longest
    }
    widths = {one["width"]: {"top1": one["top1"], "knn1": near[one["width"]]} for one in found.widths}
    return {"epochs": done.epochs, "images": done.images, "seconds": round(seconds, 1), "widths": widths}


def as_they_come(photos: Path, options: argparse.Namespace) -> Row:
    """What the shipped weights find among the same photos without any training."""
    model = mv.load_checkpoint(str(fine_tuning().model.init)).model
    splits = open_splits(DataConfig(name="folder", root=str(photos)))
    widths = [model.width(name) for name in WIDTHS]
    gallery, queries = (
        predict(model, make_loader(images, eval_transform(model.input), 64), wanted)
        for images, wanted in ((splits.train, widths[:1]), (splits.held_out, widths))
    )
    found = {
        name: {"knn1": float(retrieval_values(asked, gallery[0], model.embedding_dim)["knn1"].mean())}
        for name, asked in zip(WIDTHS, queries, strict=True)
    }
    return {"epochs": 0, "images": len(splits.train), "seconds": 0.0, "widths": found}


def table(found: Mapping[str, Any]) -> str:
    """Markdown: a line for each data set and way of training."""
    lines = []
    for name, data in found["data"].items():
        for what in dict.fromkeys(one["what"] for one in data["rows"]):
            rows = [one for one in data["rows"] if one["what"] == what]
            shares = [
                mean_and_spread([one["widths"][width][figure] for one in rows])
                if figure in rows[0]["widths"][width]
                else "-"
                for figure in FIGURES
                for width in WIDTHS
            ]
            epochs, draws = rows[0]["epochs"], str(len(rows))
            cost = f"{epochs * rows[0]['images'] * macs_of(what) / 1e12:.1f}" if epochs else "-"
            lines.append((name, what, str(epochs), cost, draws, *shares))
    names = ("top-1, full", "top-1, 1/8", "1-NN, full", "1-NN, 1/8 in the full gallery")
    return markdown(("photos", "training", "epochs", "T multiply-adds", "draws", *names), lines)


def macs_of(what: str) -> int:
    """Multiply-adds of a training image, forward at all trained widths."""
    model = create_model(
        TrainConfig().model.name if what == SMALL else fine_tuning().model.name, device="meta"
    )
    assert isinstance(model, mv.MatMamba)
    return sum(count_macs(model, width) for width in model.trained_widths)


def page(found: Mapping[str, Any]) -> str:
    """The table, and what was done."""
    known = found["settings"]
    about = (
        f"Per cent, mean ± standard deviation over draws of {known['images']} photos of each class; at most"
        f" {known['held_out']} held-out ones of each, the same for all, asked in the gallery of the training"
        " photos. Multiply-adds: of all forward passes of the training. "
    )
    lines = textwrap.wrap(about + found["note"], 110, break_on_hyphens=False, break_long_words=False)
    return "\n".join([table(found), "", *lines, ""])


if __name__ == "__main__":
    main()
