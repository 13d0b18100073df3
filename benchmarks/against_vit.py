"""Inference of whole models against timm's vision transformer of as many parameters.

Both have the same embedding size, patches and classes. Writes results/against_vit.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from measuring import Case, Plan, Ratio, compare, run
from peers import create, vit_of_equal_parameters, vit_settings


@dataclass(frozen=True)
class Setting:
    """A model, the side of its square images in pixels, how many of them at once, and rounds at most."""

    model: str
    pixels: int
    batch: int
    rounds: int = 30


SETTINGS = (
    Setting("matmamba_small_patch16_224", 224, 8),
    Setting("matmamba_small_patch16_224", 1024, 1, rounds=21),
    Setting("matmamba_tiny_patch16_224", 224, 8),
    Setting("matmamba_base_patch16_224", 224, 8, rounds=9),
)


def main(arguments: Sequence[str] | None = None, settings: Sequence[Setting] = SETTINGS) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, settings=settings), arguments)


def cases(plan: Plan, settings: Sequence[Setting]) -> Iterator[Case]:
    """One case for each setting; the ratio is that of images per second, ours over the transformer's."""
    for setting in settings:
        model = create(setting.model, img_size=setting.pixels).eval()
        vit = vit_of_equal_parameters(model)
        images = torch.randn(setting.batch, 3, setting.pixels, setting.pixels)
        yield compare(
            f"{setting.model}, {setting.pixels} px",
            {"MatMamba": partial(model, images), "ViT": partial(vit, images)},
            [Ratio("images/s", over="ViT", under="MatMamba")],
            plan.at_most(setting.rounds),
            {"model": setting.model, "batch": setting.batch, **vit_settings(model, vit)},
        )


if __name__ == "__main__":
    main()
