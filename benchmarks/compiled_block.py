"""A block as it is, and by torch.compile: inference and a training step, at full width and at 1/8.

Each compiled width is first used once; how long that took, the compiler's own cache being empty, is a side of
its own. Writes results/compiled_block.json.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from matmamba_vision.layers import Block
from measuring import Case, Plan, Ratio, measure_case, run, timed
from peers import SMALL, BlockShape
from torch import Tensor
from torch._inductor.utils import fresh_cache

WIDTHS = ("full", "1/8")


def main(arguments: Sequence[str] | None = None, shape: BlockShape = SMALL) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, shape=shape), arguments)


def cases(plan: Plan, shape: BlockShape) -> Iterator[Case]:
    """Inference and training of each width."""
    eager, x_BLD = shape.block(), shape.tokens_BLD()
    compiled = copy.deepcopy(eager)
    compiled.mixer.compile(fullgraph=True, dynamic=False)
    uses: dict[str, Callable[[Block, Tensor, int], object]] = {"inference": infer, "training": train}
    with tempfile.TemporaryDirectory() as folder, fresh_cache(dir=folder):
        for width in WIDTHS:
            heads = shape.widths()[width]
            for name, use in uses.items():
                start = time.perf_counter()
                use(compiled, x_BLD, heads)
                ms = 1e3 * (time.perf_counter() - start)
                sides: dict[str, Callable[[], float]] = {
                    "eager": timed(partial(use, eager, x_BLD, heads)),
                    "compiled": timed(partial(use, compiled, x_BLD, heads)),
                    "compilation, once": partial(float, ms),
                }
                ratio = Ratio("eager / compiled", "eager", "compiled")
                settings = shape.settings(active_heads=heads)
                yield measure_case(f"{name}, width {width}", sides, [ratio], plan, settings)


@torch.no_grad()
def infer(block: Block, x_BLD: Tensor, heads: int) -> Tensor:
    """A forward without gradients."""
    return block(x_BLD, heads)


def train(block: Block, x_BLD: Tensor, heads: int) -> None:
    """Forward and backward."""
    block.zero_grad()
    block(x_BLD, heads).sum().backward()


if __name__ == "__main__":
    main()
