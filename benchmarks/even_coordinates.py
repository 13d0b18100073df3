"""Scale the coordinates of a trained student's embedding, so that cosines hear more than the first few.

    python benchmarks/even_coordinates.py runs/photos --photos PHOTOS --output runs/even

A teacher's rotated vectors have a large part that all images share, the first coordinate, and a steep
spectrum behind it; so have the student's. Each coordinate is divided by the square root of its root mean
square over every second training photo; the first one, which hardly tells images apart, as the second.
Weights alone change: rows of the projection are scaled, columns of the head scaled back, and logits stay
what they are up to rounding. Writes the checkpoint, its rotation, and what lies beside it in the run.
--power -1 takes back what a power of 0.5 did, for a student that is to be trained on.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from distilled import by_width, split
from matmamba_vision.checkpoint import load_checkpoint, save_checkpoint
from matmamba_vision.models import MatMamba
from matmamba_vision.rotation import FILE_NAME, student_rotation
from torch import Tensor, nn

POWER = 0.5
BESIDE = ("metrics.jsonl", "environment.json", "curves.png")


def main() -> None:
    """Encode, scale and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run, file or shipped model")
    parser.add_argument("--photos", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--power", type=float, default=POWER, help="of the root mean square to divide by")
    parser.add_argument("--output", type=Path, required=True, help="folder of a run")
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.run)
    gallery, _ = split(options.photos, 2)
    vectors = torch.from_numpy(by_width(checkpoint, "full")(gallery))
    scale_coordinates(checkpoint.model, factors(vectors, options.power))
    options.output.mkdir(parents=True, exist_ok=True)
    save_checkpoint(options.output, checkpoint.model, checkpoint.classes, checkpoint.run)
    student_rotation(checkpoint).save(options.output / FILE_NAME)
    for name in BESIDE:
        if (file := checkpoint.path.with_name(name)).is_file():
            shutil.copyfile(file, options.output / name)


def factors(vectors: Tensor, power: float) -> Tensor:
    """Factors (E,) on the coordinates of vectors (n, E), of geometric mean 1."""
    sizes = vectors.double().square().mean(0).sqrt()
    sizes[0] = sizes[1]
    found = sizes**-power
    return (found / found.log().mean().exp()).float()


@torch.no_grad()
def scale_coordinates(model: MatMamba, scales: Tensor) -> None:
    """Multiply the coordinates of the embedding by factors (E,), in place; logits stay what they are.

    Raises:
        SystemExit: the model has no projection, whose rows could be scaled.
    """
    if not model.architecture.projection:
        raise SystemExit("a model without a projection has no coordinates of its own")
    model.projection.weight.mul_(scales[:, None])
    model.projection.bias.mul_(scales)
    if isinstance(model.head, nn.Linear):
        model.head.weight.div_(scales)


if __name__ == "__main__":
    main()
