"""How memory grows with the number of tokens: four times as many should take about four times as much.

Each measurement is a process of its own: the largest resident memory that Linux saw in it, less what was
resident once the libraries were loaded, the model and its images were made, and one block had run on a few
tokens. Inference is that of the whole model; training is forward and backward of a model of few blocks, whose
activations are kept. Writes results/peak_memory.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from matmamba_vision import keep_freed_memory
from measuring import Case, Plan, Ratio, in_fresh_process, measure_case, run
from peers import create

ROUNDS = 3


@dataclass(frozen=True)
class Setting:
    """What is run, and how many pixels the sides of the images have: tokens are one more than patches."""

    model: str = "matmamba_small_patch16_224"
    pixels: tuple[int, int] = (1024, 2048)
    inference_depth: int = 20
    training_depth: int = 2


SMALL = Setting()


def main(arguments: Sequence[str] | None = None, setting: Setting = SMALL) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, setting=setting), arguments)


def cases(plan: Plan, setting: Setting) -> Iterator[Case]:
    """Inference, then training, at both sizes."""
    own = Plan(warm_up=0, repeats=min(ROUNDS, plan.repeats))
    depths = {"inference": setting.inference_depth, "training": setting.training_depth}
    for name, depth in depths.items():
        few, many = (f"{pixels} px" for pixels in setting.pixels)
        work = partial(
            in_fresh_process, growth_mib, setting.model, depth, name == "training", torch.get_num_threads()
        )
        sides = {f"{pixels} px": partial(work, pixels) for pixels in setting.pixels}
        settings = {"model": setting.model, "depth": depth, "batch": 1, "dtype": "float32"}
        yield measure_case(name, sides, [Ratio("many / few tokens", many, few)], own, settings, unit="MiB")


def growth_mib(name: str, depth: int, training: bool, threads: int, pixels: int) -> float:
    """Peak of the resident memory of one pass over one image, less what was resident before, in MiB."""
    torch.set_num_threads(threads)
    model = create(name, img_size=pixels, depth=depth)
    image = torch.randn(1, 3, pixels, pixels)
    model.stack[0](torch.zeros(1, 8, model.embed_dim)).sum().backward()
    model.zero_grad()
    # Not before: what building the model freed should be returned, not be found again.
    keep_freed_memory()
    before = resident_mib("VmRSS")
    if training:
        model(image).sum().backward()
    else:
        with torch.inference_mode():
            model.eval()(image)
    return resident_mib("VmHWM") - before


def resident_mib(entry: str) -> float:
    """Resident memory of this process, now (VmRSS) or at most so far (VmHWM), as Linux counts it.

    Unlike getrusage, its largest value is not inherited from the process that started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith(f"{entry}:"))
    return int(kib) / 2**10


if __name__ == "__main__":
    main()
