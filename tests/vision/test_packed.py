"""Packed weights are those of the width: by the definition they give what the model embeds."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from by_definition import embedded
from frozen_models import KINDS, TOLERANCE, VARIANTS, model_of, variant
from matmamba_vision import ConfigError, MatMamba, WidthError
from matmamba_vision.frozen.packed import KeptBlock, PackedMixer, pack


@pytest.mark.parametrize(("kind", "width"), KINDS, ids=str)
def test_packed_weights_give_the_embeddings_of_the_width(kind: dict[str, Any], width: str) -> None:
    model = model_of(kind)
    images = model.random_images(3)
    wanted = model.embed(images, width).detach()
    packed = pack(model, width)
    torch.testing.assert_close(embedded(packed, images).float(), wanted, rtol=0, atol=TOLERANCE)
    # A copy: what becomes of the model is no matter.
    for parameter in model.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(embedded(packed, images).float(), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_can_be_packed(name: str) -> None:
    model = variant(name)
    images = model.random_images(1)
    for width in model.trained_widths[-1:]:
        wanted = model.embed(images, width).detach()
        torch.testing.assert_close(
            embedded(pack(model, width), images).float(), wanted, rtol=0, atol=TOLERANCE
        )


def tensors_of(value: Any) -> list[torch.Tensor]:
    found = [getattr(value, field.name) for field in fields(value)]
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]


def test_packed_tensors_are_plain_and_contiguous() -> None:
    model = model_of({"scan": "flip", "heads_per_group": 3, "bias": True, "projection": 8}).double()
    packed = pack(model, "1/2:1/2")
    for tensor in [*tensors_of(packed), *(each for block in packed.blocks for each in tensors_of(block))]:
        assert tensor.is_contiguous()
        assert tensor.dtype in (torch.float32, torch.int64)
        assert type(tensor) is torch.Tensor
        assert not tensor.requires_grad


def test_a_block_permutes_only_where_the_order_changes() -> None:
    flipped = pack(model_of({"scan": "flip", "depth": 4}), "8-0-8-8")
    # Rows, rows, reversed: the first begins in its order.
    assert [block.order is None for block in flipped.blocks] == [True, True, False]
    reversed_first = pack(model_of({"scan": ("rows_reversed", "rows_reversed", "rows")}), "full")
    assert [block.order is None for block in reversed_first.blocks] == [True, True, False]
    assert reversed_first.patch_places.tolist() == [*reversed(range(16))]
    mixed = pack(model_of({"scan": "flip", "attention_blocks": [1], "depth": 3}), "full")
    assert [type(block) for block in mixed.blocks] == [PackedMixer, KeptBlock, PackedMixer]
    assert [block.order is None for block in mixed.blocks] == [True, True, True]


def test_packing_draws_no_random_numbers(model: MatMamba) -> None:
    torch.manual_seed(3)
    pack(model, "1/2")
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


def test_what_cannot_be_packed_is_refused(model: MatMamba) -> None:
    with pytest.raises(WidthError, match="1/3"):
        pack(model, "1/3")
    packed = pack(model, "1/2")
    packed.require_images((5, 3, 16, 16))
    for shape in ((1, 3, 16, 20), (1, 1, 16, 16), (3, 16, 16)):
        with pytest.raises(ConfigError, match=r"frozen for \(B, 3, 16, 16\)"):
            packed.require_images(shape)
    model.reset_classifier(5, "")
    with pytest.raises(ConfigError, match="pooling"):
        pack(model, "full")
