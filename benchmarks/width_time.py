"""Inference of the widths of a model: does time shrink as multiply-adds do?

Each ratio is time over time at full width, divided by the same ratio of multiply-adds: 1 is proportional.
Once by frozen widths, once by the nested model, once by the extracted submodels. Writes
results/width_time.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from matmamba_vision import freeze
from matmamba_vision.measures import count_macs
from matmamba_vision.models import extract
from measuring import Case, Plan, Ratio, compare, run
from peers import create

MODEL, BATCH = "matmamba_small_patch16_224", 8


def main(arguments: Sequence[str] | None = None, name: str = MODEL, batch: int = BATCH) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, name=name, batch=batch), arguments)


def cases(plan: Plan, name: str, batch: int) -> Iterator[Case]:
    """Frozen widths, the nested model and the extracted submodels, all trained widths in turn."""
    model = create(name, num_classes=0).eval()
    images = torch.randn(batch, 3, *model.input["input_size"][1:])
    widths = {model.label(width): width for width in model.trained_widths}
    macs = {label: count_macs(model, width) for label, width in widths.items()}
    ways: dict[str, dict[str, Callable[[], object]]] = {
        "frozen": {label: partial(freeze(model, width).embed, images) for label, width in widths.items()},
        "nested": {label: partial(model, images, width=width) for label, width in widths.items()},
        "extracted": {label: partial(extract(model, width), images) for label, width in widths.items()},
    }
    ratios = [
        Ratio(label, over=label, under="full", expected=macs[label] / macs["full"])
        for label in widths
        if label != "full"
    ]
    for way, sides in ways.items():
        settings = {"model": name, "batch": batch, "dtype": "float32", "multiply_adds": macs}
        yield compare(way, sides, ratios, plan, settings)


if __name__ == "__main__":
    main()
