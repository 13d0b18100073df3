"""An experiment in adaptive retrieval: how much of the full width a query needs.

    python examples/adaptive_retrieval.py PHOTOS     # one folder for each class
    python examples/adaptive_retrieval.py            # without one: handwritten digits, about a minute

A small nested model is trained, its training images become a gallery at full width, and held-out images ask
it in four ways: at full width, at the smallest width alone, by a shortlist of the small width that the full
width reranks, and by a funnel. The table sets what each finds against what its encoder and search cost.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matmamba_vision as mv
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# Every so many images are held out.
HELD_OUT = 5
# Digits have an upright side, and little room around them.
AUGMENT = {"scale": [0.7, 1.0], "hflip": 0.0}


def main() -> None:
    """Train, index, ask, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="one folder for each class; by default digits")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the training images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        images = split(arguments.folder or draw_digits(work / "digits"), work / "images")
        run = train(images, work / "run", arguments.epochs)
        mv.index(images / "train", work / "gallery", model=run, dims=(16, 32, 64), threads=1)
        queries = sorted((images / "val").rglob("*.*"))
        with mv.open_gallery(work / "gallery", threads=1) as gallery:
            print_table(gallery, queries)


def split(folder: Path, target: Path) -> Path:
    """Copies of the images in `train` and `val`, every fifth of each class held out."""
    for one in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(file for file in one.rglob("*") if file.suffix.lower() in SUFFIXES)
        for number, file in enumerate(files):
            part = target / ("val" if number % HELD_OUT == 0 else "train") / one.name
            part.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, part / f"{number:05d}{file.suffix}")
    return target


def train(images: Path, output: Path, epochs: int) -> Path:
    """The folder of a run of a small model, at its four widths."""
    settings = {
        "output": str(output),
        "threads": 1,
        "eval_every": epochs,
        "data": {"name": "folder", "root": str(images), "batch_size": 64, "augment": AUGMENT},
        "model": {"name": "matmamba_nano_patch4_32", "img_size": 16},
        "optim": {"epochs": epochs, "warmup_epochs": 1, "lr": 0.004},
    }
    run = mv.train(settings)
    print("held-out top-1:", ", ".join(f"{width} {top1:.3f}" for width, top1 in run.top1.items()))
    return run.folder


def print_table(gallery: mv.ImageGallery, queries: Sequence[Path]) -> None:
    """What each way to search finds, against what it costs."""
    print(f"{len(queries)} queries to {len(gallery)} images\n")
    print(f"{'strategy':36} {'1-NN':>6} {'encoder MMACs':>14} {'dims compared':>14}")
    for name, strategy in STRATEGIES.items():
        answers = gallery.search(queries, k=10, strategy=strategy)
        right = sum(
            answer[0].label == query.parent.name for query, answer in zip(queries, answers, strict=True)
        )
        cost = answers[0].cost
        compared = sum(cost.search_macs.values())
        print(f"{name:36} {right / len(queries):6.3f} {cost.macs / 1e6:14.2f} {compared:14,.0f}")


STRATEGIES = {
    "single-shot, full width": mv.Strategy.single_shot(),
    "single-shot, width 1/8 alone": mv.Strategy.single_shot(width="1/8"),
    "shortlist by 1/8 and 16 dims, rerank": mv.Strategy.shortlist(width="1/8", dim=16, length=50),
    "funnel by 1/8, 16-32-64 dims": mv.Strategy.funnel(width="1/8", lengths=(80, 40, 20)),
}


def draw_digits(folder: Path) -> Path:
    """Handwritten digits of scikit-learn as PNG files, a folder for each class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = folder / str(label) / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype("uint8")).convert("RGB").save(file)
    return folder


if __name__ == "__main__":
    main()
