"""What scales the coordinates of an embedding leaves the logits alone."""

from __future__ import annotations

import pytest
import torch
from even_coordinates import factors, scale_coordinates
from small import create

NAME = "matmamba_nano_patch4_32"


def test_large_coordinates_count_less_and_the_first_as_the_second() -> None:
    sizes = torch.tensor([9.0, 4.0, 1.0])
    found = factors(torch.stack([sizes, -sizes]), 0.5)
    torch.testing.assert_close(found / found[2], torch.tensor([0.5, 0.5, 1.0]))
    assert found.log().sum().abs() < 1e-6


@torch.no_grad()
def test_the_embedding_is_scaled_at_every_width_and_the_logits_are_what_they_were() -> None:
    torch.manual_seed(0)
    model = create(NAME, num_classes=5, projection=8).eval()
    images = torch.randn(3, 3, 32, 32)
    scales = torch.linspace(0.5, 2, 8)
    before = {width: (model.embed(images, width), model(images, width)) for width in ("full", "1/2")}
    scale_coordinates(model, scales)
    for width, (embedding, logits) in before.items():
        wanted = torch.nn.functional.normalize(embedding * scales, dim=-1)
        torch.testing.assert_close(model.embed(images, width), wanted)
        torch.testing.assert_close(model(images, width), logits)


def test_a_model_without_projection_is_refused() -> None:
    with pytest.raises(SystemExit, match="without a projection"):
        scale_coordinates(create(NAME), torch.ones(8))
