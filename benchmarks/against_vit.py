"""Inference of whole models against timm's vision transformer of as many parameters.

Ours is the frozen full width, theirs the fastest way there is here: eager, compiled, or by ONNX Runtime. Both
have the same embedding size and patches, and no classifier. Writes results/against_vit.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from matmamba_vision import freeze
from measuring import Case, Plan, Ratio, compare, run
from peers import create, fastest, vit_of_equal_parameters, vit_settings, ways_to_run


@dataclass(frozen=True)
class Setting:
    """A model, the side of its square images in pixels, how many of them at once, and rounds at most."""

    model: str
    pixels: int
    batch: int
    rounds: int = 15


SETTINGS = (
    Setting("matmamba_small_patch16_224", 224, 8),
    Setting("matmamba_small_patch16_224", 1024, 1, rounds=7),
    Setting("matmamba_tiny_patch16_224", 224, 8),
    Setting("matmamba_base_patch16_224", 224, 8, rounds=5),
)


def main(arguments: Sequence[str] | None = None, settings: Sequence[Setting] = SETTINGS) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, settings=settings), arguments)


def cases(plan: Plan, settings: Sequence[Setting]) -> Iterator[Case]:
    """One case for each setting; the ratio is that of images per second, ours over the transformer's."""
    for setting in settings:
        model = create(setting.model, img_size=setting.pixels, num_classes=0).eval()
        vit = vit_of_equal_parameters(model)
        images = torch.randn(setting.batch, 3, setting.pixels, setting.pixels)
        frozen, of_vit = freeze(model, "full"), ways_to_run(vit, images)
        best = fastest(of_vit, rounds=3)
        sides = {"MatMamba": partial(frozen.embed, images), "MatMamba, eager": partial(model.embed, images)}
        known = {"model": setting.model, "batch": setting.batch, "encoded_by": frozen.by, "fastest_vit": best}
        yield compare(
            f"{setting.model}, {setting.pixels} px",
            {**sides, **of_vit},
            [
                Ratio("images/s", over=best, under="MatMamba"),
                Ratio("images/s, eager", over=best, under="MatMamba, eager"),
            ],
            plan.at_most(setting.rounds),
            {**known, **vit_settings(model, vit)},
        )


if __name__ == "__main__":
    main()
