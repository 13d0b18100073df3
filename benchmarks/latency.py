"""How long one image takes at each trained width, beside timm's vision transformer of as many parameters.

The transformer has the parameters of the full width. Writes results/latency.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from matmamba_vision.measures import count_macs
from measuring import Case, Plan, Ratio, compare, run
from peers import create, vit_of_equal_parameters, vit_settings

MODELS = ("matmamba_small_patch16_224", "matmamba_tiny_patch16_224")


def main(arguments: Sequence[str] | None = None, models: Sequence[str] = MODELS) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, models=models), arguments)


def cases(plan: Plan, models: Sequence[str]) -> Iterator[Case]:
    """One case for each model; a ratio says how many times as long the transformer takes."""
    for name in models:
        model = create(name).eval()
        vit = vit_of_equal_parameters(model)
        image = torch.randn(1, 3, *model.input["input_size"][1:])
        widths = {model.label(width): width for width in model.trained_widths}
        sides = {label: partial(model, image, width=width) for label, width in widths.items()}
        macs = {label: count_macs(model, width) for label, width in widths.items()}
        yield compare(
            name,
            {**sides, "ViT": partial(vit, image)},
            [Ratio(f"ViT / {label}", over="ViT", under=label) for label in widths],
            plan,
            {"model": name, "batch": 1, "multiply_adds": macs, **vit_settings(model, vit)},
        )


if __name__ == "__main__":
    main()
