"""Inference of our mixer against the Mamba2 mixer of Hugging Face transformers, its path in PyTorch.

Both have the same weights, and their outputs are found equal before anything is timed. Theirs runs with its
default chunk of 256 tokens and with smaller ones, which suit short sequences better.
Writes results/transformers_mixer.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec

import torch
from measuring import Case, Plan, Ratio, compare, run
from peers import SMALL, BlockShape, transformers_mixer

DEFAULT_CHUNK = 256
CHUNKS = (DEFAULT_CHUNK, 128, 64, 32, 16)
TOLERANCE = 1e-4
ROUNDS = 15


def main(arguments: Sequence[str] | None = None, shape: BlockShape = SMALL) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, shape=shape), arguments)


@torch.no_grad()
def cases(plan: Plan, shape: BlockShape) -> Iterator[Case]:
    """Ours, and theirs with each chunk size, in turn."""
    for kernels in filter(find_spec, ("mamba_ssm", "causal_conv1d")):
        raise SystemExit(f"{kernels} is installed: transformers would use it instead of its path in PyTorch")
    ours, u_BLD = shape.mixer().eval(), shape.tokens_BLD()
    theirs = {f"chunk {size}": transformers_mixer(ours.weights(), size) for size in CHUNKS}
    wanted_BLD = ours(u_BLD)
    difference = max(float((mixer(u_BLD) - wanted_BLD).abs().max()) for mixer in theirs.values())
    if difference > TOLERANCE:
        raise SystemExit(f"the outputs of the two mixers differ by {difference}")
    sides = {"ours": lambda: ours(u_BLD)} | {name: partial(mixer, u_BLD) for name, mixer in theirs.items()}
    ratios = [Ratio(f"{name} / ours", name, "ours") for name in theirs]
    settings = shape.settings(largest_difference=difference)
    yield compare("mixer", sides, ratios, plan.at_most(ROUNDS), settings)


if __name__ == "__main__":
    main()
