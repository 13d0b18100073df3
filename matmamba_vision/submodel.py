"""Extraction: a width of a nested model as an ordinary smaller model."""

from __future__ import annotations

import copy
from dataclasses import fields

import torch
from torch import Tensor

from .layers import MixerWeights
from .models import MatMamba
from .width import WidthLike


def extract(model: MatMamba, width: WidthLike) -> MatMamba:
    """A model that computes what `model(x, width=width)` computes, with no other weights and no nesting left.

    Blocks of width 0 are dropped. Device, dtype, mode and input settings are those of `model`; nothing is
    shared.

    Raises:
        WidthError: `model` has no such width.
    """
    heads = model.width(width).heads
    kept = [index for index, active in enumerate(heads) if active]
    arguments = model.arguments | {"depth": len(kept), "num_heads": [heads[index] for index in kept]}
    like = model.pos_embed
    small = MatMamba(
        **arguments,
        trained_widths=("full",),
        ssd_backend=model.ssd_backend,
        device=like.device,
        dtype=like.dtype,
    )
    small.load_state_dict(_submodel_state(model, heads))
    small.pretrained_cfg = copy.deepcopy(model.pretrained_cfg)
    return small.train(model.training)


@torch.no_grad()
def _submodel_state(model: MatMamba, heads: tuple[int, ...]) -> dict[str, Tensor]:
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("blocks.")}
    kept = (block for block in zip(model.stack, heads, strict=True) if block[1])
    for index, (block, active) in enumerate(kept):
        weights: MixerWeights = block.mixer.weights().first(active)
        state |= {f"blocks.{index}.norm.{name}": tensor for name, tensor in block.norm.state_dict().items()}
        state |= {
            f"blocks.{index}.mixer.{field.name}": getattr(weights, field.name) for field in fields(weights)
        }
    return state
