"""How long one image takes at each trained width, frozen, beside a vision transformer of equal parameters.

timm's transformer has the parameters of the full width, the same image, patches and embedding size, and the
fastest way there is here: eager, by torch.compile, or by ONNX Runtime. Neither side has a classifier. Images
are encoded in two ways: each behind a rest, in which cores fall asleep and lose what they have in caches, and
some in a row, as for an index or a busy service. Writes results/latency.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from matmamba_vision import freeze
from matmamba_vision.measures import count_macs
from measuring import Case, Plan, Ratio, compare, run
from peers import create, fastest, vit_of_equal_parameters, vit_settings, ways_to_run

# Images behind a rest, by what the name of their case ends with.
CALLS = {"": 1, ", in a row": 5}
MODELS = ("matmamba_mini_patch8_64", "matmamba_tiny_patch16_224", "matmamba_small_patch16_224")


def main(arguments: Sequence[str] | None = None, models: Sequence[str] = MODELS) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, models=models), arguments)


def cases(plan: Plan, models: Sequence[str]) -> Iterator[Case]:
    """Two cases for each model: widths over the full one, and over the transformer."""
    for name in models:
        model = create(name, num_classes=0).eval()
        vit = vit_of_equal_parameters(model)
        image = torch.randn(1, 3, *model.input["input_size"][1:])
        frozen = {model.label(width): freeze(model, width) for width in model.trained_widths}
        sides = {label: partial(width.embed, image) for label, width in frozen.items()}
        of_vit = ways_to_run(vit, image)
        best = fastest(of_vit)
        smaller = [label for label in sides if label != "full"]
        ratios = [Ratio(f"{label} / full", over=label, under="full") for label in smaller]
        ratios += [Ratio(f"{label} / ViT", over=label, under=best) for label in sides]
        settings = {
            "model": name,
            "batch": 1,
            "encoded_by": {label: width.by for label, width in frozen.items()},
            "fastest_vit": best,
            "multiply_adds": {label: count_macs(model, label) for label in sides},
            **vit_settings(model, vit),
        }
        # First in a round: it stands behind ONNX Runtime, whose threads spin on for a while.
        eager = {"full, eager": partial(model.embed, image)}
        for ending, calls in CALLS.items():
            known = {"in_a_row": calls, **settings}
            yield compare(name + ending, {**eager, **sides, **of_vit}, ratios, plan, known, calls)


if __name__ == "__main__":
    main()
