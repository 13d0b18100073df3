"""A folder indexed by a network of timm's, by ONNX Runtime and by PyTorch, through the public call.

Photos are drawn, weights random. On either side `matmamba_vision.index` makes a new gallery of the folder,
and the seconds of recording the network count; PyTorch's is the call as it is where ONNX Runtime is not
installed. Writes results/index_other.json.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import matmamba_vision as mv
import numpy as np
from matmamba_vision.encoders import onnx_runtime
from measuring import Case, Plan, Ratio, compare, run
from other_networks import made
from PIL import Image

NETWORK, COUNT, SIDE = "efficientnet_lite0", 1200, 256


def main(arguments: Sequence[str] | None = None, network: str = NETWORK, count: int = COUNT) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, network=network, count=count), arguments)


def cases(plan: Plan, network: str, count: int) -> Iterator[Case]:
    """One case."""
    encoder, numbers = made(network), itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        photos = drawn(Path(folder) / "photos", count)

        def index() -> None:
            mv.index(photos, Path(folder) / f"gallery{next(numbers)}", model=encoder)

        def without() -> None:
            with patch.object(onnx_runtime, "find_spec", return_value=None):
                index()

        sides = {"PyTorch": without, "ONNX Runtime": index}
        ratio = Ratio("ONNX Runtime / PyTorch", over="ONNX Runtime", under="PyTorch")
        settings = {"network": network, "images": count, "side": SIDE}
        yield compare(f"index, {network}, {count}", sides, [ratio], plan.at_most(3), settings)


def drawn(folder: Path, count: int) -> Path:
    """JPEG files of noise on a coarse grid, as large to decode as photos are."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(chance.integers(0, 256, (16, 16, 3), np.uint8))
        coarse.resize((SIDE, SIDE)).save(folder / f"{number}.jpg")
    return folder


if __name__ == "__main__":
    main()
